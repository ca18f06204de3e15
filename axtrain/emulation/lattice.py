"""Integer linear algebra: the lattice that a table's rows span, and short vectors in it.

Real factors of a table are inexact. Integer ones come from a basis of the lattice of all integer
combinations of its rows: Hermite normal form on pivot columns, lifted back, then reduced by LLL (theory
page, section 2). Elimination is exact: modulo a prime for ranks, in rationals for coordinates.
"""

from __future__ import annotations

from fractions import Fraction
from math import lcm

import numpy as np

_PRIME = (1 << 31) - 1
_MOST_STEPS = 100  # of the reduction, times the squared rank; the real tables need fewer than 10


def rank(products: np.ndarray) -> int:
    """The rank over the rationals of an integer matrix.

    Computed modulo the prime 2^31 - 1, where it could only come out too small; factors are verified
    against their table, so a wrong rank could never pass.
    """
    return len(_pivots(products)[0])


def row_lattice(products: np.ndarray) -> np.ndarray:
    """A basis, int64 of shape (r, columns), of the lattice of all integer combinations of the rows."""
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


def coordinates(products: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """The integer U with ``products = U basis``, by least squares; the caller verifies the product."""
    orthogonal, triangle = np.linalg.qr(basis.T.astype(np.float64))
    right = orthogonal.T @ products.T.astype(np.float64)
    if np.abs(np.diag(triangle)).min() > 1e-10 * np.abs(triangle).max():
        solution = np.linalg.solve(triangle, right)
    else:  # the basis of a table of zeros is zero
        solution = np.linalg.lstsq(triangle, right, rcond=None)[0]
    return np.rint(solution.T).astype(np.int64)


def reduced(basis: np.ndarray) -> np.ndarray:
    """LLL reduction of the rows (Lenstra, Lenstra, Lovasz 1982): short, nearly orthogonal vectors.

    Projections are float64, which wild entries could keep from settling; any state on the way is a basis,
    so the work is simply limited.
    """
    v = basis.copy()
    k, size = 1, len(v)
    for _ in range(_MOST_STEPS * size * size):
        if k >= size:
            break
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


def _pivots(products: np.ndarray) -> tuple[list[int], list[int]]:
    """Rows and columns of a largest regular minor, by elimination modulo a prime."""
    rest, left = products.astype(np.int64) % _PRIME, np.arange(products.shape[1])
    rows, columns = [], []
    for row in range(products.shape[0]):
        line, rest = rest[0], rest[1:]
        nonzero = np.flatnonzero(line)
        if nonzero.size == 0:
            continue
        first = int(nonzero[0])
        rows.append(row)
        columns.append(int(left[first]))
        scaled = line * pow(int(line[first]), -1, _PRIME) % _PRIME
        # The column is zero from here on. Both factors stay below 2^31, so the differences fit 62 bits and a sign.
        factors, kept = rest[:, first : first + 1], np.arange(left.size) != first
        left, rest = left[kept], (rest[:, kept] - factors * scaled[kept]) % _PRIME
    return rows, columns


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
