"""Measures what each layer costs alone on each candidate: rise of the loss, its error, and fall of the metric."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import keras
import numpy as np

from axtrain.controls import hardware_layers, set_chip
from axtrain.running_state import state_kept
from axtrain.training.evaluation import figure, leaves_nothing_to_chance, progress
from axtrain.training.kept_figures import KeptFigures, fingerprint
from axtrain.training.search.assignments import Choices
from axtrain.training.sensitivity.loss_choice import ChosenLoss

_PARTS = 3  # figures of a cell


def measured_cells(
    choices: Choices,
    chosen: ChosenLoss,
    x,
    y,
    *,
    chips: Sequence[int],
    metric: Callable[[Any, Any], float],
    batch_size: int,
    folder,
    settings: dict[str, Any],
    verbose: bool,
) -> dict[str, Any]:
    """The measured fields of a `SensitivityMap`.

    Args:
        choices: the network and its candidates.
        chosen: the loss.
        x, y: samples and labels.
        chips: numbers of the chips that candidates with faults are measured on.
        metric: of (y_true, y_pred).
        batch_size: samples per pass.
        folder: keeps each cell as it comes, or `None`.
        settings: what else the figures depend on, JSON-able.
        verbose: show a progress bar.

    Raises:
        ValueError: a folder of other settings.
    """
    cells = [(layer, name) for layer in choices.layers for name in choices.candidates]
    if folder is not None:
        settings = {**settings, "loss": chosen.name, "reference": choices.reference.to_dict()}
        settings |= {
            "cells": cells_in_words(choices),
            **fingerprint(choices.plain, (x, choices.calibration), y, metric),
        }
    kept = KeptFigures(folder, ["cells"], settings, lambda _: range(_PARTS * len(cells)))
    figures = kept.found[0]

    def run(assignment):
        played = choices.play(assignment)
        layers = list(hardware_layers(played))
        certain = leaves_nothing_to_chance(layers, choices.hardware_of(assignment))
        losses, metrics = [], []
        with state_kept(played) as put_back:
            for number in chips[:1] if certain else chips:
                put_back()
                set_chip(played, number)
                outputs = _outputs(played, x, batch_size)
                where = f"chip {number}, {assignment or 'all layers on the reference'}"
                metrics.append(figure(metric, y, outputs, played, where))
                losses.append(np.asarray(chosen.per_sample(y, outputs), np.float64))
                if not np.isfinite(losses[-1]).all():
                    raise ValueError(
                        "The loss of some samples is not finite, so nothing can be compared with it. "
                        f"Received: {losses[-1].mean()} on {where}"
                    )
        return np.mean(losses, axis=0), np.array(metrics), np.array([one.mean() for one in losses])

    baseline = run({})
    with closing(progress(range(len(cells)), "measured", shown=verbose and len(cells) > 1)) as shown:
        for cell in shown:
            if _PARTS * cell + _PARTS - 1 in figures:
                continue
            layer, name = cells[cell]
            losses, metrics, of_chips = run({layer: name})
            difference = losses - baseline[0]
            error = difference.std() / len(difference) ** 0.5
            if len(of_chips) > 1:  # what chips differ by is chance too
                error = np.hypot(error, of_chips.std(ddof=1) / len(of_chips) ** 0.5)
            for part, value in enumerate((difference.mean(), error, baseline[1].mean() - metrics.mean())):
                kept.add(0, _PARTS * cell + part, float(value))
    found = np.array([figures[number] for number in range(_PARTS * len(cells))])
    rises, errors, drops = np.moveaxis(found.reshape(len(choices.layers), len(choices.candidates), _PARTS), -1, 0)
    return {
        "measured": rises,
        "measured_error": errors,
        "drop": drops,
        "baseline": (float(baseline[0].mean()), float(baseline[1].mean())),
    }


def cells_in_words(choices: Choices) -> dict[str, Any]:
    """Layers and candidates, JSON-able."""
    return {
        "layers": list(choices.layers),
        "candidates": {name: hardware.to_dict() for name, hardware in choices.candidates.items()},
    }


def _outputs(model: keras.Model, x, batch_size: int) -> np.ndarray:
    """Of the model called as it is: compiling it anew for each cell would take longer than the pass."""
    count = len(keras.tree.flatten(x)[0])
    batches = []
    for start in range(0, count, batch_size):
        batch = keras.tree.map_structure(lambda a, i=start: np.asarray(a[i : i + batch_size]), x)
        batches.append(keras.ops.convert_to_numpy(model(batch, training=False)))
    return np.concatenate(batches)
