"""Integer factors of a table: ``M = U V`` exactly, with entries small enough for float32 products.

``sum_k M[a_k, b_k] = sum_r sum_k U[a_k, r] V[r, b_k]``, so a table of rank r costs r ordinary matrix
products of looked-up operands (theory page, section 2). Factors from a singular value decomposition
are real and lose exactness; these are integers, verified element by element.

Functions of one operand alone need no product: what depends on the weight code is a sum per output
channel, what depends on the activation code a sum per window. Taking them off lowers the bound (a centred
operand has half the range) and, where the table contains one, the rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from axtrain.emulation import lattice
from axtrain.emulation.bounds import centred, largest_part, smallest_possible, tightened
from axtrain.emulation.code_table import CodeTable

EXACT_FLOAT32 = 1 << 24  # integers up to this magnitude are exact in float32
_TIGHTENED = 2  # how many of the bases are worked on further
_HIGHEST_RANK = 48  # reducing a basis takes seconds here, and minutes soon after


@dataclass(frozen=True, eq=False)
class Factors:
    """``products = (activation + shift) @ weight + weight_shift[None, :] + activation_shift[:, None]``, all integers.

    The activation factor is centred: a constant is taken off each column, which halves the partial sums of
    an unsigned operand. Whatever is not in ``activation @ weight`` is added back exactly in int32:
    ``sum_k weight_constant[b_k]`` per output channel, ``sum_k activation_shift[a_k]`` per row or window.

    Attributes:
        activation: int64, shape (activation codes, r).
        weight: int64, shape (r, weight codes).
        shift: int64, shape (r,), what centring took off.
        bound: over all pairs of codes, the largest positive or negative part of ``activation @ weight``: partial
            sums of K products stay within K times this, in any order (`axtrain.emulation.bounds`).
        weight_shift: int64, shape (weight codes,), a function of the weight code alone.
        activation_shift: int64, shape (activation codes,), a function of the activation code alone.
    """

    activation: np.ndarray
    weight: np.ndarray
    shift: np.ndarray
    bound: int
    weight_shift: np.ndarray
    activation_shift: np.ndarray

    @property
    def weight_constant(self) -> np.ndarray:
        """int64, shape (weight codes,): all that depends on the weight code alone."""
        return self.shift @ self.weight + self.weight_shift

    @property
    def rank(self) -> int:
        """The number r of ordinary products."""
        return self.activation.shape[1]

    @property
    def exact_terms(self) -> int:
        """How many products float32 sums exactly: ``floor(2^24 / bound)``."""
        return EXACT_FLOAT32 // max(self.bound, 1)


@lru_cache(maxsize=256)
def exact_rank(table: CodeTable) -> int:
    """The rank of the table over the rationals, functions of one operand alone included."""
    return lattice.rank(table.products)


@lru_cache(maxsize=256)
def factorise(table: CodeTable) -> Factors:
    """Factors of the whole table, ``products = (activation + shift) @ weight``, with the smallest bound found.

    Two forms compete: M-form, lattice bases of the table itself, and E-form, ``M = a b + E``: the codes
    beside a lattice basis of the error. Since ``a b`` adds at most 1 to a rank, ``rank(M) <= rank(E) + 1``:
    M-form never has more products, and E-form can only win by its bound, where it has no more either.
    Beyond rank 48, where look-ups are the cheaper way on any device, the products are only as few as the
    table has distinct rows or columns.

    Raises:
        ArithmeticError: no pair of integer factors small enough for int64 rebuilds the table.
    """
    return _factorise(table, *_nothing(table))


@lru_cache(maxsize=256)
def factorise_rest(table: CodeTable) -> Factors:
    """Factors of what is left of the table without functions of one operand alone, where that saves a product.

    Those functions cost a sum instead: 2AC's products with 0 are a function of the weight (rank 11 to 10), and the
    zero point of weights in offset code makes one of the activation (for DRUM rank 2 to 1).

    Raises:
        ArithmeticError: as `factorise`.
    """
    row, column = _lone_functions(table.products.astype(np.int64))
    if not row.any() and not column.any():
        return factorise(table)
    rest = _factorise(table, row, column)
    return rest if rest.exact_terms >= 1 else factorise(table)


def _factorise(table: CodeTable, row: np.ndarray, column: np.ndarray) -> Factors:
    """Factors of the products less a function of the weight code, (1, B), and one of the activation code, (A, 1)."""
    core = table.products.astype(np.int64) - row - column
    a = table.activation_codes - (table.activation_low if row.any() else 0)
    b = table.weight_codes - (table.weight_low if column.any() else 0)
    candidates = _m_form(core)
    if len(candidates[0][1]) < min(core.shape):
        candidates += _e_form(core, a[:, None], b[None, :], len(candidates[0][1]))
    exact = [(centred(u, v), v) for u, v in candidates if _rebuilds(u, v, core)]
    exact = sorted(exact, key=lambda pair: largest_part(*pair))[:_TIGHTENED]
    floor = smallest_possible(core)
    for u, v in sorted((tightened(u, v, floor) for u, v in exact), key=lambda pair: largest_part(*pair)):
        shift = lattice.coordinates((core - u @ v)[:1], v)[0]
        if _rebuilds(u + shift, v, core):
            return Factors(u, v, shift, int(largest_part(u, v)), row[0], column[:, 0])
    raise ArithmeticError(
        f"No integer factors found for this table; use the gather engine. Received: rank {exact_rank(table)}"
    )


def _nothing(table: CodeTable) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = table.products.shape
    return np.zeros((1, columns), np.int64), np.zeros((rows, 1), np.int64)


def _lone_functions(products: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Functions of the weight code, shape (1, B), and of the activation code, (A, 1), that cost rank; else zeros.

    Differences to one row take off whatever depends on the weight code alone, and so lower the rank
    exactly if the row space is the larger for it; differences to one column likewise.
    """
    row, column = products[:1], products[:, :1]
    no_row, no_column = np.zeros_like(row), np.zeros_like(column)
    # The cheapest first: nothing, a sum per output channel, a sum per window, both.
    choices = [(no_row, no_column), (row, no_column), (no_row, column), (row, column - row[:, :1])]
    return min(choices, key=lambda pair: lattice.rank(products - pair[0] - pair[1]))


def _m_form(core: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs (U, V) of the table itself, all of the same rank."""
    rank = lattice.rank(core)
    by_row, (which, columns) = _distinct_rows(core), _distinct_rows(core.T)
    fewest = min((columns.T, which.T), by_row, key=lambda pair: len(pair[1]))
    if len(fewest[1]) <= max(rank, 1) or rank > _HIGHEST_RANK:
        return [fewest]
    rows = lattice.reduced(lattice.row_lattice(core))
    columns = lattice.reduced(lattice.row_lattice(core.T)).T
    pairs = [(lattice.coordinates(core, rows), rows), (columns, lattice.coordinates(core.T, columns.T).T)]
    for u, v in list(pairs):  # the same lattices, reduced from the other factor's side
        pairs.append((other := lattice.reduced(u.T).T, lattice.coordinates(core.T, other.T).T))
        pairs.append((lattice.coordinates(core, other := lattice.reduced(v)), other))
    return pairs


def _distinct_rows(core: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of the distinct rows each row is, as zeros and ones, and the distinct rows; rows of zeros need neither."""
    lines, which = np.unique(core, axis=0, return_inverse=True)
    chosen = (which.reshape(-1, 1) == np.arange(len(lines))).astype(np.int64)
    used = np.flatnonzero(lines.any(axis=1))
    used = used if used.size else np.array([0])  # the table of zeros keeps one
    return chosen[:, used], lines[used]


def _e_form(core: np.ndarray, a: np.ndarray, b: np.ndarray, most: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs (U, V) with the codes as their first column and row, where those have at most `most` columns."""
    error = core - a * b
    if not error.any() or lattice.rank(error) + 1 > most:
        return []
    return [(np.hstack([a, u]), np.vstack([b, v])) for u, v in _m_form(error)]


def _rebuilds(u: np.ndarray, v: np.ndarray, core: np.ndarray) -> bool:
    """Whether ``u v`` is the table, element by element, without having wrapped in int64."""
    largest = (np.abs(u.astype(np.float64)) @ np.abs(v.astype(np.float64))).max(initial=0)
    return bool(largest < 2.0**62 and np.array_equal(u @ v, core))
