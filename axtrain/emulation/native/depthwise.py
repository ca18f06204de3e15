"""Depthwise products: each channel meets its own weights alone, so nothing is shared between channels.

Factors are multiplied 16 channels at a time, two taps in one instruction. Any other table is looked up: where the
window moves by single pixels, a row of taps is one entry of four (or eight) lanes for each code, and each code is
looked up once for all outputs that it enters; otherwise each product is one look-up.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from axtrain.emulation.native.compiling import compiled
from axtrain.emulation.native.images import pixel_offsets, quantise_factors
from axtrain.emulation.native.outputs import column_of, write_channels
from axtrain.emulation.native.vectors import (
    I16,
    I32,
    I64,
    WORDS,
    emit_transpose,
    interleaved,
    load,
    pair_sums,
    shuffled,
    store,
    vector,
)

ENTRY = 16  # bytes of four lanes: an image's words are a row's number times this many
LANES = (4, 8)  # of one entry: windows are 3 or 5 wide
# Which channel each lane holds when two vectors of 16 words have been interleaved and added in pairs.
_ORDER = np.array([0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 12, 13, 14, 15])
_BLOCK = 16  # channels whose sums are written together


def emit_add_channels(builder: ir.IRBuilder, arguments) -> None:
    """``sums[0:16] = sum_t factors[places[t] + 0:16] weights[t, 0:16]``, each channel with its own weights.

    Args:
        arguments: int64 (factors, places, pairs, weights, sums): the address of an output's first factor, of int64
            byte offsets of its terms, pairs of terms, addresses of int16 weights (pairs, 2, 8, 2) in the order of
            `channel_order`, and of int32 sums (16,), written.
    """
    factors, places, pairs, weights, sums = arguments
    words, half = vector(I16, WORDS), vector(I32, WORDS // 2)
    zero = ir.Constant(half, [0] * half.count)
    before = builder.block
    loop, done = builder.append_basic_block("pair"), builder.append_basic_block("done")
    builder.branch(loop)

    builder.position_at_end(loop)
    pair = builder.phi(I64)
    totals = [builder.phi(half) for _ in range(2)]
    for value, initial in ((pair, I64(0)), *((total, zero) for total in totals)):
        value.add_incoming(initial, before)
    where, column = (builder.add(first, builder.shl(pair, I64(bits))) for first, bits in ((places, 4), (weights, 6)))
    both = [load(builder, builder.add(factors, load(builder, where, I64, 8 * i, align=8)), words) for i in range(2)]
    added = [
        builder.add(total, pair_sums(builder, mixed, load(builder, column, words, 32 * i)))
        for i, (total, mixed) in enumerate(zip(totals, interleaved(builder, both[0], both[1], 16), strict=True))
    ]
    following = builder.add(pair, I64(1))
    for value, next_ in ((pair, following), *zip(totals, added, strict=True)):
        value.add_incoming(next_, loop)
    builder.cbranch(builder.icmp_signed("<", following, pairs), loop, done)

    builder.position_at_end(done)
    store(builder, shuffled(builder, added[0], added[1], np.argsort(_ORDER).tolist()), sums)


def emit_add_taps(builder: ir.IRBuilder, arguments, *, rows: int, columns: int) -> None:
    """``sums[x] = sum_ij entry_i[codes_i[x + j]][j]`` for `count` neighbouring outputs.

    Lane l of the accumulator is the part of the output that ends l columns later, so each step shifts by one lane.

    Args:
        arguments: int64 (codes, row bytes, pixel bytes, entries, count, sums): the address of the first output's
            first code, bytes from one row of the image to the next and from one pixel to the next, addresses
            of int32 entries (rows, codes, lanes), outputs, the address of int32 sums; and bytes of one row's entries.
        rows, columns: of the window.
    """
    codes, row_bytes, pixel_bytes, entries, entry_bytes, count, sums = arguments
    lanes = next(n for n in LANES if n >= columns)
    entry = vector(I32, lanes)
    zero = ir.Constant(entry, [0] * lanes)

    def column(place):
        total, line, table = None, place, entries
        for _ in range(rows):
            offset = builder.mul(builder.zext(load(builder, line, I16), I64), I64(lanes * 4 // ENTRY))
            found = load(builder, builder.add(table, offset), entry, align=4)
            total = found if total is None else builder.add(total, found)
            line, table = builder.add(line, row_bytes), builder.add(table, entry_bytes)
        return total

    def shifted(total):
        return shuffled(builder, total, zero, [lanes, *range(lanes - 1)])

    # Two halves side by side: the additions of one wait for each other. Of an odd number the middle one is in both.
    half = builder.sub(count, builder.ashr(count, I64(1)))
    second = builder.sub(count, half)
    halves = []
    for first in (I64(0), second):
        start, place = zero, builder.add(codes, builder.mul(first, pixel_bytes))
        for _ in range(columns - 1):
            start = shifted(builder.add(start, column(place)))
            place = builder.add(place, pixel_bytes)
        halves.append((start, place, builder.add(sums, builder.shl(first, I64(2)))))
    before = builder.block
    loop, done = builder.append_basic_block("pixel"), builder.append_basic_block("done")
    builder.branch(loop)

    builder.position_at_end(loop)
    x, *carried = [builder.phi(kind) for kind in (I64, *2 * (entry, I64))]
    x.add_incoming(I64(0), before)
    following = builder.add(x, I64(1))
    for (start, place, target), total, at in zip(halves, carried[::2], carried[1::2], strict=True):
        whole = builder.add(total, column(at))
        store(builder, builder.extract_element(whole, I32(columns - 1)), builder.add(target, builder.shl(x, I64(2))))
        for value, initial, next_ in (
            (total, start, shifted(whole)),
            (at, place, builder.add(at, pixel_bytes)),
        ):
            value.add_incoming(initial, before)
            value.add_incoming(next_, loop)
    x.add_incoming(following, loop)
    builder.cbranch(builder.icmp_signed("<", following, half), loop, done)
    builder.position_at_end(done)


@intrinsic
def _add_channels(typing, factors, places, pairs, weights, sums):
    def generate(context, builder, signature, arguments):
        emit_add_channels(builder, arguments)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), generate


@intrinsic
def _add_taps(typing, codes, row_bytes, pixel_bytes, entries, entry_bytes, count, sums, rows, columns):
    signature = types.void(*[types.int64] * 7, rows, columns)

    def generate(context, builder, signature, arguments):
        emit_add_taps(builder, arguments[:7], rows=rows.literal_value, columns=columns.literal_value)
        return context.get_dummy_value()

    literal = all(isinstance(value, types.Literal) for value in (rows, columns))
    return (signature, generate) if literal else None


@intrinsic
def _transpose(typing, source, source_bytes, target, target_bytes, bits):
    def generate(context, builder, signature, arguments):
        emit_transpose(builder, arguments[:4], element=ir.IntType(bits.literal_value))
        return context.get_dummy_value()

    if not isinstance(bits, types.Literal):
        return None
    return types.void(*[types.int64] * 4, bits), generate


@compiled
def multiplied(factors, steps, pixel_bytes, places, panels, base, output, pixels):
    """Products of some pixels by factors, all channels.

    Args:
        factors: int16, images (pixels, r, C), each with its tail.
        steps, pixel_bytes: as for `pixel_offsets`.
        places: int64 (terms made even,), the byte offset of each term from a pixel's first factor.
        panels: int16 (groups of 16 channels, pairs of terms, 2, 8, 2).
        base: int32 (channels,), added to each channel's sums.
        output: as for `write_channels`.
        pixels: (first, last) of this part.
    """
    sums = np.empty((1, panels.shape[0] * WORDS), np.int32)
    source, pairs = factors.ctypes.data, panels.shape[1]
    offsets = np.empty(pixels[1] - pixels[0], np.int64)
    pixel_offsets(steps, pixel_bytes, pixels[0], offsets)
    for pixel in range(pixels[0], pixels[1]):
        first = source + offsets[pixel - pixels[0]]
        for group in range(panels.shape[0]):
            at, column = sums[0, WORDS * group :].ctypes.data, panels[group].ctypes.data
            _add_channels(first + 2 * WORDS * group, places.ctypes.data, pairs, column, at)
        write_channels(sums, base, output, pixel, 0)


@compiled
def quantised_channels(image, activation, factors, steps, pixel_bytes, places, panels, base, output, images):
    """Quantises some images, and multiplies them; as `pair_products.quantised_pairs`, for `multiplied`."""
    finite = quantise_factors(image, activation, factors, images)
    pixels = steps[0][0] * steps[0][1]
    some = (images[0] * pixels, images[1] * pixels)
    multiplied(factors.reshape(-1), steps, pixel_bytes, places, panels, base, output, some)
    return finite


@compiled
def channel_panels(weights, scales, lowest, factors, added, panels, base):
    """The weights' factors as `multiplied` takes them, and what each channel's sums begin with.

    Args:
        weights: float32 (taps, channels).
        scales: float32 (channels,), of one code; 1 where the weights are codes.
        lowest: the weight code of column 0.
        factors: int16 (r, weight codes + 1), the last column zero.
        added: int64 (weight codes + 1,), what a weight adds to its channel besides its products; the last is 0.
        panels: int16 (groups, pairs, 2, 8, 2), zeros, written; term = tap * r + factor.
        base: int32 (channels,), written.
    """
    taps, channels = weights.shape
    for n in range(channels):
        total = np.int64(0)
        lane = _ORDER[n % 16]  # the order is its own inverse
        for tap in range(taps):
            column = column_of(weights[tap, n], scales[n], lowest, added.size - 1)
            total += added[column]
            for r in range(factors.shape[0]):
                term = tap * factors.shape[0] + r
                panels[n // 16, term // 2, lane // 8, lane % 8, term % 2] = factors[r, column]
        base[n] = np.int32(total)


@compiled
def looked_up(
    storage, padded, strides, dilation, columns, weights, scales, window, lowest, added, base, output, sizes, images,
    channels,
):  # fmt: skip
    """Products by look-up of some images with some channels.

    Args:
        storage: uint16 (B, words of an image and its tail), a row's number times `ENTRY`.
        padded: (padded H, padded W, C).
        strides, dilation: (rows, columns).
        columns: int32 (weight codes + 1, activation codes), the last column zero.
        weights: float32 (taps, all output channels); `output channels / C` of them meet one channel of the image.
        scales: float32 (all output channels,), of one code; 1 where the weights are codes.
        window: (rows, columns).
        lowest: the weight code of column 0.
        added: int64 (weight codes + 1,), what a weight adds to its channel besides its products; the last is 0.
        base: int32 (all output channels,), written and added to each channel's sums.
        output: as for `write_channels`.
        sizes: (output height, output width).
        images: (first, last) of this part.
        channels: (first, last) output channel of this part.
    """
    height, width = sizes
    taps, multiplier, rows = window[0] * window[1], weights.shape[1] // padded[2], columns.shape[1]
    # Filling the entries of one channel costs about as much as so many single look-ups.
    shared = max(strides) == 1 and max(dilation) == 1 and (window == (3, 3) or window == (5, 5))
    shared = shared and (images[1] - images[0]) * height * width * taps > 2 * rows * window[0]
    entries = np.zeros((_BLOCK if shared else 0, window[0], rows, 4 if window[1] <= 4 else 8), np.int32)
    # Windows are summed along whole planes: those that reach over the end of a row count for nothing.
    pitch = padded[1] if shared else width
    sums = np.empty((_BLOCK, height * pitch), np.int32)
    block = np.empty((height * width, _BLOCK), np.int32)
    chosen = np.empty((_BLOCK, taps), np.uint32)
    planes = np.empty((_BLOCK, padded[0], padded[1]), np.uint16)
    for first in range(channels[0], channels[1], _BLOCK):
        last = min(first + _BLOCK, channels[1])
        for n in range(first, last):
            total = np.int64(0)
            for tap in range(taps):
                column = column_of(weights[tap, n], scales[n], lowest, added.size - 1)
                chosen[n - first, tap] = column
                total += added[column]
                if shared:
                    entry = entries[n - first, tap // window[1]]
                    products, lane = columns[column], tap % window[1]
                    for code in range(rows):
                        entry[code, lane] = products[code]
            base[n] = np.int32(total)
        for b in range(images[0], images[1]):
            image = storage[b, : padded[0] * padded[1] * padded[2]].reshape(padded)
            start, end = first // multiplier, (last - 1) // multiplier + 1
            _separate(image, start, planes[: end - start])
            for n in range(first, last):
                plane, line = planes[n // multiplier - start], sums[n - first]
                if shared:
                    _add_windows(plane, entries[n - first], window[0], line[: (height - 1) * pitch + width])
                else:
                    _add_single(plane, strides, dilation, columns, chosen[n - first], window, sizes, line)
            _join(sums[: last - first], pitch, block, sizes)
            write_channels(block[:, : last - first], base, output, b * height * width, first)


@compiled
def _separate(image, first, planes):
    """Some channels of an image (H, W, C) as planes (channels, H, W): each one's pixels side by side."""
    count, height, width = planes.shape
    if count == _BLOCK and width >= 8:
        pixel_bytes, plane_bytes = 2 * image.shape[2], 2 * height * width
        source, target = image.ctypes.data + 2 * first, planes.ctypes.data
        for y in range(height):
            for column in range(0, width, 8):
                x = min(column, width - 8)  # the last eight overlap those before
                at, to = source + (y * width + x) * pixel_bytes, target + 2 * (y * width + x)
                _transpose(at, pixel_bytes, to, plane_bytes, 16)
                _transpose(at + 16, pixel_bytes, to + 8 * plane_bytes, plane_bytes, 16)
    else:
        for y in range(height):
            for x in range(width):
                pixel = image[y, x, first : first + count]
                for c in range(count):
                    planes[c, y, x] = pixel[c]


@compiled
def _join(sums, pitch, block, sizes):
    """Sums (channels, rows of `pitch`) as (pixels, channels)."""
    channels, (height, width) = sums.shape[0], sizes
    if channels == _BLOCK and width >= 4:
        source, target, line_bytes = sums.ctypes.data, block.ctypes.data, 4 * sums.shape[1]
        for y in range(height):
            for column in range(0, width, 4):
                x = min(column, width - 4)  # the last four overlap those before
                for n in range(0, _BLOCK, 4):
                    at = source + n * line_bytes + 4 * (y * pitch + x)
                    _transpose(at, line_bytes, target + 4 * ((y * width + x) * _BLOCK + n), 4 * _BLOCK, 32)
    else:
        for n in range(channels):
            for y in range(height):
                line = sums[n, y * pitch : y * pitch + width]
                for x in range(width):
                    block[y * width + x, n] = line[x]


@compiled
def _add_windows(plane, entries, size, sums):
    """One channel's sums of windows of size x size, one after the other; each code is looked up once for each row."""
    row_bytes, entry_bytes = 2 * plane.shape[1], entries[0].size * 4
    first, table, target, count = plane.ctypes.data, entries.ctypes.data, sums.ctypes.data, sums.size
    if size == 3:
        _add_taps(first, row_bytes, 2, table, entry_bytes, count, target, 3, 3)
    else:
        _add_taps(first, row_bytes, 2, table, entry_bytes, count, target, 5, 5)


@compiled
def _add_single(plane, strides, dilation, columns, chosen, window, sizes, sums):
    """One channel's sums, one look-up for each product."""
    sums[:] = 0
    for i in range(window[0]):
        for j in range(window[1]):
            column = columns[chosen[i * window[1] + j]]
            for y in range(sizes[0]):
                line = sums[y * sizes[1] : (y + 1) * sizes[1]]
                row = plane[y * strides[0] + i * dilation[0], j * dilation[1] :: strides[1]]
                for x in range(line.size):
                    line[x] += column[row[x] // ENTRY]
