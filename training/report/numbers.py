"""The numbers of a run: the large ones at the top, and tables of what was measured."""

from __future__ import annotations

from typing import Any

from axtrain.training.evaluation import Evaluation
from axtrain.training.report.parts import Headline, Table
from axtrain.training.report.run import Run

_FLOAT = ("clean", "float")
_LAST = ("after", "resilient", "trained")  # what a run ends with, if it says so
_ALLOWED = 0.01  # of the mildest point's accuracy: the loss that a sweep's headline allows (chosen here)


def clean_of(run: Run) -> float | None:
    """The figure of the network in float, where the run says it."""
    for name in _FLOAT:
        if name in run.evaluations:
            return run.evaluations[name].mean
        if name in run.figures:
            return run.figures[name]
    return None


def on_hardware(run: Run) -> dict[str, Evaluation]:
    """The evaluations over chips, that of the run's result last."""
    same: dict[tuple[float, ...], list[str]] = {}
    for name, one in run.evaluations.items():
        if name not in _FLOAT:
            same.setdefault(tuple(one.accuracies), []).append(name)
    kept = {}
    for names in same.values():  # an export states what another file has as well
        chosen = next((name for name in names if _ends(name)), names[0])
        kept[chosen] = max((run.evaluations[name] for name in names), key=lambda one: one.samples)
    return {name: kept[name] for name in sorted(kept, key=_ends)}


def _ends(name: str) -> bool:
    return name.rpartition("/")[2] in _LAST


def headlines(run: Run, energy: Any = None) -> list[Headline]:
    """The figures that a run is judged by, but for its sweeps and searches.

    Args:
        run: as it was read.
        energy: its model's `EnergyEstimate`, or `None`.
    """
    found, clean = [], clean_of(run)
    if clean is not None:
        found.append(Headline(*_figure(clean, _metric(run)), "clean: in float, without hardware"))
    evaluations = on_hardware(run)
    if evaluations:
        name, last = list(evaluations.items())[-1]
        chips = len(last.accuracies)
        if last.deterministic:
            found.append(Headline(*_figure(last.mean, last.metric), f"{name}: the same on every chip"))
        else:
            found.append(Headline(*_figure(last.mean, last.metric), f"{name}: mean of {chips} chips"))
            found.append(Headline(*_figure(last.worst, last.metric), f"{name}: worst chip of {chips}"))
    saving = energy.saving if energy is not None else _saving(run)
    if saving is not None:
        found.append(_saved(saving, "energy per inference, modelled"))
    return found


def sweep_headlines(result: Any) -> list[Headline]:
    """The lowest operating point that is good enough, and how good; or that none is.

    Good enough is what the sweep requires, else a mean within one point of the hardware without faults. An older file
    does not say that figure; there the mildest point stands for it.
    """
    mildest, metric = result.points[0], result.points[0].evaluation.metric
    if result.requirement is not None:
        least = " ".join(_figure(result.requirement.accuracy, metric))
        aim = f"keeps {result.requirement.by} at {least} or more"
        which = f"that {aim}"
    else:
        base = mildest.evaluation.mean if result.fault_free is None else result.fault_free
        result = result.requiring(base - _ALLOWED)
        which = "within one point" if metric == "accuracy" else f"within {_ALLOWED}"
        which += " of the mildest" if result.fault_free is None else " of the hardware without faults"
        aim = f"is {which}"
    rates, good = mildest.voltage is None, result.operating_point
    shown = mildest if good is None else good
    number, unit = (f"{100 * shown.rate:.2g}", "%") if rates else (f"{shown.voltage:g}", "V")
    if good is None:
        found = Headline("none", "", f"of the swept {'bit error rates' if rates else 'voltages'} is safe: none {aim}")
    else:
        edge = f", the last swept: {'higher' if rates else 'lower'} ones were not measured"
        kind = "highest bit error rate" if rates else "lowest voltage"
        found = Headline(number, unit, f"{kind} {which}{edge if good is result.points[-1] else ''}")
    place = f"{number} {unit}{', the mildest swept' if good is None else ''}"
    mean = Headline(*_figure(shown.evaluation.mean, metric), f"mean at {place}")
    worst = Headline(*_figure(shown.evaluation.worst, metric), f"worst chip at {place}")
    clean = [] if result.fault_free is None else [Headline(*_figure(result.fault_free, metric), "without faults")]
    saved = [] if good is None or good.saving is None else [_saved(good.saving, f"energy at {place}, modelled")]
    return [found, mean, worst, *clean, *saved]


def search_headlines(result: Any) -> list[Headline]:
    """The exact network, and the chosen assignment."""
    metric = result.exact.evaluation.metric
    found = [Headline(*_figure(result.exact.evaluation.mean, metric), "all layers exact")]
    if result.best is not None:
        found.append(Headline(*_figure(result.best.accuracy, metric), "the chosen assignment"))
        found.append(_saved(result.best.saving, "energy of the chosen one, modelled"))
    return found


def _saved(saving: float, words: str) -> Headline:
    return Headline(f"{100 * abs(saving):.1f}", "%", f"{'less' if saving >= 0 else 'more'} {words}")


def evaluation_table(run: Run) -> Table:
    """A row for each network that was measured."""
    rows, clean = [], clean_of(run)
    if clean is not None:
        rows.append(("in float", _cell(clean, _metric(run)), "-", "-", "-", "-", "-"))
    for name, one in on_hardware(run).items():
        low, high = (_cell(figure, one.metric) for figure in one.interval)
        spread, worst = _cell(one.std, one.metric), _cell(one.worst, one.metric)
        samples = str(one.samples) if one.samples else "-"
        row = (name, _cell(one.mean, one.metric), spread, worst, f"{low} to {high}")
        rows.append((*row, "all alike" if one.deterministic else str(len(one.accuracies)), samples))
    unit = " [%]" if _metric(run) == "accuracy" else ""
    columns = ("network", f"mean{unit}", "spread (std)", "worst chip", "95 % of the mean", "chips", "samples")
    return Table(columns, rows, f"{_metric(run)} on the hardware")


def sweep_table(result: Any) -> Table:
    """A row for each operating point."""
    rows = []
    for point in result.points:
        one = point.evaluation
        rows.append(
            (
                "-" if point.voltage is None else f"{point.voltage:.3f}",
                "-" if point.rate is None else f"{point.rate:.1e}",
                *(_cell(figure, one.metric) for figure in (one.mean, one.std, one.worst)),
                "-" if point.energy_pj is None else f"{point.energy_pj / 1e3:.4g}",
                "-" if point.saving is None else f"{100 * point.saving:.1f}",
            )
        )
    first = result.points[0].evaluation
    unit = " [%]" if first.metric == "accuracy" else ""
    columns = ("supply [V]", "bit error rate", f"mean{unit}", "spread (std)", "worst chip", "energy [nJ]", "saved [%]")
    return Table(columns, rows, f"{first.metric} of {len(first.accuracies)} chips at every operating point")


def search_table(result: Any) -> Table:
    """A row for each played assignment."""
    rows = []
    for point in (*result.confirmed, result.exact):
        one = point.evaluation
        names = list(point.assignment.values())
        counts = ", ".join(f"{name} ({names.count(name)})" for name in dict.fromkeys(names)) or "reference"
        mark = "chosen: " if point is result.best else ""
        trained = "-" if point.trained is None else _cell(point.trained.mean, one.metric)
        mean, worst = (_cell(figure, one.metric) for figure in (one.mean, one.worst))
        figures = f"{point.energy_pj / 1e3:.4g}", f"{100 * point.saving:.1f}", mean, worst, trained
        rows.append((mark + counts, *figures))
    unit = " [%]" if result.exact.evaluation.metric == "accuracy" else ""
    columns = ("candidates (layers)", "energy [nJ]", "saved [%]", f"mean{unit}", "worst chip", "after training")
    return Table(columns, rows, "assignments that were played, the cheapest first")


def _saving(run: Run) -> float | None:
    return next((value for name, value in run.figures.items() if name.rpartition(".")[2] == "energy_saving"), None)


def _metric(run: Run) -> str:
    return next((one.metric for one in run.evaluations.values()), "accuracy")


def _figure(value: float, metric: str) -> tuple[str, str]:
    return (f"{100 * value:.2f}", "%") if metric == "accuracy" else (f"{value:.4g}", metric)


def _cell(value: float, metric: str) -> str:
    return _figure(value, metric)[0]
