"""The inner loops of row groups, in vector LLVM IR without an instruction of any one processor."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from axtrain.emulation.native.compiling import compiled
from axtrain.emulation.native.vectors import (
    I16,
    I32,
    I64,
    WORDS,
    adds_pairs,
    interleaved,
    joined,
    load,
    pair_sums,
    shuffled,
    store,
    vector,
)

STEP = 32  # a streamed code is its row's number times this many bytes


def emit_add_rows(builder: ir.IRBuilder, arguments, *, length: int, channels: int, wide: bool, pairs: bool) -> None:
    """``sums[p, :] += sum_k row[k, codes[offsets[p] + k], :]`` over `segments` of ``2 length`` terms.

    Args:
        arguments: int64 (codes, offsets, pixels, rows, term bytes, segments, sums): addresses of uint16 codes, of int64
            byte offsets into them, of the rows and of int32 sums (pixels, channels).
        length: terms whose sum fits 16 bits.
        channels: 16 or 32.
        wide: whether the rows hold 32-bit words.
        pairs: whether 16-bit sums are widened in pairs.
    """
    codes, offsets, pixels, rows, term_bytes, segments, sums = arguments
    row, total_kind = vector(I32 if wide else I16, channels), vector(I32, channels)
    row_bytes = channels * (4 if wide else 2)
    before = builder.block
    outer, inner, end, done = (builder.append_basic_block(name) for name in ("pixel", "segment", "write", "done"))
    builder.cbranch(builder.icmp_signed(">", pixels, I64(0)), outer, done)

    builder.position_at_end(outer)
    pixel = builder.phi(I64)
    pixel.add_incoming(I64(0), before)
    first = builder.add(codes, load(builder, offsets, I64, builder.shl(pixel, I64(3)), align=8))
    target = builder.add(sums, builder.mul(pixel, I64(4 * channels)))
    start = load(builder, target, total_kind, align=4)
    builder.branch(inner)

    builder.position_at_end(inner)
    segment, total, table, code = (builder.phi(kind) for kind in (I64, total_kind, I64, I64))
    for value, initial in ((segment, I64(0)), (total, start), (table, rows), (code, first)):
        value.add_incoming(initial, outer)
    term, parts = table, []
    for part in range(2):
        narrow = None
        for k in range(length):
            read = load(builder, code, I16, 2 * (part * length + k))
            place = builder.mul(builder.zext(read, I64), I64(row_bytes // STEP))
            found = load(builder, builder.add(term, place), row, align=16)
            narrow = found if narrow is None else builder.add(narrow, found)
            term = builder.add(term, term_bytes)
        parts.append(narrow)
    if wide:
        added = builder.add(builder.add(total, parts[0]), parts[1])
    elif not pairs:
        added = total
        for narrow in parts:
            added = builder.add(added, builder.sext(narrow, total_kind))
    else:
        added = builder.add(total, _widened(builder, *parts))
    following = builder.add(segment, I64(1))
    advanced = builder.add(code, I64(4 * length))
    for value, next_ in ((segment, following), (total, added), (table, term), (code, advanced)):
        value.add_incoming(next_, inner)
    builder.cbranch(builder.icmp_signed("<", following, segments), inner, end)

    builder.position_at_end(end)
    store(builder, added, target)
    next_pixel = builder.add(pixel, I64(1))
    pixel.add_incoming(next_pixel, end)
    builder.cbranch(builder.icmp_signed("<", next_pixel, pixels), outer, done)
    builder.position_at_end(done)


def _widened(builder: ir.IRBuilder, first, second):
    """Both vectors of words added in 32 bits, the lanes of each 16 in the order of `lane_order`."""
    pieces = []
    for start in range(0, first.type.count, WORDS):
        x, y = (shuffled(builder, words, words, list(range(start, start + WORDS))) for words in (first, second))
        pieces += [pair_sums(builder, half) for half in interleaved(builder, x, y, 16)]
    return joined(builder, pieces)


def lane_order(wide: bool) -> np.ndarray:
    """Which channel of 16 each lane of a row holds, so that the sums come out in order.

    Widening in pairs puts lanes 0 to 3 and 8 to 11 first.
    """
    if wide or not adds_pairs():
        return np.arange(WORDS)
    return np.array([0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 12, 13, 14, 15])


def emit_build_rows(builder: ir.IRBuilder, arguments) -> None:
    """Eight rows of 16 words: the transpose of 16 columns' words of eight codes.

    Args:
        arguments: int64 (columns, chosen, code, target, row bytes): addresses of the first column and of 16 uint32 byte
            offsets of columns, the first code, the address of the first row, and bytes from one row to the next.
    """
    columns, chosen, code, target, row_bytes = arguments
    first, halves = builder.add(columns, builder.shl(code, I64(1))), []
    for n in range(WORDS):
        place = builder.zext(load(builder, chosen, I32, 4 * n, align=4), I64)
        halves.append(load(builder, builder.add(first, place), vector(I16, 8)))
    # Block 0 of each vector holds a column n < 8, block 1 column n + 8: no element ever crosses from one to the other.
    vectors = [joined(builder, [halves[n], halves[n + 8]]) for n in range(8)]
    for _ in range(3):
        vectors = [half for i in range(4) for half in interleaved(builder, vectors[i], vectors[i + 4], 16)]
    for words in vectors:
        store(builder, words, target, align=16)
        target = builder.add(target, row_bytes)


@intrinsic
def _add_rows(typing, codes, offsets, pixels, rows, term_bytes, segments, sums, length, channels, wide):
    signature = types.void(*[types.int64] * 7, length, channels, wide)

    def generate(context, builder, signature, arguments):
        emit_add_rows(
            builder,
            arguments[:7],
            length=length.literal_value,
            channels=channels.literal_value,
            wide=bool(wide.literal_value),
            pairs=adds_pairs(),
        )
        return context.get_dummy_value()

    literal = all(isinstance(value, types.Literal) for value in (length, channels, wide))
    return (signature, generate) if literal else None


@intrinsic
def build_rows(typing, columns, chosen, code, target, row_bytes):
    """`emit_build_rows` as a function of compiled code."""

    def generate(context, builder, signature, arguments):
        emit_build_rows(builder, arguments)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), generate


@compiled
def add_all(codes, offsets, pixels, rows, term_bytes, segments, sums, length, channels, wide):
    """`_add_rows`, made for each of its kinds."""
    if wide:
        if channels == 32:
            _add_rows(codes, offsets, pixels, rows, term_bytes, segments, sums, 1, 32, True)
        else:
            _add_rows(codes, offsets, pixels, rows, term_bytes, segments, sums, 1, 16, True)
    elif channels == 32:
        if length == 4:
            _add_rows(codes, offsets, pixels, rows, term_bytes, segments, sums, 4, 32, False)
        elif length == 2:
            _add_rows(codes, offsets, pixels, rows, term_bytes, segments, sums, 2, 32, False)
        else:
            _add_rows(codes, offsets, pixels, rows, term_bytes, segments, sums, 1, 32, False)
    elif length == 4:
        _add_rows(codes, offsets, pixels, rows, term_bytes, segments, sums, 4, 16, False)
    elif length == 2:
        _add_rows(codes, offsets, pixels, rows, term_bytes, segments, sums, 2, 16, False)
    else:
        _add_rows(codes, offsets, pixels, rows, term_bytes, segments, sums, 1, 16, False)
