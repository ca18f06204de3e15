"""Sums of products of a block: rows of bytes, one for each product, LANES outputs at a time."""

from __future__ import annotations

import numpy as np

from axtrain.emulation.native.byte_permute import (
    COLUMN_BYTES,
    LANES,
    add_looked_up,
    add_products,
    order,
    write_transposed,
)
from axtrain.emulation.native.patches import ROW_STRIDE, compiled
from axtrain.emulation.native.vector_loops import CHANNELS

# How products are made: by look-ups in memory, by look-ups in registers, or as products of bytes.
ROWS, PERMUTES, PRODUCTS = 0, 1, 2
GROUP = 16  # output channels whose sums are written together: one cache line
_LANE = np.argsort(order())  # the lane of each stored sum


@compiled
def sum_channels(rows, small, lanes, table, weights, first, last, sums, scratch):
    """Sums a block of rows with the weights of output channels first .. last.

    Args:
        rows: uint8, (K r, ROW_STRIDE), the activations' codes or factors.
        small: whether every code is below 128.
        lanes: how many of the LANES outputs are wanted.
        table: (how, planes, columns, factors): `TableBytes` and `FactorBytes`.
        weights: (offsets, factors, base, gain) as `weight_offsets` or `weight_factors` gives them.
        sums: int32, (last - first + CHANNELS, LANES), written, in the order of `order`.
        scratch: int32, (LANES,), to work in.
    """
    how, planes, columns, _ = table
    offsets, factors, _, _ = weights
    if how == PRODUCTS:
        first_row, length = rows.ctypes.data, factors.shape[1]
        for n in range(first, last, CHANNELS):
            for j in range(0, lanes, 64):
                target = sums[n - first, j:].ctypes.data
                add_products(
                    first_row + j, ROW_STRIDE, factors[n].ctypes.data, length, length // 4, target, 4 * LANES
                )  # fmt: skip
    else:
        for n in range(first, last):
            _look_up(rows, how == PERMUTES, planes, columns, offsets[n], small, lanes, sums[n - first], scratch)


@compiled
def write_channels(sums, how, lanes, weights, output, row, first, last):
    """Writes the sums of output channels first .. last, of `lanes` outputs from `row` on.

    Args:
        sums: as `sum_channels` made them.
        how: `ROWS`, `PERMUTES` or `PRODUCTS`.
        weights: as for `sum_channels`.
        output: (scales, biases, whole, real): ``sum * scale + bias`` into real, or the sum into whole.
    """
    scales, biases, whole, real = output
    _, _, base, gain = weights
    if how != ROWS and last - first == GROUP and lanes == LANES:
        these = slice(first, last)
        _write_group(sums, np.int32(gain), base[these], scales[these], biases[these], whole, real, row, first)
    else:
        _write_some(sums, how, lanes, gain, base, output, row, first, last)


@compiled
def _write_group(sums, gain, base, scales, biases, whole, real, row, first):
    """Writes a whole block of GROUP channels, 16 lanes of 16 channels at a time."""
    stride = 4 * (whole.shape[1] if whole.size else real.shape[1])
    added, scaled, biased = base.ctypes.data, scales.ctypes.data, biases.ctypes.data
    for j in range(0, LANES, 64):
        at, between = sums[0, j:].ctypes.data, 4 * LANES
        if whole.size:
            to = whole[row + j, first:].ctypes.data
            write_transposed(at, between, gain, added, scaled, biased, to, stride, 0, 0, False)
            write_transposed(at + 64, between, gain, added, scaled, biased, to, stride, 0, 1, False)
            write_transposed(at + 128, between, gain, added, scaled, biased, to, stride, 1, 0, False)
            write_transposed(at + 192, between, gain, added, scaled, biased, to, stride, 1, 1, False)
        else:
            to = real[row + j, first:].ctypes.data
            write_transposed(at, between, gain, added, scaled, biased, to, stride, 0, 0, True)
            write_transposed(at + 64, between, gain, added, scaled, biased, to, stride, 0, 1, True)
            write_transposed(at + 128, between, gain, added, scaled, biased, to, stride, 1, 0, True)
            write_transposed(at + 192, between, gain, added, scaled, biased, to, stride, 1, 1, True)


@compiled
def _write_some(sums, how, lanes, gain, base, output, row, first, last):
    """Writes some lanes of some channels."""
    scales, biases, whole, real = output
    for n in range(first, last):
        line = sums[n - first]
        for j in range(LANES):
            lane = _LANE[j] if how != ROWS else j
            if lane < lanes:
                total = np.int32(line[j] * gain + base[n])
                if whole.size:
                    whole[row + lane, n] = total
                else:
                    real[row + lane, n] = np.float32(total) * scales[n] + biases[n]


@compiled
def _look_up(rows, permutes, planes, columns, offsets, small, lanes, sums, scratch):
    """``sums[j] = sum_k table[offsets[k]][rows[k, j]]``, wrapping at 32 bits."""
    pairs = offsets.size // 2
    for plane in range(planes.shape[0]):
        target = sums if plane == 0 else scratch
        if permutes:
            table, first, where, to = (
                planes[plane].ctypes.data,
                rows.ctypes.data,
                offsets.ctypes.data,
                target.ctypes.data,
            )
            if small:
                if lanes > 128:
                    add_looked_up(first, ROW_STRIDE, table, where, pairs, to, True, 4)
                elif lanes > 64:
                    add_looked_up(first, ROW_STRIDE, table, where, pairs, to, True, 2)
                else:
                    add_looked_up(first, ROW_STRIDE, table, where, pairs, to, True, 1)
            else:
                if lanes > 128:
                    add_looked_up(first, ROW_STRIDE, table, where, pairs, to, False, 4)
                elif lanes > 64:
                    add_looked_up(first, ROW_STRIDE, table, where, pairs, to, False, 2)
                else:
                    add_looked_up(first, ROW_STRIDE, table, where, pairs, to, False, 1)
        else:
            target[:] = 0
            for k in range(offsets.size):
                column, row = columns[plane, offsets[k] // COLUMN_BYTES], rows[k]
                for j in range(lanes):
                    target[j] += column[row[j]]
        if plane:
            for j in range(LANES):
                sums[j] += scratch[j] << (16 * plane)
