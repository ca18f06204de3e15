"""Real numbers to integer codes and back, with the straight-through gradient.

Forward ``code = clip(round(x / scale) + zero_point, low, high)``, ``real = scale * (code - zero_point)``
(theory page, section 1). Gradient: 1 inside the range, 0 where the value was clipped (Bengio 2013).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from keras import ops


class Codes(NamedTuple):
    """A quantised tensor.

    Attributes:
        codes: float32 tensor of integers.
        real: float32 tensor ``scale * (codes - zero_point)``, differentiable in what was quantised.
        scale: float32 tensor, scalar or one per output channel.
        zero_point: float32 scalar, the code of real 0.
    """

    codes: Any
    real: Any
    scale: Any
    zero_point: Any


def affine_parameters(low, high, code_low: int, code_high: int):
    """Scale and zero point of the affine quantiser over [low, high], widened to hold 0.

    Args:
        low, high: range, scalars or arrays (NumPy or tensors).
        code_low, code_high: smallest and largest code.

    Returns:
        (scale, zero_point), float32 tensors; the scale of an empty range is 1.
    """
    low, high = ops.minimum(low, 0.0), ops.maximum(high, 0.0)
    span = high - low
    scale = ops.where(span > 0, span / (code_high - code_low), 1.0)
    return scale, ops.clip(ops.round(code_low - low / scale), code_low, code_high)


def symmetric_scale(low, high, code_high: int):
    """Scale of the symmetric quantiser that holds [low, high]; 1 for an empty range."""
    largest = ops.maximum(ops.abs(low), ops.abs(high))
    return ops.where(largest > 0, largest / code_high, 1.0)


def straight_through(value, quantised):
    """`quantised` in the forward pass, the gradient of `value` in the backward pass."""
    return value + ops.stop_gradient(quantised - value)


def quantise(value, scale, zero_point, code_low: int, code_high: int) -> Codes:
    """Quantises a float32 tensor; scale and zero point get no gradient.

    Args:
        value: float32 tensor.
        scale, zero_point: as `affine_parameters` gives them, broadcasting against `value`.
        code_low, code_high: smallest and largest code.
    """
    scale, zero_point = ops.stop_gradient(scale), ops.stop_gradient(zero_point)
    codes = ops.clip(ops.round(ops.stop_gradient(value) / scale) + zero_point, code_low, code_high)
    clipped = ops.clip(value, (code_low - zero_point) * scale, (code_high - zero_point) * scale)
    return Codes(codes, straight_through(clipped, (codes - zero_point) * scale), scale, zero_point)


def quantise_weights(kernel, bits: int, axes: tuple[int, ...]) -> Codes:
    """Symmetric signed codes -(2^(n-1) - 1) .. 2^(n-1) - 1, one scale per output channel.

    Args:
        kernel: float32 tensor.
        bits: 2 to 10.
        axes: the axes that are summed over; every combination of the others is a channel.

    Returns:
        `Codes`, the scale with the summed axes kept at length 1.
    """
    limit = (1 << (bits - 1)) - 1
    largest = ops.max(ops.abs(ops.stop_gradient(kernel)), axis=axes, keepdims=True)
    scale = ops.where(largest > 0, largest / limit, 1.0)
    return quantise(kernel, scale, ops.zeros(()), -limit, limit)


def calibrated_range(samples: np.ndarray, *, method: str, percentile: float, symmetric: bool) -> tuple[float, float]:
    """The (low, high) that a quantiser should cover, from samples of its input.

    Args:
        samples: finite values, any shape.
        method: `"minmax"`, or `"percentile"`, which leaves out `100 - percentile` per cent: of |x| when
            symmetric, else that share at either end.
        percentile: in per cent.
        symmetric: whether the quantiser is symmetric about 0.

    Raises:
        ValueError: no samples, or samples that are not finite.
    """
    samples = np.asarray(samples)
    if samples.size == 0 or not np.isfinite(samples).all():
        bad = int(samples.size - np.isfinite(samples).sum())
        raise ValueError(
            "A range needs finite calibration values; look for NaN or infinity in the calibration data. "
            f"Received: {samples.size} values, {bad} of them not finite"
        )
    if method != "percentile":
        return float(samples.min()), float(samples.max())
    if symmetric:
        largest = float(np.percentile(np.abs(samples), percentile))
        return -largest, largest
    low, high = np.percentile(samples, [100 - percentile, percentile])
    return float(low), float(high)
