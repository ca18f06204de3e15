"""What every approximate layer adds to its Keras layer: hardware, fidelity, and one forward pass.

A layer is this mixin and the Keras layer; it says what the geometry of its product is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
from keras import ops

from axtrain.emulation.geometry import terms
from axtrain.hardware import Hardware
from axtrain.layers.playing import HardwareProduct, Playing, accumulate, chosen_engine, play
from axtrain.layers.state import HardwareState


class ApproximateLayer(keras.layers.Layer):
    """Mixin: the Keras layer's product, played by a `Hardware`.

    Forward, fidelity `"exact"`: ``y = s_a s_w (sum T[a, w] - z_a sum w) + bias`` with the accumulator
    bit-exact in int32. Fidelity `"gaussian"`: ``y = a w + s_a s_w (sum mu(w) + eps)``, eps of the variance
    fitted at calibration. Gradient of both: that of the float product of the dequantised operands
    (straight-through). The stored kernel stays clean; faults and rounding act on a copy.

    Args (besides the Keras layer's own):
        hardware: a `Hardware`, its `to_dict()`, or `None` for the plain Keras layer.
        fidelity: `"exact"` or `"gaussian"`.
        engine: `None` chooses; `"low_rank"` or `"gather"` forces one.
        calibrated: whether the activation range comes from calibration data (`convert` sets it). A layer
            without follows its batches: a moving average in training, the batch's own before any training.
    """

    # What each layer says of itself: the geometry of its product.
    _geometry: Any
    hardware: Any  # a Hardware, or None
    hardware_state: Any  # a HardwareState, or None where there is no hardware

    def __init__(self, *args, hardware=None, fidelity="exact", engine=None, calibrated=False, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if isinstance(hardware, dict):
            hardware = Hardware.from_dict(hardware)
        if hardware is not None and not isinstance(hardware, Hardware):
            raise TypeError(f"`hardware` must be an axtrain.Hardware or None. Received: hardware={hardware!r}")
        self.hardware = hardware
        self.playing = Playing(fidelity=fidelity, engine=engine)
        self.hardware_state = None
        if hardware is not None:
            self._check_supported()
            self.hardware_state = HardwareState(hardware, calibrated, name=f"{self.name}_hardware")

    @property
    def fidelity(self) -> str:
        """How the layer plays the hardware. Static: change it with `axtrain.set_fidelity`."""
        return self.playing.fidelity

    @fidelity.setter
    def fidelity(self, value: str) -> None:
        self.playing = replace(self.playing, fidelity=value)

    @property
    def engine(self) -> str | None:
        """The engine that was forced, or `None`."""
        return self.playing.engine

    @engine.setter
    def engine(self, value: str | None) -> None:
        self.playing = replace(self.playing, engine=value)

    def _check_supported(self) -> None:
        """Raises ValueError for a variant of the Keras layer that the engines do not play."""
        if getattr(self, "data_format", "channels_last") != "channels_last":
            raise ValueError("Hardware layers need data_format='channels_last'. Received: 'channels_first'")

    def add_weight(self, *args, **kwargs):
        """Kernel and bias are read in float32 under every dtype policy where the layer has hardware."""
        if self.hardware is not None:
            kwargs.setdefault("autocast", False)
        return super().add_weight(*args, **kwargs)

    def build(self, input_shape) -> None:
        """Builds the Keras layer and its hardware's state."""
        super().build(input_shape)
        if self.hardware_state is not None:
            self.hardware_state.build()

    def call(self, inputs, training=None):
        """The layer on its hardware; the plain Keras layer without one or while calibration data passes."""
        if self.hardware is None:
            return super().call(inputs)
        inputs, kernel = ops.cast(inputs, "float32"), ops.convert_to_tensor(self.kernel)
        outputs = play(self.hardware_state, self._geometry, inputs, kernel, self.playing, bool(training))
        if self.use_bias:
            outputs = outputs + self.bias
        outputs = ops.cast(outputs, self.compute_dtype)
        return outputs if self.activation is None else self.activation(outputs)

    def accumulator(self, inputs):
        """The int32 accumulators after the exact zero-point correction, before rescaling and bias.

        Args:
            inputs: as for the layer.

        Returns:
            int32 tensor of the output's shape.

        Raises:
            ValueError: the layer has no hardware.
        """
        if self.hardware is None:
            raise ValueError(f"Without hardware there is no accumulator. Received: layer {self.name!r}, hardware=None")
        state = self.hardware_state
        a = state.quantise_activations(ops.cast(inputs, "float32"), training=False)
        w = state.read_weights(ops.convert_to_tensor(self.kernel), self._summed_axes, training=False)
        return accumulate(state, self._geometry, a.codes, a.zero_point, w, self.chosen_engine)

    @property
    def products(self) -> tuple[HardwareProduct, ...]:
        """Every product that the layer plays on its hardware; empty without hardware."""
        if self.hardware_state is None:
            return ()
        return (HardwareProduct(self.hardware_state, self._geometry, self.kernel),)

    @property
    def chosen_engine(self):
        """The engine that plays this layer's table, for its operation and size."""
        return chosen_engine(self.hardware_state, self._geometry, self.kernel.shape, self.playing)

    @property
    def multiplications_per_output(self) -> int:
        """How many products one output element sums."""
        return terms(self._geometry, self.kernel.shape)

    @property
    def _summed_axes(self) -> tuple[int, ...]:
        return self._geometry.summed_axes(len(self.kernel.shape))

    def get_config(self) -> dict[str, Any]:
        """The Keras layer's configuration and the hardware as plain data."""
        config = super().get_config()
        played = {"hardware": None, "fidelity": self.fidelity, "engine": self.engine, "calibrated": False}
        if self.hardware is not None:
            played["hardware"] = self.hardware.to_dict()
            played["calibrated"] = self.hardware_state.calibrated
        return {**config, **played}
