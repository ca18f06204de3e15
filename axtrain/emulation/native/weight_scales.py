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
    finite = np.isfinite(scale)
    if not finite.all():
        scale = np.where(np.isfinite(kernel), np.abs(kernel), np.float32(0)).max(axis=0, initial=0)
    if per_tensor:
        scale = np.full_like(scale, scale.max(initial=0))
    scale = np.where(scale > 0, scale / np.float32(limit), np.float32(1))
    scale[~finite] = np.nan
    return scale


@compiled
def _largest(bits, largest, first, last):
    """The largest magnitude of each column of float32 bits, as bits: magnitudes are ordered as their bits are."""
    most = largest[first:last]
    for term in range(bits.shape[0]):
        row = bits[term, first:last]
        for n in range(row.size):
            most[n] = max(most[n], np.int32(row[n] & np.int32(0x7FFFFFFF)))
