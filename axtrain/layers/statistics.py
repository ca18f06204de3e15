"""What calibration measures at a layer's input, and the statistical error model fitted to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from axtrain.emulation.code_table import CodeTable

# Values kept for each batch seen: the 99.99th percentile of 2^18 values still has 26 beyond it.
_KEPT_PER_BATCH = 1 << 18
# Weight given in the rank-r fit to codes that the data never showed, spread over all: too little to move the
# fit, enough that at full rank the factors rebuild the error everywhere (chosen here).
_UNSEEN_SHARE = 1e-6
# Parts of an error below this share of its largest entry are rounding of the decomposition (chosen here).
_ROUNDING = 1e-9


class Observer:
    """Collects samples of one layer's input while calibration data runs through the float model."""

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = []
        self._rng = np.random.default_rng(0)

    def add(self, values) -> None:
        """Keeps the values of one batch, a random part of them where they are very many."""
        values = np.asarray(values, dtype=np.float32).reshape(-1)
        if values.size > _KEPT_PER_BATCH:
            values = values[self._rng.integers(0, values.size, _KEPT_PER_BATCH)]
        self._parts.append(values)

    @property
    def samples(self) -> np.ndarray:
        """float32, every value kept."""
        return np.concatenate(self._parts) if self._parts else np.empty(0, np.float32)


@dataclass(frozen=True, eq=False)
class ErrorStatistics:
    """The rank-r error model of a product (theory page, section 4; r = 0 is AxTrain's passive method).

    With operand distributions p(a), q(b): ``E(a, b) ~ sum_r u_r(a) v_r(b) + mu(b) + noise``. The mean given the
    weight adds up coherently over a sum and is a bias per channel; the rest is noise whose variance has both
    marginals exact.

    Attributes:
        mean_given_weight: float32, (weight codes,): ``mu(b) = sum_a p(a) (E - u v)(a, b)``.
        activation_variance: float32, (activation codes,): ``s(a) = sum_b q(b) R(a, b)^2``, R = E - u v - mu(b).
        weight_variance: float32, (weight codes,): ``t(b) = sum_a p(a) R(a, b)^2 / sum_ab p q R^2``.
        activation_factors: float32, (r, activation codes): u.
        weight_factors: float32, (r, weight codes): v.
    """

    mean_given_weight: np.ndarray
    activation_variance: np.ndarray
    weight_variance: np.ndarray
    activation_factors: np.ndarray
    weight_factors: np.ndarray

    @property
    def rank(self) -> int:
        """The number r of ordinary products that play the error's systematic part."""
        return len(self.activation_factors)


def fit_statistics(table: CodeTable, p: np.ndarray, q: np.ndarray, rank: int = 0) -> ErrorStatistics:
    """Fits the error model to both operands' distributions.

    Args:
        table: the products over the codes in use.
        p, q: how often each activation and weight code occurs; non-negative, any scale.
        rank: r >= 0; beyond the error's own rank the further factors are 0.
    """
    p, q = p / p.sum(), q / q.sum()
    error = table.error.astype(np.float64)
    u, v = weighted_factors(error, p, q, rank)
    residual = error - u.T @ v
    residual[np.abs(residual) < _ROUNDING * np.abs(error).max(initial=0)] = 0.0
    mean = p @ residual
    squared = (residual - mean) ** 2
    activation_variance = squared @ q
    total = float(p @ activation_variance)
    weight_variance = p @ squared / total if total > 0 else np.zeros_like(mean)
    return ErrorStatistics(*(x.astype(np.float32) for x in (mean, activation_variance, weight_variance, u, v)))


def weighted_factors(error: np.ndarray, p: np.ndarray, q: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """The u (r, rows) and v (r, columns) that minimise ``sum_ab p(a) q(b) (error - sum_r u_r(a) v_r(b))^2``.

    With ``diag(sqrt p) error diag(sqrt q) = X S Y'`` (singular value decomposition):
    ``u = error diag(sqrt q) Y`` and ``v = S^-1 X' diag(sqrt p) error``. Neither divides by a p(a) or q(b), so
    codes that never occurred get the value that a regression on the others gives them (theory page, section 4).
    """
    u, v = np.zeros((rank, error.shape[0])), np.zeros((rank, error.shape[1]))
    if rank == 0 or not error.any():
        return u, v
    root_p, root_q = (np.sqrt((1 - _UNSEEN_SHARE) * d + _UNSEEN_SHARE / d.size) for d in (p, q))
    with threadpool_limits(1):  # several threads lose more waiting than they gain on 256 rows
        x, singular, y = np.linalg.svd(root_p[:, None] * error * root_q, full_matrices=False)
    kept = min(rank, int((singular > 1e-12 * singular[0]).sum()))
    # Equal halves of the size on both sides, so that float32 loses as little on either.
    size = np.sqrt(singular[:kept])[:, None]
    u[:kept] = (error @ (root_q[:, None] * y[:kept].T)).T / size
    v[:kept] = (x[:, :kept].T * root_p) @ error / size
    return u, v


def histogram(codes: np.ndarray, low: int, count: int) -> np.ndarray:
    """How large a share of the codes each of `low` .. `low + count - 1` has; float64, (count,)."""
    index = np.asarray(codes).reshape(-1).astype(np.int64) - low
    return np.bincount(index, minlength=count) / index.size
