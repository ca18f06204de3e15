"""Products of integer factors: pairs of 16-bit words multiplied and added into 32 bits, `vpmaddwd`.

A table of rank r whose factors fit 16 bits costs r multiplications for a product, 16 of them in one instruction with
AVX2, and nothing has to be built. The sums wrap at 32 bits, as the emulated accumulators do.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from axtrain.emulation.native.compiling import compiled
from axtrain.emulation.native.images import ROUND, pixel_offsets, quantise_factors
from axtrain.emulation.native.outputs import NO_CODE, column_of, write_channels
from axtrain.emulation.native.vectors import I16, I32, I64, WORDS, load, pair_sums, shuffled, store, vector

_TOGETHER = 4  # groups of 16 channels whose weights are read together: whole cache lines
TILE = 96  # pixels that meet one group of channels after another, while their factors are in the cache
PIXELS = 6  # whose sums stay in registers: 12 of 16, beside two for the weights and one for the activations


def emit_add_pairs(builder: ir.IRBuilder, arguments, *, pixels: int, rescaled: bool = False) -> None:
    """``sums[p, 0:16] = sum_k factors[offsets[p] + k] panel[k, 0:16]`` over runs of pairs of terms.

    Args:
        arguments: int64 (factors, offsets, runs, run count, pairs, panel, sums): addresses of int16 factors, of
            int64 byte offsets into them, of int64 byte offsets of the runs; how many runs, and pairs of terms in each;
            addresses of int16 (terms / 2, 16, 2) and of int32 sums (pixels, 16), written. Rescaled, in place of the
            sums (outputs, row bytes, base, scales, biases): the address of the first float32 output, bytes from one
            pixel's to the next, addresses of what 16 channels' sums begin with, int32, of float32 scales and biases.
        pixels: how many at a time.
        rescaled: whether ``(sum + base) * scale + bias`` is written.
    """
    factors, offsets, runs, count, pairs, panel, sums, *rest = arguments
    words, half, lanes = vector(I16, WORDS), vector(I32, WORDS // 2), 2 * pixels
    first = [builder.add(factors, load(builder, offsets, I64, 8 * p, align=8)) for p in range(pixels)]
    zero = ir.Constant(half, [0] * half.count)
    before = builder.block
    outer, inner, end, done = (builder.append_basic_block(name) for name in ("run", "pair", "next", "done"))
    builder.branch(outer)

    builder.position_at_end(outer)
    run, weights = builder.phi(I64), builder.phi(I64)
    totals = [builder.phi(half) for _ in range(lanes)]
    for value, initial in ((run, I64(0)), (weights, panel), *((total, zero) for total in totals)):
        value.add_incoming(initial, before)
    start = load(builder, builder.add(runs, builder.shl(run, I64(3))), I64, align=8)
    builder.branch(inner)

    builder.position_at_end(inner)
    pair, panel_at, place = (builder.phi(I64) for _ in range(3))
    inside = [builder.phi(half) for _ in range(lanes)]
    for value, initial in ((pair, I64(0)), (panel_at, weights), (place, start), *zip(inside, totals, strict=True)):
        value.add_incoming(initial, outer)
    columns = [load(builder, panel_at, words, 32 * i, align=2) for i in range(2)]
    added = []
    for p in range(pixels):
        two = load(builder, builder.add(first[p], place), I32)
        everywhere = builder.bitcast(_everywhere(builder, two, half), words)
        for i in range(2):
            added.append(builder.add(inside[2 * p + i], pair_sums(builder, everywhere, columns[i])))
    following, next_panel = builder.add(pair, I64(1)), builder.add(panel_at, I64(64))
    advanced = ((pair, following), (panel_at, next_panel), (place, builder.add(place, I64(4))))
    for value, next_ in (*advanced, *zip(inside, added, strict=True)):
        value.add_incoming(next_, inner)
    builder.cbranch(builder.icmp_signed("<", following, pairs), inner, end)

    builder.position_at_end(end)
    next_run = builder.add(run, I64(1))
    for value, next_ in ((run, next_run), (weights, next_panel), *zip(totals, added, strict=True)):
        value.add_incoming(next_, end)
    builder.cbranch(builder.icmp_signed("<", next_run, count), outer, done)

    builder.position_at_end(done)
    if not rescaled:
        for i, total in enumerate(added):
            store(builder, total, sums, 32 * i)
        return
    row_bytes, base, *both = rest
    real = vector(ir.FloatType(), half.count)
    for i in range(2):
        start, (scale, bias) = load(builder, base, half, 32 * i), (load(builder, x, real, 32 * i) for x in both)
        target = sums
        for total in added[i::2]:
            whole = builder.sitofp(builder.add(total, start), real)
            store(builder, builder.fadd(builder.fmul(whole, scale), bias), target, 32 * i)
            target = builder.add(target, row_bytes)


def emit_panel_row(builder: ir.IRBuilder, arguments) -> None:
    """``gain * column + offset`` of two terms' 16 weights, each pair in one word; 0 for what is no code.

    Args:
        arguments: int64 (first, second, scales, row, totals, columns, lowest, gain, offset): addresses of float32
            weights, of float32 scales, of uint32 words, written, and of int32 (2, 16), to which the columns are added
            and how many there are; the column of what is no code, the code of column 0, and the line.
    """
    first, second, scales, row, totals, *numbers = arguments
    whole, real = vector(I32, WORDS), vector(ir.FloatType(), WORDS)
    none, lowest, gain, offset = (_everywhere(builder, builder.trunc(number, I32), whole) for number in numbers)
    limit, magic = (ir.Constant(real, [float(number)] * WORDS) for number in (NO_CODE, ROUND))
    zero, one, bits = (ir.Constant(whole, [number] * WORDS) for number in (0, 1, 0x7FFFFFFF))
    scale, words = load(builder, scales, real), []
    total, known = (load(builder, totals, whole, 4 * WORDS * i) for i in range(2))
    for weights in (first, second):  # as `column_of`
        ratio = builder.fdiv(load(builder, weights, real), scale)
        size = builder.bitcast(builder.and_(builder.bitcast(ratio, whole), bits), real)
        ratio = builder.select(builder.fcmp_ordered("<", size, limit), ratio, limit)
        code = builder.fptosi(builder.fsub(builder.fadd(ratio, magic), magic), whole)
        column = builder.sub(code, lowest)
        valid = builder.icmp_unsigned("<", column, none)
        words.append(builder.select(valid, builder.add(builder.mul(column, gain), offset), zero))
        total = builder.add(total, builder.select(valid, column, zero))
        known = builder.add(known, builder.select(valid, one, zero))
    low = builder.and_(words[0], ir.Constant(whole, [0xFFFF] * WORDS))
    store(builder, builder.or_(low, builder.shl(words[1], ir.Constant(whole, [16] * WORDS))), row)
    for i, sums in enumerate((total, known)):
        store(builder, sums, totals, 4 * WORDS * i)


def _everywhere(builder: ir.IRBuilder, value, kind):
    """A vector of one value."""
    alone = builder.insert_element(ir.Constant(kind, ir.Undefined), value, I32(0))
    return shuffled(builder, alone, alone, [0] * kind.count)


@intrinsic
def _panel_row(typing, first, second, scales, row, totals, none, lowest, gain, offset):
    def generate(context, builder, signature, arguments):
        emit_panel_row(builder, arguments)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 9), generate


@intrinsic
def _pairs_rescaled(typing, factors, offsets, runs, count, pairs, panel, outputs, row_bytes, base, scales, biases):
    def generate(context, builder, signature, arguments):
        emit_add_pairs(builder, arguments, pixels=PIXELS, rescaled=True)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 11), generate


@intrinsic
def _add_pairs(typing, factors, offsets, runs, count, pairs, panel, sums):
    signature = types.void(*[types.int64] * 7)

    def generate(context, builder, signature, arguments):
        emit_add_pairs(builder, arguments, pixels=PIXELS)
        return context.get_dummy_value()

    return signature, generate


@compiled
def pair_products(factors, steps, pixel_bytes, runs, panels, base, output, pixels, groups):
    """The products of some pixels with some groups of 16 channels.

    Args:
        factors: int16, the activations' factors, images (pixels, r, C), each with its tail.
        steps, pixel_bytes: as for `pixel_offsets`.
        runs: int64 (runs,), the byte offset of each run's first factor from it.
        panels: uint32 (groups, runs, pairs, 16), the weights' factors, as `weight_panels` makes them.
        base: int32 (channels,), added to each channel's sums.
        output: as for `write_channels`.
        pixels: (first, last) of this part.
        groups: (first, last) of this part.
    """
    sums, offsets = np.empty((PIXELS, WORDS), np.int32), np.empty(TILE, np.int64)
    source, pairs, channels = factors.ctypes.data, panels.shape[2], base.size
    scales, biases, whole, real = output
    for tile in range(pixels[0], pixels[1], TILE):
        end = min(tile + TILE, pixels[1])
        pixel_offsets(steps, pixel_bytes, tile, offsets[: end - tile])
        offsets[end - tile :] = offsets[0]  # what fills the last six up is not written
        for group in range(groups[0], groups[1]):
            panel, first = panels[group].ctypes.data, group * WORDS
            at, direct = 4 * first, whole.size == 0 and first + WORDS <= channels
            for pixel in range(tile, end, PIXELS):
                where = offsets[pixel - tile :].ctypes.data
                if direct and pixel + PIXELS <= end:
                    _pairs_rescaled(
                        source, where, runs.ctypes.data, runs.size, pairs, panel,
                        real.ctypes.data + 4 * channels * pixel + at, 4 * channels,
                        base.ctypes.data + at, scales.ctypes.data + at, biases.ctypes.data + at,
                    )  # fmt: skip
                    continue
                _add_pairs(source, where, runs.ctypes.data, runs.size, pairs, panel, sums.ctypes.data)
                write_channels(sums[: min(PIXELS, end - pixel)], base, output, pixel, group * WORDS)


@compiled
def quantised_pairs(image, activation, factors, steps, pixel_bytes, runs, panels, base, output, images):
    """Quantises some images, and multiplies them with all channels.

    Args:
        image, activation, factors: as for `quantise_factors`.
        steps, pixel_bytes, runs, panels, base, output: as for `pair_products`.
        images: (first, last) of this part.

    Returns:
        whether every value is finite.
    """
    finite = quantise_factors(image, activation, factors, images)
    pixels = steps[0][0] * steps[0][1]
    some = (images[0] * pixels, images[1] * pixels)
    pair_products(factors.reshape(-1), steps, pixel_bytes, runs, panels, base, output, some, (0, panels.shape[0]))
    return finite


@compiled
def weight_panels(weights, scales, lowest, factors, line, added, taps, panels, base, groups):
    """The weights' factors in the order in which `pair_products` meets them, and what each channel's sums begin with.

    Args:
        weights: float32 (terms, channels), terms = all taps of the window times the inputs.
        scales: float32 (channels,), of one code; 1 where the weights are codes.
        lowest: the weight code of column 0.
        factors: int16 (r, weight codes + 1), the last column zero.
        line: (gain, offset) of the only factor where it is ``gain * column + offset``; a gain of 0 where it is not.
        added: int64 (weight codes + 1,), what a weight adds to its channel besides its products; the last is 0.
        taps: of one run.
        panels: uint32 (groups, runs, pairs, 16), written: two neighbouring terms' int16 factors in one word.
        base: int32 (channels,), written; wraps as the accumulators do.
        groups: (first, last) of this part.
    """
    terms, channels = weights.shape
    rank, runs = factors.shape[0], panels.shape[1]
    inputs, none = terms // (runs * taps), np.uint32(added.size - 1)
    totals, columns = np.zeros(_TOGETHER * WORDS, np.int64), np.zeros(_TOGETHER * WORDS, np.uint32)
    gain, offset = np.int32(line[0]), np.int32(line[1])
    adds, in_order = np.any(added != 0), rank == 1 or inputs % 2 == 0  # whether a word's first term comes first
    if gain and taps * inputs % 2 == 0 and _is_line(added[:-1]):
        whole = min(groups[1], channels // WORDS)
        _line_panels(weights, scales, lowest, line, added, panels, base, (groups[0], whole))
        groups = (max(groups[0], whole), groups[1])
    for start in range(groups[0], groups[1], _TOGETHER):
        end = min(start + _TOGETHER, groups[1])
        first, last = start * WORDS, min(end * WORDS, channels)
        if channels < end * WORDS or not in_order:  # what is not written below
            panels[start:end] = 0
        totals[:] = 0
        for term in range(terms):
            run, tap, place = term // (taps * inputs), term // inputs % taps, term % inputs
            # One step after the other over all channels, so that the compiler can use vectors.
            source, scale, found = weights[term, first:last], scales[first:last], columns[: last - first]
            for n in range(found.size):
                found[n] = column_of(source[n], scale[n], lowest, none)
            if adds:
                for n in range(found.size):
                    totals[n] += added[found[n]]
            for r in range(rank):
                at, factor = (tap * rank + r) * inputs + place, factors[r]
                for group in range(start, end):
                    some = found[(group - start) * WORDS : (group - start + 1) * WORDS]
                    target = panels[group, run, at // 2][: some.size]
                    if at % 2 == 0 and in_order:
                        if gain:
                            for n in range(target.size):
                                value = np.uint16(np.int32(some[n]) * gain + offset)
                                target[n] = np.uint32(value) if some[n] < none else np.uint32(0)
                        else:
                            for n in range(target.size):
                                target[n] = np.uint32(np.uint16(factor[some[n]]))
                    elif gain:
                        for n in range(target.size):
                            value = np.uint32(np.int32(some[n]) * gain + offset) << np.uint32(16)
                            target[n] |= value if some[n] < none else np.uint32(0)
                    else:
                        up = np.uint32(16 * (at % 2))
                        for n in range(target.size):
                            target[n] |= np.uint32(np.uint16(factor[some[n]])) << up
        for n in range(first, last):
            base[n] = np.int32(totals[n - first])


@njit
def _is_line(values):
    """Whether values rise by equal steps."""
    for i in range(2, values.size):
        if values[i] - values[i - 1] != values[1] - values[0]:
            return False
    return values.size > 1


@compiled
def _line_panels(weights, scales, lowest, line, added, panels, base, groups):
    """As `weight_panels`, whole groups of 16 channels by vectors: of one factor that is a line, as `added` is."""
    terms, channels = weights.shape
    runs, pairs, none, slope = panels.shape[1], panels.shape[2], added.size - 1, added[1] - added[0]
    source, factors, target = weights.ctypes.data, scales.ctypes.data, panels.ctypes.data
    totals = np.zeros((_TOGETHER, 2, WORDS), np.int32)
    for start in range(groups[0], groups[1], _TOGETHER):
        end = min(start + _TOGETHER, groups[1])
        totals[:] = 0
        for run in range(runs):
            for pair in range(pairs):
                row = source + 4 * channels * (run * (terms // runs) + 2 * pair)
                for group in range(start, end):
                    at, place = 4 * WORDS * group, 4 * WORDS * ((group * runs + run) * pairs + pair)
                    sums = totals[group - start].ctypes.data
                    _panel_row(
                        row + at, row + 4 * channels + at, factors + at, target + place, sums,
                        none, lowest, np.int64(line[0]), np.int64(line[1]),
                    )  # fmt: skip
        for group in range(start, end):
            for n in range(WORDS):
                total = slope * np.int64(totals[group - start, 0, n]) + added[0] * np.int64(totals[group - start, 1, n])
                base[group * WORDS + n] = np.int32(total)
