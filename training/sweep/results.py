"""What a sweep measured, and the lowest voltage that is good enough."""

from __future__ import annotations

import itertools
import os
from dataclasses import asdict, dataclass, replace
from typing import Any

from axtrain.noise_models.files import write_whole
from axtrain.training.evaluation import Evaluation
from axtrain.training.sweep.requirements import Requirement

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
    fault_free: float | None = None
    """The metric on the same hardware without faults, at noise strength 0; `None` in older files."""
    requirement: Requirement | None = None
    """What a point must reach, as `requiring` sets it."""

    @property
    def voltages(self) -> tuple[float | None, ...]:
        """In volts, falling; `None` each where rates were swept."""
        return tuple(point.voltage for point in self.points)

    @property
    def rates(self) -> tuple[float | None, ...]:
        """Bit error rates."""
        return tuple(point.rate for point in self.points)

    def requiring(
        self, accuracy: float, *, worst: bool = False, confident: bool = False, chip_yield: float | None = None
    ) -> Sweep:
        """The same sweep with what its points must reach; the arguments are those of `lowest_voltage`.

        Raises:
            ValueError: as `lowest_voltage` for its arguments.
        """
        required = Requirement(accuracy=accuracy, worst=worst, confident=confident, chip_yield=chip_yield)
        return replace(self, requirement=required)

    @property
    def operating_point(self) -> SweepPoint | None:
        """The lowest voltage (or highest rate) that meets the requirement, as all milder ones do.

        `None` where no point does, so no swept voltage is safe, or nothing is required.
        """
        required = self.requirement
        if required is None:
            return None
        good = itertools.takewhile(lambda point: required.met(point.evaluation), self.points)  # mildest first
        return next(reversed(list(good)), None)

    @property
    def verdict(self) -> str:
        """The operating point in words, with what was asked and of which chips; or that there is none."""
        required = self.requirement
        if required is None:
            return "nothing was required of the points"
        point, voltages = self.operating_point, self.points[0].voltage is not None
        without = "" if self.fault_free is None else f"; without faults it is {self.fault_free:.4f}"
        if point is None:
            best = max(self.points, key=lambda one: required.judged(one.evaluation))
            metric = best.evaluation.metric
            judged = f"{required.by}'s {metric}" if required.worst else f"{required.by} {metric}"
            if required.chip_yield is not None:
                judged = f"the {metric} that {required.by} reach"
            return (
                f"No safe {'voltage' if voltages else 'error rate'} found. No point is good enough together with all "
                f"milder ones: {judged} is at best {required.judged(best.evaluation):.4f}, at "
                f"{f'{best.voltage:g} V' if voltages else f'rate {best.rate:g}'}. Sweep higher voltages (or lower "
                f"rates), train for the hardware, or ask for less{without}. Received: accuracy={required.accuracy!r}"
            )
        last, beyond = ("lowest", "lower") if voltages else ("highest", "higher")
        kind = f"{last} voltage" if voltages else f"{last} error rate"
        edge = f"; it is the {last} that was swept, {beyond} ones were not measured" if point is self.points[-1] else ""
        return f"{kind} for an accuracy of {required.accuracy:g}: {point}; judged by {required.by}{without}{edge}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, with the derived figures; `from_dict` rebuilds it."""
        points = [{**vars(point), "evaluation": point.evaluation.to_dict()} for point in self.points]
        described = {"format": _FORMAT, "points": points, "notes": list(self.notes), "fault_free": self.fault_free}
        if self.requirement is None:
            return described
        found = self.operating_point
        place = None if found is None else {"voltage": found.voltage, "rate": found.rate}
        return {**described, "requirement": asdict(self.requirement), "operating_point": place}

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
        required = described.get("requirement")  # this and the next are not in older files
        return cls(
            points=tuple(SweepPoint(**point) for point in points),
            notes=tuple(described["notes"]),
            fault_free=described.get("fault_free"),
            requirement=None if required is None else Requirement(**required),
        )

    def table(self) -> str:
        """Every point on a line, with the units, and the notes below."""
        from axtrain.training.plots import sweep_table

        return sweep_table(self.points, self.notes, self.fault_free)

    __str__ = table

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Writes a line for each point, every chip in a column of its own; whole or not at all."""
        from axtrain.training.plots import sweep_csv

        write_whole(path, sweep_csv(self.points).encode())

    def plot(
        self,
        accuracy: float | None = None,
        *,
        worst: bool = False,
        confident: bool = False,
        chip_yield: float | None = None,
    ):
        """A matplotlib `Figure`: accuracy with its spread and worst chip, energy, and the operating point.

        Args:
            accuracy: required, in [0, 1] for an accuracy: `lowest_voltage` of it is marked; `None` marks that of
                `requirement`, if there is one.
            worst, confident, chip_yield: as for `lowest_voltage`.
        """
        from axtrain.training.plots import sweep_figure

        asked: dict[str, Any] = {"worst": worst, "confident": confident, "chip_yield": chip_yield}
        judged = self if accuracy is None else self.requiring(accuracy, **asked)
        return sweep_figure(
            self.points,
            required=judged.requirement,
            chosen=judged.operating_point,
            fault_free=self.fault_free,
        )


def lowest_voltage(
    result: Sweep, accuracy: float, *, worst: bool = False, confident: bool = False, chip_yield: float | None = None
) -> SweepPoint:
    """The lowest voltage that is good enough, as every higher one in the sweep is too.

    In a sweep of error rates: the highest rate that is, as every lower one. Where it is the last that was swept, the
    true one may lie beyond.

    Args:
        result: from `sweep`.
        accuracy: required, in the metric's own units.
        worst: the worst chip must have it, not only the mean.
        confident: the lower end of the mean's 95 % interval must have it.
        chip_yield: this share of the chips must have it, such as 0.95.

    Raises:
        ValueError: no point is good enough, an accuracy or a yield that is no such number, or several ways to judge.
    """
    judged = result.requiring(accuracy, worst=worst, confident=confident, chip_yield=chip_yield)
    found = judged.operating_point
    if found is None:
        raise ValueError(judged.verdict)
    return found
