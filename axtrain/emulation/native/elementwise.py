"""A quantiser's element-wise passes, each one pass over memory where TensorFlow's operations take six."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from axtrain.emulation.native.buffers import Buffers
from axtrain.emulation.native.compiling import compiled
from axtrain.emulation.native.images import ROUND, quantised
from axtrain.emulation.native.threads import cores, parts, run
from axtrain.emulation.native.weight_scales import weight_scales

_BUFFERS = Buffers()
_PART = 1 << 18  # waking a thread costs more than passing over fewer elements than this


def dequantised(value, quantiser):
    """float32 ``scale * (clip(round(value / scale) + zero_point) - zero_point)`` of one scale; no gradient passes."""

    def call(value, scale, zero_point):
        limits = (scale, zero_point, np.float32(quantiser.code_low), np.float32(quantiser.code_high))
        target = _BUFFERS.take(value.shape, np.float32)
        _shared(_dequantise, value.size, value.reshape(-1), limits, target.reshape(-1))
        return target

    real = tf.numpy_function(call, [value, quantiser.scale, quantiser.zero_point], tf.float32, stateful=False)
    return tf.ensure_shape(real, value.shape)


def inside(upstream, value, low, high):
    """`upstream` where low <= value <= high, else 0; no gradient passes."""
    if len(low.shape):
        return tf.where((value >= low) & (value <= high), upstream, tf.zeros_like(upstream))

    def call(upstream, value, low, high):
        target = _BUFFERS.take(value.shape, np.float32)
        _shared(_keep_inside, value.size, upstream.reshape(-1), value.reshape(-1), low, high, target.reshape(-1))
        return target

    kept = tf.numpy_function(call, [upstream, value, low, high], tf.float32, stateful=False)
    return tf.ensure_shape(kept, value.shape)


def weight_scale(kernel, limit: int, summed: int, per_tensor: bool):
    """float32 scale of a kernel's codes -limit .. limit, one per output channel, the summed axes kept at length 1.

    It is NaN for a channel with a weight that is not finite.

    Args:
        kernel: float32.
        limit: the largest code.
        summed: how many of its first axes are summed over.
        per_tensor: whether all channels have the same scale, that of the largest.
    """

    def call(kernel):
        scale = weight_scales(kernel.reshape(int(np.prod(kernel.shape[:summed])), -1), limit, per_tensor)
        return scale.reshape((1,) * summed + kernel.shape[summed:])

    scale = tf.numpy_function(call, [kernel], tf.float32, stateful=False)
    return tf.ensure_shape(scale, [1] * summed + list(kernel.shape[summed:]))


def _shared(kernel, size: int, *arguments) -> None:
    run([(kernel, *arguments, *part) for part in parts(size, cores(), _PART)])


# Both take slices: an index that could be negative for all that the compiler knows keeps it from using vectors.


@compiled
def _dequantise(values, limits, target, first, last):
    scale, zero_point, low, high = limits
    values, target = values[first:last], target[first:last]
    for i in range(values.size):
        value = values[i]
        real = (quantised(value, scale, zero_point, low, high) - zero_point) * scale
        # The difference is zero, or not a number.
        target[i] = real if value - value == np.float32(0) else np.float32(np.nan)


@compiled
def _keep_inside(upstream, values, low, high, target, first, last):
    upstream, values, target = upstream[first:last], values[first:last], target[first:last]
    for i in range(values.size):
        # Read first, then chosen, without a branch.
        kept, value = upstream[i], values[i]
        target[i] = kept if (value >= low) & (value <= high) else np.float32(0)


@compiled
def parameters(low, high, code_low, code_high, symmetric):
    """float32 (scale, zero point) of a range, bit for bit those of `quantisers.affine_parameters` or `symmetric_scale`.

    Args:
        low, high: float32.
        code_low, code_high: smallest and largest code.
        symmetric: by which of both.
    """
    lowest, highest = np.float32(code_low), np.float32(code_high)
    if symmetric:
        span, codes = max(abs(low), abs(high)), highest
    else:
        low, high = min(low, np.float32(0)), max(high, np.float32(0))
        span, codes = high - low, np.float32(code_high - code_low)
    span = span + (low - low) + (high - high) if low != low or high != high else span  # NaN, whichever of them is
    scale = np.float32(1) if span == 0 else span / codes
    if symmetric:
        return scale, np.float32(0)
    zero_point = (lowest - low / scale + ROUND) - ROUND
    return scale, min(max(zero_point, lowest), highest) if zero_point == zero_point else lowest
