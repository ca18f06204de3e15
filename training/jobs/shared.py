"""What jobs share: a model on its hardware with its data, its loss, and its MLflow run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import keras

from axtrain.conversion import convert
from axtrain.hardware import Hardware
from axtrain.loading import load_model
from axtrain.training.data_files import check_samples, gives_probabilities, load_split
from axtrain.training.tracking.opening import run as tracking_run
from axtrain.training.tracking.runs import Run


@contextmanager
def tracked(track: dict[str, Any] | None, job: str, model: Path, network, data: Path) -> Iterator[Run | None]:
    """The MLflow run of a job, if it has one; begun before the work, so that a server that is down costs none."""
    if track is None:
        yield None
        return
    with tracking_run(None if track["run_id"] else f"{job} {model.name}", **track) as run:
        run.log_params({"job": job, "model": str(model), "data": str(data)}, keep=True)
        run.hardware(network)
        click.echo(f"Logging to run {run.name}; after a kill go on with --run-id {run.run_id}")
        yield run


def for_test(model: Path, data: Path, hardware: Path | None, scale: float):
    """(the model, on hardware if given and then calibrated on the training part, test samples, labels)."""
    network = load_model(model)
    x, y = load_split(data, "test", scale)
    check_samples(network, x, data)
    if hardware is not None:
        network = converted(network, hardware, load_split(data, "train", scale)[0])
    return network, x, y


def converted(network, hardware: Path, x_train):
    """The model on hardware of a file, calibrated on its first training samples."""
    calibration = None if x_train is None else x_train[:512]
    return convert(network, Hardware.from_json(hardware), calibration=calibration)


def cross_entropy(network, x) -> keras.losses.Loss:
    """Of probabilities or logits, as the model gives them."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=not gives_probabilities(network, x[:32]))
