"""The model that a run left, on its hardware: layers, energy, and where its weights lie."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from axtrain.controls import hardware_layers
from axtrain.energy_estimate import EnergyEstimate
from axtrain.hardware import Hardware
from axtrain.model_walk import labels
from axtrain.reporting import LayerSummary, summary
from axtrain.training.report.run import Run


@dataclass(frozen=True)
class Played:
    """A model, loaded."""

    model: keras.Model
    layers: tuple[LayerSummary, ...]
    skipped: tuple[str, ...]
    energy: EnergyEstimate | None
    hardware: dict[Hardware, list[str]]
    """The different hardware of its layers, and on which layers it is."""


def played(run: Run) -> Played | None:
    """The first of the run's models that runs on hardware; one that cannot be loaded becomes a note."""
    for path in run.models:
        try:
            model = _loaded(path)
        except Exception as error:  # whatever a file of someone's own layers raises: the page is made without it
            run.notes.append(f"{path.name} could not be loaded: {str(error).strip().splitlines()[0]}")
            continue
        layers = list(hardware_layers(model))
        if not layers:
            continue
        from rich.console import Console

        found = summary(model, console=Console(file=io.StringIO()))
        hardware: dict[Hardware, list[str]] = {}
        told = labels(model)
        for layer in layers:
            hardware.setdefault(layer.hardware, []).append(told[id(layer)])
        return Played(model, found.layers, found.skipped, found.energy, hardware)
    return None


def _loaded(path: Path) -> Any:
    from axtrain.loading import load_model

    return load_model(path)
