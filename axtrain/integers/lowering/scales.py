"""Which scale and zero point each tensor between two steps has."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from keras import ops

from axtrain.integers.lowering.steps import FlatModel, Step
from axtrain.quantisers import affine_parameters, symmetric_scale

LOWEST, HIGHEST = -128, 127
# LiteRT's pooling and reshaping leave codes as they are, so what goes in and out has one scale.
SHARING = ("max", "average", "reshape", "pad")
# Of these, those through which a narrower range may be taken backwards: to clip first is to clip afterwards.
_COMMUTING = ("max", "reshape", "pad")


class Scale(NamedTuple):
    """``real = scale * (code - zero_point)``; the scale is a float32 number."""

    scale: float
    zero_point: int


SOFTMAX_SCALE = Scale(1 / 256, LOWEST)


def scale_of_range(low: float, high: float) -> Scale:
    """Affine int8 over [low, high], widened to hold 0."""
    scale, zero_point = affine_parameters(np.float32(low), np.float32(high), LOWEST, HIGHEST)
    return Scale(float(ops.convert_to_numpy(scale)), int(ops.convert_to_numpy(zero_point)))


def scale_of_layer(layer) -> Scale:
    """The scale of a hardware layer's input, its zero point among int8 codes.

    Raises:
        ValueError: a layer without a range yet, or whose activations are not of 8 bits.
    """
    state, hardware = layer.hardware_state, layer.hardware
    if not ops.convert_to_numpy(state.seen):
        raise ValueError(
            f"Layer {layer.name!r} has seen neither calibration data nor a training step, so its input has no range; "
            "convert with calibration=x_train[:512]. Received: no range"
        )
    if hardware.activation_bits != 8:
        raise ValueError(
            "Integer networks hold activations of 8 bits. Convert to a Hardware with 8-bit activations. "
            f"Received: layer {layer.name!r} with {hardware.activation_bits} bits"
        )
    low, high = hardware.activation_codes
    if hardware.activations == "symmetric":
        return Scale(float(ops.convert_to_numpy(symmetric_scale(state.low.value, state.high.value, high))), 0)
    scale, zero_point = affine_parameters(state.low.value, state.high.value, low, high)
    return Scale(float(ops.convert_to_numpy(scale)), int(ops.convert_to_numpy(zero_point)) - low + LOWEST)


class TensorScales:
    """Scales of the tensors of folded steps.

    A product's input has the range that its layer on hardware was calibrated or trained with; a tensor that no
    product reads, the range that was observed. Pooling and reshaping share.

    Args:
        model: the network.
        steps: what is left after folding.
        observed: a function from a tensor's name to (low, high).
    """

    def __init__(self, model: FlatModel, steps: list[Step], observed: Callable) -> None:
        self._consumers = model.consumers(steps)
        self._observed = observed
        self._output = model.output
        self.scales = {model.input: self._wanted(model.input)}
        for step in steps:
            if step.kind == "softmax":
                self.scales[step.output] = SOFTMAX_SCALE
            elif step.kind in SHARING:
                self.scales[step.output] = self.scales[step.inputs[0]]
            else:
                self.scales[step.output] = self._wanted(step.output)

    def _wanted(self, name: str) -> Scale:
        readers = self._consumers[name]
        for reader in readers:
            if reader.kind == "product":
                return scale_of_layer(reader.hardware_layer)
        if len(readers) == 1 and readers[0].kind in _COMMUTING and name != self._output:
            return self._wanted(readers[0].output)
        return scale_of_range(*self._observed(name))


def tensors_to_observe(model: FlatModel, steps: list[Step]) -> list[str]:
    """Names of the tensors whose range nothing but data can tell."""
    asked: list[str] = []

    def ask(name: str) -> tuple[float, float]:
        asked.append(name)
        return 0.0, 1.0

    TensorScales(model, steps, ask)
    return asked
