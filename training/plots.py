"""Results for people: pictures where they would look rather than read, tables, and CSV for their own tools."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from axtrain.energy_picture import energy_figure
from axtrain.noise_models import picture_style as style
from axtrain.noise_models.multiplier_picture import multiplier_figure
from axtrain.training.search.plots import search_figure, sensitivity_figure
from axtrain.training.sweep.requirements import Requirement
from axtrain.training.training_pictures import training_figure
from axtrain.training.weight_pictures import weights_figure

__all__ = [
    "chips_figure",
    "energy_figure",
    "evaluations_figure",
    "multiplier_figure",
    "search_figure",
    "sensitivity_figure",
    "sweep_csv",
    "sweep_figure",
    "sweep_table",
    "training_figure",
    "weights_figure",
]


def chips_figure(clean: float, before, after, energies: dict[str, float], *, title: str, width: float = 9.0) -> Figure:
    """Accuracy of each chip before and after training for the hardware, and the energy behind it.

    Args:
        clean: accuracy of the conventionally trained network in float.
        before, after: `Evaluation`s of the same chips.
        energies: label to energy of one inference in nanojoules.
        title: of the figure.
        width: of the picture in inches; below 6.5 the panels stand above one another.

    Returns:
        a matplotlib figure; nothing is shown or kept open.
    """
    figure, (chips, energy) = style.panels(width, 3.8, 2, ratios=(3, 1))
    style.title(figure, title)
    draw_chips(chips, {"conventional": before, "trained for it": after}, clean)
    bars = energy.bar(list(energies), list(energies.values()), color=[style.SILVER, style.ENERGY])
    energy.bar_label(bars, fmt="%.0f", color=style.INK)
    energy.margins(y=0.1)
    energy.set_ylabel("energy per inference [nJ], modelled")
    style.legend_below(figure, 3)
    return figure


def evaluations_figure(
    evaluations: Mapping[str, Any], *, clean: float | None = None, title: str | None = None, width: float = style.WIDTH
) -> Figure:
    """The figure of each chip, the worst first, for one network or several.

    Args:
        evaluations: label to `Evaluation`; the first ones are drawn fainter.
        clean: of the network in float, drawn as a line; `None` draws none.
        title: of the figure.
        width: of the picture in inches.

    Returns:
        a matplotlib figure; nothing is shown or kept open.
    """
    figure, (axes,) = style.panels(width, 4.0)
    draw_chips(axes, evaluations, clean)
    if title is not None:
        style.title(figure, title)
    style.legend_below(figure, 3)
    return figure


def draw_chips(axes, evaluations: Mapping[str, Any], clean: float | None) -> None:
    """Draws the figure of each chip, the worst first, on axes that are there."""
    last = list(evaluations.values())[-1]
    scale, _ = _scale(last)
    others = zip((style.VERMILLION, style.GREEN, style.PURPLE, style.ORANGE), "vsD^", strict=True)
    looks = [*itertools.islice(itertools.cycle(others), len(evaluations) - 1), (style.AFTER, "o")]
    for (label, one), (colour, marker) in zip(evaluations.items(), looks, strict=True):
        axes.plot(
            np.arange(1, len(one.accuracies) + 1),
            scale * np.sort(one.accuracies),
            marker=marker,
            markersize=5,
            color=colour,
            label=f"{style.label(label)}: mean {_words(one, one.mean)}, worst {_words(one, one.worst)}",
        )
    if clean is not None:
        label = f"conventional in float: {_words(last, clean)}"
        axes.axhline(scale * clean, color=style.MUTED, linestyle="--", label=label)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("chip, each network's worst first")
    axes.set_ylabel(_label(last))


def sweep_figure(
    points: Sequence,
    *,
    required=None,
    chosen=None,
    fault_free: float | None = None,
    title: str | None = None,
    width: float = style.WIDTH,
) -> Figure:
    """Accuracy over the supply voltage (or error rate): mean, spread, worst chip; below it the energy.

    Args:
        points: `SweepPoint`s.
        required: accuracy, or a sweep's `Requirement`, drawn as a line; `None` draws none.
        chosen: the `SweepPoint` to mark as operating point, at the figure that it is judged by.
        fault_free: of the hardware without faults, drawn as a line; `None` draws none.
        title: of the figure.
        width: of the picture in inches.

    Returns:
        a matplotlib figure; nothing is shown or kept open.
    """
    spent = [point.energy_pj for point in points]
    known = None not in spent
    figure = style.new_figure(width, 6 if known else 4.5)
    rows = figure.subplots(2 if known else 1, squeeze=False, sharex=True, height_ratios=(2.6, 1) if known else (1,))
    axes = rows[0, 0]
    by_rate = points[0].voltage is None
    position = np.array([point.rate if by_rate else point.voltage for point in points])
    evaluations = [point.evaluation for point in points]
    scale, unit = _scale(evaluations[0])
    mean, spread, worst, best = (
        scale * np.array(figures)
        for figures in zip(*((one.mean, one.std, one.worst, one.accuracies.max()) for one in evaluations), strict=True)
    )
    # No chip lies beyond the worst and the best one, so neither does the band.
    band = np.maximum(mean - spread, worst), np.minimum(mean + spread, best)
    axes.fill_between(
        position, *band, alpha=0.25, color=style.MEAN, linewidth=0,
        label=f"one standard deviation of {len(evaluations[0].accuracies)} chips",
    )  # fmt: skip
    axes.plot(position, mean, marker="o", color=style.MEAN, label="mean over chips")
    axes.plot(position, worst, linewidth=1, marker=".", color=style.WORST, linestyle="--", label="worst chip")
    if fault_free is not None:
        label = f"without faults: {scale * fault_free:.4g}{unit}"
        axes.axhline(scale * fault_free, color=style.MUTED, linestyle="--", linewidth=1, label=label)
    if isinstance(required, (int, float)):
        required = Requirement(accuracy=required)
    if required is not None:
        met = "" if chosen is not None else ", not met"
        label = f"required of {required.by}: {scale * required.accuracy:.4g}{unit}{met}"
        axes.axhline(scale * required.accuracy, color=style.MUTED, linestyle=":", label=label)
    if chosen is not None:
        at, one = chosen.rate if by_rate else chosen.voltage, chosen.evaluation
        parts = [f"rate {at:.2g}" if by_rate else f"{at:.3g} V"]
        parts += [f"mean {scale * one.mean:.4g}{unit}, worst {scale * one.worst:.4g}{unit}"]
        parts += [] if chosen.energy_pj is None else [f"{chosen.energy_pj / 1e3:.4g} nJ"]
        parts += ["the last swept"] if chosen is points[-1] else []
        label = f"operating point: {', '.join(parts)}"
        height = scale * (one.mean if required is None else required.judged(one))
        axes.plot([at], [height], "*", markersize=16, color=style.INK, zorder=5, label=label)
    if by_rate:
        positive = position[position > 0]
        axes.set_xscale("symlog", linthresh=positive.min() if len(positive) else 1e-9)  # a rate may be 0
    axes.set_ylabel(_label(evaluations[0]))
    if known:
        below = [energy_pj / 1e3 for energy_pj in spent]
        rows[1, 0].plot(position, below, color=style.ENERGY, marker="s", markersize=4, label="energy")
        rows[1, 0].set_ylabel("energy per\ninference [nJ]")
        rows[1, 0].set_ylim(0, 1.15 * max(below) or 1)
    axes.margins(y=0.08)
    for one in rows[:, 0]:
        style.tidy(one)
    rows[-1, 0].set_xlabel("bit error rate" if by_rate else "supply voltage [V]")
    if title is not None:
        style.title(figure, title)
    style.legend_below(figure)
    return figure


def _scale(evaluation) -> tuple[int, str]:
    return (100, " %") if evaluation.metric == "accuracy" else (1, "")


def _words(evaluation, figure: float) -> str:
    return f"{100 * figure:.1f} %" if evaluation.metric == "accuracy" else f"{figure:.4g}"


def _label(evaluation) -> str:
    return "test accuracy [%]" if evaluation.metric == "accuracy" else evaluation.metric


def sweep_table(points: Sequence, notes: Sequence[str] = (), fault_free: float | None = None) -> str:
    """A line for each `SweepPoint`, with units; the figure without faults and the notes below."""
    first = points[0].evaluation
    lines = [f"{first.metric} over {len(first.accuracies)} chips (seed {first.seed}) of {first.samples} samples"]
    lines += [" supply  error rate    mean  spread   worst   95 % of the mean      energy   saved"]
    for point in points:
        one = point.evaluation
        supply = "-" if point.voltage is None else f"{point.voltage:.3f} V"
        rate = "-" if point.rate is None else f"{point.rate:.1e}"
        spent = "-" if point.energy_pj is None else f"{point.energy_pj / 1e3:.4g} nJ"
        saved = "-" if point.saving is None else f"{100 * point.saving:.1f} %"
        lines.append(
            f"{supply:>7}{rate:>12}{one.mean:>8.4f}{one.std:>8.4f}{one.worst:>8.4f}   "
            f"{one.interval[0]:.4f} .. {one.interval[1]:.4f}{spent:>12}{saved:>8}"
        )
    lines += [] if fault_free is None else [f"without faults: {first.metric} {fault_free:.4f}"]
    return "\n".join([*lines, *(f"note: {note}" for note in notes)])


def sweep_csv(points: Sequence) -> str:
    """A line for each `SweepPoint`: its figures, and every chip in a column of its own; empty where unknown."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    names = ("voltage", "rate", "mean", "std", "worst", "interval_low", "interval_high", "energy_pj", "saving")
    writer.writerow([*names, *(f"chip_{number}" for number in range(1, len(points[0].evaluation.accuracies) + 1))])
    for point in points:
        one = point.evaluation
        figures = (one.mean, one.std, one.worst, *one.interval, point.energy_pj, point.saving)
        writer.writerow([point.voltage, point.rate, *figures, *one.accuracies.tolist()])
    return text.getvalue()
