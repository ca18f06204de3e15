"""What a sweep measured, and the lowest voltage that is good enough."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from axtrain.noise_models.files import write_whole
from axtrain.training.evaluation import Evaluation

_FORMAT = "axtrain-sweep-1"


@dataclass(frozen=True, kw_only=True)
class SweepPoint:
    """One operating point of a `Sweep`."""

    evaluation: Evaluation
    """Every chip's accuracy, and mean, spread, worst chip and interval."""
    voltage: float | None = None
    """Supply in volts; `None` where error rates were swept."""
    rate: float | None = None
    """Bit error rate of the swept memories, the highest where they differ; `None` where only a datapath was swept."""
    energy_pj: float | None = None
    """Energy of one inference in picojoules, from `axtrain.energy`; `None` where sizes are open."""
    saving: float | None = None
    """Share of the reference's energy that is saved."""

    def __str__(self) -> str:
        place = "" if self.rate is None else f"error rate {self.rate:.3g}"
        if self.voltage is not None:
            place = f"{self.voltage:g} V" + (f" ({place})" if place else "")
        saved = "" if self.saving is None else f", {100 * self.saving:.1f} % saved"
        energy = "" if self.energy_pj is None else f"; {self.energy_pj / 1e3:.4g} nJ per inference{saved}"
        return f"{place}: {self.evaluation}{energy}"


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What `sweep` measured, mildest point first: falling voltages, or rising rates."""

    points: tuple[SweepPoint, ...]
    """One for each voltage or rate."""
    notes: tuple[str, ...] = ()
    """What stayed as it was, in words."""

    @property
    def voltages(self) -> tuple[float | None, ...]:
        """In volts, falling; `None` each where rates were swept."""
        return tuple(point.voltage for point in self.points)

    @property
    def rates(self) -> tuple[float | None, ...]:
        """Bit error rates."""
        return tuple(point.rate for point in self.points)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, with the derived figures; `from_dict` rebuilds it."""
        points = [{**vars(point), "evaluation": point.evaluation.to_dict()} for point in self.points]
        return {"format": _FORMAT, "points": points, "notes": list(self.notes)}

    @classmethod
    def from_dict(cls, described: dict[str, Any]) -> Sweep:
        """Rebuilds what `to_dict` gave.

        Raises:
            ValueError: not a sweep, or of another version.
        """
        if not isinstance(described, dict) or described.get("format") != _FORMAT:
            received = described.get("format") if isinstance(described, dict) else type(described).__name__
            raise ValueError(f"Not a sweep of format {_FORMAT!r}, as Sweep.to_dict gives it. Received: {received!r}")
        points = [{**item, "evaluation": Evaluation.from_dict(item["evaluation"])} for item in described["points"]]
        return cls(points=tuple(SweepPoint(**point) for point in points), notes=tuple(described["notes"]))

    def table(self) -> str:
        """Every point on a line, with the units, and the notes below."""
        from axtrain.training.plots import sweep_table

        return sweep_table(self.points, self.notes)

    __str__ = table

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Writes a line for each point, every chip in a column of its own; whole or not at all."""
        from axtrain.training.plots import sweep_csv

        write_whole(path, sweep_csv(self.points).encode())

    def plot(self, accuracy: float | None = None, *, worst: bool = False, confident: bool = False):
        """A matplotlib `Figure`: accuracy with its spread and worst chip, energy, and the operating point.

        Args:
            accuracy: required, in [0, 1] for an accuracy: `lowest_voltage` of it is marked; `None` marks nothing.
            worst, confident: as for `lowest_voltage`.
        """
        from axtrain.training.plots import sweep_figure

        good = [] if accuracy is None else _good_enough(self, accuracy, worst, confident)
        return sweep_figure(self.points, required=accuracy, chosen=good[-1] if good else None)


def lowest_voltage(result: Sweep, accuracy: float, *, worst: bool = False, confident: bool = False) -> SweepPoint:
    """The lowest voltage that is good enough, as every higher one in the sweep is too.

    In a sweep of error rates: the highest rate that is, as every lower one.

    Args:
        result: from `sweep`.
        accuracy: required, in the metric's own units.
        worst: the worst chip must have it, not only the mean.
        confident: the lower end of the mean's 95 % interval must have it.

    Raises:
        ValueError: no point is good enough, or both ways to judge at once.
    """
    good = _good_enough(result, accuracy, worst, confident)
    if good:
        return good[-1]
    judged = "the worst chip's" if worst else "the lower end of the mean's interval" if confident else "the mean"
    best = max(result.points, key=lambda point: _judged(point, worst, confident))
    where = f"rate {best.rate:g}" if best.voltage is None else f"{best.voltage:g} V"
    raise ValueError(
        f"No point is good enough together with all milder ones: {judged} {best.evaluation.metric} is at best "
        f"{_judged(best, worst, confident):.4f}, at {where}. Sweep higher voltages (or lower rates), train for the "
        f"hardware, or ask for less. Received: accuracy={accuracy!r}"
    )


def _good_enough(result: Sweep, accuracy: float, worst: bool, confident: bool) -> list[SweepPoint]:
    if worst and confident:
        raise ValueError("Judge by the worst chip or by the interval. Received: worst=True, confident=True")
    good: list[SweepPoint] = []
    for point in result.points:  # mildest first
        if not _judged(point, worst, confident) >= accuracy:
            break
        good.append(point)
    return good


def _judged(point: SweepPoint, worst: bool, confident: bool) -> float:
    return point.evaluation.worst if worst else point.evaluation.interval[0] if confident else point.evaluation.mean
