"""One product of a layer, played on its hardware at the fidelity that was chosen.

A layer with one kernel plays one product; a recurrent layer plays two, attention six. Each has its own
`HardwareState`; this function is the same for all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
from keras import ops

from axtrain.emulation.geometry import terms
from axtrain.emulation.selection import ENGINES, engine_for
from axtrain.emulation.surrogate import surrogate_gradient
from axtrain.layers.state import HardwareState
from axtrain.quantisers import Codes, Quantiser

FIDELITIES = ("exact", "gaussian")


@dataclass(frozen=True)
class Playing:
    """How hardware is played; static, part of the traced graph.

    Attributes:
        fidelity: `"exact"` or `"gaussian"`.
        engine: `None` chooses; a name of `axtrain.emulation.selection.ENGINES` forces one.

    Raises:
        ValueError: an unknown fidelity or engine.
    """

    fidelity: str = "exact"
    engine: str | None = None

    def __post_init__(self) -> None:
        if self.fidelity not in FIDELITIES:
            raise ValueError(f"`fidelity` must be one of {FIDELITIES}. Received: fidelity={self.fidelity!r}")
        if self.engine is not None and self.engine not in ENGINES:
            raise ValueError(f"`engine` must be None or one of {sorted(ENGINES)}. Received: engine={self.engine!r}")


class HardwareProduct(NamedTuple):
    """One product that a layer plays on hardware.

    Attributes:
        state: its `HardwareState`.
        geometry: a `Dense` or `Convolution`.
        kernel: the weights' variable; `None` where both operands are activations.
    """

    state: HardwareState
    geometry: Any
    kernel: Any


def play(state: HardwareState, geometry, inputs, kernel, playing: Playing, training: bool):
    """The layer's sums of products in real units, float32, without bias.

    Args:
        state: the hardware and its ranges; while it observes, the plain float product is given.
        geometry: a `Dense` or `Convolution`.
        inputs: float32 activations.
        kernel: float32 weights.
        playing: fidelity and engine.
        training: whether moving ranges follow and faults are drawn anew.
    """
    if state.observer is not None:
        state.observer.add(ops.convert_to_numpy(inputs))
        return geometry.floats(inputs, kernel)
    quantiser = state.activation_quantiser(inputs, training)
    w = state.read_weights(kernel, geometry.summed_axes(len(kernel.shape)), training)
    if playing.fidelity == "exact":
        return _exact(state, geometry, inputs, quantiser, w, playing)
    return _gaussian(state, geometry, quantiser(inputs), w)


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
    )


def output_scale(a_scale, w: Codes):
    """Real units per unit of the accumulator, one per output channel."""
    return a_scale * ops.reshape(w.scale, (-1,))


def _exact(state, geometry, inputs, quantiser: Quantiser, w: Codes, playing):
    engine = chosen_engine(state, geometry, w.codes.shape, playing)

    def forward():
        sums = accumulate(state, geometry, quantiser.codes(inputs), quantiser.zero_point, w, engine)
        return ops.cast(sums, "float32") * output_scale(quantiser.scale, w)

    def surrogate(inputs, weights):
        return geometry.floats(quantiser.real(inputs), weights)

    return surrogate_gradient(forward, surrogate, inputs, w.real)


def _gaussian(state, geometry, a: Codes, w: Codes):
    if not state.calibrated:
        raise ValueError(
            "The gaussian fidelity is fitted to calibration data; use axtrain.convert with calibration=... "
            f"Received: {state.name!r}, never calibrated"
        )
    mean, variance = state.error_of_sum(geometry.floats, a, w)
    noise = keras.random.normal(ops.shape(variance), seed=state.noise)
    error = output_scale(a.scale, w) * (geometry.per_output(mean) + ops.sqrt(variance) * noise)
    return geometry.floats(a.real, w.real) + ops.stop_gradient(error)
