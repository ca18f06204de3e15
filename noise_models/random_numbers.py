"""Uniform numbers that are the same eagerly, in a graph, under XLA and on every device.

A chip is a seed, so its faulty cells must not depend on how a model was compiled. Measured on TensorFlow
2.21: `stateless_uniform` gives other numbers under XLA than outside of it, for every algorithm that both have
(with a constant seed they agree only because the graph is folded before XLA sees it). Integer arithmetic
has one answer everywhere, so the numbers here are a hash of (seed, position).
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops


def uniform(shape: tuple[Any, ...], seed: Any) -> Any:
    """Multiples of 2^-23 in [0, 1).

    ``u_i = 2^-23 floor(h(h(i + k0) xor k1) / 2^9)``: i the position in the flattened shape, h the 32-bit
    mixer lowbias32 (C. Wellons, hash-prospector, public domain), and keys ``k0 = h(s0)``,
    ``k1 = h(h(s1) + h(s0 + 1))`` of the seed's two words. For one seed no hash repeats within 2^32
    positions.

    Args:
        shape: integers, or scalar integer tensors where the graph does not know them.
        seed: an integer, or a `keras.random.SeedGenerator`, whose `next()` gives the two words.

    Returns:
        float32 tensor of that shape.

    Raises:
        ValueError: a seed of another kind.
    """
    if isinstance(seed, keras.random.SeedGenerator):
        state = seed.next()
    elif isinstance(seed, (int, np.integer)) and not isinstance(seed, bool):
        state = ops.convert_to_tensor(np.array([int(seed) & 0xFFFFFFFF, 0], np.uint32))
    else:
        raise ValueError(f"`seed` must be an integer or a SeedGenerator. Received: seed={seed!r}")
    if keras.backend.backend() == "torch":  # its unsigned integers do not multiply
        return keras.random.uniform(shape, seed=seed, dtype="float32")
    words = ops.cast(state, "uint32")
    first, second = words[0], words[1]
    key = _mix(first)
    other = _mix(_mix(second) + _mix(first + _word(1)))
    hashed = _mix(ops.bitwise_xor(_mix(_positions(shape) + key), other))
    # 23 bits fit float32 exactly; through int32, since not every device converts unsigned integers.
    return ops.reshape(ops.cast(ops.cast(_shift(hashed, 9), "int32"), "float32") * 2.0**-23, shape)


def _positions(shape: tuple[Any, ...]) -> Any:
    if all(isinstance(size, int) for size in shape):
        return ops.cast(ops.arange(math.prod(shape), dtype="int32"), "uint32")
    count = ops.prod(ops.stack([ops.cast(size, "int32") for size in shape]))
    return ops.cast(ops.arange(count, dtype="int32"), "uint32")


def _mix(x: Any) -> Any:
    """lowbias32: each input bit turns each output bit with probability close to one half."""
    x = ops.bitwise_xor(x, _shift(x, 16)) * _word(0x7FEB352D)
    x = ops.bitwise_xor(x, _shift(x, 15)) * _word(0x846CA68B)
    return ops.bitwise_xor(x, _shift(x, 16))


def _shift(x: Any, bits: int) -> Any:
    return ops.right_shift(x, _word(bits))


def _word(value: int) -> Any:
    return ops.convert_to_tensor(np.uint32(value))
