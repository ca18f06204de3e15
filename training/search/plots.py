"""Pictures and tables of a sensitivity map and of a search."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from axtrain.noise_models import picture_style as style


def sensitivity_figure(found, *, width: float | None = None) -> Figure:
    """Predicted rise of the loss of each layer on each candidate, and beside it predicted over measured.

    Args:
        found: a `SensitivityMap`.
        width: of the picture in inches; `None` takes what the candidates need.

    Returns:
        a matplotlib figure; nothing is shown or kept open.
    """
    rows, columns = found.predicted.shape
    measured = found.measured is not None
    natural = max(3.8 + 0.55 * columns + (4.5 if measured else 0), style.WIDTH)
    height = max(4.5, 2.8 + 0.32 * rows)
    figure, axes = style.panels(width or natural, height, 1 + measured, ratios=(3, 2) if measured else None)
    _heat_map(figure, axes[0], found)
    if measured:
        _agreement(axes[1], found)
    return figure


def _heat_map(figure, axes, found) -> None:
    positive = found.predicted[found.predicted > 0]
    high = float(positive.max()) if len(positive) else 1.0
    low = max(float(positive.min()) if len(positive) else 0.1, 1e-5 * high)
    norm, held = LogNorm(low, max(high, low * 1.01)), np.maximum(found.predicted, low)
    shown = axes.imshow(held, norm=norm, cmap="cividis_r", aspect="auto")
    axes.grid(False)
    axes.set_xticks(range(len(found.candidates)), found.candidates, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(found.layers)), found.layers)
    axes.set_title("one layer alone on each hardware")
    figure.colorbar(shown, ax=axes, label=f"predicted rise of the mean loss\n({found.loss})").outline.set_visible(False)
    if len(found.candidates) <= 8 and len(found.layers) <= 20:  # more would not be legible
        for (row, column), value in np.ndenumerate(found.predicted):
            colour = style.PAPER if norm(held[row, column]) > 0.35 else style.INK
            axes.text(column, row, f"{value:.1g}", ha="center", va="center", color=colour, fontsize=8)


def _agreement(axes, found) -> None:
    both = (found.predicted > 0) & (found.measured > 0)
    clear = found.measured > 2 * found.measured_error
    for chosen, colour, label in (
        (both & ~clear, style.SILVER, "within 2 standard errors of 0"),
        (both & clear, style.BLUE, "a layer on a candidate"),
    ):
        if chosen.any():
            predicted, measured, error = (
                array[chosen] for array in (found.predicted, found.measured, found.measured_error)
            )
            error = np.stack([np.minimum(error, 0.9 * measured), error])  # a bar stays on the logarithmic axis
            axes.errorbar(predicted, measured, error, fmt="o", markersize=4, linewidth=0.7, color=colour, label=label)
    if both.any():
        ends = [f(np.concatenate([found.predicted[both], found.measured[both]])) for f in (np.min, np.max)]
        axes.plot(ends, ends, color=style.MUTED, linestyle="--", linewidth=0.8, label="equal")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.legend(fontsize="small", frameon=False)
    agreed = found.correlation
    axes.set_title(
        f"{agreed['cells']} clear cells:\nSpearman {agreed['spearman']:.2f}, logs {agreed['pearson_log']:.2f}"
    )
    axes.set_xlabel("predicted rise of the mean loss")
    axes.set_ylabel("measured rise, bit-exact")


def sensitivity_table(found) -> str:
    """Markdown: a row for each layer, a column for each candidate; predicted rise, and measured where it was."""
    lines = [f"| layer | {' | '.join(found.candidates)} |", f"|---|{'---:|' * len(found.candidates)}"]
    for row, layer in enumerate(found.layers):
        cells = [f"{value:.2g}" for value in found.predicted[row]]
        if found.measured is not None:
            cells = [f"{cell} / {value:.2g}" for cell, value in zip(cells, found.measured[row], strict=True)]
        lines.append(f"| {layer} | {' | '.join(cells)} |")
    lines += [
        "",
        f"Rise of the mean loss ({found.loss}) with that layer alone on the candidate: predicted ({found.method})",
    ]
    if found.measured is None:
        return "\n".join(lines)
    agreed, (loss, score) = found.correlation, found.baseline
    lines[-1] += f" / measured. All layers on the reference: loss {loss:.4g}, {found.metric} {score:.4f}."
    lines.append(
        f"Over {agreed['cells']} cells above noise: Spearman {agreed['spearman']:.3f}, Pearson of logarithms "
        f"{agreed['pearson_log']:.3f}, median predicted over measured {agreed['median_ratio']:.2f}."
    )
    return "\n".join(lines)


_ENERGIES = {
    "total": "energy per inference [nJ], modelled",
    "multipliers": "energy of the multipliers per inference [nJ]",
}


def search_figure(found, *, width: float = style.WIDTH) -> Figure:
    """Accuracy over energy: dominated points faint, the front joined, reference, budget and chosen one marked.

    The front is a staircase: at an energy between two points the cheaper one is the best that was found.

    Args:
        found: a `SearchResult`.
        width: of the picture in inches.

    Returns:
        a matplotlib figure; nothing is shown or kept open.
    """
    figure, (axes,) = style.panels(width, 5)
    exact = found.exact.evaluation
    percent = exact.metric == "accuracy"
    scale = 100 if percent else 1

    def place(points, trained=False):
        judged = [point.trained if trained else point.evaluation for point in points]
        return [point.energy_pj / 1e3 for point in points], [scale * one.mean for one in judged]

    dominated = [point for point in found.confirmed if point.dominated]
    if dominated:
        axes.plot(*place(dominated), "o", color=style.SKY, alpha=0.45, markeredgewidth=0, label="dominated")
    if found.front:
        stairs = {"drawstyle": "steps-post", "color": style.BLUE}
        axes.plot(*place(found.front), "o-", **stairs, label="front, before training")
    uniform = [point for point in found.confirmed if point.uniform]
    if uniform:
        ring = {"markersize": 10, "markerfacecolor": "none", "markeredgewidth": 1.3}
        axes.plot(*place(uniform), "o", color=style.VERMILLION, **ring, label="one candidate in all layers")
    trained = [point for point in found.points if point.trained is not None]
    for point in trained:
        energy = point.energy_pj / 1e3
        axes.plot([energy] * 2, [scale * point.evaluation.mean, scale * point.trained.mean], ":", color=style.GREEN)
    if trained:
        axes.plot(*place(trained, trained=True), "^", color=style.GREEN, label="after training for it")
    axes.plot(*place([found.exact]), "s", color=style.INK, label=f"exact: {scale * exact.mean:.4g}{' %' * percent}")
    if found.budget is not None:
        bound = scale * (exact.mean - found.budget)
        axes.axhline(bound, color=style.MUTED, linestyle="--", label=f"budget: {bound:.4g}{' %' * percent}")
    if found.best is not None:
        at = found.best.energy_pj / 1e3, scale * found.best.accuracy
        words = f"chosen: {at[1]:.4g}{' %' * percent}, {at[0]:.4g} nJ, {100 * found.best.saving:.1f} % saved"
        axes.plot(*at, "*", markersize=17, color=style.ORANGE, markeredgecolor=style.INK, zorder=5, label=words)
    axes.set_xlabel(_ENERGIES[found.objective])
    axes.set_ylabel("accuracy [%]" if percent else exact.metric)
    style.legend_below(figure)
    return figure


def search_table(found) -> str:
    """A line for each played point, the cheapest first, with units; the chosen one layer by layer, and notes."""
    exact = found.exact.evaluation
    lines = [
        f"{exact.metric} over {len(exact.accuracies)} chips (seed {exact.seed}) of {exact.samples} samples; "
        f"{'all energy' if found.objective == 'total' else 'energy of the multipliers'} per inference",
        "     energy   saved    mean   worst  trained  predicted rise  candidates (layers)",
    ]
    for point in (*found.confirmed, found.exact):
        one, trained = point.evaluation, "-" if point.trained is None else f"{point.trained.mean:.4f}"
        names = list(point.assignment.values())
        counts = ", ".join(f"{name} ({names.count(name)})" for name in dict.fromkeys(names)) or "reference"
        mark = "*" if point is found.best else " " if point.dominated or point is found.exact else "+"
        lines.append(
            f"{mark}{point.energy_pj / 1e3:>8.4g} nJ{100 * point.saving:>6.1f} %{one.mean:>8.4f}{one.worst:>8.4f}"
            f"{trained:>9}{point.predicted:>16.2g}  {counts}"
        )
    lines.append("+ on the front before training; * chosen")
    if found.best is not None:
        lines.append("chosen: " + ", ".join(f"{layer}: {name}" for layer, name in found.best.assignment.items()))
    return "\n".join(
        [*lines, f"note: rises of single layers {found.rises}", *(f"note: {note}" for note in found.notes)]
    )
