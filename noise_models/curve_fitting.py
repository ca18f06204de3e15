"""From a tester's counts to a curve: the bit error rate over the voltage, fitted to cells that failed.

`fit_curve` fits a `ProbitCurve` by maximum likelihood, or a `TabulatedCurve` where cells are not Gaussian;
`CurveFit` is the curve with its errors, goodness of fit, band and picture. NumPy and SciPy; scikit-learn and
matplotlib are imported where they are used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats
from scipy.special import ndtr

from . import picture_style as style
from .curve_likelihood import Outcomes
from .curves import ProbitCurve, TabulatedCurve
from .readings import Readings

_REJECTED = 0.01  # p-value below which `method="auto"` gives the probit up (chosen here)


def _exact_bounds(failures: np.ndarray, cells: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Clopper and Pearson's interval; that of `binomtest` is good to 2e-12 only, too coarse for a rate of 1e-9."""
    tail = (1.0 - confidence) / 2.0
    low = stats.beta.ppf(tail, np.maximum(failures, 1), cells - failures + 1)
    high = stats.beta.isf(tail, failures + 1, np.maximum(cells - failures, 1))
    return np.where(failures == 0, 0.0, low), np.where(failures == cells, 1.0, high)


@dataclass(frozen=True, kw_only=True)
class CurveFit:
    """What `fit_curve` found.

    Attributes:
        curve: `ProbitCurve` or `TabulatedCurve`, for `NearThresholdSRAM(voltage=..., curve=fit.curve)`.
        method: `"probit"` or `"isotonic"`; `reason` says why.
        readings, confidence: What was fitted, and the confidence of its band.
        mean_v, deviation_v: Of the cells' minimum voltages, in volts; None for an isotonic curve.
        covariance: Of the two, 2 x 2, in volts squared: the inverse of the observed information. Or None.
        deviance: `2 sum n log(n / expected)` of the best probit, also where that was given up.
        p_value: Of the likelihood-ratio test of the probit, V - 2 degrees of freedom: chi-square where every outcome
            expects 5 counts, else by 999 readings drawn from the fit and refitted. None for two voltages.
    """

    curve: ProbitCurve | TabulatedCurve
    method: str
    reason: str
    readings: Readings
    confidence: float
    mean_v: float | None
    deviation_v: float | None
    covariance: tuple[tuple[float, ...], ...] | None
    deviance: float
    p_value: float | None

    @property
    def standard_errors(self) -> tuple[float, float] | None:
        """Of `mean_v` and `deviation_v`, in volts; None for an isotonic curve."""
        return None if self.covariance is None else (self.covariance[0][0] ** 0.5, self.covariance[1][1] ** 0.5)

    def band(self, voltages: Any) -> tuple[np.ndarray, np.ndarray]:
        """Pointwise confidence band of the bit error rate.

        Probit: `Phi(z -+ q se(z))`, `z = (mean_v - V) / deviation_v`, se by the delta method, q the normal
        quantile; Phi is monotone, so z's interval carries over. Isotonic: Clopper and Pearson's exact interval at
        a measured voltage; between two, from the lower bound at the higher voltage to the upper bound at the lower
        one, which is all that a falling rate promises (conservative).

        Args:
            voltages: Positive numbers, in volts, any shape; within the table for an isotonic curve (ValueError).

        Returns:
            (low, high), arrays of the voltages' shape.
        """
        at = np.asarray(voltages, np.float64)
        rates = np.array([self.curve(voltage) for voltage in at.ravel()]).reshape(at.shape)
        if isinstance(self.curve, ProbitCurve):
            z = (self.curve.mean_v - at) / self.curve.deviation_v
            gradient = np.stack([np.ones_like(z), -z]) / self.curve.deviation_v
            error = np.sqrt(np.einsum("i...,ij,j...->...", gradient, np.array(self.covariance), gradient))
            reach = stats.norm.isf((1.0 - self.confidence) / 2.0) * error
            return ndtr(z - reach), ndtr(z + reach)
        measured, failures, cells = self.readings.pooled()
        low, high = _exact_bounds(failures, cells, self.confidence)
        above, below = np.searchsorted(measured, at), np.searchsorted(measured, at, "right") - 1
        # Pooling may carry the curve out of one voltage's own interval; the band holds both.
        return np.minimum(low[above], rates), np.maximum(high[below], rates)

    def plot(self) -> Any:
        """A matplotlib `Figure`: rates with exact error bars (a triangle bounds one without failures), curve, band."""
        voltages, failures, cells = self.readings.pooled()
        low, high = _exact_bounds(failures, cells, self.confidence)
        seen, rates, percent = failures > 0, failures / cells, f"{100 * self.confidence:g} %"
        grid = np.unique(np.append(voltages, np.linspace(voltages[0], voltages[-1], 201)))
        drawn = [self.curve(voltage) for voltage in grid]
        floor = 0.2 * min(*drawn, *low[seen], *high[~seen])  # a logarithmic axis has no zero
        figure, (axes,) = style.panels(7.0, 4.5)
        band = np.maximum(self.band(grid), floor)
        axes.fill_between(grid, *band, alpha=0.25, color=style.BLUE, linewidth=0, label=f"{percent} band")
        axes.plot(grid, drawn, color=style.BLUE, label=f"{self.method} fit")
        bars = np.array([rates - low, high - rates])[:, seen]
        axes.errorbar(voltages[seen], rates[seen], bars, fmt="o", capsize=3, color=style.INK, label="measured")
        axes.plot(
            voltages[~seen],
            high[~seen],
            "v",
            color=style.INK,
            label="" if seen.all() else f"no failure: {percent} bound",
        )
        axes.set(yscale="log", xlabel="supply voltage [V]", ylabel="bit error rate", title=self.readings.source)
        axes.set_ylim(bottom=floor)
        axes.legend(frameon=False)
        return figure

    def __str__(self) -> str:
        kind, count = "nested" if self.readings.nested else "independent", self.readings.pooled()[2].max()
        text = f"{self.readings.source}: {count:,} {kind} cells of {len(self.readings.failures)} chip(s) at "
        text += f"{len(self.readings.voltages)} voltages\n{self.method}: {self.reason}"
        if self.standard_errors is not None:
            for name, error in zip(("mean_v", "deviation_v"), self.standard_errors, strict=True):
                text += f"\n{name} {getattr(self, name):.5g} +- {error:.2g} V"
        return text


def _isotonic(readings: Readings, source: str) -> TabulatedCurve:
    from sklearn.isotonic import isotonic_regression

    _, failures, cells = readings.pooled()
    rates = isotonic_regression(failures / cells, sample_weight=cells.astype(np.float64), increasing=False)
    none = rates == 0.0  # the highest voltages, if any: a zero below a failure has been pooled with it
    watched = cells.max() if readings.nested else max(cells[none].sum(), 1)
    rates[none] = min(0.5 / watched, rates[~none].min())
    return TabulatedCurve(voltages=readings.voltages, rates=tuple(rates.tolist()), source=source)


def fit_curve(
    readings: Readings, *, method: str = "auto", confidence: float = 0.95, source: str | None = None, seed: int = 0
) -> CurveFit:
    """Fits the bit error rate over the supply voltage to counted failures.

    Probit: maximum likelihood of `BER(V) = Phi((mean_v - V) / deviation_v)`; binomial at each voltage for
    independent cells, and for nested ones the multinomial `prod (Phi_i - Phi_(i+1))^(k_i - k_(i+1))` with both
    end cells (theory page, section 5). Isotonic: scikit-learn's isotonic regression of the rates weighted by the
    cells, zero counts included: the maximum likelihood of any falling rate. The table is linear in `log10(rate)`;
    where its highest voltages saw no failure, it holds half a failure in the cells there (or the last rate seen).

    Args:
        readings: The counts.
        method: `"probit"`, `"isotonic"`, or `"auto"`: probit unless its goodness of fit has p < 0.01.
        confidence: Of the band, between 0 and 1.
        source: Where the numbers come from; by default the readings' source, with the method.
        seed: Of the readings drawn for the p-value where counts are small.

    Raises:
        ValueError: for an unknown method; fewer than two voltages at which some cells fail and some pass (if
            nested, different numbers); independent rates that do not fall with the voltage; or a probit whose
            mean is not a positive voltage.

    >>> fit = fit_curve(Readings(voltages=(0.4, 0.45, 0.5), failures=(2212, 617, 105), cells=10_000))
    >>> f"{fit.method}: {fit.mean_v:.2f} V, {fit.deviation_v:.3f} V"
    'probit: 0.35 V, 0.065 V'
    """
    if method not in ("auto", "probit", "isotonic"):
        raise ValueError(f"`method` must be 'auto', 'probit' or 'isotonic'. Received: method={method!r}")
    if not (isinstance(confidence, (int, float)) and 0.0 < confidence < 1.0):
        raise ValueError(f"`confidence` must be a number between 0 and 1. Received: confidence={confidence!r}")
    voltages, failures, cells = readings.pooled()
    counted = ", ".join(f"{k} of {n} at {v} V" for v, k, n in zip(voltages, failures, cells, strict=True))
    partial = failures[(failures > 0) & (failures < cells)].tolist()
    if len(set(partial) if readings.nested else partial) < 2:
        none, every = not failures.any(), (failures == cells).all()
        mend = "lower the voltage" if none else "raise the voltage" if every else "measure between, or more cells"
        rule = "A curve needs two or more voltages at which some cells fail and some pass"
        raise ValueError(f"{rule}{', in different numbers' if readings.nested else ''}; {mend}. Received: {counted}")
    outcomes = Outcomes(readings)
    parameters, deviance = outcomes.fit(outcomes.counts, outcomes.start)
    _, gradient, hessian = outcomes.half_deviance(parameters, outcomes.counts)  # for a last step, finer than rounding
    level, slope = parameters = parameters - np.linalg.solve(hessian, gradient)
    if slope < 1e-9:  # flat but for rounding
        raise ValueError(f"The rates do not fall as the voltage rises; check the columns. Received: {counted}")
    mean_v, deviation_v = float(outcomes.centre + outcomes.scale * level / slope), float(outcomes.scale / slope)
    p_value, reference = outcomes.p_value(parameters, deviance, seed)
    rejected = p_value is not None and p_value < _REJECTED
    probit = method == "probit" or (method == "auto" and not rejected)
    if probit and mean_v <= 0.0:
        raise ValueError(f"The probit's mean must be positive; use method='isotonic'. Received: {mean_v:.3g} V")
    test = reference if p_value is None else f"p = {p_value:.2g} ({reference})"
    verdict = f"{'' if rejected else 'not '}rejected at p < {_REJECTED}" if method == "auto" else "asked for"
    found = "probit" if probit else "isotonic"
    name = f"{found} fit to {readings.source}" if source is None else source
    jacobian = np.array([[1.0, -level / slope], [0.0, -1.0 / slope]]) * deviation_v
    covariance = (jacobian @ np.linalg.inv(hessian) @ jacobian.T).tolist()
    return CurveFit(
        curve=ProbitCurve(mean_v=mean_v, deviation_v=deviation_v, source=name) if probit else _isotonic(readings, name),
        method=found,
        reason=f"{verdict}; deviance of the probit {deviance:.3g} on {len(voltages) - 2} degrees of freedom, {test}",
        readings=readings,
        confidence=float(confidence),
        mean_v=mean_v if probit else None,
        deviation_v=deviation_v if probit else None,
        covariance=tuple(map(tuple, covariance)) if probit else None,
        deviance=deviance,
        p_value=p_value,
    )
