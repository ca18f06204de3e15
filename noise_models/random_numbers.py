"""Uniform numbers that are the same eagerly, in a graph, under XLA and on every device.

A chip is a seed, so its faulty cells must not depend on how a model was compiled. Measured on TensorFlow
2.21: `stateless_uniform` gives other numbers under XLA than outside of it, for every algorithm that both have
(with a constant seed they agree only because the graph is folded before XLA sees it). Integer arithmetic
has one answer everywhere, so the numbers here are a hash of (seed, position).
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from .fused import traced
from .shapes import size_of


def seed_words(seed: Any) -> Any:
    """The two words that all numbers of a seed are hashed from.

    Args:
        seed: an integer; a `keras.random.SeedGenerator`, whose `next()` gives the two words; or a tensor of them.

    Returns:
        uint32 tensor of shape (2,).

    Raises:
        ValueError: a seed of another kind.
    """
    if isinstance(seed, keras.random.SeedGenerator):
        return ops.cast(seed.next(), "uint32")
    if isinstance(seed, (int, np.integer)) and not isinstance(seed, bool):
        return ops.convert_to_tensor(np.array([int(seed) & 0xFFFFFFFF, 0], np.uint32))
    if tuple(getattr(seed, "shape", ())) == (2,):
        return ops.cast(seed, "uint32")
    raise ValueError(f"`seed` must be an integer, a SeedGenerator or its two words. Received: seed={seed!r}")


def hashed(positions: Any, words: Any, purpose: int = 0) -> Any:
    """A 31-bit number for each position: ``floor(h(h(i + k0) xor k1) / 2)``.

    h is the 32-bit mixer lowbias32 (C. Wellons, hash-prospector, public domain), with keys ``k0 = h(s0)`` and
    ``k1 = h(h(s1 + purpose) + h(s0 + 1))`` of the seed's two words. For one seed and purpose no hash repeats
    within 2^32 positions.

    Args:
        positions: uint32 tensor, any shape.
        words: as `seed_words` gives them.
        purpose: numbers for another purpose are unrelated.

    Returns:
        int32 tensor in ``0 .. 2^31 - 1``.
    """
    # Through int32 after the shift, since not every device converts unsigned integers.
    return ops.cast(_shift(traced(_hash, purpose, rows=positions, keys=(words,)), 1), "int32")


def uniform(shape: tuple[Any, ...], seed: Any) -> Any:
    """Multiples of 2^-23 in [0, 1): the top bits of `hashed` at each position of the flattened shape.

    Args:
        shape: integers, or scalar integer tensors where the graph does not know them.
        seed: as for `seed_words`.

    Returns:
        float32 tensor of that shape.

    Raises:
        ValueError: a seed of another kind.
    """
    words = seed_words(seed)
    if keras.backend.backend() == "torch":  # its unsigned integers do not multiply
        return keras.random.uniform(shape, seed=seed, dtype="float32")
    number = traced(_hash, 0, rows=positions(shape), keys=(words,))
    top = ops.cast(_shift(number, 9), "int32")  # 23 bits fit float32 exactly
    return ops.reshape(ops.cast(top, "float32") * 2.0**-23, shape)


def _hash(purpose: int, positions: Any, words: Any) -> Any:
    first, second = words[0], words[1]
    other = _mix(_mix(second + _word(purpose)) + _mix(first + _word(1)))
    return _mix(ops.bitwise_xor(_mix(positions + _mix(first)), other))


def positions(shape: tuple[Any, ...]) -> Any:
    """0, 1, 2, ... for each element of a flattened shape: uint32, one axis."""
    return ops.cast(ops.arange(size_of(shape), dtype="int32"), "uint32")


def _mix(x: Any) -> Any:
    """lowbias32: each input bit turns each output bit with probability close to one half."""
    x = ops.bitwise_xor(x, _shift(x, 16)) * _word(0x7FEB352D)
    x = ops.bitwise_xor(x, _shift(x, 15)) * _word(0x846CA68B)
    return ops.bitwise_xor(x, _shift(x, 16))


def _shift(x: Any, bits: int) -> Any:
    return ops.right_shift(x, _word(bits))


def _word(value: int) -> Any:
    return ops.convert_to_tensor(np.uint32(value))
