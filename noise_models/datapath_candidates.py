"""The models that a trace of an array is compared with: each fitted to one part, judged on the other.

Likelihoods are probabilities of integers given the exact result, ``P(observed | exact)``. Every estimate is smoothed
by one pseudo-observation, so that a held-out result which the fitted part never showed is unlikely and not
impossible; the datapaths themselves keep the plain estimates, in which a bit that never flipped never flips.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from .datapath import Datapath, DroppedMACs, MeasuredDatapath, TimingErrors
from .residuals import LEVELS, mixture_levels, normal_levels

# Wrong results that a distribution of flips is compared by: a distance is then right to about 0.005 (chosen here).
_DRAWN = 1 << 16


@dataclass(frozen=True, kw_only=True, eq=False)
class Trace:
    """Results of an array, flat: `exact` and `observed` int64, `squares` float64 or None, in `bits` bits."""

    exact: np.ndarray
    observed: np.ndarray
    squares: np.ndarray | None
    bits: int

    def part(self, index: np.ndarray) -> Trace:
        """The results at these places."""
        squares = None if self.squares is None else self.squares[index]
        return Trace(exact=self.exact[index], observed=self.observed[index], squares=squares, bits=self.bits)

    @property
    def gain(self) -> float:
        """Slope of observed against exact by least squares, with an intercept; 1 where exact never changes."""
        centred = self.exact - self.exact.mean()
        energy = (centred**2).sum()
        return float((centred * self.observed).sum() / energy) if energy > 0 else 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """A fitted datapath, its held-out `log_likelihood` in nats per result, and what a plot compares.

    `held` are the held-out residuals and `drawn` the model's, both in `unit`.
    """

    datapath: Datapath
    log_likelihood: float
    held: np.ndarray
    drawn: np.ndarray
    unit: str = "accumulator units"


def flipped_bits(trace: Trace) -> np.ndarray:
    """How often each bit of the accumulator is flipped: int64 (bits,), lowest first."""
    flips = trace.exact ^ trace.observed
    return np.array([np.count_nonzero(flips >> bit & 1) for bit in range(trace.bits)])


def fit_bits(fitted: Trace, held: Trace, origin: dict[str, Any]) -> Candidate:
    """Each bit flips by itself: ``log P = sum_j [f_j log p_j + (1 - f_j) log(1 - p_j)]``, f_j the flips.

    The rate of a bit is the share of results with it flipped; for the likelihood ``(k + 1/2) / (n + 1)``.
    """
    counts, n = flipped_bits(fitted), len(fitted.exact)
    smooth = (counts + 0.5) / (n + 1)
    share = flipped_bits(held) / len(held.exact)
    log_likelihood = (share * np.log(smooth) + (1 - share) * np.log1p(-smooth)).sum()
    rates = counts / n
    wrong = held.observed != held.exact
    return Candidate(
        datapath=TimingErrors(flip_rates=tuple(rates), accumulator_bits=fitted.bits, **origin),
        log_likelihood=float(log_likelihood),
        held=(held.observed - held.exact)[wrong].astype(np.float64),
        drawn=_drawn_flips(held.exact, rates) if wrong.any() and rates.any() else np.zeros(int(wrong.any())),
    )


def _drawn_flips(exact: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """float64 (_DRAWN,): residuals of results that are wrong, drawn directly from those of all results.

    The lowest flipped bit is j with probability proportional to ``p_j prod_(i<j) (1 - p_i)``; the bits above it flip
    by themselves, those below do not.
    """
    rng = np.random.default_rng(0)
    first = rates * np.concatenate([[1.0], np.cumprod(1 - rates)[:-1]])
    lowest = rng.choice(len(rates), _DRAWN, p=first / first.sum())[:, None]
    bits = np.arange(len(rates))
    flips = (bits == lowest) | ((bits > lowest) & (rng.random((_DRAWN, len(rates))) < rates))
    weights = 2.0**bits
    weights[-1] *= -1.0
    word = rng.choice(exact, _DRAWN)[:, None] >> bits & 1
    return (flips * (1 - 2 * word)) @ weights


def fit_residuals(fitted: Trace, held: Trace, origin: dict[str, Any]) -> dict[str, Candidate]:
    """Now and then a residual, with a gain or without, its shape a mixture's or the trace's own."""
    candidates = {}
    for gain, suffix in ((1.0, ""), (fitted.gain, " with gain")):
        if suffix and (not gain > 0 or abs(gain - 1) * np.abs(fitted.exact).max() < 0.5):
            continue  # not a gain, or one that changes no result
        residual = fitted.observed - _gained(fitted, gain)
        wrong = residual[residual != 0].astype(np.float64)
        for name, shape in (("mixture", _mixture), ("empirical", _empirical)):
            bias, std, levels = shape(wrong) if len(wrong) else (0.0, 0.0, None)
            datapath = MeasuredDatapath(
                error_rate=len(wrong) / len(residual), bias=bias, std=std, levels=levels, gain=gain, **origin
            )
            candidates[name + suffix] = _judged(datapath, len(residual), len(wrong), held)
    return candidates


def _gained(trace: Trace, gain: float) -> np.ndarray:
    return MeasuredDatapath(error_rate=0.0, gain=gain).gained(trace.exact)


def _mixture(wrong: np.ndarray) -> tuple[float, float, tuple[float, ...] | None]:
    """Bias, standard deviation and levels of a mixture of normals; below 100 results the normal's."""
    from sklearn.exceptions import ConvergenceWarning

    bias, std = float(wrong.mean()), float(wrong.std())
    if std == 0:
        return bias, std, None
    with warnings.catch_warnings():
        # Few different residuals make a poor mixture; held-out data tell, so nobody need act on it.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return bias, std, tuple(mixture_levels((wrong - bias) / std).tolist())


def _empirical(wrong: np.ndarray) -> tuple[float, float, tuple[float, ...] | None]:
    """Those of the trace's own quantiles.

    Bias and standard deviation are the levels' own, so that what is drawn are the trace's values. The variance
    within a level is lost, which shows only where rare residuals are far larger than the others.
    """
    count = 16 * LEVELS
    # Whole residuals, none between two of them: a trace of timing errors holds few different ones.
    quantiles = np.quantile(wrong, (np.arange(count) + 0.5) / count, method="inverted_cdf")
    means = quantiles.reshape(LEVELS, -1).mean(axis=1)
    bias, std = float(means.mean()), float(means.std())
    return bias, std, tuple(((means - bias) / std).tolist()) if std > 0 else None


def _judged(datapath: MeasuredDatapath, n: int, wrong: int, held: Trace) -> Candidate:
    """``log P = log(1 - q)`` where the result is right, else ``log q + log P(residual | wrong)``.

    q is smoothed to ``(k + 1/2) / (n + 1)``; P is the levels' distribution, linear between them, with one
    pseudo-observation spread over every residual that the width allows.
    """
    residual = held.observed - _gained(held, datapath.gain)
    off = residual[residual != 0]
    q = (wrong + 0.5) / (n + 1)
    levels = normal_levels() if datapath.levels is None else np.array(datapath.levels)
    mass = level_masses(off, datapath.bias + datapath.std * levels.astype(np.float64))
    probability = (wrong * mass + 1 / (2.0 ** (held.bits + 1) - 2)) / (wrong + 1)
    right = len(residual) - len(off)
    drawn = datapath.residuals
    return Candidate(
        datapath=datapath,
        log_likelihood=float((right * np.log1p(-q) + len(off) * np.log(q) + np.log(probability).sum()) / len(residual)),
        held=off.astype(np.float64),
        drawn=drawn[drawn != 0] if np.any(drawn) else drawn,
    )


def level_masses(residuals: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Probability of each whole residual, none of which is 0, under levels of these values, given that it is not 0.

    ``P(r) = [F(r + 1/2) - F(r - 1/2)] / [1 - F(1/2) + F(-1/2)]`` with F linear between the middles of the levels.
    """
    shares = (np.arange(LEVELS) + 0.5) / LEVELS

    def below(x: Any) -> np.ndarray:
        return np.interp(x, values, shares, left=0.0, right=1.0)

    none = float(below(0.5) - below(-0.5))
    return (below(residuals + 0.5) - below(residuals - 0.5)) / (1.0 - none) if none < 1 else np.zeros(len(residuals))


def fit_dropped(fitted: Trace, held: Trace, origin: dict[str, Any]) -> Candidate:
    """Dropped MACs: a normal of mean ``(1 - p) x`` and variance ``p (1 - p) sum m^2``, p by maximum likelihood."""
    from scipy import optimize

    def loss(log_rate: float) -> float:
        return -_dropped_likelihood(fitted, float(np.exp(log_rate)))

    found = optimize.minimize_scalar(loss, bounds=(np.log(1e-9), np.log(0.999)), method="bounded")
    rate = float(np.exp(found.x)) if np.any(fitted.observed != fitted.exact) else 0.0
    centred, deviation = _standardised(held, rate)
    drawn = deviation > 0
    return Candidate(
        datapath=DroppedMACs(rate=rate, **origin),
        log_likelihood=_dropped_likelihood(held, rate, weight=len(fitted.exact)),
        held=centred[drawn] / deviation[drawn],
        drawn=normal_levels().astype(np.float64),
        unit="standard deviations",
    )


def _standardised(trace: Trace, rate: float) -> tuple[np.ndarray, np.ndarray]:
    squares = np.zeros(len(trace.exact)) if trace.squares is None else trace.squares
    return trace.observed - (1 - rate) * trace.exact, np.sqrt(rate * (1 - rate) * squares)


def _dropped_likelihood(trace: Trace, rate: float, weight: float = 1e6) -> float:
    """Mean log-likelihood, smoothed by one pseudo-observation on `weight` real ones, spread over all words."""
    from scipy import special

    centred, deviation = _standardised(trace, rate)
    # A result whose products are all 0 has no noise: a deviation far below 1 puts all mass on the nearest integer.
    scale = np.maximum(deviation, 1e-3)
    distance = np.abs(centred)  # on one side of the mean, where the normal's tail keeps its relative accuracy
    mass = special.ndtr((0.5 - distance) / scale) - special.ndtr((-0.5 - distance) / scale)
    return float(np.log((weight * mass + 2.0**-trace.bits) / (weight + 1)).mean())
