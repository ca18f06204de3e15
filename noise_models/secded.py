"""The code that memories are protected with: corrects one wrong bit of a group, detects two.

Extended Hamming codes (Hamming 1950): each data bit has a number that is no power of two, the check bits have
the powers of two, and one more bit makes the parity of all even. The exclusive or of the numbers of wrong bits,
the syndrome, names the wrong bit if there is one; an even number of wrong bits shows in the parity. Three or
more may be taken for one, and then a right bit is turned.
"""

from __future__ import annotations

from typing import Any

import numpy as np

CHECK_BITS = {32: 7, 64: 8}
"""Check bits of the code for a group of so many data bits: Hamming (39, 32) and (72, 64)."""


def numbers(data_bits: int) -> np.ndarray:
    """int64, shape (data_bits,): the number of each data bit, lowest first: 3, 5, 6, 7, 9, ...

    Raises:
        ValueError: for a size other than those of `CHECK_BITS`.

    >>> numbers(32)[:5].tolist()
    [3, 5, 6, 7, 9]
    """
    if data_bits not in CHECK_BITS:
        raise ValueError(f"`data_bits` must be one of {sorted(CHECK_BITS)}. Received: data_bits={data_bits!r}")
    candidates = np.arange(3, 1 << (CHECK_BITS[data_bits] - 1))
    return candidates[(candidates & (candidates - 1)) != 0][:data_bits]


def check_word(words: Any, bits: int, data_bits: int) -> Any:
    """The check bits of groups of words.

    Args:
        words: int32 tensor of shape (..., words per group), each in ``0 .. 2^bits - 1``.
        bits: of a word.
        data_bits: 32 or 64; bits that the words leave over are zero.

    Returns:
        int32 tensor of shape (...): the syndrome's bits, and above them the parity of data and syndrome.
    """
    from keras import ops

    syndrome, parity = _sums(words, bits, data_bits)
    low = CHECK_BITS[data_bits] - 1
    parity = ops.bitwise_xor(parity, _parity(syndrome, low))
    return ops.bitwise_or(syndrome, ops.left_shift(parity, low))


def corrected(words: Any, checks: Any, bits: int, data_bits: int) -> tuple[Any, Any]:
    """Groups as the decoder gives them.

    Args:
        words, bits, data_bits: as for `check_word`, as read.
        checks: int32 tensor of shape (...), the check bits as read.

    Returns:
        `(words, detected)`: int32 like `words`, one wrong bit put right; and bool, shape (...), where the
        decoder knows of an error that it cannot correct.
    """
    from keras import ops

    low = CHECK_BITS[data_bits] - 1
    syndrome, parity = _sums(words, bits, data_bits)
    stored = ops.bitwise_and(checks, (1 << low) - 1)
    parity = ops.bitwise_xor(parity, ops.bitwise_xor(_parity(stored, low), ops.right_shift(checks, low) & 1))
    syndrome = ops.bitwise_xor(syndrome, stored)
    single = parity == 1
    known = ops.zeros_like(single)
    columns = []
    for slot, word_numbers in enumerate(_slots(words.shape[-1], bits, data_bits)):
        word = words[..., slot]
        for bit, number in enumerate(word_numbers):
            hit = ops.logical_and(single, syndrome == int(number))
            known = ops.logical_or(known, hit)
            word = ops.where(hit, ops.bitwise_xor(word, 1 << bit), word)
        columns.append(word)
    # A syndrome of zero or a power of two names a check bit, or the parity bit itself.
    of_check = ops.bitwise_and(syndrome, syndrome - 1) == 0
    fine = ops.where(single, ops.logical_or(known, of_check), syndrome == 0)
    return ops.stack(columns, axis=-1), ops.logical_not(fine)


def _slots(words: int, bits: int, data_bits: int) -> list[np.ndarray]:
    every = numbers(data_bits)
    return [every[slot * bits : (slot + 1) * bits] for slot in range(words)]


def _sums(words: Any, bits: int, data_bits: int) -> tuple[Any, Any]:
    """The exclusive or of the numbers of set bits, and the parity of their count: int32, shape (...)."""
    from keras import ops

    syndrome = parity = ops.zeros_like(words[..., 0])
    for slot, word_numbers in enumerate(_slots(words.shape[-1], bits, data_bits)):
        for bit, number in enumerate(word_numbers):
            is_set = ops.bitwise_and(ops.right_shift(words[..., slot], bit), 1)
            syndrome = ops.bitwise_xor(syndrome, is_set * int(number))
            parity = ops.bitwise_xor(parity, is_set)
    return syndrome, parity


def _parity(values: Any, bits: int) -> Any:
    from keras import ops

    parity = ops.zeros_like(values)
    for bit in range(bits):
        parity = ops.bitwise_xor(parity, ops.bitwise_and(ops.right_shift(values, bit), 1))
    return parity
