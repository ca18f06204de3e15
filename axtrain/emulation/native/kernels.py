"""The native engine's products, compiled by numba: quantise, cut patches, sum products, rescale.

Everything a layer does to its input happens in one pass over blocks of LANES outputs, so nothing of the size
of the input is written more than once, and as single bytes. Each function works on a part of the batch
(or of the output channels); parts run in threads and share nothing that they write.
"""

from __future__ import annotations

import numpy as np

from axtrain.emulation.native.byte_permute import LANES
from axtrain.emulation.native.patches import ROW_STRIDE, code_bytes, compiled, copy_runs, padded_planes, runs
from axtrain.emulation.native.sums import GROUP, PRODUCTS, sum_channels, write_channels
from axtrain.emulation.native.vector_loops import CHANNELS


@compiled
def dense(values, quantiser, table, weights, output, rows, channels):
    """A matrix product: rows `rows` of values (M, K) and output channels `channels`.

    Args:
        values: float32, (M, K).
        quantiser: float32 (scale, zero point, lowest code, highest code).
        table, weights, output: as for `sum_channels` and `write_channels`.
        rows, channels: (first, last) of this part.
    """
    length, factors = values.shape[1], table[3]
    block = _block(table, weights)
    codes = np.empty(length, np.uint8)
    sums, scratch = np.empty((GROUP + CHANNELS, LANES), np.int32), np.empty(LANES, np.int32)
    for row in range(rows[0], rows[1], LANES):
        lanes = min(LANES, rows[1] - row)
        bits = np.int32(0)
        for j in range(lanes):
            bits |= code_bytes(values[row + j], quantiser, codes)
            if factors.size:
                for r in range(factors.shape[0]):
                    for k in range(length):
                        block[r * length + k, j] = factors[r, codes[k]]
            else:
                for k in range(length):
                    block[k, j] = codes[k]
        for first in range(channels[0], channels[1], GROUP):
            last = min(first + GROUP, channels[1])
            sum_channels(block, bits < 128, lanes, table, weights, first, last, sums, scratch)
            write_channels(sums, table[0], lanes, weights, output, row, first, last)


@compiled
def convolution(
    values, quantiser, table, weights, output, images, channels, window, strides, dilation, pads, sizes, depthwise
):
    """A convolution of images `images` of values (B, H, W, C); the rest as for `dense`.

    Args:
        images: (first, last) of this part of the batch.
        window, strides, dilation: (rows, columns).
        pads: (top, left, padded height, padded width).
        sizes: (output height, output width).
        depthwise: 0, or how many output channels each input channel has, alone in their sums.
    """
    inputs = values.shape[3]
    every = max(table[3].shape[0], 1) * inputs
    image, bits = padded_planes(values, quantiser, table[3], images, strides[1], pads)
    phase, plane_bytes, shape = image.shape[-1], image[0].size, (window, strides, dilation)
    row_bytes = strides[1] * phase
    block = _block(table, weights)
    sums, scratch = np.empty((GROUP + CHANNELS, LANES), np.int32), np.empty(LANES, np.int32)
    found = np.empty((LANES + 1, 3), np.int64)
    above, count = images[0] * sizes[0] * sizes[1], (images[1] - images[0]) * sizes[0] * sizes[1]
    for row in range(0, count, LANES):
        lanes = min(LANES, count - row)
        stretches = runs(row, lanes, sizes[0], sizes[1], pads[2], strides[0], row_bytes, found)
        if not depthwise:
            _patches(image, block, 0, 1, every, plane_bytes, row_bytes, phase, shape, found, stretches)
        for first in range(channels[0], channels[1], GROUP):
            last = min(first + GROUP, channels[1])
            if not depthwise:
                sum_channels(block, bits < 128, lanes, table, weights, first, last, sums, scratch)
            else:
                for n in range(first, last):
                    if n == first or n % depthwise == 0:  # another input channel
                        own = n // depthwise
                        _patches(
                            image, block, own, inputs, every, plane_bytes, row_bytes, phase, shape, found, stretches
                        )
                    sum_channels(block, bits < 128, lanes, table, weights, n, n + 1, sums[n - first :], scratch)
            write_channels(sums, table[0], lanes, weights, output, above + row, first, last)


@compiled
def _patches(image, block, first, step, planes, plane_bytes, row_bytes, phase, shape, found, stretches):
    """Rows of patches: for each tap of the window, planes first, first + step, ... below `planes`."""
    window, strides, dilation = shape
    # Addresses are taken where the arrays are arguments: numba frees an array after its last use by name.
    source, target = image.ctypes.data, block.ctypes.data
    for y in range(window[0]):
        for x in range(window[1]):
            column = x * dilation[1]
            tap = source + y * dilation[0] * row_bytes + column % strides[1] * phase + column // strides[1]
            for plane in range(first, planes, step):
                copy_runs(tap + plane * plane_bytes, target, found, stretches)
                target += ROW_STRIDE


@compiled
def _block(table, weights):
    """Room for the rows of a block; what is not written meets a weight of 0 and must only be there."""
    rows = weights[1].shape[1] if table[0] == PRODUCTS else weights[0].shape[1]
    return np.zeros((rows + 1, ROW_STRIDE), np.uint8)
