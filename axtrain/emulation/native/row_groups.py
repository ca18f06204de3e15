"""Products of any table by row groups: one load-add of a vector gives a code's products with 32 weights.

For each term k and each group of 32 (or 16) channels, the rows ``row[a] = T[a, w_k] - centre(w_k)`` of 16-bit
words are built for every code a in use, and the codes are streamed: each is an offset of a row. Sums of `length`
rows fit 16 bits; two of them are then widened and added to the 32-bit sums. A table whose centred products take
more than 16 bits has rows of 32-bit words.

Either operand may be the stationary one that rows are built from. Building costs about 0.2 cycles for each entry,
streaming 1/8 for each product, so the larger operand is streamed.
"""

from __future__ import annotations

import numpy as np

from axtrain.emulation.native.compiling import compiled
from axtrain.emulation.native.images import pixel_offsets, quantise_image
from axtrain.emulation.native.outputs import column_of, write_channels, write_pixels
from axtrain.emulation.native.row_vectors import STEP, add_all, build_rows

GROUP = 32  # channels whose products are loaded together: a cache line of 16-bit words
_TILE, _TERMS = 64, 32  # channels and terms at a time: codes are read and written in whole cache lines
_LINE = 64  # bytes of a cache line
_SPARE_ROWS = 3  # between the rows of two terms: multiples of 16 KiB would share their places in the cache
_TABLE_BYTES = 1 << 18  # rows of so many terms are built at a time as a second-level cache holds


@compiled
def _add_products(codes, offsets, runs, columns, length, wide, chosen, span, sums):
    """Adds to sums (pixels, channels) the products of streamed codes with the stationary operands of `chosen`.

    Args:
        codes: uint16, a row's number times `STEP`.
        offsets: int64 (pixels,), the byte of each pixel's first code.
        runs: int64 (runs,), the byte offset of each run's first code from it.
        columns: int16 (columns, words of the rows filled up to 8).
        length: terms whose sum fits 16 bits: 1, 2 or 4.
        wide: whether each row's entry takes two of the words; `length` is then 1.
        chosen: uint32 (runs, terms filled up to steps, channels), the byte offset of each operand's column.
        span: (first, last) row in use, multiples of 8.
        sums: int32 (pixels, channels).
    """
    _, terms, channels = chosen.shape
    step, words = 2 * length, 2 if wide else 1
    row_bytes = channels * 2 * words
    term_bytes = (columns.shape[1] // words + _SPARE_ROWS) * row_bytes
    used = (span[1] - span[0]) * row_bytes
    most = min(terms, max(1, _TABLE_BYTES // (used * step)) * step)
    storage = np.empty(most * term_bytes + _LINE, np.uint8)
    rows = storage[-storage.ctypes.data % _LINE :]  # each row within as few cache lines as can be
    first_row, column = rows.ctypes.data, columns.ctypes.data
    for run in range(runs.size):
        for start in range(0, terms, most):
            count = min(most, terms - start)
            for k in range(count):
                target = first_row + k * term_bytes
                if wide:
                    _copied(columns, chosen[run, start + k], span, rows[k * term_bytes : (k + 1) * term_bytes])
                else:
                    for lane in range(0, channels, 16):
                        picked = chosen[run, start + k, lane:].ctypes.data
                        for code in range(span[0], span[1], 8):
                            build_rows(column, picked, code, target + code * row_bytes + 2 * lane, row_bytes)
            source = codes.ctypes.data + runs[run] + 2 * start
            where, total = offsets.ctypes.data, sums.ctypes.data
            add_all(
                source, where, offsets.size, first_row, term_bytes, count // step, total, length, channels, wide
            )  # fmt: skip


@compiled
def weights_stay(
    codes, steps, pixel_bytes, runs, table, span, weights, scales, lowest, added, base, output, pixels, first, channels
):  # fmt: skip
    """Products of some pixels with the channels from `first` on, whose weights the rows are built from.

    Args:
        codes: uint16, images of a row's number times `STEP`, each with its tail, which a padded run may reach.
        steps, pixel_bytes: as for `pixel_offsets`.
        runs: int64 (runs,), the byte offset of each run's first code from a pixel's first.
        table: (columns, length, wide, order), as `RowTable.by_weight` gives them, and `lane_order`.
        span: (first, last) row in use, multiples of 8.
        weights: float32 (runs * terms of a run, all channels).
        scales: float32 (all channels,), of one code; 1 where the weights are codes.
        lowest: the weight code of column 0.
        added: int64 (weight codes + 1,), what a weight adds to its channel besides its products; the last is 0.
        base: int32 (all channels,), written here and added to each channel's sums; wraps as the accumulators do.
        output: as for `write_channels`.
        pixels: (first, last) of this part.
        first, channels: the first channel, and how many are worked on together, 16 or 32.
    """
    columns, length, wide, order = table
    terms, step = weights.shape[0] // runs.size, 2 * length
    column_bytes, count = columns.shape[1] * 2, min(channels, weights.shape[1] - first)
    chosen = np.empty((runs.size, (terms + step - 1) // step * step, channels), np.uint32)
    chosen[:] = (added.size - 1) * column_bytes
    totals = np.zeros(channels, np.int64)
    for run in range(runs.size):
        for k in range(terms):
            row = weights[run * terms + k, first : first + count]
            for lane in range(channels):
                n = lane // 16 * 16 + order[lane % 16]
                if n < count:
                    column = column_of(row[n], scales[first + n], lowest, added.size - 1)
                    chosen[run, k, lane] = column * column_bytes
                    totals[n] += added[column]
    for n in range(count):
        base[first + n] = np.int32(totals[n])
    sums = np.zeros((pixels[1] - pixels[0], channels), np.int32)
    offsets = np.empty(pixels[1] - pixels[0], np.int64)
    pixel_offsets(steps, pixel_bytes, pixels[0], offsets)
    _add_products(codes, offsets, runs, columns, length, wide, chosen, span, sums)
    write_channels(sums, base, output, pixels[0], first)


@compiled
def span_of(smallest, largest):
    """(first, last) row in use, multiples of 8, of an image's words between two."""
    return smallest // STEP // 8 * 8, (largest // STEP // 8 + 1) * 8


@compiled
def quantised_rows(
    image, tables, below, steps, pixel_bytes, runs, weights, scales, lowest, output, groups, images
):  # fmt: skip
    """Quantises some images; their products with all channels, whose weights the rows are built from.

    Args:
        image: what `quantise_image` takes, all but the images.
        tables: (table, added) of all activation codes, and of those that are not negative, as `weights_stay` takes
            them: behind a ReLU the latter's columns span less, and more of them are summed at a time.
        below: how many activation codes are negative.
        steps, pixel_bytes, runs, weights, scales, lowest, output: as for `weights_stay`.
        groups: int64 (n, 2), the first channel and how many of each group.
        images: (first, last) of this part.

    Returns:
        whether every value is finite.
    """
    smallest, largest, finite = quantise_image(*image, images)
    table, added = tables[1] if smallest >= below * STEP else tables[0]
    pixels, base = steps[0][0] * steps[0][1], np.empty(weights.shape[1], np.int32)
    some, codes, span = (images[0] * pixels, images[1] * pixels), image[5].reshape(-1), span_of(smallest, largest)
    for group in range(groups.shape[0]):
        weights_stay(
            codes, steps, pixel_bytes, runs, table, span, weights, scales, lowest, added, base, output, some,
            groups[group, 0], groups[group, 1],
        )  # fmt: skip
    return finite


@compiled
def pixels_stay(
    codes, offsets, runs, terms, table, weights, base, output, streamed, first, channels
):  # fmt: skip
    """Products of the pixels from `first` on, whose codes the rows are built from, with some streamed channels.

    Args:
        codes, runs: as in `weights_stay`, but runs need no padding.
        offsets: int64, the byte of each pixel's first code.
        terms: of a run.
        table: (columns, length, wide, order), as `RowTable.by_activation` gives them, and `lane_order`.
        weights: uint16 (runs, all channels, terms filled up to steps), a column's number times `STEP`.
        base: int32 (all channels,), added to each channel's sums.
        output: as for `write_channels`.
        streamed: (first, last) channel of this part.
        first, channels: the first pixel, and how many are worked on together, 16 or 32.
    """
    columns, length, wide, order = table
    column_bytes, count = columns.shape[1] * 2, min(channels, offsets.size - first)
    chosen = np.empty((runs.size, weights.shape[2], channels), np.uint32)
    chosen[:] = (columns.shape[0] - 1) * column_bytes
    for run in range(runs.size):
        for lane in range(channels):
            p = lane // 16 * 16 + order[lane % 16]
            if p < count:
                start = (offsets[first + p] + runs[run]) // 2
                pixel = codes[start : start + terms]
                for k in range(terms):
                    chosen[run, k, lane] = pixel[k] // STEP * column_bytes
    sums = np.zeros((streamed[1] - streamed[0], channels), np.int32)
    line_bytes = weights.shape[2] * 2
    lines = np.arange(runs.size) * (weights.shape[1] * line_bytes)
    some = np.arange(streamed[0], streamed[1]) * line_bytes
    # Of the types that `weights_stay` has, so that both call one function.
    span = np.int64(0), np.int64(columns.shape[1] // 2 if wide else columns.shape[1])
    _add_products(weights.reshape(-1), some, lines, columns, length, wide, chosen, span, sums)
    write_pixels(sums, base, output, first, streamed[0])


@compiled
def streamed_weights(weights, scales, lowest, added, streamed, base, channels):
    """Weights as `pixels_stay` streams them, and what each channel's sums begin with.

    Args:
        weights: float32 (parts, terms of a part, channels).
        scales: float32 (channels,), of one code; 1 where the weights are codes.
        lowest: the weight code of column 0.
        added: int64 (weight codes + 1,), what a weight adds to its channel besides its products; the last is 0.
        streamed: uint16 (parts, channels, terms filled up), written.
        base: int32 (channels,), written.
        channels: (first, last) of this part.
    """
    parts, terms, _ = weights.shape
    block, totals = np.zeros((_TERMS, _TILE), np.uint32), np.zeros(_TILE, np.int64)
    for first in range(channels[0], channels[1], _TILE):
        last = min(first + _TILE, channels[1])
        totals[:] = 0
        for part in range(parts):
            for start in range(0, terms, _TERMS):
                end = min(start + _TERMS, terms)
                for k in range(start, end):
                    source, scale = weights[part, k, first:last], scales[first:last]
                    found = block[k - start, : last - first]
                    for n in range(found.size):
                        found[n] = column_of(source[n], scale[n], lowest, added.size - 1)
                    for n in range(found.size):
                        totals[n] += added[found[n]]
                for n in range(first, last):
                    target, column = streamed[part, n, start:end], block[: end - start, n - first]
                    for k in range(target.size):
                        target[k] = min(column[k], np.uint32(added.size - 2)) * np.uint32(STEP)
            streamed[part, first:last, terms:] = 0
        for n in range(first, last):
            base[n] = np.int32(totals[n - first])


@compiled
def _copied(columns, chosen, span, rows):
    """Rows of 32-bit words, one word after the other."""
    words, whole = rows.view(np.int32), columns.view(np.int32)
    column_bytes, channels = whole.shape[1] * 4, chosen.size
    for lane in range(channels):
        column = whole[chosen[lane] // column_bytes]
        for code in range(span[0], span[1]):
            words[code * channels + lane] = column[code]
