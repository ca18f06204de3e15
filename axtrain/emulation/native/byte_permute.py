"""Products in AVX-512 registers: table look-ups by byte permutes, and products of bytes.

One `vpermi2b` looks up 64 bytes in a table of 128 held in two registers. A product of 16 bits and up to 256
activation codes takes four of them (two where every code is below 128), so 64 products cost about
11 (6) cycles where a look-up in memory costs 64. Pairs of bytes become 16-bit words by interleaving, pairs
of words are added into 32 bits by `vpdpwssd` with ones.
"""

from __future__ import annotations

from numba import types
from numba.extending import intrinsic

from axtrain.emulation.native.vector_loops import BYTES, LookUpLoop, ProductLoop, Transposed

VECTORS = 4  # at most so many vectors of 64 activations share one loading of a weight's table
LANES = 64 * VECTORS
COLUMN_BYTES = 512  # one weight's table: 256 low bytes, then 256 high bytes


def order() -> list[int]:
    """Where lane j of a block lies among the sums that the loop stores: sums[order()[j]]."""
    # Interleaving works within each 128-bit quarter of a register.
    stored = [
        64 * vector + 16 * quarter + 8 * half + 4 * part + item
        for vector in range(VECTORS)
        for half in range(2)
        for part in range(2)
        for quarter in range(4)
        for item in range(4)
    ]
    return sorted(range(LANES), key=stored.__getitem__)


@intrinsic
def add_looked_up(typingctx, indices, stride, table, offsets, pairs, sums, small, vectors):
    """Stores ``sums[j] = sum_k table[offsets[k]][indices[k, j]]`` for 64 `vectors` lanes j, in the order of `order`.

    Args (addresses and counts, as unsigned and signed 64-bit integers):
        indices: uint8, row k at `indices + k * stride`.
        stride: bytes from row to row.
        table: uint8, 64-byte aligned columns of COLUMNBYTES: signed 16-bit words as low and high bytes.
        offsets: int32, the byte offset of each k's column.
        pairs: half the number of rows, which must be even.
        sums: int32, one per lane.
        small: a literal bool, compiled in: every index is below 128.
        vectors: a literal int, compiled in.
    """
    if not isinstance(small, types.BooleanLiteral) or not isinstance(vectors, types.IntegerLiteral):
        return None
    signature = types.void(types.uintp, types.int64, types.uintp, types.uintp, types.int64, types.uintp, small, vectors)

    def generate(context, builder, signature, arguments):
        LookUpLoop(builder, small.literal_value, vectors.literal_value).build(*arguments[:6])
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def add_products(typingctx, rows, stride, weights, weight_stride, quads, sums, sums_stride):
    """Stores ``sums[n, j] = sum_k rows[k, j] weights[n, k]`` for CHANNELS channels n and 64 lanes j.

    Args (addresses and counts, as unsigned and signed 64-bit integers):
        rows: uint8, row k at `rows + k * stride`, 64 bytes each.
        stride: bytes from row to row.
        weights: int8, channel n at `weights + n * weight_stride`.
        weight_stride: bytes from channel to channel.
        quads: a quarter of the number of rows, which must be a multiple of four.
        sums: int32, channel n at `sums + n * sums_stride`, in the order of `order`.
        sums_stride: bytes from channel to channel.
    """
    signature = types.void(types.uintp, types.int64, types.uintp, types.int64, types.int64, types.uintp, types.int64)

    def generate(context, builder, signature, arguments):
        ProductLoop(builder).build(*arguments)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def copy_64_bytes(typingctx, target, source):
    """Copies 64 bytes from address to address; both may be unaligned."""
    signature = types.void(types.uintp, types.uintp)

    def generate(context, builder, signature, arguments):
        target, source = (builder.inttoptr(address, BYTES.as_pointer()) for address in arguments)
        builder.store(builder.load(source, align=1), target, align=1)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def write_transposed(typingctx, sums, sums_stride, gain, base, scales, biases, target, target_stride, half, part, real):
    """Writes 16 stored sums of 16 channels to 16 rows: ``sum * gain + base`` or that ``* scale + bias``.

    Args (addresses and counts, as unsigned and signed 64-bit integers):
        sums: int32, channel n at `sums + n * sums_stride`: 16 sums as `order` has them.
        gain: int32.
        base: int32, 16 channels.
        scales, biases: float32, 16 channels.
        target: the row of lane 0 of the 64, float32 or int32.
        target_stride: bytes from lane to lane.
        half, part: literal ints, compiled in: which of the four groups of 16 within 64.
        real: a literal bool, compiled in.
    """
    if not all(isinstance(literal, types.Literal) for literal in (half, part, real)):
        return None
    address, count = types.uintp, types.int64
    signature = types.void(address, count, types.int32, address, address, address, address, count, half, part, real)
    lanes = [
        16 * quarter + 8 * half.literal_value + 4 * part.literal_value + i for quarter in range(4) for i in range(4)
    ]

    def generate(context, builder, signature, arguments):
        Transposed(builder).build(*arguments[:8], lanes, real.literal_value)
        return context.get_dummy_value()

    return signature, generate
