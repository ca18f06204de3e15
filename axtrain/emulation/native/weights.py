"""Weight codes as the kernels want them: offsets into tables, or factors, and what each channel adds to its sum."""

from __future__ import annotations

import numpy as np

from axtrain.emulation.native.byte_permute import COLUMN_BYTES
from axtrain.emulation.native.patches import compiled

_TILE = 16  # channels at a time: codes are read and results written in whole cache lines


@compiled
def weight_offsets(codes, lowest, zero_column, centres, zero_point, offsets, base, channels):
    """The tables' byte offsets of weights, and what is added to each output channel's sum.

    Args:
        codes: float32, (K, N).
        lowest: the weight code of column 0.
        zero_column: the column that fills up an odd K.
        centres: int64, (weight codes,), what each weight adds besides its column.
        zero_point: the exact correction ``- zero_point sum w``, 0 for none.
        offsets: int32, (N, K made even), written.
        base: int32, (N,), written; wraps as the accumulators do.
        channels: (first, last) of this part.
    """
    length = codes.shape[0]
    added = centres - zero_point * (lowest + np.arange(centres.size))
    totals = np.zeros(_TILE, np.int64)
    for first in range(channels[0], channels[1], _TILE):
        last = min(first + _TILE, channels[1])
        totals[:] = 0
        for k in range(length):
            for n in range(first, last):
                # Unsigned, so that no test for a negative index is made.
                column = np.uint32(np.int32(codes[k, n]) - np.int32(lowest))
                offsets[n, k] = column * COLUMN_BYTES
                totals[n - first] += added[column]
        for n in range(first, last):
            offsets[n, length:] = zero_column * COLUMN_BYTES
            base[n] = np.int32(totals[n - first])


@compiled
def weight_factors(codes, lowest, looked_up, centres, zero_point, taps, factors, base, channels):
    """The weights' factors, and what is added to each output channel's sum.

    Args:
        codes: float32, (K, N), K = taps * inputs.
        lowest: the weight code of column 0.
        looked_up: int8, (r, weight codes).
        centres, zero_point, base, channels: as in `weight_offsets`.
        taps: of the window; row k r of the patches is tap, then factor, then input channel.
        factors: int8, (N or more, K r or more), written; zero elsewhere.
    """
    length, rank = codes.shape[0], looked_up.shape[0]
    inputs = length // taps
    added = centres - zero_point * (lowest + np.arange(centres.size))
    totals = np.zeros(_TILE, np.int64)
    for first in range(channels[0], channels[1], _TILE):
        last = min(first + _TILE, channels[1])
        totals[:] = 0
        for k in range(length):
            row = k // inputs * rank * inputs + k % inputs
            for n in range(first, last):
                column = np.uint32(np.int32(codes[k, n]) - np.int32(lowest))
                totals[n - first] += added[column]
                factors[n, row] = looked_up[0, column]
            for r in range(1, rank):
                for n in range(first, last):
                    column = np.uint32(np.int32(codes[k, n]) - np.int32(lowest))
                    factors[n, row + r * inputs] = looked_up[r, column]
        for n in range(first, last):
            base[n] = np.int32(totals[n - first])
