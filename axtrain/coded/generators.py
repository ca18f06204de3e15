"""Generator matrices of codes over the reals, and how well they can be undone.

A code of N results for K messages is an N x K matrix G: result p is ``y_p = sum_q G[p, q] m_q``. Any K rows of the
generators made here can be inverted; how well depends on the construction by many orders of magnitude (`condition`).
"""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np

SETS_TRIED = 300
"""Of surviving rows: all of them where there are no more, else as many drawn by a fixed seed."""


def chebyshev_points(count: int) -> np.ndarray:
    """Roots of the Chebyshev polynomial of degree `count`: ``cos((2 i + 1) pi / (2 count))``.

    Nodes of a polynomial code belong here and never on the integers, where the median condition of 9 of 12 rows is
    3e11 instead of 2e3. Source: theory page, section 8.
    """
    return np.cos((2 * np.arange(count) + 1) * np.pi / (2 * count))


def monomials(points: np.ndarray, degree: int) -> np.ndarray:
    """``points[p] ** k`` for k = 0 .. degree - 1: shape (points, degree)."""
    return np.vander(points, degree, increasing=True)


def chebyshev_basis(points: np.ndarray, degree: int) -> np.ndarray:
    """Chebyshev polynomials of degree 0 .. degree - 1, orthonormal in the Chebyshev weight: (points, degree)."""
    basis = np.polynomial.chebyshev.chebvander(points, degree - 1)
    return basis * np.where(np.arange(degree) == 0, 1.0, np.sqrt(2.0))


def systematic(results: int, messages: int) -> np.ndarray:
    """A maximum-distance-separable code whose first K results are the messages: shape (N, K).

    The parity rows are the best conditioned of a few fixed draws of random orthonormal ones (of normal ones with
    variance 1/K where there are more parities than messages); with one of them, equal weights.
    """
    parities = results - messages
    if parities == 0:
        return np.eye(messages)
    if parities == 1:
        return np.vstack([np.eye(messages), np.full((1, messages), messages**-0.5)])
    if messages == 1:
        return np.ones((results, 1))
    drawn = [np.vstack([np.eye(messages), _parities(parities, messages, seed)]) for seed in range(20)]
    return min(drawn, key=lambda generator: np.max(_conditions(generator)))


def _parities(rows: int, columns: int, seed: int) -> np.ndarray:
    normal = np.random.default_rng(seed).standard_normal((rows, columns)) * columns**-0.5
    if rows > columns:
        return normal
    return np.linalg.qr(normal.T)[0].T


def parity_checks(generator: np.ndarray) -> np.ndarray:
    """Orthonormal rows H with ``H G = 0``: shape (N - K, N)."""
    results, messages = generator.shape
    return np.linalg.svd(generator, full_matrices=True)[0].T[messages:results]


def condition(generator: np.ndarray) -> float:
    """Median condition number of the decoder over the sets of K surviving results."""
    return float(np.median(_conditions(generator)))


def _conditions(generator: np.ndarray) -> np.ndarray:
    results, messages = generator.shape
    if comb(results, messages) <= SETS_TRIED:
        sets = np.array(list(combinations(range(results), messages)))
    else:
        drawn = np.random.default_rng(0)
        sets = np.array([drawn.choice(results, messages, replace=False) for _ in range(SETS_TRIED)])
    return np.linalg.cond(generator[sets])
