"""A table as the native kernels want it: centred columns of words, or integer factors of 16 bits. NumPy alone."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from axtrain.emulation.code_table import CodeTable
from axtrain.emulation.factorisation import exact_rank, factorise_rest
from axtrain.emulation.native.buffers import aligned

_MOST = 4  # terms summed in 16 bits; longer sums would save little more
_HIGHEST_RANK = 8  # beyond it rows cost less than factors, however few the outputs are


class RowTable:
    """Columns of a table, what their weight has in common taken off, for row groups.

    Args:
        products: int32 (activation codes, weight codes).
        first: the first row in use; those before are zero.

    Attributes:
        added: int64 (weight codes,), the centres: what was taken off each weight's column.
        wide: whether the rest takes more than 16 bits; nothing is then taken off.
        length: terms whose sum fits 16 bits, 1, 2 or 4.
    """

    def __init__(self, products: np.ndarray, first: int = 0) -> None:
        used = products[first:].astype(np.int64)
        # Centred columns fit 16 bits wherever their span does.
        self.added = (used.min(axis=0) + used.max(axis=0) + 1) // 2
        self._rest = np.zeros(products.shape, np.int64)
        self._rest[first:] = used - self.added
        low, high = int(self._rest.min()), int(self._rest.max())
        fitting = [n for n in (_MOST, 2, 1) if n * low >= -(1 << 15) and n * high < 1 << 15]
        self.wide, self.length = not fitting, (fitting or [1])[0]
        if self.wide:
            self._rest[first:], self.added = used, np.zeros_like(self.added)

    @cached_property
    def by_weight(self) -> tuple[np.ndarray, int, bool]:
        """(columns, length, wide): columns int16 (weight codes + 1, activation codes filled up to 8), the last zero.

        A wide entry is an int32 that lies in two of the words.
        """
        return self._columns(self._rest.T), self.length, self.wide

    @cached_property
    def by_activation(self) -> tuple[np.ndarray, int, bool]:
        """The same with a column for each activation code, over the weight codes."""
        return self._columns(self._rest), self.length, self.wide

    def _columns(self, rest: np.ndarray) -> np.ndarray:
        columns = aligned((len(rest) + 1, -(-rest.shape[1] // 8) * 8), np.int32 if self.wide else np.int16)
        columns[:-1, : rest.shape[1]] = rest
        return columns.view(np.int16)


class FactorTable:
    """Factors of a table: ``T[a, w] = sum_r activation[r, a] weight[r, w] + added[w]``.

    Args:
        activation: int16 (r, activation codes).
        weight: int16 (r, weight codes + 1), the last column zero.
        added: int64 (weight codes,).

    Attributes:
        line: (gain, offset) of the activation factor where it is ``gain * code + offset``, else `None`.
        weight_line: (gain, offset) of the weight factor where it is ``gain * column + offset``, else (0, 0).
    """

    def __init__(self, activation: np.ndarray, weight: np.ndarray, added: np.ndarray, lowest: int) -> None:
        self.activation, self.weight, self.added = activation, weight, added
        found = _line(activation)
        self.line = None if found is None else (found[0], found[1] - found[0] * lowest)
        self.weight_line = _line(weight[:, :-1]) or (0, 0)


def _line(factor: np.ndarray) -> tuple[int, int] | None:
    """(gain, first value) where there is one factor whose values rise by equal steps."""
    steps = np.diff(factor.astype(np.int64))
    if len(factor) != 1 or not steps.size or (steps != steps[0, 0]).any():
        return None
    return int(steps[0, 0]), int(factor[0, 0])


def factor_table(table: CodeTable) -> FactorTable | None:
    """The table's factors, or `None` where they do not fit 16 bits or there are too many."""
    if exact_rank(table) > _HIGHEST_RANK + 2:  # a function of one operand alone is one rank each, and no factor
        return None
    try:
        factors = factorise_rest(table)
    except ArithmeticError:
        return None
    activation, weight = factors.activation.T, factors.weight
    if factors.activation_shift.any():  # a product with 1
        activation = np.vstack([activation, factors.activation_shift])
        weight = np.vstack([weight, np.ones(weight.shape[1], np.int64)])
    limits = np.iinfo(np.int16)
    small = all(
        side.min(initial=0) >= limits.min and side.max(initial=0) <= limits.max for side in (activation, weight)
    )
    if len(activation) > _HIGHEST_RANK or not small:
        return None
    weight = np.pad(weight, [(0, 0), (0, 1)])
    activation, weight = (np.ascontiguousarray(side, np.int16) for side in (activation, weight))
    return FactorTable(activation, weight, factors.weight_constant.astype(np.int64), table.activation_low)
