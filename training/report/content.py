"""From a run to the sections of its page."""

from __future__ import annotations

import os
from typing import Any

from axtrain.hardware import Hardware
from axtrain.training import plots
from axtrain.training.report import numbers
from axtrain.training.report.hardware_words import hardware_rows, in_short
from axtrain.training.report.parts import PAGE_WIDTH, Headline, Pictures, Section, Table
from axtrain.training.report.played import Played, played
from axtrain.training.report.run import Run

_MOST = 8  # descriptions, and circuits, that a page shows (chosen here)
_REDRAWN = {"sweep": "sweeps", "search": "searches", "chips": "evaluations"}  # pictures whose figures are known too


def sections(run: Run) -> tuple[list[Headline], list[Section]]:
    """The large numbers, and all sections that have something to say."""
    model, pictures = played(run), Pictures()
    energy = None if model is None else model.energy
    found = [
        _hardware(run, model),
        _accuracy(run, pictures),
        *(_sweep(_of(name, run.sweeps), result, pictures) for name, result in run.sweeps.items()),
        *(_search(_of(name, run.searches), result, pictures) for name, result in run.searches.items()),
        _energy(model, pictures),
        _training(run, pictures),
        _layers(model, pictures),
        _multipliers(run, model, pictures),
        _within(run),
        _kept(run, pictures),
        _made(run),
    ]
    headlines = numbers.headlines(run, energy)
    for one in found:  # of a run that is a sweep or a search its own figures come first
        if one.headlines and not headlines:
            headlines, one.headlines = one.headlines, []
    return headlines, [one for one in found if one.words or one.tables or one.pictures]


def _of(name: str, found: dict[str, Any]) -> str:
    return f": {name}" if len(found) > 1 else ""


def _described(run: Run, model: Played | None) -> dict[Hardware, list[str]]:
    """The different hardware, and the layers on it."""
    described = {} if model is None else dict(model.hardware)
    for one in run.hardware.values():
        described.setdefault(one, [])
    return described


def _hardware(run: Run, model: Played | None) -> Section:
    section, described = Section("Hardware"), _described(run, model)
    for one, layers in list(described.items())[:_MOST]:
        where = f" (layers {', '.join(layers)})" if layers and len(described) > 1 else ""
        section.tables.append(Table(("part", "what it is"), hardware_rows(one), in_short(one) + where))
    if len(described) > _MOST:
        section.notes.append(f"{len(described)} descriptions in all; the first {_MOST} are shown")
    return section


def _multipliers(run: Run, model: Played | None, pictures: Pictures) -> Section:
    circuits = {one.circuit.name: one.circuit for one in _described(run, model) if not one.circuit.is_exact}
    section = Section("Multiplier" if len(circuits) < 2 else "Multipliers")
    for circuit in list(circuits.values())[:_MOST]:
        words = f"Errors of {circuit.name} for every pair of operands: where they are, and how many are how large"
        section.pictures.append(pictures.drawn(plots.multiplier_figure(circuit, width=PAGE_WIDTH), words))
    rows = [
        (circuit.name, *(f"{value:.4g}" for value in (100 * m.mre, m.mae, m.wce, m.bias, m.std, 100 * m.ep)))
        for circuit, m in ((circuit, circuit.metrics()) for circuit in circuits.values())
    ]
    if rows:
        columns = ("circuit", "mean relative [%]", "mean absolute", "largest", "bias", "std", "wrong [%]")
        section.tables.append(Table(columns, rows, "errors over every pair of operands"))
    return section


def _accuracy(run: Run, pictures: Pictures) -> Section:
    section = Section("Accuracy")
    evaluations = numbers.on_hardware(run)
    if not evaluations:
        return section
    section.tables.append(numbers.evaluation_table(run))
    metric = list(evaluations.values())[-1].metric
    shown = {name: one for name, one in list(evaluations.items())[-6:] if one.metric == metric}
    if max(len(one.accuracies) for one in shown.values()) > 1:
        figure = plots.evaluations_figure(shown, clean=numbers.clean_of(run), width=PAGE_WIDTH)
        section.pictures.append(pictures.drawn(figure, f"{metric} of each chip, each network's worst chip first"))
    return section


def _sweep(of: str, result: Any, pictures: Pictures) -> Section:
    over = "error rate" if result.points[0].voltage is None else "supply voltage"
    section = Section(f"Sweep of the {over}{of}", numbers.sweep_headlines(result), notes=list(result.notes))
    section.words += [] if result.requirement is None else [f"{result.verdict}."]
    marks = {"required": result.requirement, "chosen": result.operating_point, "fault_free": result.fault_free}
    figure = plots.sweep_figure(result.points, width=PAGE_WIDTH, **marks)
    metric = result.points[0].evaluation.metric
    section.pictures.append(pictures.drawn(figure, f"{metric} over the {over}: mean, spread and worst chip"))
    section.tables.append(numbers.sweep_table(result))
    return section


def _search(of: str, result: Any, pictures: Pictures) -> Section:
    section = Section(f"Search{of}", numbers.search_headlines(result), notes=list(result.notes))
    section.words.append(f"Hardware chosen for each layer; rises of single layers {result.rises}.")
    words = "Accuracy over energy: the front of the assignments that were played"
    section.pictures.append(pictures.drawn(plots.search_figure(result, width=PAGE_WIDTH), words))
    if result.best is not None:
        rows = [(layer, candidate) for layer, candidate in result.best.assignment.items()]
        section.tables.append(Table(("layer", "hardware"), rows, "the chosen assignment"))
    section.tables.append(numbers.search_table(result))
    return section


def _energy(model: Played | None, pictures: Pictures) -> Section:
    section = Section("Energy")
    if model is None or model.energy is None:
        return section
    estimate = model.energy
    words = "Energy of an inference in each layer, by part"
    section.pictures.append(pictures.drawn(estimate.plot(width=PAGE_WIDTH), words))
    reference = {**estimate.reference_by_part, "all": estimate.reference_pj}
    rows = [
        (part, f"{spent / 1e3:.4g}", f"{reference[part] / 1e3:.4g}" if part in reference else "-")
        for part, spent in (*estimate.by_part.items(), ("all", estimate.total_pj))
    ]
    caption = f"energy of one inference by part; the reference is the network {estimate.against}"
    section.tables.append(Table(("part", "here [nJ]", "reference [nJ]"), rows, caption))
    section.notes = [f"assumed: {line}" for line in estimate.assumptions]
    return section


def _layers(model: Played | None, pictures: Pictures) -> Section:
    section = Section("Layers")
    if model is None:
        return section
    parts: dict[str, list[Any]] = {}
    for part in model.energy.layers if model.energy else ():
        parts.setdefault(part.name, []).append(part)
    rows = []
    for one in model.layers:
        own = parts.get(one.name, [])
        counted = [f"{sum(getattr(part, what) for part in own):,}" for what in ("weights", "multiplications")]
        spent = f"{sum(part.total_pj for part in own) / 1e3:.4g}"
        rows.append((one.name, one.kind, one.multiplier, *((*counted, spent) if own else "---")))
    columns = ("layer", "class", "multiplier", "weights", "products", "energy [nJ]")
    section.tables.append(Table(columns, rows, f"layers of {model.model.name} on hardware"))
    if model.skipped:
        section.notes.append(f"in float: {', '.join(model.skipped)}")
    if any(not one.circuit.is_exact for one in model.hardware):
        words = "How often each weight code occurs in the largest layer, on the multiplier's expected error with it"
        section.pictures.append(pictures.drawn(plots.weights_figure(None, model.model, width=PAGE_WIDTH), words))
    return section


def _training(run: Run, pictures: Pictures) -> Section:
    section = Section("Training")
    for name, one in run.trainings.items():
        try:
            figure = plots.training_figure(one["history"], epochs=one["epochs"], title=name, width=PAGE_WIDTH)
        except ValueError as error:
            run.notes.append(f"the training {name!r} has no curves: {error}")
            continue
        section.pictures.append(pictures.drawn(figure, f"Training {name}: loss and metrics over the epochs"))
    return section


def _within(run: Run) -> Section:
    section = Section("Runs within it")
    if run.children:
        rows = [
            (name, state, ", ".join(f"{key} {value:.4g}" for key, value in figures.items()) or "-")
            for name, state, figures in run.children
        ]
        section.tables.append(Table(("run", "state", "figures"), rows, "child runs, the earliest first"))
    return section


def _kept(run: Run, pictures: Pictures) -> Section:
    section = Section("Pictures of the run")
    for name, png in run.pictures.items():
        known = _REDRAWN.get(os.path.basename(name))
        if known is None or not getattr(run, known):
            section.pictures.append(pictures.kept(png, name))
    return section


def _made(run: Run) -> Section:
    section = Section("How it was made", notes=list(run.notes))
    if run.figures:
        rows = [(name, f"{value:.6g}") for name, value in run.figures.items()]
        section.tables.append(Table(("metric", "last value"), rows, "single figures"))
    for name, settings in run.settings.items():
        section.tables.append(Table(("setting", "value"), list(settings.items()), name))
    for name, state in run.exports.items():
        section.words.append(f"Export {name}: {state}.")
    if run.versions:
        section.tables.append(Table(("software", "version"), list(run.versions.items()), "versions"))
    if run.files:
        section.words.append(f"Read: {', '.join(run.files[:60])}{' and more' if len(run.files) > 60 else ''}.")
    return section
