"""From an image of real numbers to rows of bytes, one row for each product that an output sums."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from axtrain.emulation.native.byte_permute import LANES, copy_64_bytes

ROW_STRIDE = LANES + 64  # a row of patches, and what copying 64 bytes at a time may write past it
_BEYOND = np.float32(2)
_ROUND = np.float32(3 << 22)  # adding it leaves no bits for fractions: rounds to nearest, ties to even


def compiled(function) -> Any:
    """Compiled without the global lock, and kept on disk where there is somewhere to keep it."""
    try:
        return njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError:  # no folder to write to
        return njit(nogil=True, error_model="numpy")(function)


@njit(inline="always")
def quantised(value, scale, zero_point, low, high):
    """``clip(round(value / scale) + zero_point)``, float32."""
    # Clipped first, so that rounding by adding is in its range; a code beyond is clipped either way.
    code = min(max(value / scale, low - zero_point - _BEYOND), high - zero_point + _BEYOND)
    return min(max((code + _ROUND) - _ROUND + zero_point, low), high)


@compiled
def code_bytes(values, quantiser, codes):
    """Codes of a contiguous row as bytes; returns the union of their bits."""
    scale, zero_point, low, high = quantiser
    bits = np.int32(0)
    for i in range(values.size):
        byte = np.int32(quantised(values[i], scale, zero_point, low, high)) & np.int32(0xFF)
        codes[i] = byte
        bits |= byte
    return bits


@compiled
def _spread(row, channel, channels, width, left, line):
    """One channel of a row of pixels, the columns of each phase of the stride together."""
    stride = line.shape[0]
    for first in range(stride):
        start = (first - left) % stride
        here, count = (start + left) // stride, (width - start + stride - 1) // stride
        # Slices: an index that could be negative for all that the compiler knows would cost a test each.
        source, target = row[start * channels + channel :], line[first, here : here + count]
        for i in range(target.size):
            target[i] = source[i * stride * channels]


@compiled
def padded_planes(values, quantiser, factors, images, stride, pads):
    """Images of bytes, (r C, B, padded height, stride, columns of each phase), and the union of the codes' bits.

    Columns that a stride meets together lie together, so that a row of patches is a row of memory. Real zero
    surrounds the image. The storage reaches past its end, for copies of 64 bytes at a time.

    Args:
        values: float32, (B, H, W, C).
        quantiser: float32 (scale, zero point, lowest code, highest code).
        factors: uint8, (r, 256), what stands for a code; empty for the code's own byte.
        images: (first, last) of the batch.
        stride: along the columns.
        pads: (top, left, padded height, padded width).
    """
    _, height, width, channels = values.shape
    phase, batch, rank = -(-pads[3] // stride), images[1] - images[0], max(factors.shape[0], 1)
    plane = batch * pads[2] * stride * phase
    storage = np.empty(rank * channels * plane + 128, np.uint8)
    zero = np.int32(quantiser[1]) & np.int32(0xFF)
    for r in range(rank):
        storage[r * channels * plane : (r + 1) * channels * plane] = factors[r, zero] if factors.size else zero
    image = storage[: rank * channels * plane].reshape((rank * channels, batch, pads[2], stride, phase))
    bits = zero
    codes, looked_up = np.empty(width * channels, np.uint8), np.empty(width * channels, np.uint8)
    for b in range(batch):
        for y in range(height):
            bits |= code_bytes(values[images[0] + b, y].reshape(width * channels), quantiser, codes)
            for r in range(rank):
                row = codes
                if factors.size:
                    row, factor = looked_up, factors[r]
                    for i in range(row.size):
                        row[i] = factor[codes[i]]
                for c in range(channels):
                    line = image[r * channels + c, b, y + pads[0]]
                    if stride == 1:  # as `_spread`, without what its slices cost a short row
                        source, target = row[c:], line[0, pads[1] : pads[1] + width]
                        for x in range(target.size):
                            target[x] = source[x * channels]
                    else:
                        _spread(row, c, channels, width, pads[1], line)
    return image, bits


@compiled
def runs(row, lanes, height, width, padded_height, stride, row_bytes, found):
    """Where outputs row .. row + lanes lie in a plane: writes (byte, lane, length) of each stretch; their number."""
    count, lane = 0, 0
    while lane < lanes:
        place = row + lane
        x, y, b = place % width, place // width % height, place // (width * height)
        length = min(width - x, lanes - lane)
        found[count, 0] = (b * padded_height + y * stride) * row_bytes + x
        found[count, 1] = lane
        found[count, 2] = length
        count += 1
        lane += length
    return count


@compiled
def copy_runs(source, target, found, count):
    """Copies each stretch of a plane at address `source` to its lanes of the row at address `target`."""
    for run in range(count):
        here, there = source + found[run, 0], target + found[run, 1]
        copy_64_bytes(there, here)
        for part in range(64, found[run, 2], 64):
            copy_64_bytes(there + part, here + part)
