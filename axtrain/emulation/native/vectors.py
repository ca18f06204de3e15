"""Vectors of integers in LLVM's own language, for any processor.

What is written here names no instruction: LLVM picks those that the processor has. Lanes are interleaved within
blocks of 128 bits, as `vpunpcklwd` does it, because crossing them costs an instruction more on x86-64.
"""

from __future__ import annotations

import llvmlite.binding
from llvmlite import ir

I16, I32, I64 = (ir.IntType(bits) for bits in (16, 32, 64))
WORDS = 16  # 16-bit lanes that are worked on together: a vector of AVX2, two of SSE2 and of NEON


def vector(element: ir.Type, lanes: int) -> ir.VectorType:
    """A vector type."""
    return ir.VectorType(element, lanes)


def at(builder: ir.IRBuilder, address, kind: ir.Type, offset=0):
    """A pointer to `kind` at ``address + offset``, bytes."""
    if not isinstance(offset, int) or offset:
        address = builder.add(address, I64(offset) if isinstance(offset, int) else offset)
    return builder.inttoptr(address, kind.as_pointer())


def load(builder: ir.IRBuilder, address, kind: ir.Type, offset=0, align: int = 2):
    """What lies at ``address + offset``; no alignment but `align` is assumed."""
    return builder.load(at(builder, address, kind, offset), align=align)


def store(builder: ir.IRBuilder, value, address, offset=0, align: int = 4) -> None:
    """Writes `value` to ``address + offset``."""
    builder.store(value, at(builder, address, value.type, offset), align=align)


def shuffled(builder: ir.IRBuilder, first, second, lanes: list[int]):
    """The lanes of both vectors, numbered through, in that order."""
    return builder.shuffle_vector(first, second, ir.Constant(vector(I32, len(lanes)), lanes))


def joined(builder: ir.IRBuilder, parts: list):
    """Vectors end to end."""
    while len(parts) > 1:
        lanes = list(range(2 * parts[0].type.count))
        parts = [shuffled(builder, parts[i], parts[i + 1], lanes) for i in range(0, len(parts), 2)]
    return parts[0]


def interleaved(builder: ir.IRBuilder, first, second, element_bits: int) -> list:
    """The low and the high halves of each block of 128 bits, element by element in turn."""
    block = 128 // element_bits
    halves = []
    for high in (0, block // 2):
        lanes = []
        for start in range(0, first.type.count, block):
            for i in range(block // 2):
                lanes += [start + high + i, first.type.count + start + high + i]
        halves.append(shuffled(builder, first, second, lanes))
    return halves


def emit_transpose(builder: ir.IRBuilder, arguments, *, element: ir.IntType) -> None:
    """The transpose of a square of as many elements as a vector of 128 bits has lanes.

    Args:
        arguments: int64 (source, source bytes, target, target bytes): addresses, and bytes from one row to the next.
        element: the type of one.
    """
    source, source_bytes, target, target_bytes = arguments
    lanes = 128 // element.width
    rows = []
    for _ in range(lanes):
        rows.append(load(builder, source, vector(element, lanes), align=element.width // 8))
        source = builder.add(source, source_bytes)
    for _ in range(lanes.bit_length() - 1):
        half = lanes // 2
        rows = [part for i in range(half) for part in interleaved(builder, rows[i], rows[i + half], element.width)]
    for row in rows:
        store(builder, row, target, align=element.width // 8)
        target = builder.add(target, target_bytes)


def pair_sums(builder: ir.IRBuilder, words, factors=None):
    """Each two neighbouring 16-bit words, or their products with `factors`, added in 32 bits: `vpmaddwd`."""
    wide = vector(I32, words.type.count)
    products = builder.sext(words, wide)
    if factors is not None:
        products = builder.mul(products, builder.sext(factors, wide))
    even, odd = (shuffled(builder, products, products, list(range(i, wide.count, 2))) for i in (0, 1))
    return builder.add(even, odd)


def adds_pairs(triple: str | None = None) -> bool:
    """Whether 16-bit words are best widened in pairs; Arm's `saddw` widens and adds in one instruction.

    Args:
        triple: LLVM's name of the machine; `None` is this one.
    """
    return not (triple or llvmlite.binding.get_process_triple()).startswith(("aarch64", "arm"))
