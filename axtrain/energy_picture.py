"""Where the energy of an inference goes: layer by layer and part by part. Loads matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from axtrain.noise_models import picture_style as style

if TYPE_CHECKING:
    from axtrain.energy_estimate import EnergyEstimate

# Neighbours differ in lightness, so that a print in grey keeps them apart.
PART_COLOURS = {
    "multiplications": style.BLUE,
    "additions": style.SKY,
    "weights": style.VERMILLION,
    "activations": style.ORANGE,
    "biases": style.PURPLE,
    "leakage": style.SILVER,
}


def energy_figure(estimate: EnergyEstimate, sensitivity: Any = None, *, width: float | None = None) -> Any:
    """Energy of each layer as a bar of its parts; beside it, what each layer costs on each hardware in loss.

    Args:
        estimate: from `axtrain.energy`; a layer that is called several times has one bar.
        sensitivity: from `axtrain.sensitivity`; `None` draws the energy alone. Predicted rises are drawn, or measured
            ones where they were measured; a rise of 0 or below has no place on the logarithmic axis and is left out.
        width: of the picture in inches, 7.5 by default and 10 for two panels; below 6.5 the panels stand above one
            another.

    Returns:
        a matplotlib `Figure`; nothing is shown or kept open.

    Raises:
        ValueError: a sensitivity that knows none of these layers.
    """
    layers: dict[str, dict[str, float]] = {}
    for layer in estimate.layers:
        spent = layers.setdefault(layer.name, dict.fromkeys(PART_COLOURS, 0.0))
        for part, energy_pj in layer.by_part.items():
            spent[part] += energy_pj / 1e3
    if sensitivity is not None and not set(layers) & set(sensitivity.layers):
        raise ValueError(
            f"`sensitivity` must be of these layers: {', '.join(layers)}. Received: {', '.join(sensitivity.layers)}"
        )
    count = 1 if sensitivity is None else 2
    height = max(2.8, 1.6 + 0.34 * len(layers))
    figure, axes = style.panels(width or (10.0 if count == 2 else style.WIDTH), height, count, ratios=(3, 2)[:count])
    _bars(axes[0], layers)
    if sensitivity is not None:
        _rises(axes[1], list(layers), sensitivity)
    saved = f"{100 * abs(estimate.saving):.1f} % {'less' if estimate.saving >= 0 else 'more'} than {estimate.against}"
    style.title(figure, f"{estimate.total_pj / 1e3:.4g} nJ per inference, {saved}")
    style.legend_below(figure, 6 if count == 2 else 3, narrow=3 if count == 1 else 2)
    return figure


def _bars(axes: Any, layers: dict[str, dict[str, float]]) -> None:
    position = np.arange(len(layers))
    start = np.zeros(len(layers))
    for part, colour in PART_COLOURS.items():
        length = np.array([spent[part] for spent in layers.values()])
        if length.any():
            edges = {"edgecolor": style.PAPER, "linewidth": 0.5}
            axes.barh(position, length, left=start, height=0.72, color=colour, label=part, **edges)
        start += length
    for at, end in zip(position, start, strict=True):
        axes.annotate(f"{end:.3g}", (end, at), (3, 0), textcoords="offset points", va="center", fontsize="small")
    _layer_axis(axes, list(layers))
    axes.set_xlim(0, 1.12 * start.max() or 1)
    axes.set_xlabel("energy per inference [nJ], modelled")


def _rises(axes: Any, layers: list[str], sensitivity: Any) -> None:
    rises = sensitivity.predicted if sensitivity.measured is None else sensitivity.measured
    known = [(layers.index(name), row) for row, name in enumerate(sensitivity.layers) if name in layers]
    at, rows = (np.array(numbers) for numbers in zip(*known, strict=True))
    colours = (style.BLUE, style.VERMILLION, style.GREEN, style.ORANGE, style.PURPLE, style.SKY)
    for column, name in enumerate(sensitivity.candidates):
        rise = rises[rows, column]
        look = {"marker": "osD^vP"[column % 6], "color": colours[column % 6], "linestyle": "none"}
        axes.plot(rise[rise > 0], at[rise > 0], **look, label=style.label(name))
    if (rises[rows] > 0).any():
        axes.set_xscale("log")
    _layer_axis(axes, layers)
    kind = "predicted" if sensitivity.measured is None else "measured"
    axes.set_xlabel(f"{kind} rise of the mean loss, this layer alone")


def _layer_axis(axes: Any, layers: list[str]) -> None:
    axes.set_yticks(range(len(layers)), layers)
    axes.set_ylim(len(layers) - 0.4, -0.6)  # the first layer on top, as in a table
    axes.grid(False)
    axes.grid(True, axis="x", color=style.GRID, linewidth=0.8)
