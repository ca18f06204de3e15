"""Faulty bits drawn at the cost of the faults, not of the memory.

The set bits of a Bernoulli process with probability p lie at independent geometric distances, so instead of
one random number per bit one is drawn per faulty bit: with U uniform on (0, 1),

    gap = floor(log U / log(1 - p)) + 1,    P(gap = k) = p (1 - p)^(k-1),    position = cumsum(gap) - 1.

A rate that a schedule moves is a thinned process: drawn at the highest rate, each fault kept with probability
rate / max_rate. At a bit error rate of 1e-4 an 8-bit memory draws about one random number per 1250 words.
Source: inverse transform of the geometric distribution (textbook); slot count and exact sum derived here.
"""

from __future__ import annotations

import math
from typing import Any

from keras import ops

from . import random_numbers
from .encodings import MAX_BITS

BLOCK_BITS = 2**24 - 1
"""Most bits in one row of slots: positions are summed in float32, exact up to 2^24 (see `_slots`)."""


def _check(bits: int, rate: Any, max_rate: float, block_bits: int) -> None:
    if isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= MAX_BITS:
        raise ValueError(f"`bits` must be an integer from 1 to {MAX_BITS}. Received: bits={bits!r}")
    if not isinstance(max_rate, (int, float)) or not 0.0 <= max_rate <= 1.0:
        raise ValueError(
            f"`max_rate` must be a Python number in [0, 1] (it sizes arrays). Received: max_rate={max_rate!r}"
        )
    if isinstance(rate, (int, float)) and not 0.0 <= rate <= max_rate:
        raise ValueError(f"`rate` must be in [0, {max_rate}]; raise `max_rate`. Received: rate={rate!r}")
    if not bits <= block_bits <= BLOCK_BITS:
        raise ValueError(f"`block_bits` must be in [bits, {BLOCK_BITS}]. Received: block_bits={block_bits!r}")


def _layout(shape: Any, bits: int, max_rate: float, block_bits: int) -> tuple[Any, Any, Any, Any]:
    """(words, rows, words per row, slots per row): Python integers, or scalar tensors for a dynamic shape.

    A row of `block` bits has N ~ Binomial(block, p) faults, of mean m <= block max_rate. By Bernstein's
    inequality P(N >= m + t) <= exp(-t^2 / (2 (m + t/3))); with t = 7 sqrt(m) + 20 the exponent is at least
    24.5 for every m, so a row runs out of slots with probability below 2.3e-11 (and then only lacks faults
    at its end). A row can never need more slots than it has bits.
    """
    largest = block_bits // bits
    if all(isinstance(size, int) for size in shape):
        words = math.prod(shape)
        rows = max(1, -(-words // largest))
        per_row = -(-words // rows)
        mean = per_row * bits * max_rate
        return words, rows, per_row, min(math.ceil(mean + 7 * math.sqrt(mean) + 20), per_row * bits)
    words = ops.prod(ops.convert_to_tensor(shape, dtype="int32"))  # a batch whose size the graph doesn't know
    rows = ops.maximum(1, (words + largest - 1) // largest)
    per_row = (words + rows - 1) // rows
    mean = ops.cast(per_row * bits, "float32") * max_rate
    slots = ops.cast(ops.ceil(mean + 7 * ops.sqrt(mean) + 20), "int32")
    return words, rows, per_row, ops.minimum(slots, per_row * bits)


def _slots(
    shape: Any, bits: int, rate: Any, seed: Any, max_rate: float, block_bits: int, choices: bool
) -> tuple[Any, Any, Any, Any]:
    """Faulty bits as (words, index of the word, value of the bit or 0 for an unused slot, uniform choice)."""
    words, rows, per_row, slots = _layout(shape, bits, max_rate, block_bits)
    thinned = not isinstance(rate, (int, float)) or rate != max_rate
    # One call for all draws: two calls with an integer seed would return the same numbers, and then a cell's
    # stuck value would depend on its distance from the last faulty cell. Gaps come first, so that they are
    # the same whether or not the faults are thinned.
    draws = random_numbers.uniform((1 + choices + thinned, rows, slots), seed)
    # The middle of each cell of 2^-23 is neither 0 nor 1; at U = 1 the gap would be 1 with probability 2^-23
    # however small the rate. The logarithm is taken in float64: in float32 the eager and the compiled one
    # differ in the last digit, which moves a gap of 10^4 by one about once in 10^3, and all cells after it.
    uniform = ops.cast(draws[0], "float64")
    uniform = ops.maximum(1.0 - uniform - 2.0**-24, 2.0**-24)
    # A rate below about 1e-308 would give an infinite scale; 1e300 already puts every gap past the end.
    scale = 1.0 / min(math.log1p(-max_rate), -1e-300) if max_rate < 1.0 else 0.0
    past_the_end = ops.cast(per_row * bits + 1, "float32")
    gaps = ops.floor(ops.log(uniform) * ops.convert_to_tensor(scale, dtype="float64")) + 1.0
    gaps = ops.cast(ops.minimum(gaps, ops.cast(past_the_end, "float64")), "float32")
    # Summed in float32, exactly, where an int32 sum could overflow (127 gaps clipped at 2^24 suffice): gaps
    # are non-negative integers <= 2^24, as block <= 2^24 - 1. While a prefix's sum is <= 2^24 so is each
    # partial sum on the way to it, in whatever order it is added up, and those are exact in float32. A prefix
    # whose sum is larger gets a result >= 2^24 > block, since rounding is monotone and 2^24 is a float32, so
    # it is never mistaken for a position in the row.
    ends = ops.cumsum(gaps, axis=1)
    positions = ops.cast(ops.minimum(ends, past_the_end), "int32") - 1
    in_row = positions // bits
    # No position in bits of the whole memory is formed: it could exceed int32 where the word's index doesn't.
    index = in_row + ops.expand_dims(ops.arange(rows, dtype="int32") * per_row, 1)
    used = ops.logical_and(in_row < per_row, index < words)  # the last row may be longer than its memory
    if thinned:
        # A fault of the process at max_rate is one at `rate` with probability rate / max_rate. So the faults
        # at a lower rate are a subset of those at a higher one, as in a chip whose voltage falls.
        used = ops.logical_and(used, draws[-1] < ops.cast(rate, "float32") / max_rate)
    value = ops.where(used, ops.left_shift(ops.ones_like(positions), positions % bits), 0)
    return words, ops.where(used, index, 0), value, draws[1] if choices else None


def _scatter(words: Any, index: Any, value: Any, shape: Any) -> Any:
    # Positions strictly increase, so no bit is added twice and the sum of powers of two is their OR.
    flat = ops.scatter(ops.reshape(index, (-1, 1)), ops.reshape(value, (-1,)), (words,))
    return ops.reshape(flat, shape)


def bernoulli_mask(
    shape: Any, bits: int, rate: Any, seed: Any, *, max_rate: float, block_bits: int = BLOCK_BITS
) -> Any:
    """Masks of n bits, each bit set independently with probability `rate`.

    Time and memory grow with `max_rate` times the number of bits (plus one zeroed word each). The same seed,
    shape and `max_rate` give the same cells in eager mode, in graphs and under XLA, and a mask at a lower
    `rate` is a subset of one at a higher; masks of different `max_rate` are unrelated. Uniforms of 23 bits
    make the rate right to about one part in 1e6.

    Args:
        shape: Shape of the memory in words: integers, or scalar tensors where the graph doesn't know them.
        bits: Bits in a word, 1 to 16.
        rate: Probability of a set bit: number or scalar tensor in [0, max_rate]. A tensor is clipped to it.
        seed: Integer, or `keras.random.SeedGenerator`, whose `next()` supplies the state.
        max_rate: Python number in [0, 1] that sizes the arrays; 0 draws no random number.
        block_bits: Bits per row of slots; smaller than the default only in tests.

    Returns:
        int32 tensor of shape `shape`, each in `0 .. 2^bits - 1`.

    Raises:
        ValueError: for arguments out of range.
    """
    _check(bits, rate, max_rate, block_bits)
    if max_rate == 0.0:
        return ops.zeros(shape, dtype="int32")
    words, index, value, _ = _slots(shape, bits, rate, seed, max_rate, block_bits, choices=False)
    return _scatter(words, index, value, shape)


def stuck_masks(
    shape: Any,
    bits: int,
    rate: Any,
    share_of_ones: float,
    seed: Any,
    *,
    max_rate: float,
    block_bits: int = BLOCK_BITS,
) -> tuple[Any, Any]:
    """Cells stuck at zero and cells stuck at one, as two disjoint masks.

    A cell is faulty with probability `rate`; a faulty cell is stuck at one with probability `share_of_ones`,
    else at zero. One more random number per faulty cell decides which.

    Args:
        shape: As for `bernoulli_mask`, like `bits`, `rate`, `seed`, `max_rate` and `block_bits`.
        bits: Bits in a word.
        rate: Probability that a cell is faulty.
        share_of_ones: Number in [0, 1].
        seed: Integer or `keras.random.SeedGenerator`.
        max_rate: Python number in [0, 1] that sizes the arrays; 0 draws no random number.
        block_bits: Bits per row of slots.

    Returns:
        `(stuck_at_zero, stuck_at_one)`: int32 tensors of shape `shape`.

    Raises:
        ValueError: for arguments out of range.
    """
    _check(bits, rate, max_rate, block_bits)
    if not 0.0 <= share_of_ones <= 1.0:
        raise ValueError(f"`share_of_ones` must be in [0, 1]. Received: share_of_ones={share_of_ones!r}")
    if max_rate == 0.0:
        return ops.zeros(shape, dtype="int32"), ops.zeros(shape, dtype="int32")
    words, index, value, choice = _slots(shape, bits, rate, seed, max_rate, block_bits, choices=True)
    one = choice < share_of_ones
    return (
        _scatter(words, index, ops.where(one, 0, value), shape),
        _scatter(words, index, ops.where(one, value, 0), shape),
    )


def flip(words: Any, mask: Any) -> Any:
    """Words whose masked bits are inverted (int32 tensors of one shape): `words xor mask`."""
    return ops.bitwise_xor(words, mask)


def stuck(words: Any, stuck_at_zero: Any, stuck_at_one: Any) -> Any:
    """Words read from stuck cells (int32 tensors of one shape): `(words and not zeros) or ones`."""
    return ops.bitwise_or(ops.bitwise_and(words, ops.bitwise_not(stuck_at_zero)), stuck_at_one)
