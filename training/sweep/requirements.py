"""What a point of a sweep must reach to be good enough, and of which chips it is asked."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from axtrain.training.evaluation import Evaluation

_ROUNDING = 1e-12  # the mean of figures that are all alike may come out a little below them


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """An accuracy that a point must reach: its mean over chips, or one of the other ways to judge.

    Raises:
        ValueError: an accuracy that is no finite number, a yield outside (0, 1], or several ways to judge at once.
    """

    accuracy: float
    """Least figure, in the metric's own units."""
    worst: bool = False
    """Whether the worst chip must reach it."""
    confident: bool = False
    """Whether the lower end of the mean's 95 % interval must reach it."""
    chip_yield: float | None = None
    """Share of the chips, in (0, 1], that must reach it; `None` does not judge by a share."""

    def __post_init__(self) -> None:
        for name, value in (("accuracy", self.accuracy), ("chip_yield", self.chip_yield)):
            if name == "chip_yield" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not np.isfinite(value):
                raise ValueError(f"`{name}` must be a finite number. Received: {name}={value!r}")
        if self.chip_yield is not None and not 0 < self.chip_yield <= 1:
            raise ValueError(
                f"`chip_yield` is a share of the chips, in (0, 1]. Received: chip_yield={self.chip_yield!r}"
            )
        if self.worst + self.confident + (self.chip_yield is not None) > 1:
            raise ValueError(
                "Judge by the worst chip, by the interval or by the yield. Received: "
                f"worst={self.worst}, confident={self.confident}, chip_yield={self.chip_yield}"
            )

    def judged(self, evaluation: Evaluation) -> float:
        """The figure that must reach the accuracy; of a yield what that share of the chips reaches."""
        if self.chip_yield is not None:
            best_first = np.sort(evaluation.accuracies)[::-1]
            needed = math.ceil(self.chip_yield * len(best_first) - 1e-9)  # 0.95 of 20 chips are 19
            return float(best_first[needed - 1])
        if self.worst:
            return evaluation.worst
        return evaluation.interval[0] if self.confident else evaluation.mean

    def met(self, evaluation: Evaluation) -> bool:
        """Whether an evaluation is good enough."""
        return self.judged(evaluation) >= self.accuracy - _ROUNDING

    @property
    def by(self) -> str:
        """Of what it is asked, in words."""
        if self.chip_yield is not None:
            return f"{100 * self.chip_yield:g} % of the chips"
        if self.worst:
            return "the worst chip"
        return "the lower end of the mean's interval" if self.confident else "the mean"
