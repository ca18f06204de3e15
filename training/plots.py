"""Results for people: pictures where they would look rather than read, tables, and CSV for their own tools."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure


def chips_figure(clean: float, before, after, energies: dict[str, float], *, title: str) -> Figure:
    """Accuracy of each chip before and after training for the hardware, and the energy behind it.

    Args:
        clean: accuracy of the conventionally trained network in float.
        before, after: `Evaluation`s of the same chips.
        energies: label to energy of one inference in nanojoules.
        title: of the figure.

    Returns:
        a matplotlib figure; nothing is shown or kept open.
    """
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    chips, energy = figure.subplots(1, 2, width_ratios=(3, 1))
    figure.suptitle(title)
    position = np.arange(1, len(before.accuracies) + 1)
    for evaluation, label, marker in ((before, "conventional", "v"), (after, "trained for it", "o")):
        chips.plot(
            position,
            100 * np.sort(evaluation.accuracies),
            marker=marker,
            label=f"{label}: mean {100 * evaluation.mean:.1f} %, worst {100 * evaluation.worst:.1f} %",
        )
    chips.axhline(100 * clean, color="grey", linestyle="--", label=f"conventional in float: {100 * clean:.1f} %")
    chips.xaxis.get_major_locator().set_params(integer=True)
    chips.set_xlabel("chip, each network's worst first")
    chips.set_ylabel("test accuracy [%]")
    figure.legend(loc="outside lower left", ncols=3, fontsize="small")
    bars = energy.bar(list(energies), list(energies.values()), color=["grey", "tab:green"])
    energy.bar_label(bars, fmt="%.0f")
    energy.margins(y=0.1)
    energy.set_ylabel("energy per inference [nJ], modelled")
    return figure


def sweep_figure(points: Sequence, *, required: float | None = None, chosen=None, title: str | None = None) -> Figure:
    """Accuracy over the supply voltage (or error rate): mean, spread, worst chip; energy on the second axis.

    Args:
        points: `SweepPoint`s.
        required: accuracy, drawn as a line; `None` draws none.
        chosen: the `SweepPoint` to mark as operating point.
        title: of the figure.

    Returns:
        a matplotlib figure; nothing is shown or kept open.
    """
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    by_rate = points[0].voltage is None
    position = np.array([point.rate if by_rate else point.voltage for point in points])
    evaluations = [point.evaluation for point in points]
    percent = evaluations[0].metric == "accuracy"
    scale, unit = (100, " %") if percent else (1, "")
    mean, spread, worst, best = (
        scale * np.array(figures)
        for figures in zip(*((one.mean, one.std, one.worst, one.accuracies.max()) for one in evaluations), strict=True)
    )
    # No chip lies beyond the worst and the best one, so neither does the band.
    band = np.maximum(mean - spread, worst), np.minimum(mean + spread, best)
    axes.fill_between(
        position, *band, alpha=0.25, label=f"one standard deviation of {len(evaluations[0].accuracies)} chips"
    )
    axes.plot(position, mean, marker="o", label="mean over chips")
    axes.plot(position, worst, linewidth=0.8, color="tab:red", label="worst chip")
    if required is not None:
        met = "" if chosen is not None else ", not met"
        axes.axhline(
            scale * required, color="grey", linestyle="--", label=f"required: {scale * required:.4g}{unit}{met}"
        )
    if chosen is not None:
        at = chosen.rate if by_rate else chosen.voltage
        parts = [f"rate {at:.2g}" if by_rate else f"{at:.3g} V", f"{scale * chosen.evaluation.mean:.4g}{unit}"]
        parts += [] if chosen.energy_pj is None else [f"{chosen.energy_pj / 1e3:.4g} nJ"]
        label = f"operating point: {', '.join(parts)}"
        axes.plot([at], [scale * chosen.evaluation.mean], "*", markersize=16, color="black", zorder=5, label=label)
    if by_rate:
        positive = position[position > 0]
        axes.set_xscale("symlog", linthresh=positive.min() if len(positive) else 1e-9)  # a rate may be 0
    axes.set_xlabel("bit error rate" if by_rate else "supply voltage [V]")
    axes.set_ylabel("test accuracy [%]" if percent else evaluations[0].metric)
    if all(point.energy_pj is not None for point in points):
        second = axes.twinx()
        spent = [point.energy_pj / 1e3 for point in points]
        second.plot(position, spent, color="tab:green", linestyle=":", marker="s", markersize=4, label="energy")
        second.set_ylabel("energy per inference [nJ], modelled", color="tab:green")
        second.set_ylim(bottom=0)
    if title is not None:
        figure.suptitle(title)
    figure.legend(loc="outside lower center", ncols=2, fontsize="small")
    return figure


def sweep_table(points: Sequence, notes: Sequence[str] = ()) -> str:
    """A line for each `SweepPoint`, with units, and the notes below."""
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
