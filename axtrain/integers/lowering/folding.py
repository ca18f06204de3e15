"""Batch normalisation and clamps taken into the step before them, so that no integer step is spent on them.

``gamma (x - mean) / sqrt(variance + epsilon) + beta = g x + h`` for each channel; after a product, g goes into the
weights' scales and h into the bias (Jacob et al. 2018, section 3.2). Codes stay, but for the sign of g.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from keras import ops

from axtrain.integers.lowering.steps import FlatModel, Step

_TAKE_CLAMPS = ("product", "addition", "max", "average", "normalisation", "clamp")


def folded(model: FlatModel) -> list[Step]:
    """The steps that are left, new ones: one that took in others has their output's name.

    A normalisation that follows no product of its own, or a clamped one, stays.
    """
    consumers = model.consumers()
    steps: list[Step] = []
    made: dict[str, Step] = {}
    for step in map(replace, model.steps):  # the model keeps its own as they are
        if step.kind == "normalisation":
            step.gain, step.offset = gain_and_offset(step.layer)
        before = made.get(step.inputs[0])
        if before is None or len(consumers[before.output]) > 1 or before.output == model.output:
            steps.append(step)
            made[step.output] = step
            continue
        if step.kind == "normalisation" and before.kind == "product" and not clamps(before):
            before.gain, before.offset = _composed(before, step)
        elif step.kind == "clamp" and before.kind in _TAKE_CLAMPS:
            ends = zip(before.clamp, step.clamp, strict=True)
            low, high = (function(pair) for function, pair in zip((max, min), ends, strict=True))
            before.clamp = low, max(low, high)
        else:
            steps.append(step)
            made[step.output] = step
            continue
        before.output = step.output
        made[step.output] = before
    return steps


def clamps(step: Step) -> bool:
    """Whether the step holds its output within ends."""
    return any(math.isfinite(end) for end in step.clamp)


def gain_and_offset(layer) -> tuple[np.ndarray, np.ndarray]:
    """(g, h) of a BatchNormalization layer, float64, one for each channel."""
    mean, variance = (ops.convert_to_numpy(v).astype(np.float64) for v in (layer.moving_mean, layer.moving_variance))
    gamma = np.ones_like(mean) if layer.gamma is None else ops.convert_to_numpy(layer.gamma).astype(np.float64)
    beta = np.zeros_like(mean) if layer.beta is None else ops.convert_to_numpy(layer.beta).astype(np.float64)
    gain = gamma / np.sqrt(variance + layer.epsilon)
    return gain, beta - mean * gain


def _composed(product: Step, step: Step) -> tuple[np.ndarray, np.ndarray]:
    gain, offset = step.gain, step.offset
    if product.gain is None:
        return gain, offset
    return product.gain * gain, product.offset * gain + offset
