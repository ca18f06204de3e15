"""The residual of the error model: its shape where sums are short, and how well all of it predicts.

Over a long sum the residual is normal by the central limit theorem; a depthwise convolution sums nine terms,
and there the distribution measured at calibration is drawn from (theory page, section 4).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from axtrain.emulation.code_table import CodeTable
from axtrain.layers.statistics import ErrorStatistics
from axtrain.layers.windows import Windows
from axtrain.noise_models.residuals import distance
from axtrain.noise_models.residuals import mixture_levels as mixture_levels

# Sums of at most this many terms get their measured shape (chosen here).
SHORT = 32
# Products looked up at once: 2^22 int64 are 32 MiB.
_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class FidelityReport:
    """How well the error model predicts a product's bit-exact error, on calibration data it was not fitted to.

    Attributes:
        product: its name within the layer; empty where the layer has no other.
        samples: how many outputs were compared.
        rank: the ordinary products that play the error's systematic part.
        residual: `"normal"`, `"mixture"` or `"none"`: what is drawn.
        bias: predicted minus exact mean error, root mean square over channels, in standard deviations of the
            exact error.
        std_ratio: predicted over exact standard deviation of the error within a channel.
        correlation: of the predicted mean with the exact error, within channels; 0 where the model is all noise.
        ks_normal: Kolmogorov-Smirnov distance of the standardised residual from the normal distribution.
        ks_mixture: the same from the fitted mixture; `None` where none was fitted.
    """

    product: str
    samples: int
    rank: int
    residual: str
    bias: float
    std_ratio: float
    correlation: float
    ks_normal: float
    ks_mixture: float | None

    def __str__(self) -> str:
        distance = self.ks_mixture if self.residual == "mixture" else self.ks_normal
        return (
            f"rank {self.rank}, residual {self.residual}; over {self.samples} outputs bias {self.bias:.3f} standard "
            f"deviations, std ratio {self.std_ratio:.3f}, correlation {self.correlation:.3f}, "
            f"Kolmogorov-Smirnov distance {distance:.3f}"
        )


@dataclass(frozen=True, eq=False)
class Predicted:
    """Bit-exact errors and their prediction; float64 (M, groups, N) in units of the accumulator.

    Attributes:
        exact: ``sum_k E[a_k, b_k]``.
        mean: ``sum_k (sum_r u_r(a_k) v_r(b_k) + mu(b_k))``.
        std: the square root of ``sum_k s(a_k) t(b_k)``, or of ``sum_k s(a_k) sum_k t(b_k) / K`` in product form.
    """

    exact: np.ndarray
    mean: np.ndarray
    std: np.ndarray

    @property
    def standardised(self) -> np.ndarray:
        """float64, flat: ``(exact - mean) / std`` where std is not 0."""
        drawn = self.std > 0
        return (self.exact - self.mean)[drawn] / self.std[drawn]


def predict(table: CodeTable, statistics: ErrorStatistics, windows: Windows, *, product_form: bool) -> Predicted:
    """The errors of single outputs and what the model says of them."""
    rows = windows.rows.astype(np.int64) - table.activation_low
    columns = windows.columns.astype(np.int64) - table.weight_low
    exact = _look_ups(table.error, rows, columns)
    a = rows[:, :, None, :]
    mean = statistics.mean_given_weight.astype(np.float64)[columns].sum(axis=1)
    mean = np.broadcast_to(mean, exact.shape).copy()
    for u, v in zip(statistics.activation_factors, statistics.weight_factors, strict=True):
        mean += (u.astype(np.float64)[a] @ v.astype(np.float64)[columns])[:, :, 0]
    s = statistics.activation_variance.astype(np.float64)[a]
    t = statistics.weight_variance.astype(np.float64)[columns]
    variance = s.sum(-1) * t.sum(axis=1) / columns.shape[1] if product_form else (s @ t)[:, :, 0]
    return Predicted(exact, mean, np.sqrt(np.maximum(variance, 0.0)))


def _look_ups(error: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    groups, length, units = columns.shape
    step = max(1, _AT_ONCE // (groups * length * units))
    parts = []
    for start in range(0, len(rows), step):
        a = rows[start : start + step, :, :, None]
        parts.append(error[a, columns].sum(axis=2))
    return np.concatenate(parts).astype(np.float64)


def report(product: str, predicted: Predicted, rank: int, residual: str, levels: np.ndarray | None) -> FidelityReport:
    """The figures of merit of a product; `levels` is the mixture's shape, `None` where none was fitted."""
    exact, mean = predicted.exact, predicted.mean
    within = exact - exact.mean(axis=0)
    foreseen = mean - mean.mean(axis=0)
    spread, noise = np.sqrt((within**2).mean()), (predicted.std**2).mean() if residual != "none" else 0.0
    predicted_spread = np.sqrt((foreseen**2).mean() + noise)
    bias = np.sqrt(((mean - exact).mean(axis=0) ** 2).mean())
    agreement = (within * foreseen).mean() / np.sqrt((within**2).mean() * (foreseen**2).mean() or 1.0)
    values = predicted.standardised
    return FidelityReport(
        product=product,
        samples=exact.size,
        rank=rank,
        residual=residual,
        bias=float(bias / spread) if spread > 0 else float(bias > 1e-6),
        std_ratio=float(predicted_spread / spread) if spread > 0 else 1.0,
        correlation=float(agreement),
        ks_normal=distance(values, None),
        ks_mixture=None if levels is None else distance(values, levels),
    )
