"""A cheap stream of noise: one ring of prepared numbers, read in rows from random places.

A fresh normal for every output element costs more than a convolution. Here each row of `ROW` elements is a copy
from a random place of the ring, so a layer pays for one read an element and one random integer a row.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import keras
import numpy as np
from keras import ops
from scipy import special

from axtrain.noise_models.residuals import LEVELS
from axtrain.noise_models.residuals import levels_of as levels_of
from axtrain.noise_models.residuals import normal_levels as normal_levels

# 2^16 values reach 4.3 standard deviations and stay in a core's cache (chosen here).
RING = 1 << 16
ROW = 64


@lru_cache(maxsize=1)
def normal_ring() -> np.ndarray:
    """float32, shape (RING,): standard normal quantiles in an order without correlation.

    The values are the quantiles themselves, standardised, so a value from a random place is distributed as the
    normal is; the ring's spectrum is flat, so two values at a fixed distance from a random place are uncorrelated;
    and its mean is 0, so rows from different places are. The order is found by setting spectrum and values in
    turn (iterated amplitude adjustment, Schreiber and Schmitz 1996).
    """
    quantiles = special.ndtri((np.arange(RING) + 0.5) / RING)
    quantiles /= quantiles.std()
    values = np.random.default_rng(0).permutation(quantiles)
    for _ in range(10):
        phases = np.exp(1j * np.angle(np.fft.rfft(values)))
        phases[0] = 0.0
        values = np.fft.irfft(phases)
        values[np.argsort(values)] = quantiles
    return values.astype(np.float32)


@lru_cache(maxsize=1)
def ring_levels() -> np.ndarray:
    """int32, shape (RING,): which of `LEVELS` equal parts of the distribution each value of the ring is in."""
    order = np.empty(RING, np.int64)
    order[np.argsort(normal_ring(), kind="stable")] = np.arange(RING)
    return (order * LEVELS // RING).astype(np.int32)


def places(shape: tuple[Any, ...], stream: keras.random.SeedGenerator):
    """Where each row of a tensor of `shape` begins in the ring: int32, one for each `ROW` elements.

    Args:
        shape: integers, or scalar integer tensors where the graph does not know them.
        stream: its next state is used.
    """
    rows = (_size(shape) + (ROW - 1)) // ROW
    return keras.random.randint((rows,), 0, RING, dtype="int32", seed=stream)


def read(shape: tuple[Any, ...], begins, levels=None):
    """Noise of mean 0 and variance 1.

    Args:
        shape: as given to `places`.
        begins: what `places` gave.
        levels: float32 (LEVELS,), a distribution as `levels_of` gives it; `None` is the normal.

    Returns:
        float32 tensor of that shape.
    """
    ring = normal_ring() if levels is None else ring_levels()
    unrolled = ops.convert_to_tensor(np.concatenate([ring, ring[:ROW]]))
    index = begins[:, None] + ops.convert_to_tensor(np.arange(ROW, dtype=np.int32))
    flat = ops.reshape(ops.take(unrolled, index), (-1,))[: _size(shape)]
    return ops.reshape(flat if levels is None else ops.take(levels, flat), shape)


def _size(shape: tuple[Any, ...]):
    if all(isinstance(size, int) for size in shape):
        return math.prod(shape)
    return ops.prod(ops.stack([ops.cast(size, "int32") for size in shape]))
