"""The shape of a residual: a distribution held as the means of equal parts of itself.

What a model leaves unexplained is drawn from `LEVELS` equally likely values, so a draw is one look-up. Layers use
it for the error that a multiplier's model leaves, datapaths for the error that a trace shows. The functions fit
and compare; they need SciPy and scikit-learn, which are imported there.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

LEVELS = 1 << 10
"""Levels of a measured distribution's quantile function: shape to 0.1 %, tails to 3.4 standard deviations."""
COMPONENTS = 3
"""Normals in a fitted mixture (chosen here)."""
# Values that a mixture is fitted to, at most: its shape is then known to about 1 % (chosen here).
_FITTED_TO = 8_000
# Quantiles that stand for the normal: with 2^16 its outermost level is right to 0.1 % (chosen here).
_QUANTILES = 1 << 16


@lru_cache(maxsize=1)
def normal_levels() -> np.ndarray:
    """float32, shape (LEVELS,): the mean of each part of the standard normal, as `levels_of` gives it."""
    from scipy import special

    return levels_of(special.ndtri((np.arange(_QUANTILES) + 0.5) / _QUANTILES))


def levels_of(quantiles: np.ndarray) -> np.ndarray:
    """float32, shape (LEVELS,): the mean of each equal part of a distribution, standardised.

    Args:
        quantiles: ascending, at equally spaced probabilities; their number is a multiple of `LEVELS`.
    """
    means = np.asarray(quantiles, np.float64).reshape(LEVELS, -1).mean(axis=1)
    return ((means - means.mean()) / means.std()).astype(np.float32)


def mixture_levels(standardised: np.ndarray) -> np.ndarray:
    """The shape of a residual: a mixture of `COMPONENTS` normals fitted to it, as `levels_of` gives it.

    Args:
        standardised: float64, flat; 100 values at least, else the normal's shape is given.
    """
    from scipy import special
    from sklearn.mixture import GaussianMixture
    from threadpoolctl import threadpool_limits

    values = np.asarray(standardised, np.float64)
    if len(values) < 100 or values.std() == 0:
        return normal_levels()
    if len(values) > _FITTED_TO:
        values = np.random.default_rng(0).choice(values, _FITTED_TO, replace=False)
    with threadpool_limits(1):  # several threads lose more waiting than they gain
        mixture = GaussianMixture(COMPONENTS, random_state=0).fit(values[:, None])
    share, mean, std = mixture.weights_, mixture.means_[:, 0], np.sqrt(mixture.covariances_[:, 0, 0])
    grid = np.linspace((mean - 6 * std).min(), (mean + 6 * std).max(), 1 << 14)
    distribution = (share * special.ndtr((grid[:, None] - mean) / std)).sum(axis=1)
    count = 16 * LEVELS
    return levels_of(np.interp((np.arange(count) + 0.5) / count, distribution, grid))


def distance(standardised: np.ndarray, levels: np.ndarray | None) -> float:
    """Kolmogorov-Smirnov distance of values from the normal, or from a shape given by its levels."""
    from scipy import stats

    if len(standardised) == 0:
        return 0.0
    if levels is None:
        return float(stats.kstest(standardised, "norm").statistic)
    probabilities = (np.arange(LEVELS) + 0.5) / LEVELS
    return float(stats.kstest(standardised, lambda x: np.interp(x, levels, probabilities)).statistic)
