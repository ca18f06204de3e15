"""What a sensitivity analysis found: maps of layers and candidates, and how far the prediction agrees."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy import stats

_NOISE = 2.0  # standard errors above which a measured rise says more than chance


@dataclass(frozen=True, kw_only=True, eq=False)
class SensitivityMap:
    """What each layer would cost on each candidate, alone; arrays are float64 (layers, candidates)."""

    layers: tuple[str, ...]
    """Names of the layers that run on hardware."""
    candidates: tuple[str, ...]
    """Names of the candidates."""
    curvature: dict[str, np.ndarray] = field(repr=False)
    """For each kernel, by layer (and product where a layer has several): ``d2L / dw_i^2`` of the kernel's shape."""
    method: str = "gauss_newton"
    """How the curvature was found."""
    loss: str = ""
    """The loss whose rise is predicted and measured."""
    mean_part: np.ndarray
    """Predicted rise from errors that come back at every use, ``L(w + mu, bias) - L(w)``."""
    spread_part: np.ndarray
    """Predicted rise from errors that scatter, ``1/2 sum s^2 H_ii + 1/2 sum v C``."""
    measured: np.ndarray | None = None
    """Measured rise of the mean loss, bit-exactly, over all layers on the reference; `None` if not measured."""
    measured_error: np.ndarray | None = None
    """Its standard error over the samples (and chips), from paired differences."""
    drop: np.ndarray | None = None
    """Measured fall of the metric."""
    metric: str = "accuracy"
    """What the metric is called."""
    baseline: tuple[float, float] | None = None
    """Mean loss and metric of all layers on the reference."""

    @property
    def predicted(self) -> np.ndarray:
        """Predicted rise of the mean loss: the sum of the two parts."""
        return self.mean_part + self.spread_part

    @property
    def correlation(self) -> dict[str, float]:
        """How far the prediction agrees with the measurement, over cells measured above noise (2 standard errors).

        `"spearman"`, of ranks, and `"pearson_log"`, of logarithms, both NaN for fewer than three cells; `"cells"`,
        how many; `"median_ratio"`, predicted over measured. Cells predicted at 0 or below count for the ranks alone.
        """
        if self.measured is None or self.measured_error is None:
            return {"spearman": np.nan, "pearson_log": np.nan, "median_ratio": np.nan, "cells": 0}
        clear = (self.measured > _NOISE * self.measured_error) & (self.measured > 0)
        predicted, measured = self.predicted[clear], self.measured[clear]
        positive = predicted > 0
        logs = np.log(predicted[positive]), np.log(measured[positive])
        return {
            "spearman": float(stats.spearmanr(predicted, measured)[0]) if _varies(predicted, measured) else np.nan,
            "pearson_log": float(np.corrcoef(*logs)[0, 1]) if _varies(*logs) else np.nan,
            "median_ratio": float(np.median(np.exp(logs[0] - logs[1]))) if positive.any() else np.nan,
            "cells": int(clear.sum()),
        }

    def table(self) -> str:
        """Markdown: a row for each layer, a column for each candidate, predicted and measured rise of the loss."""
        from axtrain.training.search.plots import sensitivity_table

        return sensitivity_table(self)

    __str__ = table

    def plot(self):
        """A matplotlib `Figure`: the predicted rise of each layer on each candidate, and predicted over measured."""
        from axtrain.training.search.plots import sensitivity_figure

        return sensitivity_figure(self)


def _varies(*arrays: np.ndarray) -> bool:
    return all(len(array) > 2 and np.ptp(array) > 0 for array in arrays)
