"""What calibration measures at a layer's input, and the statistical error model fitted to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from axtrain.emulation.code_table import CodeTable

# Values kept for each batch seen: the 99.99th percentile of 2^18 values still has 26 beyond it.
_KEPT_PER_BATCH = 1 << 18


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


@dataclass(frozen=True)
class ErrorStatistics:
    """The r = 0 error model of a product (theory page, section 4; AxTrain's passive method).

    With operand distributions p(a), q(b): the mean error given the weight adds up coherently and is a
    bias per channel; the rest is a Gaussian whose variance has both marginals exact.

    Attributes:
        mean_given_weight: float32, (weight codes,): ``mu(b) = sum_a p(a) E(a, b)``.
        activation_variance: float32, (activation codes,): ``s(a) = sum_b q(b) R(a, b)^2``, R = E - mu(b).
        weight_variance: float32, (weight codes,): ``t(b) = sum_a p(a) R(a, b)^2 / sum_ab p q R^2``.
    """

    mean_given_weight: np.ndarray
    activation_variance: np.ndarray
    weight_variance: np.ndarray


def fit_statistics(table: CodeTable, activation_codes: np.ndarray, weight_codes: np.ndarray) -> ErrorStatistics:
    """Fits the error model to samples of both operands' codes.

    Args:
        table: the products over the codes in use.
        activation_codes, weight_codes: integer codes as they occur, any shape.
    """
    p = _distribution(activation_codes, table.activation_low, table.products.shape[0])
    q = _distribution(weight_codes, table.weight_low, table.products.shape[1])
    error = table.error.astype(np.float64)
    mean = p @ error
    squared = (error - mean) ** 2
    activation_variance = squared @ q
    total = float(p @ activation_variance)
    weight_variance = p @ squared / total if total > 0 else np.zeros_like(mean)
    return ErrorStatistics(
        mean.astype(np.float32), activation_variance.astype(np.float32), weight_variance.astype(np.float32)
    )


def _distribution(codes: np.ndarray, low: int, count: int) -> np.ndarray:
    index = np.asarray(codes).reshape(-1).astype(np.int64) - low
    return np.bincount(index, minlength=count) / index.size
