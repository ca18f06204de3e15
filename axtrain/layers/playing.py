"""One product of a layer, played on its hardware at the fidelity that was chosen.

A layer with one kernel plays one product; a recurrent layer plays two, attention six. Each has its own
`HardwareState`; this function is the same for all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from axtrain.emulation.engine import ENGINES
from axtrain.emulation.geometry import terms
from axtrain.emulation.selection import engine_for
from axtrain.emulation.surrogate import surrogate_gradient
from axtrain.emulation.table_gradient import DEFAULT_WINDOW, table_surrogates
from axtrain.layers.residual import SHORT
from axtrain.layers.state import HardwareState
from axtrain.layers.statistical import statistical
from axtrain.quantisers import Codes, Quantiser

FIDELITIES = ("exact", "calibrated", "gaussian", "float")
STATISTICAL = ("calibrated", "gaussian")
RESIDUALS = ("auto", "normal", "mixture", "none")
# Of the calibrated fidelity: the cheapest that follows single outputs, for training (chosen here). For figures take
# rank 8: within half a point of bit-exact for every circuit of docs/results/fidelity.md, as lower ranks are not.
DEFAULT_RANK = 1
GRADIENTS = ("straight_through", "table")


@dataclass(frozen=True)
class Playing:
    """How hardware is played; static, part of the traced graph.

    Attributes:
        fidelity: `"exact"`, `"calibrated"` or `"gaussian"`; or `"float"`, the plain float product: no hardware at all.
        rank: of the calibrated fidelity: ordinary products that play the error's systematic part; `None` is
            `DEFAULT_RANK`.
        residual: of the calibrated fidelity, the noise for the rest: `"normal"`, `"mixture"` (the shape measured at
            calibration), `"none"`, or `"auto"`, the mixture where sums are short and it fits better.
        engine: `None` chooses; the name of a registered engine forces one.
        gradient: of the exact fidelity: `"straight_through"`, the float product's, or `"table"`, the slopes of
            the circuit's table. The statistical fidelities' is always straight-through.
        gradient_window: half window in codes over which `"table"` smooths.

    Raises:
        ValueError: an unknown fidelity, engine, gradient or residual, a window that is not an int >= 1, or a rank
            that is not an int >= 0.
    """

    fidelity: str = "exact"
    engine: str | None = None
    gradient: str = "straight_through"
    gradient_window: int = DEFAULT_WINDOW
    rank: int | None = None
    residual: str = "auto"

    def __post_init__(self) -> None:
        if self.fidelity not in FIDELITIES:
            raise ValueError(f"`fidelity` must be one of {FIDELITIES}. Received: fidelity={self.fidelity!r}")
        if self.engine is not None and self.engine not in ENGINES:
            raise ValueError(f"`engine` must be None or one of {sorted(ENGINES)}. Received: engine={self.engine!r}")
        if self.gradient not in GRADIENTS:
            raise ValueError(f"`gradient` must be one of {GRADIENTS}. Received: gradient={self.gradient!r}")
        window = self.gradient_window
        if isinstance(window, bool) or not isinstance(window, int) or window < 1:
            raise ValueError(f"`gradient_window` must be an int >= 1. Received: gradient_window={window!r}")
        rank = self.rank
        if rank is not None and (isinstance(rank, bool) or not isinstance(rank, int) or rank < 0):
            raise ValueError(f"`rank` must be an int >= 0, or None for {DEFAULT_RANK}. Received: rank={rank!r}")
        if self.residual not in RESIDUALS:
            raise ValueError(f"`residual` must be one of {RESIDUALS}. Received: residual={self.residual!r}")

    @property
    def fitted_rank(self) -> int:
        """The rank of the error model that the fidelity needs."""
        if self.fidelity != "calibrated":
            return 0
        return DEFAULT_RANK if self.rank is None else self.rank

    def residual_of(self, terms: int | None) -> str:
        """`"none"`, `"normal"` or `"mixture"`: what is drawn for sums of so many terms (`None` is many)."""
        if self.fidelity == "gaussian":
            return "normal"
        if self.residual != "auto":
            return self.residual
        return "mixture" if terms is not None and terms <= SHORT else "normal"


class HardwareProduct(NamedTuple):
    """One product that a layer plays on hardware.

    Attributes:
        state: its `HardwareState`.
        geometry: a `Dense` or `Convolution`.
        kernel: the weights' variable; `None` where both operands are activations.
        variable: the layer's own variable, where `kernel` is a view of it; else `None`.
        arranged: the function from `variable` to `kernel`, which moves elements and changes none; else `None`.
    """

    state: HardwareState
    geometry: Any
    kernel: Any
    variable: Any = None
    arranged: Any = None

    @property
    def weights(self) -> Any:
        """The layer's own variable of the kernel."""
        return self.kernel if self.variable is None else self.variable

    def order(self) -> np.ndarray | None:
        """Where each element of `weights` lies in the flattened kernel; `None` where both are one. Not in a graph."""
        if self.arranged is None:
            return None
        size = math.prod(self.variable.shape)
        numbered = self.arranged(np.arange(size, dtype=np.int32).reshape(tuple(self.variable.shape)))
        return np.argsort(ops.convert_to_numpy(numbered).reshape(-1))


def play(state: HardwareState, geometry, inputs, kernel, playing: Playing, training: bool, bias=None):
    """The layer's sums of products in real units, float32, and its bias.

    Args:
        state: the hardware and its ranges; while it observes, the plain float product is given.
        geometry: a `Dense` or `Convolution`.
        inputs: float32 activations.
        kernel: float32 weights.
        playing: fidelity and engine.
        training: whether moving ranges follow and faults are drawn anew.
        bias: float32, one per output channel, or `None`.
    """
    if inputs.shape[0] == 0 and not getattr(geometry, "batched", False):
        # TensorFlow's convolutions fail on no samples: the outputs of one, of which none is taken.
        one = ops.zeros((1, *inputs.shape[1:]), inputs.dtype)
        return play(state, geometry, one, kernel, playing, False, bias)[:0]
    if state.observer is not None:
        state.observer.add(ops.convert_to_numpy(inputs))
        state.watch(geometry, inputs, kernel)
        return _biased(geometry.floats(inputs, kernel), bias)
    if playing.fidelity == "float":
        return _biased(geometry.floats(inputs, kernel), bias)
    quantiser = state.activation_quantiser(inputs, training)
    inputs, quantiser = state.read_activations(inputs, quantiser, training)
    w = state.read_weights(kernel, geometry.summed_axes(len(kernel.shape)), training)
    bias = state.read_bias(bias, training)
    if playing.fidelity == "exact":
        return _exact(state, geometry, inputs, quantiser, w, playing, bias)
    if state.hardware.datapath is None:
        return statistical(state, geometry, inputs, quantiser, w, playing, bias)
    outputs, scale = statistical(state, geometry, inputs, quantiser, w, playing), output_scale(quantiser.scale, w)
    sums = ops.cast(ops.round(ops.stop_gradient(outputs) / scale), "int32")
    failed = state.failing(sums, _squares(geometry, quantiser, ops.stop_gradient(inputs), w))
    return _biased(outputs + ops.stop_gradient(ops.cast(failed - sums, "float32") * scale), bias)


def accumulate(state: HardwareState, geometry, a_codes, zero_point, w: Codes, engine):
    """The int32 accumulators after the exact zero-point correction, before rescaling and bias."""
    sums = geometry.codes(engine, a_codes, w.codes, zero_point)
    if state.hardware.activations == "symmetric":
        return sums
    return sums - ops.cast(zero_point, "int32") * geometry.per_output(ops.cast(w.codes, "int32"))


def chosen_engine(state: HardwareState, geometry, kernel_shape, playing: Playing):
    """The engine that plays the product, for its operation and size."""
    return engine_for(
        state.hardware.code_table,
        playing.engine,
        operation=geometry.operation,
        terms=terms(geometry, kernel_shape),
        axes=geometry.axes,
    )


def output_scale(a_scale, w: Codes):
    """Real units per unit of the accumulator, one per output channel."""
    return a_scale * ops.reshape(w.scale, (-1,))


def _biased(outputs, bias):
    return outputs if bias is None else outputs + bias


def _squares(geometry, quantiser: Quantiser, inputs, w: Codes):
    """A function of nothing to the sums of squared products in codes, those of the exact multiplier: float32."""

    def squares():
        return geometry.floats(ops.square(quantiser.codes(inputs) - quantiser.zero_point), ops.square(w.codes))

    return squares


def _exact(state, geometry, inputs, quantiser: Quantiser, w: Codes, playing, bias):
    engine = chosen_engine(state, geometry, w.codes.shape, playing)
    outside, bias = (bias, None) if playing.gradient == "table" else (None, bias)
    # Gradients flow through the surrogate alone; TensorFlow looks for variables behind all that `forward` uses.
    held, held_bias = ops.stop_gradient(inputs), None if bias is None else ops.stop_gradient(bias)

    def forward():
        if engine.fuses and state.hardware.datapath is None:  # one pass over memory for the whole layer
            return engine.layer(geometry, held, quantiser, w, held_bias)
        sums = accumulate(state, geometry, quantiser.codes(held), quantiser.zero_point, w, engine)
        sums = state.failing(sums, _squares(geometry, quantiser, held, w))
        outputs = _biased(ops.cast(sums, "float32") * output_scale(quantiser.scale, w), held_bias)
        # Codes are finite whatever they stand for; a weight that is not makes its channel's scale NaN.
        marks = ops.cast(ops.logical_not(ops.isfinite(held)), "float32")
        return ops.where(geometry.entered_by(marks, w.codes.shape) > 0, float("nan"), outputs)

    def whole():
        if not getattr(geometry, "batched", False):
            return forward()
        # The second operand's values have one scale in common.
        return ops.where(ops.isnan(geometry.per_output(w.real)), float("nan"), forward())

    def surrogate(inputs, weights, *bias):
        return _biased(geometry.floats(quantiser.real(inputs), weights), *bias or [None])

    if playing.gradient == "table":
        scale = output_scale(quantiser.scale, w)
        along = table_surrogates(state.hardware.code_table, geometry, playing.gradient_window, quantiser, w, scale)
        return _biased(surrogate_gradient(whole, along, inputs, w.real), outside)
    return surrogate_gradient(whole, surrogate, inputs, w.real, *([] if bias is None else [bias]))
