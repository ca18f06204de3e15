"""The jobs of the command line on files: evaluate and train."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import keras

from axtrain.controls import hardware_layers
from axtrain.conversion import convert
from axtrain.files import whole_file, write_whole
from axtrain.hardware import Hardware
from axtrain.loading import load_model
from axtrain.training.callbacks import MLflow, NoiseSchedule
from axtrain.training.data_files import check_labels, check_samples, gives_probabilities, load_split
from axtrain.training.evaluation import Evaluation, evaluate
from axtrain.training.progress import FitProgress


def evaluate_file(
    model: Path,
    data: Path,
    *,
    hardware: Path | None,
    chips: int,
    seed: int,
    scale: float,
    report: Path | None,
) -> Evaluation:
    """Measures a saved model, on hardware if given (then calibrated on the training part)."""
    network = load_model(model)
    x, y = load_split(data, "test", scale)
    check_samples(network, x, data)
    if hardware is not None:
        network = _on_hardware(network, hardware, load_split(data, "train", scale)[0])
    measured = evaluate(network, x, y, chips=chips, seed=seed)
    if report is not None:
        write_whole(report, json.dumps(measured.to_dict(), indent=1).encode())
    return measured


def train_file(
    model: Path,
    out: Path,
    *,
    data: Path,
    hardware: Path | None,
    epochs: int,
    learning_rate: float,
    batch_size: int,
    anneal: int,
    seed: int,
    scale: float,
    track: bool,
) -> None:
    """Trains a saved model for hardware and saves it whole."""
    if out.suffix != ".keras":
        raise ValueError(f"The trained model is written as .keras. Received: {out}")
    keras.utils.set_random_seed(seed)
    x, y = load_split(data, "train", scale)
    network = load_model(model)
    check_samples(network, x, data)
    check_labels(network, y, data)
    if hardware is not None:
        network = _on_hardware(network, hardware, x)
    elif not any(True for _ in hardware_layers(network)):
        raise ValueError(f"{model} runs on no hardware yet; give --hardware FILE.json")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=not gives_probabilities(network, x[:32]))
    network.compile(keras.optimizers.Adam(learning_rate), loss, metrics=["accuracy"])
    callbacks = [NoiseSchedule(anneal)] if anneal else []
    callbacks += [MLflow()] if track else []
    run: AbstractContextManager = nullcontext()
    if track:  # the run is begun here, not by the callback, so that a fit that raises is marked as failed
        import mlflow

        run = mlflow.start_run()
    with run, FitProgress("train for the hardware") as shown:
        network.fit(x, y, epochs=epochs, batch_size=batch_size, verbose=0, callbacks=[shown, *callbacks])
    with whole_file(out) as path:
        network.save(path)


def _on_hardware(network, hardware: Path, x_train):
    return convert(network, Hardware.from_json(hardware), calibration=x_train[:512])
