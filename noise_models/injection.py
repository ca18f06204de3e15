"""Bit flips in an array of stored words, at the speed of copying it.

Where faults are rare only they are drawn: as many as a Poisson process of rate ``-1/2 log(1 - 2p)`` a cell has points,
each at a cell of its own choice, each turning it. A cell is turned an odd number of times with probability p, and
independently of all others, since Poisson counts in different cells are. Where faults are not rare, whole machine
words of Bernoulli bits are drawn: from the lowest of q's n binary digits to the highest, ``b = r | b`` for a one and
``b = r & b`` for a zero, with r fresh random bits, leaves each bit of b set with probability q, a multiple of 2^-n.
What q leaves of p comes as rare faults of rate ``(p - q) / (1 - 2q)`` on top. (Both derived here.)

Numba compiles both where it is installed, as it is by default, and runs them on all cores; NumPy draws the same
distribution without it.
"""

from __future__ import annotations

import importlib.util
import math
import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np

_COMMON = 3e-3  # above it drawing every cell is cheaper than drawing single faults (measured)
_PARTS = 8  # worked on side by side; a fixed number, so that a seed means the same on every machine
_DIGITS = 8  # so many that the rest is rare and so few that they cost little (measured)


def flip_bits(words: np.ndarray, rate: float, *, seed: int = 0) -> np.ndarray:
    """A copy of stored words in which each bit is flipped independently with probability `rate`.

    Args:
        words: contiguous array of unsigned integers, any shape; every bit of it is a cell.
        rate: number in [0, 0.5].
        seed: an int >= 0; the same seed flips the same bits, with Numba others than without.

    Returns:
        array of the same shape and dtype.

    Raises:
        ValueError: for another dtype, a rate or seed out of range.

    >>> flipped = flip_bits(np.zeros(1_000_000, np.uint8), 1e-3, seed=1)
    >>> bool(7500 < np.unpackbits(flipped).sum() < 8500)
    True
    """
    words = np.asarray(words)
    if not np.issubdtype(words.dtype, np.unsignedinteger):
        raise ValueError(
            "`words` must be unsigned integers, as encodings.encode gives them: view int8 codes in two's complement "
            f"as uint8. Received: dtype {words.dtype}"
        )
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0.0 <= rate <= 0.5:
        raise ValueError(f"`rate` must be a number in [0, 0.5]. Received: rate={rate!r}")
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"`seed` must be an int >= 0. Received: seed={seed!r}")
    flipped = words.copy(order="C")
    target = flipped.reshape(-1).view(np.uint8)
    rng = np.random.default_rng(seed)
    if importlib.util.find_spec("numba") is None:
        _with_numpy(target, rate, rng)
    elif rate:
        _native(target, rate, rng)
    return flipped


def _with_numpy(target: np.ndarray, rate: float, rng: np.random.Generator) -> None:
    if rate > _COMMON:
        np.bitwise_xor(target, np.packbits(rng.random(8 * target.size) < rate), out=target)
        return
    cells = rng.integers(0, 8 * target.size, rng.poisson(8 * target.size * _points(rate)))
    np.bitwise_xor.at(target, cells >> 3, np.uint8(1) << (cells & 7).astype(np.uint8))


def _native(target: np.ndarray, rate: float, rng: np.random.Generator) -> None:
    parts, keys = np.array_split(target, _PARTS), rng.integers(0, 1 << 63, (2, _PARTS), np.uint64)
    rare, common = _kernels()
    digits = int(rate * (1 << _DIGITS)) if rate > _COMMON else 0
    drawn = digits / (1 << _DIGITS)
    left = (rate - drawn) / (1 - 2 * drawn) if drawn < 0.5 else 0.0
    points = rng.poisson([8 * part.size * _points(left) for part in parts])

    def work(part: np.ndarray, count: int, first: np.uint64, second: np.uint64) -> None:
        if digits:
            common(part, np.uint64(digits), first)
        rare(part, count, second)

    list(_pool().map(work, parts, points, *keys))


def _points(rate: float) -> float:
    """How many times a cell is turned on average, so that an odd number of times has the probability `rate`."""
    return -0.5 * math.log1p(-2 * rate) if rate < 0.5 else math.inf


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork


@lru_cache(maxsize=1)
def _kernels() -> tuple[Any, Any]:
    import numba

    golden, first, second = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
    lanes = 256

    @numba.njit(inline="always")
    def mixed(counter):
        """splitmix64 (Steele 2014): a bijection whose outputs at successive counters pass BigCrush."""
        z = (counter ^ (counter >> np.uint64(30))) * first
        z = (z ^ (z >> np.uint64(27))) * second
        return z ^ (z >> np.uint64(31))

    @numba.njit(nogil=True)
    def rare(target, points, seed):
        size, chosen = np.float64(8 * target.size), np.empty(lanes, np.int64)
        for begin in range(0, points, lanes):
            for i in range(lanes):  # all at once, and their cells after that
                number = mixed(seed + golden * np.uint64(begin + i + 1))
                chosen[i] = np.int64(np.float64(number >> np.uint64(11)) * 2.0**-53 * size)
            for i in range(min(lanes, points - begin)):
                target[chosen[i] >> 3] ^= np.uint8(1 << (chosen[i] & 7))

    @numba.njit(nogil=True)
    def common(target, digits, seed):
        bits, counters = np.zeros(lanes, np.uint64), np.empty(lanes, np.uint64)
        for i in range(lanes):
            counters[i] = seed + golden * np.uint64(i)
        step = golden * np.uint64(lanes)
        words = target[: target.size // 8 * 8].view(np.uint64)
        for begin in range(0, words.size + 1, lanes):
            bits[:] = np.uint64(0)
            for digit in range(_DIGITS):
                if (digits >> np.uint64(digit)) & np.uint64(1):
                    for i in range(lanes):
                        bits[i] |= mixed(counters[i])
                        counters[i] += step
                else:
                    for i in range(lanes):
                        bits[i] &= mixed(counters[i])
                        counters[i] += step
            for i in range(min(lanes, words.size - begin)):
                words[begin + i] ^= bits[i]
        for i in range(target.size % 8):
            target[8 * words.size + i] ^= np.uint8(bits[lanes - 1] >> np.uint64(8 * i))

    return rare, common
