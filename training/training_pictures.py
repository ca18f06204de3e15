"""How a training went: loss and metrics over the epochs, and how strong the noise was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from axtrain.noise_models import picture_style as style

NOISE = "noise_strength"  # as axtrain.callbacks.NoiseSchedule logs it
_NO_CURVES = (NOISE, "learning_rate")
_SHARES = ("accuracy", "acc")


def training_figure(
    history: Any, *, epochs: Sequence[int] | None = None, title: str | None = None, width: float = 10.0
) -> Figure:
    """Loss and metrics over the epochs, of training and validation samples, with the noise strength behind them.

    Args:
        history: what `fit` returned, or its `history`: name to one figure per epoch. `noise_strength`, which
            `axtrain.callbacks.NoiseSchedule` logs, is drawn on the second axis.
        epochs: numbers of the epochs, from 0; `None` counts them, or takes those of a Keras history.
        title: of the figure.
        width: of the picture in inches; below 6.5 the panels stand above one another.

    Returns:
        a matplotlib figure; nothing is shown or kept open.

    Raises:
        ValueError: no curve, curves of different lengths, or another number of epochs.

    Examples:
        >>> import axtrain as ax
        >>> history = {"loss": [0.9, 0.4], "accuracy": [0.6, 0.9], "noise_strength": [0.5, 1.0]}
        >>> [axes.get_ylabel() for axes in ax.plots.training_figure(history).axes]
        ['loss', 'accuracy [%]', 'noise strength', 'noise strength']
    """
    numbers: Mapping[str, Sequence[float]] = getattr(history, "history", history)
    numbers = {name: values for name, values in numbers.items() if len(values)}
    curves = _curves(numbers)
    lengths = {len(values) for values in numbers.values()}
    if epochs is None:
        epochs = getattr(history, "epoch", None) or range(max(lengths, default=0))
    if not curves or lengths != {len(epochs)}:
        raise ValueError(
            "`history` must hold curves with a figure for each of the epochs. Received: "
            f"{ ({name: len(values) for name, values in numbers.items()}) } for {len(epochs)} epochs"
        )
    figure, panels = style.panels(width, 3.6, len(curves))
    at = np.asarray(epochs) + 1
    for axes, (metric, parts) in zip(panels, curves.items(), strict=True):
        percent = metric.endswith(_SHARES)
        for name, words, look in (
            (metric, "training", {"color": style.BLUE, "marker": "o", "linestyle": "-"}),
            (f"val_{metric}", "validation", {"color": style.VERMILLION, "marker": "s", "linestyle": "--"}),
        ):
            if name in parts:
                values = (100 if percent else 1) * np.asarray(numbers[name], np.float64)
                axes.plot(at, values, **look, markersize=3.5 if len(at) <= 40 else 0, linewidth=1.5, label=words)
        axes.set_xlabel("epoch")
        axes.set_ylabel(f"{metric} [%]" if percent else metric)
        axes.xaxis.get_major_locator().set_params(integer=True)
    for axes in panels if NOISE in numbers else ():
        _noise(axes, at, np.asarray(numbers[NOISE], np.float64))
    if title is not None:
        style.title(figure, title)
    style.legend_below(figure, 3, narrow=3)
    return figure


def _curves(numbers: Mapping[str, Sequence[float]]) -> dict[str, list[str]]:
    """By metric the names of its curves, loss first."""
    curves: dict[str, list[str]] = {}
    for name in sorted(numbers, key=lambda name: name.removeprefix("val_") != "loss"):
        if name not in _NO_CURVES:
            curves.setdefault(name.removeprefix("val_"), []).append(name)
    return curves


def _noise(axes: Any, at: np.ndarray, strength: np.ndarray) -> None:
    second = style.second_axis(axes, "noise strength", style.AMBER)
    edges = np.append(at, at[-1] + 1) - 0.5
    second.stairs(strength, edges, fill=True, color=style.NOISE, alpha=0.25, label="noise strength")
    second.set_ylim(0, max(1.0, 1.05 * strength.max()))
