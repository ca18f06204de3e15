"""From 32-bit sums to a layer's outputs."""

from __future__ import annotations

import numpy as np
from numba import njit

from axtrain.emulation.native.compiling import compiled
from axtrain.emulation.native.images import ROUND

NO_CODE = np.float32(1 << 21)
_TILE = 16  # channels written together: a cache line


@njit(inline="always")
def column_of(weight, scale, lowest, columns):
    """The column of ``round(weight / scale)``; `columns`, the one of zeros, for what is no code, as a NaN."""
    ratio = weight / scale
    known = ratio if abs(ratio) < NO_CODE else NO_CODE  # what is not a number is not below anything
    code = np.int32((known + ROUND) - ROUND)
    column = np.uint32(code - np.int32(lowest))  # unsigned, so that what lies below is too large as well
    return min(column, np.uint32(columns))


@compiled
def write_channels(sums, base, output, first_pixel, first_channel):
    """Writes sums (pixels, channels); channels beyond the last are left out.

    Args:
        sums: int32.
        base: int32 (all channels,), added.
        output: (scales, biases, whole, real): ``(sum + base) * scale + bias`` into real, or ``sum + base`` into whole;
            both of shape (all pixels, all channels), and one of them empty.
        first_pixel, first_channel: of the sums.
    """
    scales, biases, whole, real = output
    last = min(first_channel + sums.shape[1], base.size)
    # Slices, so that the compiler sees that no index is negative, and uses vectors.
    added, scaled, biased = base[first_channel:last], scales[first_channel:last], biases[first_channel:last]
    for p in range(sums.shape[0]):
        row = sums[p]
        if whole.size:
            integers = whole[first_pixel + p, first_channel:last]
            for c in range(integers.size):
                integers[c] = row[c] + added[c]
        else:
            reals = real[first_pixel + p, first_channel:last]
            for c in range(reals.size):
                reals[c] = np.float32(np.int32(row[c] + added[c])) * scaled[c] + biased[c]


@compiled
def write_pixels(sums, base, output, first_pixel, first_channel):
    """Writes sums (channels, pixels), as `write_channels`; pixels beyond the last are left out."""
    scales, biases, whole, real = output
    pixels = min(sums.shape[1], max(whole.shape[0], real.shape[0]) - first_pixel)
    for start in range(0, sums.shape[0], _TILE):
        end = min(start + _TILE, sums.shape[0])
        for p in range(pixels):
            for c in range(start, end):
                n = first_channel + c
                total = np.int32(sums[c, p] + base[n])
                if whole.size:
                    whole[first_pixel + p, n] = total
                else:
                    real[first_pixel + p, n] = np.float32(total) * scales[n] + biases[n]


@compiled
def add_taps(sums, sources, base, output, pixels):
    """Writes outputs whose taps were summed apart: the sum over t of ``sums[sources[p, t], t, :]``.

    Args:
        sums: int32 (pixels of the image, taps, channels).
        sources: int64 (pixels of the output, taps).
        base, output: as for `write_channels`.
        pixels: (first, last) of this part.
    """
    total = np.empty((1, base.size), np.int32)
    line = total[0]
    for p in range(pixels[0], pixels[1]):
        line[:] = 0
        for tap in range(sources.shape[1]):
            part = sums[sources[p, tap], tap]
            for n in range(line.size):
                line[n] += part[n]
        write_channels(total, base, output, p, 0)
