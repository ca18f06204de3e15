"""`evaluate` and `sweep` on files, and a model for `summary`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import keras

from axtrain.loading import load_model
from axtrain.noise_models.files import save_figure, write_whole
from axtrain.training.data_files import check_samples, load_split
from axtrain.training.evaluation import Evaluation, evaluate
from axtrain.training.jobs.shared import converted, for_test, tracked
from axtrain.training.sweep.requirements import Requirement
from axtrain.training.sweep.results import Sweep
from axtrain.training.sweep.sweeping import sweep


def evaluate_file(
    model: Path,
    data: Path,
    *,
    hardware: Path | None,
    chips: int,
    seed: int,
    scale: float,
    report: Path | None,
    track: dict[str, Any] | None = None,
) -> Evaluation:
    """Measures a saved model, on hardware if given (then calibrated on the training part)."""
    network, x, y = for_test(model, data, hardware, scale)
    with tracked(track, "evaluate", model, network, data) as run:
        measured = evaluate(network, x, y, chips=chips, seed=seed)
        if run is not None:
            run.evaluation(measured)
    if report is not None:
        write_whole(report, json.dumps(measured.to_dict(), indent=1).encode())
    return measured


def on_hardware(model: Path, hardware: Path | None, data: Path | None, scale: float) -> keras.Model:
    """A saved model, on hardware if given, calibrated if there are data."""
    network = load_model(model)
    if hardware is None:
        return network
    x = None if data is None else load_split(data, "train", scale)[0]
    if x is not None and data is not None:
        check_samples(network, x, data)
    return converted(network, hardware, x)


def sweep_file(
    model: Path,
    *,
    data: Path,
    hardware: Path | None,
    voltages: list[float] | None,
    rates: list[float] | None,
    accuracy: float | None,
    out: Path,
    chips: int,
    seed: int,
    scale: float,
    worst: bool = False,
    confident: bool = False,
    chip_yield: float | None = None,
    track: dict[str, Any] | None = None,
) -> Sweep:
    """Sweeps a saved model, writes figures, table and picture, and shows the table."""
    ways: dict[str, Any] = {"worst": worst, "confident": confident, "chip_yield": chip_yield}
    if accuracy is None and any(ways.values()):
        raise ValueError("--worst, --confident and --yield judge an --accuracy; give one. Received: no --accuracy")
    required = None if accuracy is None else Requirement(accuracy=accuracy, **ways)  # refused before any work
    network, x, y = for_test(model, data, hardware, scale)
    with tracked(track, "sweep", model, network, data) as run:
        result = sweep(network, x, y, voltages=voltages, rates=rates, chips=chips, seed=seed, folder=out / "kept")
        result = replace(result, requirement=required)
        write_whole(out / "sweep.json", json.dumps(result.to_dict(), indent=1).encode())
        result.to_csv(out / "sweep.csv")
        save_figure(result.plot(), out / "sweep.png")
        if run is not None:
            run.sweep(result)
    click.echo(f"{result.table()}\nWrote {out}")
    return result
