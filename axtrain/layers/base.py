"""What every approximate layer adds to its Keras layer: hardware, fidelity, and one forward pass.

A layer is this mixin and the Keras layer; it says which axes its kernel sums over, how its product looks
in floats, and how it looks in codes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from axtrain.emulation.selection import ENGINES, engine_for
from axtrain.emulation.surrogate import surrogate_gradient
from axtrain.hardware import Hardware
from axtrain.layers.state import HardwareState
from axtrain.quantisers import Codes

FIDELITIES = ("exact", "gaussian")


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

    # What each layer says of itself: the kernel's axes that are summed over, what to `engine_for` it is, its
    # product of float32 tensors (padded with 0), and the engine's int32 sums of codes (padded with the code of 0).
    _summed_axes: tuple[int, ...]
    _operation = "conv"
    _float_product: Callable[[Any, Any], Any]
    _code_product: Callable[[Any, Any, Any, Any], Any]
    hardware: Any  # a Hardware, or None
    hardware_state: Any  # a HardwareState, or None where there is no hardware

    def __init__(self, *args, hardware=None, fidelity="exact", engine=None, calibrated=False, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if isinstance(hardware, dict):
            hardware = Hardware.from_dict(hardware)
        if hardware is not None and not isinstance(hardware, Hardware):
            raise TypeError(f"`hardware` must be an axtrain.Hardware or None. Received: hardware={hardware!r}")
        if engine is not None and engine not in ENGINES:
            raise ValueError(f"`engine` must be None or one of {sorted(ENGINES)}. Received: engine={engine!r}")
        self.hardware = hardware
        self.engine = engine
        self.fidelity = fidelity
        self.hardware_state = None
        if hardware is not None:
            self._check_supported()
            self.hardware_state = HardwareState(hardware, calibrated, name=f"{self.name}_hardware")

    @property
    def fidelity(self) -> str:
        """How the layer plays the hardware. Static: change it with `axtrain.set_fidelity`."""
        return self._fidelity

    @fidelity.setter
    def fidelity(self, value: str) -> None:
        if value not in FIDELITIES:
            raise ValueError(f"`fidelity` must be one of {FIDELITIES}. Received: fidelity={value!r}")
        self._fidelity = value

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
        inputs, kernel, training = ops.cast(inputs, "float32"), ops.convert_to_tensor(self.kernel), bool(training)
        if self.hardware_state.observer is not None:
            self.hardware_state.observer.add(ops.convert_to_numpy(inputs))
            outputs = self._float_product(inputs, kernel)
        else:
            a = self.hardware_state.quantise_activations(inputs, training)
            w = self.hardware_state.read_weights(kernel, self._summed_axes, training)
            outputs = self._exact(a, w) if self.fidelity == "exact" else self._gaussian(a, w)
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
        a = self.hardware_state.quantise_activations(ops.cast(inputs, "float32"), training=False)
        w = self.hardware_state.read_weights(ops.convert_to_tensor(self.kernel), self._summed_axes, training=False)
        return self._accumulate(a, w)

    def _accumulate(self, a: Codes, w: Codes):
        sums = self._code_product(self.chosen_engine, a.codes, w.codes, a.zero_point)
        if self.hardware.activations == "symmetric":
            return sums
        weight_sums = ops.reshape(ops.sum(ops.cast(w.codes, "int32"), axis=self._summed_axes), (-1,))
        return sums - ops.cast(a.zero_point, "int32") * weight_sums

    def _exact(self, a: Codes, w: Codes):
        scale = a.scale * ops.reshape(w.scale, (-1,))
        return surrogate_gradient(
            lambda: ops.cast(self._accumulate(a, w), "float32") * scale, self._float_product, a.real, w.real
        )

    def _gaussian(self, a: Codes, w: Codes):
        if not self.hardware_state.calibrated:
            raise ValueError(
                "The gaussian fidelity is fitted to calibration data; use axtrain.convert with calibration=... "
                f"Received: layer {self.name!r}, never calibrated"
            )
        mean, variance = self.hardware_state.error_of_sum(self._float_product, a, w)
        noise = keras.random.normal(ops.shape(variance), seed=self.hardware_state.noise)
        bias = ops.reshape(ops.sum(mean, axis=self._summed_axes), (-1,))
        error = a.scale * ops.reshape(w.scale, (-1,)) * (bias + ops.sqrt(variance) * noise)
        return self._float_product(a.real, w.real) + ops.stop_gradient(error)

    @property
    def chosen_engine(self):
        """The engine that plays this layer's table, for its operation and size."""
        return engine_for(
            self.hardware.code_table, self.engine, operation=self._operation, terms=self.multiplications_per_output
        )

    @property
    def multiplications_per_output(self) -> int:
        """How many products one output element sums."""
        return int(np.prod([self.kernel.shape[axis] for axis in self._summed_axes]))

    def get_config(self) -> dict[str, Any]:
        """The Keras layer's configuration and the hardware as plain data."""
        config = super().get_config()
        played = {"hardware": None, "fidelity": self.fidelity, "engine": self.engine, "calibrated": False}
        if self.hardware is not None:
            played["hardware"] = self.hardware.to_dict()
            played["calibrated"] = self.hardware_state.calibrated
        return {**config, **played}
