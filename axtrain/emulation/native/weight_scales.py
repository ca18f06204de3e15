"""The scales of a kernel's codes, in one pass over it."""

from __future__ import annotations

import numpy as np

from axtrain.emulation.native.compiling import compiled
from axtrain.emulation.native.threads import cores, parts, run

_FEW = 1 << 19  # waking a thread costs more than passing over so many weights


def weight_scales(kernel: np.ndarray, limit: int, per_tensor: bool) -> np.ndarray:
    """float32 (channels,), the scale of each channel's codes -limit .. limit; NaN where a weight is not finite.

    Args:
        kernel: float32 (terms, channels).
        limit: the largest code.
        per_tensor: whether all channels have the same scale, that of the largest.
    """
    largest = np.zeros(kernel.shape[1], np.int32)
    shares = parts(kernel.shape[1], cores() if kernel.size > _FEW else 1, 16)
    run([(_largest, kernel.view(np.int32), largest, *part) for part in shares])
    scale = largest.view(np.float32)
    _scales(kernel, np.float32(limit), per_tensor, scale)
    return scale


@compiled
def _scales(kernel, limit, per_tensor, scale):
    """From each channel's largest magnitude to its scale; of one with a value that is not finite, from the others."""
    most = np.float32(0)
    finite = np.isfinite(scale)
    for n in range(scale.size):
        if not finite[n]:
            scale[n] = 0
            for term in range(kernel.shape[0]):
                magnitude = abs(kernel[term, n])
                if magnitude < np.float32(np.inf):
                    scale[n] = max(scale[n], magnitude)
        most = max(most, scale[n])
    for n in range(scale.size):
        value = most if per_tensor else scale[n]
        value = value / limit if value > 0 else np.float32(1)
        scale[n] = value if finite[n] else np.float32(np.nan)


@compiled
def _largest(bits, largest, first, last):
    """The largest magnitude of each column of float32 bits, as bits: magnitudes are ordered as their bits are."""
    most = largest[first:last]
    for term in range(bits.shape[0]):
        row = bits[term, first:last]
        for n in range(row.size):
            most[n] = max(most[n], np.int32(row[n] & np.int32(0x7FFFFFFF)))
