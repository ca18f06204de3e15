"""Calibration: the datapath that explains a trace of a real array, chosen on held-out data.

A trace is what the array should have read (`exact`) and what it did read (`observed`). Every candidate is fitted to
one part of it and judged on the other by its log-likelihood; figures of merit say how good the best one is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import picture_style as style
from .datapath import Datapath
from .datapath_candidates import Candidate, Trace, fit_bits, fit_dropped, fit_residuals, flipped_bits

MODELS = ("auto", "residual", "bits", "dropped")
"""What can be asked for: the best of all, or the best of one family."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DatapathFit:
    """A fitted datapath and how well it predicts the part of the trace that it was not fitted to.

    Attributes:
        datapath: to be used as `Hardware` or a layer wants it, and written to JSON.
        chosen: the candidate's name, a key of `log_likelihoods`.
        log_likelihoods: held-out log-likelihood of every candidate, in nats per sample: ``mean log P(observed |
            exact)`` over integers, each candidate smoothed by one pseudo-observation so that nothing is impossible.
        samples: results that the candidates were fitted to; `held_out_samples`: that they were judged on.
        error_rate: share of wrong results, ``observed != exact``, in the whole trace.
        error_rate_bound: the error rate's upper limit at 95 % confidence (Clopper and Pearson 1934).
        bias, std: mean and standard deviation of ``observed - exact`` over the wrong results, in accumulator units;
            0 where none is wrong.
        gain: of the chosen datapath; 1 where it has none.
        flip_rates: share of results with each bit flipped, lowest first, of the whole trace.
        ks: Kolmogorov-Smirnov distance on held-out results, from what the chosen datapath draws: of the residuals
            of wrong results (after the gain, where there is one), or for dropped MACs of all standardised ones; None
            where no held-out result is wrong.
    """

    datapath: Datapath
    chosen: str
    log_likelihoods: dict[str, float]
    samples: int
    held_out_samples: int
    error_rate: float
    error_rate_bound: float
    bias: float
    std: float
    gain: float
    flip_rates: tuple[float, ...]
    ks: float | None
    _candidate: Candidate = field(repr=False)

    def __str__(self) -> str:
        ranking = sorted(self.log_likelihoods.items(), key=lambda item: -item[1])
        distance = "none to compare" if self.ks is None else f"{self.ks:.3f}"
        return "\n".join(
            [
                f"{self.datapath.kind} from {self.samples} results, judged on {self.held_out_samples} others",
                f"  error rate {self.error_rate:.3g} (below {self.error_rate_bound:.3g} at 95 %), "
                f"bias {self.bias:.4g}, std {self.std:.4g}, gain {self.gain:.5g}",
                f"  Kolmogorov-Smirnov distance of held-out residuals {distance}",
                "  held-out log-likelihood, nats per result: "
                + ", ".join(f"{name} {value:.4f}" for name, value in ranking)
                + f"; chosen: {self.chosen}",
            ]
        )

    def plot(self) -> Any:
        """Quantiles of held-out residuals against the model's, and how often each bit flips.

        Returns:
            a `matplotlib.figure.Figure`; nothing is shown or kept open.
        """
        figure, (quantiles, bits) = style.panels(9.0, 3.8, 2)
        held, drawn = self._candidate.held, self._candidate.drawn
        if len(held):
            shares = (np.arange(min(len(held), 512)) + 0.5) / min(len(held), 512)
            of_model, of_trace = np.quantile(drawn, shares), np.quantile(held, shares)
            quantiles.plot(of_model, of_trace, ".", color=style.BLUE, label="quantiles")
            ends = [min(of_model[0], of_trace[0]), max(of_model[-1], of_trace[-1])]
            quantiles.plot(ends, ends, color=style.MUTED, linestyle="--", label="equal")
            quantiles.legend(frameon=False)
        else:
            quantiles.text(0.5, 0.5, "no wrong result", ha="center", va="center", transform=quantiles.transAxes)
        quantiles.set_title(f"residuals, {self.chosen}" + ("" if self.ks is None else f": distance {self.ks:.3f}"))
        quantiles.set_xlabel(f"drawn by the model [{self._candidate.unit}]")
        quantiles.set_ylabel(f"held-out trace [{self._candidate.unit}]")
        bits.bar(np.arange(len(self.flip_rates)), self.flip_rates, color=style.BLUE)
        if any(self.flip_rates):
            bits.set_yscale("log")
        bits.set_title("flipped bits")
        bits.set_xlabel("bit of the accumulator, lowest first")
        bits.set_ylabel("share of results")
        return figure


def calibrate_datapath(
    exact: Any,
    observed: Any,
    *,
    held_out: float = 0.3,
    seed: int = 0,
    source: str | None = None,
    model: str = "auto",
    accumulator_bits: int = 24,
    squares: Any = None,
    voltage: float | None = None,
    nominal_voltage: float | None = None,
) -> DatapathFit:
    """Fits a datapath to a trace of a real array: accumulators as they should be and as they were read.

    The candidates: `"bits"`, `TimingErrors` with each bit's flip rate; `"mixture"` and `"empirical"`, a
    `MeasuredDatapath` whose residual has the shape of a scikit-learn `GaussianMixture` or of the trace's own
    quantiles; both `"... with gain"`, where ``observed ~ gain exact``; and, where `squares` are given, `"dropped"`,
    `DroppedMACs`. Without the squares a dropped share cannot be told from a gain below 1 with noise.

    Args:
        exact: array of integers of any shape, in `accumulator_bits` bits: sums of products, zero-point correction
            included.
        observed: what the array read, same shape.
        held_out: share of the results that candidates are judged on, in (0, 1).
        seed: of the split.
        source: where the trace comes from; kept with the datapath.
        model: `"auto"` takes the candidate of the highest held-out log-likelihood; `"residual"`, `"bits"` and
            `"dropped"` the best of that family.
        accumulator_bits: width of the accumulators, 2 to 32.
        squares: ``sum_k m_k^2`` of each result's products, same shape, or None.
        voltage, nominal_voltage: at which the trace was taken, in volts, or None; kept with the datapath.

    Returns:
        a `DatapathFit`. A trace without any error is fine: its error rate is 0, with an upper bound.

    Raises:
        TypeError: for arrays that do not hold integers.
        ValueError: for shapes that differ, values beyond the width, too few results, or arguments out of range.

    >>> exact = np.arange(-500, 500)
    >>> calibrate_datapath(exact, np.where(exact % 10, exact, exact ^ 64)).chosen
    'bits'
    """
    trace = _checked_trace(exact, observed, squares, accumulator_bits)
    if model not in MODELS or (model == "dropped" and squares is None):
        raise ValueError(
            f'`model` must be one of {", ".join(MODELS)}, and "dropped" needs `squares`, each result\'s sum of '
            f"squared products. Received: model={model!r}, squares={'None' if squares is None else 'given'}"
        )
    if not isinstance(held_out, (int, float)) or not 0 < held_out < 1:
        raise ValueError(f"`held_out` must be a share in (0, 1). Received: held_out={held_out!r}")
    judged = max(1, round(len(trace.exact) * held_out))
    if len(trace.exact) <= judged:
        raise ValueError(
            "A trace needs results on both sides of the split; record more, or change `held_out`. "
            f"Received: {len(trace.exact)} results with held_out={held_out!r}"
        )
    order = np.random.default_rng(seed).permutation(len(trace.exact))
    held, fitted = trace.part(order[:judged]), trace.part(order[judged:])
    origin = {"voltage": voltage, "nominal_voltage": nominal_voltage, "source": source}
    candidates = {"bits": fit_bits(fitted, held, origin), **fit_residuals(fitted, held, origin)}
    if squares is not None:
        candidates["dropped"] = fit_dropped(fitted, held, origin)
    family = {"bits": ["bits"], "dropped": ["dropped"]}.get(model)
    if model == "residual":
        family = [name for name in candidates if name not in ("bits", "dropped")]
    chosen = max(family or candidates, key=lambda name: candidates[name].log_likelihood)
    return _report(trace, candidates, chosen, len(trace.exact) - judged, judged)


def _checked_trace(exact: Any, observed: Any, squares: Any, bits: int) -> Trace:
    if isinstance(bits, bool) or not isinstance(bits, int) or not 2 <= bits <= 32:
        raise ValueError(f"`accumulator_bits` must be an int from 2 to 32. Received: accumulator_bits={bits!r}")
    arrays = {"exact": np.asarray(exact), "observed": np.asarray(observed)}
    for name, array in arrays.items():
        if not np.issubdtype(array.dtype, np.integer):
            raise TypeError(f"`{name}` must hold integers: accumulators, unscaled. Received: dtype={array.dtype}")
        low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        if array.size and (int(array.min()) < low or int(array.max()) > high):
            raise ValueError(
                f"`{name}` must fit in {bits} bits, {low} to {high}; give the array's own `accumulator_bits`. "
                f"Received: values from {array.min()} to {array.max()}"
            )
    if squares is not None:
        arrays["squares"] = np.asarray(squares, np.float64)
        if not (np.isfinite(arrays["squares"]).all() and (arrays["squares"] >= 0).all()):
            raise ValueError("`squares` must be finite and >= 0: sums of squares. Received: others among them")
    shapes = {name: array.shape for name, array in arrays.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"A trace's arrays must have one shape, result by result. Received: shapes {shapes}")
    return Trace(
        exact=arrays["exact"].ravel().astype(np.int64),
        observed=arrays["observed"].ravel().astype(np.int64),
        squares=None if squares is None else arrays["squares"].ravel(),
        bits=bits,
    )


def _report(trace: Trace, candidates: dict[str, Candidate], chosen: str, samples: int, judged: int) -> DatapathFit:
    from scipy import stats

    error = trace.observed - trace.exact
    wrong, count = error[error != 0], len(error)
    # The upper end of the exact interval; where every result is wrong it is 1, and the beta's parameter would be 0.
    bound = stats.beta.ppf(0.95, len(wrong) + 1, count - len(wrong)) if len(wrong) < count else 1.0
    best = candidates[chosen]
    with np.errstate(all="ignore"):  # of the p-value for one or two results, which is not used
        ks = float(stats.ks_2samp(best.held, best.drawn, method="asymp").statistic) if len(best.held) else None
    return DatapathFit(
        datapath=best.datapath,
        chosen=chosen,
        log_likelihoods={name: candidate.log_likelihood for name, candidate in candidates.items()},
        samples=samples,
        held_out_samples=judged,
        error_rate=len(wrong) / count,
        error_rate_bound=float(bound),
        bias=float(wrong.mean()) if len(wrong) else 0.0,
        std=float(wrong.std()) if len(wrong) else 0.0,
        gain=getattr(best.datapath, "gain", 1.0),
        flip_rates=tuple((flipped_bits(trace) / count).tolist()),
        ks=ks,
        _candidate=best,
    )
