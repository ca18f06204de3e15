"""The likelihood of a tester's counts under Gaussian minimum voltages, maximised and tested."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import optimize, stats
from scipy.special import log_ndtr

from .readings import Readings

_RESAMPLES = 999  # a p-value of 0.01 is then known to a standard error of 0.003
_SMALL = 5.0  # Cochran's rule: an expected count below it is too small for the chi-square distribution


def log_mass(upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """`log(Phi(upper) - Phi(lower))`, accurate in both tails; nan where `upper < lower`."""
    right = lower > 0.0  # mirrored to the left tail, where log_ndtr does not run into zero
    upper, lower = np.where(right, -lower, upper), np.where(right, -upper, lower)
    with np.errstate(invalid="ignore", divide="ignore"):
        largest = log_ndtr(upper)
        return largest + np.log(-np.expm1(log_ndtr(lower) - largest))


class Outcomes:
    """Likelihood of counted outcomes, each an interval `low < v_min <= high` of a cell's minimum voltage.

    Nested: the V + 1 intervals between neighbouring voltages, one multinomial. Independent: failed or passed at
    each voltage, V binomials. Each has probability `Phi(z(low)) - Phi(z(high))` with `z = a - b t`, t the
    standardised voltage; its logarithm is concave in (a, b), so the maximum is unique.
    """

    def __init__(self, readings: Readings) -> None:
        voltages, failures, self.cells = readings.pooled()
        self.nested, self.centre, self.scale = readings.nested, voltages.mean(), voltages.std()
        t, passed = (voltages - self.centre) / self.scale, self.cells - failures
        if self.nested:
            self.ends = np.array([np.append(-np.inf, t), np.append(t, np.inf)])
            self.totals = np.append(self.cells, self.cells[0])
            self.counts = np.diff(np.concatenate(([0], passed, [self.cells[0]])))
        else:
            beyond = np.full(len(t), np.inf)
            self.ends = np.array([np.append(t, -beyond), np.append(beyond, t)])
            self.totals, self.counts = np.append(self.cells, self.cells), np.append(failures, passed)
        probits = stats.norm.ppf((failures + 0.5) / (self.cells + 1.0))  # the halves keep 0 and 1 away
        slope, level = np.polyfit(t, probits, 1, w=np.sqrt(np.minimum(failures, passed) + 0.5))
        self.start = np.array([level, max(-slope, 1e-3)])

    def log_probabilities(self, parameters: np.ndarray, rows: Any = slice(None)) -> tuple[np.ndarray, np.ndarray]:
        """Of each outcome, and the `z` of both its ends, (2, outcomes)."""
        ends = self.ends[:, rows]
        z = parameters[0] - parameters[1] * np.where(np.isinf(ends), 0.0, ends)
        z = np.where(np.isinf(ends), [[np.inf], [-np.inf]], z)
        return log_mass(*z), z

    def half_deviance(self, parameters: np.ndarray, counts: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """`sum n log(n / (N P))`, how far the log-likelihood is below the saturated model's; gradient, Hessian."""
        rows = np.flatnonzero(counts)  # an outcome that nobody saw adds nothing
        n, (log_p, z) = counts[rows], self.log_probabilities(parameters, rows)
        value = np.sum(n * (np.log(n / self.totals[rows]) - log_p))
        if not np.isfinite(value):  # a step too far, which the optimiser takes back
            return np.inf, np.zeros(2), np.eye(2)
        t = np.where(np.isinf(z), 0.0, self.ends[:, rows])
        design = np.stack([np.ones_like(t), -t], axis=-1)
        slopes = np.array([[1.0], [-1.0]]) * np.exp(-0.5 * z**2 - log_p) / np.sqrt(2.0 * np.pi)  # dP/dz / P
        bends = np.where(np.isinf(z), 0.0, z) * slopes
        steps = np.einsum("er,erp->rp", slopes, design)
        hessian = np.einsum("r,rp,rq->pq", n, steps, steps) + np.einsum("r,er,erp,erq->pq", n, bends, design, design)
        return float(value), -n @ steps, hessian

    def fit(self, counts: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, float]:
        """The (a, b) of largest likelihood, and the deviance there."""
        size = np.trace(self.half_deviance(start, counts)[2])  # so that one tolerance fits any count

        def scaled(parameters: np.ndarray) -> list[Any]:
            return [part / size for part in self.half_deviance(parameters, counts)]

        options: dict[str, Any] = {"method": "trust-exact", "options": {"gtol": 1e-6, "maxiter": 50}}
        found = optimize.minimize(lambda x: scaled(x)[:2], start, jac=True, hess=lambda x: scaled(x)[2], **options)
        return found.x, 2.0 * size * float(found.fun)

    def p_value(self, parameters: np.ndarray, deviance: float, seed: int) -> tuple[float | None, str]:
        """Of the likelihood-ratio test against the saturated model, and the distribution that it is taken from."""
        if len(self.cells) == 2:
            return None, "two voltages leave nothing to test"
        if (self.totals * np.exp(self.log_probabilities(parameters)[0])).min() >= _SMALL:
            return float(stats.chi2.sf(deviance, len(self.cells) - 2)), "chi-square"
        return self.bootstrap(parameters, seed, _RESAMPLES), f"{_RESAMPLES} readings drawn from the fit"

    def bootstrap(self, parameters: np.ndarray, seed: int, resamples: int) -> float:
        """p-value of the counts' deviance among those of readings drawn from the fit, each fitted again."""
        rng, voltages = np.random.default_rng(seed), len(self.cells)
        probabilities = np.exp(self.log_probabilities(parameters)[0])

        def draw(size: tuple[int, int]) -> np.ndarray:
            if self.nested:  # reversed, since the last outcome gets the rest, whose rounding would drown a rare one
                shares = probabilities[::-1] / probabilities.sum()
                return rng.multinomial(self.cells[0], shares, size=size[0])[:, ::-1]
            failures = rng.binomial(self.cells, probabilities[:voltages], size=(size[0], voltages))
            return np.concatenate([failures, self.cells - failures], axis=1)

        def deviance(counts: np.ndarray) -> float:  # a limit of normals meets two outcomes exactly
            return 0.0 if self.nested and np.count_nonzero(counts) < 3 else self.fit(counts, parameters)[1]

        options = {"vectorized": False, "n_resamples": resamples, "alternative": "greater"}
        return float(stats.monte_carlo_test(self.counts, draw, deviance, **options).pvalue)
