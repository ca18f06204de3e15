"""Integer factors of a table: ``M = U V`` exactly, with entries small enough for float32 products.

``sum_k M[a_k, b_k] = sum_r sum_k U[a_k, r] V[r, b_k]``, so a table of rank r costs r ordinary matrix
products of looked-up operands (theory page, section 2). Factors from a singular value decomposition
are real and lose exactness; these are integers, verified element by element.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import lcm

import numpy as np

from axtrain.emulation.code_table import CodeTable

EXACT_FLOAT32 = 1 << 24  # integers up to this magnitude are exact in float32
_PRIME = (1 << 31) - 1


@dataclass(frozen=True, eq=False)
class Factors:
    """``products = activation @ weight + shift @ weight``, all integers.

    The activation factor is centred: a constant is taken off each column, which halves the partial
    sums of an unsigned operand. What was taken off depends on the weights alone and is added back
    exactly in int32, ``sum_k sum_r shift[r] weight[r, b_k]`` per output channel.

    Attributes:
        activation: int64, shape (activation codes, r).
        weight: int64, shape (r, weight codes).
        shift: int64, shape (r,).
        bound: the largest ``sum_r |activation[a, r]| |weight[r, b]|`` over all pairs.
    """

    activation: np.ndarray
    weight: np.ndarray
    shift: np.ndarray
    bound: int

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
    """The rank of the table over the rationals.

    Computed modulo the prime 2^31 - 1, where it could only come out too small; `factorise` verifies
    its factors against the table, so a wrong rank could never pass.
    """
    return len(_pivots(table.products)[0])


@lru_cache(maxsize=256)
def factorise(table: CodeTable) -> Factors:
    """The integer factors with the smallest exactness bound among a few reduced bases.

    Raises:
        ArithmeticError: no pair of integer factors small enough for int64 rebuilds the table.
    """
    products = table.products.astype(np.int64)
    rows = _reduced(_row_lattice(products))
    columns = _reduced(_row_lattice(products.T)).T
    candidates = [(_coordinates(products, rows), rows), (columns, _coordinates(products.T, columns.T).T)]
    for u, v in list(candidates):  # the same lattices, reduced from the other factor's side
        candidates.append((other := _reduced(u.T).T, _coordinates(products.T, other.T).T))
        candidates.append((_coordinates(products, other := _reduced(v)), other))
    exact = [_centred(u, v) for u, v in candidates if np.array_equal(u @ v, products)]
    if not exact:
        raise ArithmeticError(
            f"No integer factors found for this table; use the gather engine. Received: rank {exact_rank(table)}"
        )
    return min(exact, key=lambda factors: factors.bound)


def _centred(u: np.ndarray, v: np.ndarray) -> Factors:
    shift = (u.max(axis=0) + u.min(axis=0)) // 2
    bound = int((np.abs(u - shift) @ np.abs(v)).max(initial=0))
    plain_bound = int((np.abs(u) @ np.abs(v)).max(initial=0))
    if bound < plain_bound:
        return Factors(u - shift, v, shift, bound)
    return Factors(u, v, np.zeros_like(shift), plain_bound)


def _pivots(products: np.ndarray) -> tuple[list[int], list[int]]:
    """Rows and columns of a largest regular minor, by elimination modulo a prime."""
    rest = products.astype(np.int64) % _PRIME
    rows, columns = [], []
    for row in range(rest.shape[0]):
        nonzero = np.flatnonzero(rest[row])
        if nonzero.size == 0:
            continue
        column = int(nonzero[0])
        rows.append(row)
        columns.append(column)
        inverse = pow(int(rest[row, column]), -1, _PRIME)
        # Both factors stay below 2^31, so the products fit 62 bits.
        scaled = rest[row] * inverse % _PRIME
        below = rest[row + 1 :]
        below[:] = (below - below[:, column : column + 1] * scaled % _PRIME) % _PRIME
    return rows, columns


def _row_lattice(products: np.ndarray) -> np.ndarray:
    """A basis, shape (r, columns), of the lattice of all integer combinations of the table's rows."""
    rows, columns = _pivots(products)
    if not rows:
        return np.zeros((1, products.shape[1]), np.int64)
    coordinates = _solve(products[np.ix_(rows, columns)], products[:, columns])
    denominator = lcm(*(value.denominator for line in coordinates for value in line))
    if denominator == 1:
        return products[rows]
    scaled = [[int(value * denominator) for value in line] for line in coordinates]
    basis = np.array(_hermite_basis(scaled, denominator), dtype=object)
    # Entries of the basis stay below the denominator, so the lifted rows are small again.
    return (basis @ products[rows].astype(object) // denominator).astype(np.int64)


def _coordinates(products: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """The integer U with ``products = U basis``, by least squares; the caller verifies the product."""
    solution = np.linalg.lstsq(basis.T.astype(np.float64), products.T.astype(np.float64), rcond=None)[0]
    return np.rint(solution.T).astype(np.int64)


def _solve(square: np.ndarray, right: np.ndarray) -> list[list[Fraction]]:
    """Exact ``right @ inverse(square)`` in rationals, by elimination on the transposed system."""
    size = len(square)
    system = [[Fraction(int(x)) for x in line] for line in np.concatenate([square.T, right.T], axis=1)]
    for step in range(size):
        pivot = next(i for i in range(step, size) if system[i][step])
        system[step], system[pivot] = system[pivot], system[step]
        inverse = 1 / system[step][step]
        system[step] = [x * inverse for x in system[step]]
        for i in range(size):
            factor = system[i][step]
            if i != step and factor:
                system[i] = [x - factor * y if y else x for x, y in zip(system[i], system[step], strict=True)]
    return [[system[i][size + j] for i in range(size)] for j in range(right.shape[0])]


def _hermite_basis(vectors: list[list[int]], modulus: int) -> list[list[int]]:
    """Upper triangular (Hermite) basis of the lattice spanned by `vectors`.

    The pivot rows of the table are themselves ``modulus`` times the unit vectors here, so the lattice
    contains ``modulus * Z^r`` and every entry may be kept below the modulus.
    """
    size = len(vectors[0])
    basis = [[modulus if i == j else 0 for j in range(size)] for i in range(size)]
    for vector in {tuple(x % modulus for x in vector) for vector in vectors}:
        rest = list(vector)
        for i in range(size):
            while rest[i]:  # Euclid on the leading entries
                quotient = basis[i][i] // rest[i]
                basis[i] = [x - quotient * y for x, y in zip(basis[i], rest, strict=True)]
                basis[i], rest = rest, basis[i]
            basis[i] = basis[i][: i + 1] + [x % modulus for x in basis[i][i + 1 :]]
            rest = [x % modulus for x in rest]
    return basis


def _reduced(basis: np.ndarray) -> np.ndarray:
    """LLL reduction of the rows (Lenstra, Lenstra, Lovasz 1982): short, nearly orthogonal vectors."""
    v = basis.copy()
    k, size = 1, len(v)
    while k < size:
        for j in range(k - 1, -1, -1):
            quotient = round(_projections(v, k)[0][j])
            if quotient:
                v[k] -= quotient * v[j]
        projections, norms = _projections(v, k)
        if norms[k] >= (0.75 - projections[k - 1] ** 2) * norms[k - 1]:
            k += 1
        else:
            v[[k - 1, k]] = v[[k, k - 1]]
            k = max(k - 1, 1)
    return v


def _projections(v: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Gram-Schmidt coefficients of row k and the squared norms of the orthogonalised rows 0 .. k."""
    triangle = np.asarray(np.linalg.qr(v[: k + 1].T.astype(np.float64), mode="r"))
    diagonal = np.diag(triangle)
    return triangle[:k, k] / diagonal[:k], diagonal**2
