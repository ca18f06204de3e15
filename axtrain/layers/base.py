"""What every approximate layer adds to its Keras layer: hardware, fidelity, and one forward pass.

A layer is this mixin and the Keras layer; it says what the geometry of its product is.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from axtrain.emulation.geometry import terms
from axtrain.emulation.table_gradient import DEFAULT_WINDOW
from axtrain.hardware import Hardware
from axtrain.layers.dials import Dials
from axtrain.layers.playing import STATISTICAL, HardwareProduct, Playing, accumulate, chosen_engine, play
from axtrain.layers.state import HardwareState


class ApproximateLayer(Dials, keras.layers.Layer):
    """Mixin: the Keras layer's product, played by a `Hardware`.

    Forward, fidelity `"exact"`: ``y = s_a s_w (sum T[a, w] - z_a sum w) + bias`` with the accumulator
    bit-exact in int32. Fidelity `"calibrated"`: ``y = a w + s_a s_w (sum_r sum u_r[a] v_r[w] + sum mu(w) + eps)``,
    the error's best rank-r fit under the operands' distributions, a bias, and eps of the variance that is left
    (theory page, section 4); `"gaussian"`: the same at r = 0. Gradient of all: that of the float product of the
    dequantised operands (straight-through); of `"exact"` with `gradient="table"`: ``dy/dx = s_w dT/da``,
    ``dy/dv = s_a (dT/dw - z_a)``, the table's slopes over `gradient_window`. The stored kernel stays clean;
    faults and rounding act on a copy.

    Args (besides the Keras layer's own):
        hardware: a `Hardware`, its `to_dict()`, or `None` for the plain Keras layer.
        fidelity: `"exact"`, `"calibrated"`, `"gaussian"` or `"float"`.
        engine: `None` chooses the cheapest; a name (`"numba"`, `"low_rank"`, `"gather"`) forces one.
        gradient: `"straight_through"` or `"table"`, for coarse circuits (theory page, section 3).
        gradient_window: half window in codes over which `"table"` smooths the table, an int >= 1.
        rank: r of `"calibrated"`; `None` is the default of `axtrain.layers.playing.DEFAULT_RANK`.
        residual: eps of `"calibrated"`: `"normal"`, `"mixture"` (the shape measured at calibration), `"none"`, or
            `"auto"`, the mixture where sums are short and it fits better.
        calibrated: whether the activation range comes from calibration data (`convert` sets it). A layer
            without follows its batches: a moving average in training, the batch's own before any training.
    """

    # What each layer says of itself: the geometry of its product.
    _geometry: Any
    hardware: Any  # a Hardware, or None
    hardware_state: Any  # a HardwareState, or None where there is no hardware

    def __init__(
        self,
        *args,
        hardware=None,
        fidelity="exact",
        engine=None,
        gradient="straight_through",
        gradient_window=DEFAULT_WINDOW,
        rank=None,
        residual="auto",
        calibrated=False,
        **kwargs,
    ) -> None:
        super().__init__(*args, **kwargs)
        if isinstance(hardware, dict):
            hardware = Hardware.from_dict(hardware)
        if hardware is not None and not isinstance(hardware, Hardware):
            raise TypeError(f"`hardware` must be an axtrain.Hardware or None. Received: hardware={hardware!r}")
        self.hardware = hardware
        self.playing = Playing(
            fidelity=fidelity,
            engine=engine,
            gradient=gradient,
            gradient_window=gradient_window,
            rank=rank,
            residual=residual,
        )
        self.hardware_state = None
        if hardware is not None:
            if self.compute_dtype == "float64":
                raise ValueError("Hardware layers compute in float32 outside their integers. Received: dtype='float64'")
            self._check_supported()
            self._make_states(calibrated)
            for state in self._states:
                state.rank = self.playing.fitted_rank

    @property
    def _states(self) -> tuple[HardwareState, ...]:
        return () if self.hardware_state is None else (self.hardware_state,)

    def _make_states(self, calibrated: bool) -> None:
        """Makes `hardware_state`; a layer of several products makes one for each."""
        self.hardware_state = HardwareState(self.hardware, calibrated, name=f"{self.name}_hardware")

    @classmethod
    def obstacle(cls, layer) -> str | None:
        """Why a plain layer of this kind cannot run on hardware, for `convert`; `None` where it can."""
        return None

    def _check_supported(self) -> None:
        """Raises ValueError for a variant of the Keras layer that the engines do not play."""
        if getattr(self, "data_format", "channels_last") != "channels_last":
            raise ValueError("Hardware layers need data_format='channels_last'. Received: 'channels_first'")

    @property
    def weights(self):
        """What the layer computes with: kernel, bias, ranges, and the error model where the fidelity has one.

        So `summary` counts the network's own numbers. What an exact layer keeps for other fidelities, the noise
        strength and the seeds are in `variables`: saved with the model, and no part of `get_weights`, so that
        `EarlyStopping`, which puts the best weights back, leaves the strength to its schedule.
        """
        kept = super().weights
        if self.hardware is None or not self.built:
            return kept
        hidden = {id(one) for state in self._states for one in state.no_weights(self.fidelity in STATISTICAL)}
        return [weight for weight in kept if id(weight) not in hidden]

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
        inputs, kernel = self._product_inputs(inputs), ops.convert_to_tensor(self._product_kernel)
        bias = ops.convert_to_tensor(self.bias) if self.use_bias else None
        outputs = play(self.hardware_state, self._geometry, inputs, kernel, self.playing, bool(training), bias)
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
        a = state.quantise_activations(self._product_inputs(inputs), training=False)
        w = state.read_weights(ops.convert_to_tensor(self._product_kernel), self._summed_axes, training=False)
        return accumulate(state, self._geometry, a.codes, a.zero_point, w, self.chosen_engine)

    @property
    def products(self) -> tuple[HardwareProduct, ...]:
        """Every product that the layer plays on its hardware; empty without hardware."""
        if self.hardware_state is None:
            return ()
        product = HardwareProduct(self.hardware_state, self._geometry, self._product_kernel)
        if product.kernel is self.kernel:
            return (product,)
        return (product._replace(variable=self.kernel, arranged=self._arranged),)

    @property
    def _product_kernel(self):
        return self._arranged(self.kernel)

    def _arranged(self, kernel):
        """The layer's kernel as the product's geometry takes it."""
        return kernel

    def _product_inputs(self, inputs):
        """The inputs as the product's geometry takes them, float32."""
        return ops.cast(inputs, "float32")

    @property
    def product_names(self) -> tuple[str, ...]:
        """What each of `products` is called within the layer; the only product of a layer has no name."""
        return ("",) if self.products else ()

    @property
    def activated_product(self) -> str | None:
        """The product whose sums with the bias, channels last, are what the activation takes; `None` where none is."""
        return "" if type(self).call is ApproximateLayer.call else None

    @property
    def biases(self) -> dict[str, Any]:
        """The variables added to the sums of products, by product name (`""` where it is the layer's output)."""
        return {"": self.bias} if self.use_bias else {}

    @property
    def chosen_engines(self) -> tuple:
        """The engine of each of `products`."""
        return (self.chosen_engine,) if self.products else ()

    @property
    def chosen_engine(self):
        """The engine that plays this layer's table, for its operation and size."""
        return chosen_engine(self.hardware_state, self._geometry, self._product_kernel.shape, self.playing)

    @property
    def multiplications_per_output(self) -> int | None:
        """How many products one output element sums."""
        return terms(self._geometry, self._product_kernel.shape)

    @property
    def _summed_axes(self) -> tuple[int, ...]:
        return self._geometry.summed_axes(len(self._product_kernel.shape))

    def get_config(self) -> dict[str, Any]:
        """The Keras layer's configuration and the hardware as plain data."""
        config = super().get_config()
        played: dict[str, Any] = {"hardware": None, "calibrated": False}
        played |= {"fidelity": self.fidelity, "engine": self.engine}
        played |= {"gradient": self.playing.gradient, "gradient_window": self.playing.gradient_window}
        played |= {"rank": self.playing.rank, "residual": self.playing.residual}
        if self.hardware is not None:
            played["hardware"] = self.hardware.to_dict()
            played["calibrated"] = self.hardware_state.calibrated
        return {**config, **played}
