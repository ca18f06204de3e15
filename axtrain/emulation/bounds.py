"""How large a partial sum of integer factors can get, and equivalent factors that keep it small.

A float32 sum of integers is exact while no partial sum leaves -2^24 .. 2^24. With ``U V`` in the table's
place, a partial sum over K pairs of codes is a sum over a subset of their K r terms, in whatever order,
blocks or fused multiply-adds; so it lies between minus K times the largest negative part and K times the
largest positive part of one pair's sum (theory page, section 2).
"""

from __future__ import annotations

from itertools import permutations

import numpy as np

_HIGHEST_RANK = 24  # beyond it tightening takes seconds, and such tables are played by look-up
_ROUNDS = 4
_WORST_PAIRS = 32
_CLOSE = 0.005  # of the floor: 5 terms in 1000


def largest_part(u: np.ndarray, v: np.ndarray) -> float:
    """The largest positive or negative part of ``sum_r u[a, r] v[r, b]`` over all pairs.

    With ``S = sum |u v|`` and ``D = sum u v`` the parts are ``(S + D) / 2`` and ``(S - D) / 2``, so the
    larger is ``(S + |D|) / 2``. Exact in float64 below 2^52.

    Args:
        u: shape (A, r).
        v: shape (r, B).
    """
    return float(_all_parts(u, v).max(initial=0))


def smallest_possible(products: np.ndarray) -> int:
    """No factors, centred or not, have a smaller largest part: half the widest range of a column.

    Centring adds to each column of products a constant, and what remains has a range as wide; one of its
    ends is at least half of it away from 0, and a sum is never larger than its positive or negative part.
    """
    columns = products.astype(np.int64)
    return int(((columns.max(axis=0) - columns.min(axis=0) + 1) // 2).max(initial=0))


def centred(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """`u`, or `u` with the middle of each column's range taken off, whichever has the smaller bound."""
    middle = (u.max(axis=0) + u.min(axis=0)) // 2
    return min(u, u - middle, key=lambda choice: largest_part(choice, v))


def tightened(u: np.ndarray, v: np.ndarray, floor: int) -> tuple[np.ndarray, np.ndarray]:
    """Integer factors of the same products up to a constant per column, their bound as small as steps make it.

    Steps that leave the products alone but for a constant per column: a constant added to a column of `u`;
    ``u_i += k u_j`` with ``v_j -= k v_i``, k = 1 or -1. Each is kept where it lowers the bound, until none
    does or the bound is within half a percent of `floor`.

    Args:
        u: int64, shape (A, r).
        v: int64, shape (r, B).
        floor: `smallest_possible` of the products.
    """
    if u.shape[1] > _HIGHEST_RANK:
        return u, v
    bound, rows, columns = _worst_pairs(u, v)
    for _ in range(_ROUNDS):
        before = bound
        for change, shift in _steps(u):
            if bound <= floor * (1 + _CLOSE):
                return u, v
            # Most steps fail at the pairs that are worst now, which is quickly seen.
            left, right = u[rows], v[:, columns]
            if _parts(left + left @ change + shift, (right - change @ right).T).max() >= bound:
                continue
            u_next, v_next = u + u @ change + shift, v - change @ v
            smaller, *worst = _worst_pairs(u_next, v_next)
            if smaller < bound:
                u, v, bound, (rows, columns) = u_next, v_next, smaller, worst
        if bound == before:
            break
    return u, v


def _steps(u: np.ndarray):
    """(C, s) for ``u + u C + s`` and ``v - C v``; C is nilpotent, so the products change by s v alone."""
    size = u.shape[1]
    nothing, unit = np.zeros((size, size), np.int64), np.eye(size, dtype=np.int64)
    widest = int((u.max(axis=0) - u.min(axis=0)).max(initial=0))
    for power in range(max(widest, 1).bit_length() - 1, -1, -1):  # large steps of the centre first
        for i in range(size):
            yield nothing, unit[i] << power
            yield nothing, -(unit[i] << power)
    for i, j in permutations(range(size), 2):
        yield np.outer(unit[j], unit[i]), 0
        yield -np.outer(unit[j], unit[i]), 0


def _worst_pairs(u: np.ndarray, v: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """The bound, and the codes of the pairs with the largest parts."""
    parts = _all_parts(u, v).reshape(-1)
    few = min(_WORST_PAIRS, parts.size)
    worst = np.argpartition(parts, parts.size - few)[-few:]
    rows, columns = np.unravel_index(worst, (u.shape[0], v.shape[1]))
    return float(parts.max()), rows, columns


def _all_parts(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The larger part of every pair, float64 of shape (A, B)."""
    u, v = u.astype(np.float64), v.astype(np.float64)
    # Not `@`: products as small as these take longer to spread over threads than to compute.
    magnitudes = np.einsum("ar,rb->ab", np.abs(u), np.abs(v))
    return (magnitudes + np.abs(np.einsum("ar,rb->ab", u, v))) / 2


def _parts(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The larger part of each pair, for factors of shape (pairs, r) each."""
    products = left * right
    return (np.abs(products).sum(axis=1) + np.abs(products.sum(axis=1))) / 2
