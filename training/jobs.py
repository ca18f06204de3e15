"""The jobs of the command line on files: evaluate and train."""

from __future__ import annotations

import json
import os
from pathlib import Path

import keras
import numpy as np

from axtrain.controls import hardware_layers
from axtrain.conversion import convert
from axtrain.files import whole_file, write_whole
from axtrain.hardware import Hardware
from axtrain.loading import load_model
from axtrain.training.callbacks import MLflow, NoiseSchedule
from axtrain.training.evaluation import Evaluation, evaluate
from axtrain.training.progress import FitProgress


def load_split(path: str | os.PathLike[str], part: str, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Samples (float32, divided by `scale`) and labels of one part of an `.npz` file.

    Args:
        path: a file with `x_PART` and `y_PART`.
        part: `"train"` or `"test"`.
        scale: a divisor, such as 255.

    Raises:
        ValueError: the arrays are missing or of different lengths.
    """
    with np.load(path, allow_pickle=False) as arrays:
        missing = [name for name in (f"x_{part}", f"y_{part}") if name not in arrays]
        if missing:
            raise ValueError(f"{path} must hold {', '.join(missing)}. Received: {', '.join(arrays.files)}")
        x, y = arrays[f"x_{part}"].astype("float32") / scale, arrays[f"y_{part}"]
    if len(x) != len(y):
        raise ValueError(f"Samples and labels differ in number in {path}. Received: {len(x)} and {len(y)}")
    return x, y.reshape(len(y), -1).squeeze(-1) if y.ndim == 2 and y.shape[1] == 1 else y


def evaluate_file(
    model: Path, data: Path, *, hardware: Path | None, chips: int, seed: int, scale: float, report: Path | None
) -> Evaluation:
    """Measures a saved model, on hardware if given (then calibrated on the training part)."""
    network = load_model(model)
    if hardware is not None:
        network = _on_hardware(network, hardware, load_split(data, "train", scale)[0])
    measured = evaluate(network, *load_split(data, "test", scale), chips=chips, seed=seed)
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
    from_logits: bool,
    track: bool,
) -> None:
    """Trains a saved model for hardware and saves it whole."""
    if out.suffix != ".keras":
        raise ValueError(f"The trained model is written as .keras. Received: {out}")
    keras.utils.set_random_seed(seed)
    x, y = load_split(data, "train", scale)
    network = load_model(model)
    if hardware is not None:
        network = _on_hardware(network, hardware, x)
    elif not any(True for _ in hardware_layers(network)):
        raise ValueError(f"{model} runs on no hardware yet; give --hardware FILE.json")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits)
    network.compile(keras.optimizers.Adam(learning_rate), loss, metrics=["accuracy"])
    callbacks = [FitProgress("train for the hardware")]
    callbacks += [NoiseSchedule(anneal)] if anneal else []
    callbacks += [MLflow()] if track else []
    network.fit(x, y, epochs=epochs, batch_size=batch_size, verbose=0, callbacks=callbacks)
    with whole_file(out) as path:
        network.save(path)


def _on_hardware(network, hardware: Path, x_train):
    return convert(network, Hardware.from_json(hardware), calibration=x_train[:512])
