"""A table's integer factors as bytes: ``T = gain (U' - shift) V`` with U' unsigned and V signed 8-bit numbers.

Where they fit, products of bytes summed in 32 bits (`vpdpbusd`, 64 of them in one instruction) take the place
of look-ups: the exact multiplier and the tables of rank 1 then cost less than the float32 layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from axtrain.emulation.code_table import CodeTable
from axtrain.emulation.factorisation import exact_rank, factorise

MAX_RANK = 2  # from three products of bytes on, one look-up in registers is cheaper


@dataclass(frozen=True, eq=False)
class FactorBytes:
    """Factors small enough for products of bytes.

    Attributes:
        activation: uint8, (r, 256), indexed by the activation code's own byte.
        weight: int8, (r, weight codes).
        shift: int64, (r,), what makes the activation factor unsigned.
        gain: the greatest common divisor of the activation factor.
    """

    activation: np.ndarray
    weight: np.ndarray
    shift: np.ndarray
    gain: int

    def base(self) -> np.ndarray:
        """int64, (weight codes,): what a weight adds to its channel's sum for the shift."""
        return -self.gain * (self.shift @ self.weight.astype(np.int64))


def factor_bytes(table: CodeTable) -> FactorBytes | None:
    """The table's factors as bytes, or `None` where they do not fit or there are too many."""
    if exact_rank(table) > MAX_RANK or table.products.shape[0] > 256:
        return None
    try:
        factors = factorise(table)
    except ArithmeticError:
        return None
    activation = (factors.activation + factors.shift).T.astype(np.int64)  # (r, activation codes)
    weight = factors.weight.astype(np.int64)
    for u, v in zip(activation, weight, strict=True):  # -128 is a byte, 128 is not
        if v.max() > 127:
            u *= -1
            v *= -1
    gain = max(int(np.gcd.reduce(activation, axis=None)), 1)
    activation //= gain
    shift = -activation.min(axis=1)
    activation += shift[:, None]
    if activation.max() > 255 or weight.min() < -128 or weight.max() > 127:
        return None
    rebuilt = gain * ((activation - shift[:, None]).T @ weight)
    if not np.array_equal(rebuilt, table.products):
        return None
    looked_up = np.zeros((len(activation), 256), np.uint8)
    looked_up[:, (table.activation_low + np.arange(activation.shape[1])) & 255] = activation
    return FactorBytes(looked_up, weight.astype(np.int8), shift, gain)
