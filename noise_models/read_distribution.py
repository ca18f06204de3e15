"""What a read returns, as a distribution over words: the closed form behind every memory and protection.

Cells fail independently; cell i, holding bit b, is read inverted with probability ``f_i(b)``: p for flips, and
for stuck cells p times the share that is stuck at the other value. All else follows by counting.
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache
from typing import Any

import numpy as np

from . import secded
from .encodings import ENCODINGS, code_range, stored_bits

_WEIGHTS = 4
"""Most wrong bits of a group that are counted one by one; five of 39 cells fail together once in 10^9 at 1e-3."""


def distribution(memory: Any, codes: Any, bits: int, strength: float = 1.0) -> np.ndarray:
    """Probability of each word that a read of each code returns.

    Args:
        memory: of independent cells, with `flip_probabilities`, `encoding` and a `protection`.
        codes: integers of shape (N,).
        bits: word length; the result has ``2^bits`` columns.
        strength: number in [0, 1] that multiplies the rate.

    Returns:
        float64 array of shape (N, 2^bits). With SECDED five and more wrong bits of a group count as none.

    Raises:
        ValueError: where a code's error depends on the other words of its group (stuck cells under SECDED), or the
            protection has no closed form.
    """
    return memory.protection.read_chances(memory, stored_bits(codes, bits, memory.encoding), bits, strength)


def word_values(bits: int, encoding: str) -> np.ndarray:
    """float64, shape (2^bits,): the code that each word is read as."""
    words = np.arange(1 << bits)
    half = 1 << (bits - 1)
    if encoding not in ENCODINGS:
        raise ValueError(f"`encoding` must be one of {', '.join(ENCODINGS)}. Received: encoding={encoding!r}")
    if encoding == "unsigned":
        return words.astype(np.float64)
    if encoding == "offset":
        return words - float(half)
    if encoding == "sign_magnitude":
        return np.where(words >= half, -1.0, 1.0) * (words & (half - 1))
    low, _ = code_range(bits, encoding)
    return np.where(words >= half, words + 2 * low, words).astype(np.float64)


def zero_word(bits: int, encoding: str) -> int:
    """The word of the code 0."""
    return 1 << (bits - 1) if encoding == "offset" else 0


def flipped(stored: np.ndarray, flips: np.ndarray) -> np.ndarray:
    """Words whose bits are read inverted independently: both (N, bits), to (N, 2^bits)."""
    return _independent(np.where(stored, 1 - flips, flips))


def _independent(ones: np.ndarray) -> np.ndarray:
    """Words whose bits are one independently: (N, bits) to (N, 2^bits)."""
    words = np.ones((len(ones), 1))
    for one in ones.T:  # the lowest bit first, so each new one doubles the words upward
        words = np.concatenate([words * (1 - one)[:, None], words * one[:, None]], axis=1)
    return words


def checked(memory: Any, stored: np.ndarray, bits: int, strength: float) -> np.ndarray:
    """Parity: the words after an even number of wrong cells, and zero after an odd one."""
    flips = memory.flip_probabilities(stored, strength)
    parity = stored.sum(axis=1, keepdims=True) % 2
    wrong = memory.flip_probabilities(parity, strength)
    signed = np.where(stored, 1 - flips, -flips)  # each wrong bit turns the sign
    others = np.where(stored, -flips, 1 - flips)
    difference = np.ones((len(stored), 1))
    for one, zero in zip(signed.T, others.T, strict=True):
        difference = np.concatenate([difference * zero[:, None], difference * one[:, None]], axis=1)
    every = flipped(stored, flips)
    even = (every + difference * (1 - 2 * wrong)) / 2
    even[:, zero_word(bits, memory.encoding)] += 1 - even.sum(axis=1)
    return even


def masked(memory: Any, robust_sign: bool, stored: np.ndarray, strength: float) -> np.ndarray:
    """Sign masking: for each sign that may be read, the other bits are kept or follow it."""
    flips = memory.flip_probabilities(stored, strength)
    sign, low, wrong = stored[:, -1], stored[:, :-1], flips[:, :-1]
    turned = np.zeros(len(stored)) if robust_sign else flips[:, -1]
    negative = np.where(sign, 1 - turned, turned)
    follow = 0.0 if memory.encoding == "sign_magnitude" else 1.0
    parts = []
    for read_sign, chance in ((0, 1 - negative), (1, negative)):
        ones = low * (1 - wrong) + wrong * read_sign * follow
        parts.append(_independent(ones) * chance[:, None])
    return np.concatenate(parts, axis=1)


def grouped(memory: Any, protection: Any, stored: np.ndarray, bits: int, strength: float) -> np.ndarray:
    """SECDED: the error that each pattern of wrong cells of a group leaves in one of its words."""
    if memory.fault == "stuck":
        raise ValueError(
            "Stuck cells under SECDED depend on the other words of the group, so a word alone has no closed form; "
            "read many with `read` instead. Received: fault='stuck'"
        )
    rate = memory.rate * strength
    cells = protection.words_per_group(bits) * bits + secded.CHECK_BITS[protection.data_bits]
    residual, lost = np.zeros(1 << bits), 0.0
    for weight, (patterns, zeroed) in enumerate(_residuals(protection, bits)):
        chance = rate**weight * (1 - rate) ** (cells - weight)
        residual += chance * patterns
        lost += chance * zeroed
    residual[0] += 1 - residual.sum() - lost
    words = stored @ (1 << np.arange(bits))
    read = residual[words[:, None] ^ np.arange(1 << bits)]
    read[:, zero_word(bits, memory.encoding)] += lost
    return read


@lru_cache(maxsize=16)
def _residuals(protection: Any, bits: int) -> tuple[tuple[np.ndarray, float], ...]:
    """For 0, 1, .. wrong cells of a group: how many patterns leave each error in a word, and how many zero it.

    The mean over the words of the group.
    """
    count, checks = protection.words_per_group(bits), secded.CHECK_BITS[protection.data_bits]
    data = count * bits
    every = np.concatenate([secded.numbers(protection.data_bits)[:data], 1 << np.arange(checks - 1), [0]])
    place = np.full(1 << (checks - 1), -1)
    place[every] = np.arange(len(every))  # the parity bit's own number is 0
    found = []
    for weight in range(_WEIGHTS + 1):
        chosen = np.array(list(itertools.combinations(range(len(every)), weight)), np.int64)
        chosen = chosen.reshape(math.comb(len(every), weight), weight)
        syndrome = np.bitwise_xor.reduce(every[chosen], axis=1) if weight else np.zeros(1, np.int64)
        fixed = place[syndrome] if weight % 2 else np.where(syndrome == 0, -2, -1)
        lost = fixed == -1
        patterns, zeroed = np.zeros(1 << bits), 0.0
        for slot in range(count):
            inside = (chosen >= slot * bits) & (chosen < (slot + 1) * bits)
            error = np.where(inside, 1 << np.clip(chosen - slot * bits, 0, bits - 1), 0).sum(axis=1)
            mended = (fixed >= slot * bits) & (fixed < (slot + 1) * bits)
            error ^= np.where(mended, 1 << np.clip(fixed - slot * bits, 0, bits - 1), 0)
            kept = ~lost if protection.detected == "zero" else np.ones_like(lost)
            patterns += np.bincount(error[kept], minlength=1 << bits) / count
            zeroed += float((~kept).sum()) / count
        found.append((patterns, zeroed))
    return tuple(found)
