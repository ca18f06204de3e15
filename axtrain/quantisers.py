"""Real numbers to integer codes and back, with the straight-through gradient.

Forward ``code = clip(round(x / scale) + zero_point, low, high)``, ``real = scale * (code - zero_point)``
(theory page, section 1). Gradient: 1 inside the range, 0 where the value was clipped (Bengio 2013).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from axtrain.emulation.native.engine import native_obstacle

# A largest value so many times the usual one, and above so many, leaves the usual ones no code but that of 0; a
# probability near 1 beside others near 0 does not count, since those may well be 0.
_BEYOND = 1 << 20
_FEW = 1 << 16  # weights: calling Python for their scales costs more than TensorFlow's own passes over so many


class Kernel(NamedTuple):
    """Weights, and how they are quantised; no memory has changed their codes.

    Attributes:
        value: float32 tensor.
        limit: the largest code.
        per_tensor: whether all channels have the same scale.
    """

    value: Any
    limit: int
    per_tensor: bool


class Codes(NamedTuple):
    """A quantised tensor.

    Attributes:
        codes: float32 tensor of integers.
        real: float32 tensor ``scale * (codes - zero_point)``, differentiable in what was quantised.
        scale: float32 tensor, scalar or one per output channel.
        zero_point: float32 scalar, the code of real 0.
        kernel: the `Kernel` whose codes these are, where an engine may quantise it itself instead, else `None`.
    """

    codes: Any
    real: Any
    scale: Any
    zero_point: Any
    kernel: Any = None


def affine_parameters(low, high, code_low: int, code_high: int):
    """Scale and zero point of the affine quantiser over [low, high], widened to hold 0.

    Args:
        low, high: range, scalars or arrays (NumPy or tensors).
        code_low, code_high: smallest and largest code.

    Returns:
        (scale, zero_point), float32 tensors; the scale of an empty range is 1, and that of one with a NaN is NaN, while
        its zero point is a code all the same.
    """
    low, high = ops.minimum(low, 0.0), ops.maximum(high, 0.0)
    span = high - low
    scale = ops.where(span == 0, 1.0, span / (code_high - code_low))
    zero_point = ops.clip(ops.round(code_low - low / scale), code_low, code_high)
    return scale, ops.where(ops.isnan(zero_point), float(code_low), zero_point)


def symmetric_scale(low, high, code_high: int):
    """Scale of the symmetric quantiser that holds [low, high]; 1 for an empty range, NaN for one with a NaN."""
    largest = ops.maximum(ops.abs(low), ops.abs(high))
    return ops.where(largest == 0, 1.0, largest / code_high)


class Quantiser(NamedTuple):
    """One tensor's quantiser; scale and zero point get no gradient.

    Attributes:
        scale: float32 tensor, as `affine_parameters` or `symmetric_scale` gives it, broadcasting against values.
        zero_point: float32 scalar, the code of real 0.
        code_low, code_high: smallest and largest code.
        bounds: float32 scalars (low, high) that both follow from, where an engine may work them out itself instead,
            else `None`.
        symmetric: whether they follow by `symmetric_scale`.
    """

    scale: Any
    zero_point: Any
    code_low: int
    code_high: int
    bounds: tuple[Any, Any] | None = None
    symmetric: bool = False

    def codes(self, value):
        """float32 integers ``clip(round(value / scale) + zero_point)``; no gradient passes.

        What is not a number has no code: the zero point stands in its place, and `real` says NaN.
        """
        codes = ops.round(ops.stop_gradient(value) / self.scale) + self.zero_point
        codes = ops.clip(codes, self.code_low, self.code_high)
        return ops.where(ops.isnan(codes), self.zero_point, codes)

    def real(self, value, codes=None):
        """float32 ``scale * (codes - zero_point)``, NaN for what is not finite; gradient 1 inside the range, else 0.

        Args:
            value: what is quantised.
            codes: what its codes are taken for, as a memory reads them back; `None` takes them as they are.
        """

        def dequantised_codes(value):
            read = self.codes(value) if codes is None else codes
            return ops.where(ops.isfinite(value), (read - self.zero_point) * self.scale, float("nan"))

        if keras.backend.backend() != "tensorflow":
            clipped = ops.clip(value, *self.range)
            return straight_through(clipped, dequantised_codes(value))
        import tensorflow as tf

        native = None if native_obstacle() else _native_elementwise()

        # One custom gradient instead of a clipped copy beside the codes: half the passes over memory.
        @tf.custom_gradient
        def dequantised(value):
            one_pass = native and codes is None and not self._per_channel
            real = native.dequantised(value, self) if one_pass else dequantised_codes(value)
            return real, tf.autograph.experimental.do_not_convert(lambda upstream: passed(upstream, value))

        # Linear in `upstream`, so that its own gradient is the same mask: differentiable again.
        @tf.custom_gradient
        def passed(upstream, value):
            low, high = self.range
            if native:
                kept = native.inside(upstream, value, low, high)
            else:
                kept = tf.where((value >= low) & (value <= high), upstream, tf.zeros_like(upstream))
            return kept, tf.autograph.experimental.do_not_convert(lambda again: (passed(again, value), None))

        return dequantised(tf.convert_to_tensor(value))

    def __call__(self, value) -> Codes:
        """Codes and dequantised values of a float32 tensor."""
        codes = self.codes(value)
        return Codes(codes, self.real(value, codes if self._per_channel else None), self.scale, self.zero_point)

    @property
    def _per_channel(self) -> bool:
        """Whether the scale is an array: a kernel's, whose few weights are left to the backend's operations."""
        return len(self.scale.shape) > 0

    @property
    def range(self):
        """The (lowest, highest) real value that is not clipped."""
        return (self.code_low - self.zero_point) * self.scale, (self.code_high - self.zero_point) * self.scale


def _native_elementwise():
    from axtrain.emulation.native import elementwise

    return elementwise


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
    return Quantiser(ops.stop_gradient(scale), ops.stop_gradient(zero_point), code_low, code_high)(value)


def quantise_weights(kernel, bits: int, axes: tuple[int, ...], per_tensor: bool = False) -> Codes:
    """Symmetric signed codes -(2^(n-1) - 1) .. 2^(n-1) - 1, one scale per output channel.

    Args:
        kernel: float32 tensor.
        bits: 2 to 10.
        axes: the axes that are summed over; every combination of the others is a channel.
        per_tensor: whether all channels have the same scale, that of the largest.

    Returns:
        `Codes`, the scale with the summed axes kept at length 1; NaN for a channel with a weight that is not finite.
    """
    limit = (1 << (bits - 1)) - 1
    held = ops.stop_gradient(kernel)
    in_order = tuple(axes) == tuple(range(len(axes))) and None not in kernel.shape
    if in_order and np.prod(kernel.shape) > _FEW and not native_obstacle():
        scale = _native_elementwise().weight_scale(held, limit, len(axes), per_tensor)
    else:
        finite = ops.isfinite(held)
        largest = ops.max(ops.where(finite, ops.abs(held), 0.0), axis=axes, keepdims=True)
        if per_tensor:
            largest = ops.broadcast_to(ops.max(largest), ops.shape(largest))
        scale = ops.where(largest > 0, largest / limit, 1.0)
        scale = ops.where(ops.all(finite, axis=axes, keepdims=True), scale, float("nan"))
    return quantise(kernel, scale, ops.zeros(()), -limit, limit)._replace(kernel=Kernel(held, limit, per_tensor))


def calibrated_range(samples: np.ndarray, *, method: str, percentile: float, symmetric: bool) -> tuple[float, float]:
    """The (low, high) that a quantiser should cover, from samples of its input.

    Args:
        samples: finite values, any shape.
        method: `"minmax"`, or `"percentile"`, which leaves out `100 - percentile` per cent: of |x| when
            symmetric, else that share at either end.
        percentile: in per cent.
        symmetric: whether the quantiser is symmetric about 0.

    Raises:
        ValueError: no samples, samples that are not finite, or so far apart that the usual ones would all be code 0.
    """
    low, high = _range_of(finite_samples(samples), method, percentile, symmetric)
    sizes = np.abs(np.asarray(samples))
    usual, largest = float(np.median(sizes[sizes > 0])) if sizes.any() else 0.0, max(abs(low), abs(high))
    if largest > _BEYOND * max(usual, 1.0):
        raise ValueError(
            "A range up to the largest value would make 0 of the usual ones. Remove the samples with outliers, bring "
            "the inputs to one scale, or give the range by activation_ranges. "
            f"Received: values up to {largest:.3g}, half of those that are not 0 below {usual:.3g}"
        )
    return low, high


def finite_samples(samples: Any) -> np.ndarray:
    """Samples as an array.

    Raises:
        ValueError: none, or some that are not finite.
    """
    samples = np.asarray(samples)
    if samples.size == 0 or not np.isfinite(samples).all():
        bad = int(samples.size - np.isfinite(samples).sum())
        raise ValueError(
            "A range needs finite calibration values; look for NaN or infinity in the calibration data. "
            f"Received: {samples.size} values, {bad} of them not finite"
        )
    return samples


def _range_of(samples: np.ndarray, method: str, percentile: float, symmetric: bool) -> tuple[float, float]:
    if method != "percentile":
        return float(samples.min()), float(samples.max())
    if symmetric:
        largest = float(np.percentile(np.abs(samples), percentile))
        return -largest, largest
    low, high = np.percentile(samples, [100 - percentile, percentile])
    return float(low), float(high)
