"""What a search found: assignments, their energy and accuracy, and the chosen one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from axtrain.training.evaluation import Evaluation

_FORMAT = "axtrain-search-1"


@dataclass(frozen=True, kw_only=True)
class SearchPoint:
    """One assignment of hardware to the layers."""

    assignment: dict[str, str]
    """Candidate's name by layer; empty for all layers on the reference."""
    energy_pj: float
    """Of one inference in picojoules: all of it, or that of the multipliers, as the search was asked for."""
    saving: float
    """Share of the reference's energy that is saved."""
    predicted: float
    """Predicted rise of the mean loss, the sum over the layers."""
    evaluation: Evaluation | None = None
    """Bit-exact accuracy before training; `None` where it was not played."""
    trained: Evaluation | None = None
    """After training for it; `None` where it was not trained."""
    dominated: bool = False
    """Whether another played point, before training, is better in energy or accuracy and worse in neither."""

    @property
    def uniform(self) -> bool:
        """Whether all layers have the same candidate."""
        return len(set(self.assignment.values())) == 1

    @property
    def confirmed(self) -> bool:
        """Whether it was played."""
        return self.evaluation is not None

    @property
    def accuracy(self) -> float | None:
        """The mean over chips, after training where it was trained; `None` where it was not played."""
        judged = self.trained or self.evaluation
        return None if judged is None else judged.mean


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """What a `search` found."""

    points: tuple[SearchPoint, ...]
    """The predicted front and each candidate in all layers alike, the cheapest first."""
    exact: SearchPoint
    """All layers on the reference."""
    best: SearchPoint | None = None
    """The cheapest within the budget; `None` without a budget, or where nothing cheaper than the reference is."""
    budget: float | None = None
    """The largest loss of accuracy."""
    objective: str = "total"
    """Which energy: `"total"` or `"multipliers"`."""
    rises: str = ""
    """Where the rises of single layers came from, in words."""
    notes: tuple[str, ...] = ()
    """What else there is to know, in words: which candidates' power is unknown and counted as the exact one's, say."""
    model: keras.Model | None = field(default=None, repr=False, compare=False)
    """The best on its hardware, from `convert`, trained where that was asked for."""

    @property
    def confirmed(self) -> tuple[SearchPoint, ...]:
        """The points that were played, the cheapest first."""
        return tuple(point for point in self.points if point.confirmed)

    @property
    def front(self) -> tuple[SearchPoint, ...]:
        """The played points that no other dominates, the cheapest first."""
        return tuple(point for point in self.confirmed if not point.dominated)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, without the model; `from_dict` rebuilds it."""
        return {
            "format": _FORMAT,
            "points": [_described(point) for point in self.points],
            "exact": _described(self.exact),
            "best": None if self.best is None else self.points.index(self.best),
            **{name: getattr(self, name) for name in ("budget", "objective", "rises")},
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, described: dict[str, Any]) -> SearchResult:
        """Rebuilds what `to_dict` gave.

        Raises:
            ValueError: not a search, or of another version.
        """
        if not isinstance(described, dict) or described.get("format") != _FORMAT:
            received = described.get("format") if isinstance(described, dict) else type(described).__name__
            raise ValueError(f"Not a search of format {_FORMAT!r}, as to_dict gives it. Received: {received!r}")
        points = tuple(_point(item) for item in described["points"])
        best = described["best"]
        return cls(
            points=points,
            exact=_point(described["exact"]),
            best=None if best is None else points[best],
            **{name: described[name] for name in ("budget", "objective", "rises")},
            notes=tuple(described["notes"]),
        )

    def table(self) -> str:
        """Every played point on a line, with units, the chosen one and notes below."""
        from axtrain.training.search.plots import search_table

        return search_table(self)

    __str__ = table

    def plot(self):
        """A matplotlib `Figure`: accuracy over energy; dominated points faint, the front joined, the best marked."""
        from axtrain.training.search.plots import search_figure

        return search_figure(self)


def is_dominated(point: SearchPoint, points: Sequence[SearchPoint]) -> bool:
    """Whether one of the points, before training, is better in energy or accuracy and worse in neither."""
    own = point.evaluation
    return own is not None and any(
        other.evaluation is not None
        and other.energy_pj <= point.energy_pj
        and other.evaluation.mean >= own.mean
        and (other.energy_pj < point.energy_pj or other.evaluation.mean > own.mean)
        for other in points
    )


def within(evaluation: Evaluation | None, exact: SearchPoint, budget: float) -> bool:
    """Whether the mean over chips lost no more than the budget, against the reference on the same data and chips."""
    if evaluation is None or exact.evaluation is None:
        return False
    return evaluation.mean >= exact.evaluation.mean - budget - 1e-12  # a difference of equals may round above 0


def _described(point: SearchPoint) -> dict[str, Any]:
    measured = {name: getattr(point, name) for name in ("evaluation", "trained")}
    return {**vars(point), **{name: None if one is None else one.to_dict() for name, one in measured.items()}}


def _point(described: dict[str, Any]) -> SearchPoint:
    measured = {name: described[name] for name in ("evaluation", "trained")}
    read = {name: None if one is None else Evaluation.from_dict(one) for name, one in measured.items()}
    return SearchPoint(**{**described, **read})
