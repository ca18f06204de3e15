"""The jobs of the command line on files: evaluate and train."""

from __future__ import annotations

import json
import math
import os
import zipfile
from contextlib import nullcontext
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
        scale: a positive divisor, such as 255.

    Raises:
        ValueError: no `.npz` file, arrays that are missing, no numbers, or of different lengths, or a bad scale.
    """
    if not 0 < scale < math.inf:
        raise ValueError(f"`scale` must be a positive number. Received: scale={scale}")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is no .npz file; write one with numpy.savez(path, x_{part}=..., y_{part}=...)")
    with np.load(path, allow_pickle=False) as arrays:
        missing = [name for name in (f"x_{part}", f"y_{part}") if name not in arrays]
        if missing:
            raise ValueError(f"{path} must hold {', '.join(missing)}. Received: {', '.join(arrays.files)}")
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
    if not (np.issubdtype(x.dtype, np.number) or x.dtype == bool):
        raise ValueError(f"x_{part} in {path} must hold numbers. Received: dtype {x.dtype}")
    x = x.astype("float32") / scale
    if not np.isfinite(x).all():
        raise ValueError(f"x_{part} in {path} must be finite. Received: {np.sum(~np.isfinite(x))} values that are not")
    if x.ndim == 0 or len(x) == 0:
        raise ValueError(f"x_{part} in {path} must hold samples. Received: shape {x.shape}")
    if y.ndim == 0 or len(x) != len(y):
        raise ValueError(f"Samples and labels differ in number in {path}. Received: {len(x)} and {y.size}")
    return x, y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y


def evaluate_file(
    model: Path, data: Path, *, hardware: Path | None, chips: int, seed: int, scale: float, report: Path | None
) -> Evaluation:
    """Measures a saved model, on hardware if given (then calibrated on the training part)."""
    network = load_model(model)
    x, y = load_split(data, "test", scale)
    _check_samples(network, x, data)
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
    from_logits: bool,
    track: bool,
) -> None:
    """Trains a saved model for hardware and saves it whole."""
    if out.suffix != ".keras":
        raise ValueError(f"The trained model is written as .keras. Received: {out}")
    keras.utils.set_random_seed(seed)
    x, y = load_split(data, "train", scale)
    network = load_model(model)
    _check_samples(network, x, data)
    _check_labels(network, y, data)
    if hardware is not None:
        network = _on_hardware(network, hardware, x)
    elif not any(True for _ in hardware_layers(network)):
        raise ValueError(f"{model} runs on no hardware yet; give --hardware FILE.json")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits)
    network.compile(keras.optimizers.Adam(learning_rate), loss, metrics=["accuracy"])
    callbacks = [NoiseSchedule(anneal)] if anneal else []
    callbacks += [MLflow()] if track else []
    run = nullcontext()
    if track:  # the run is begun here, not by the callback, so that a fit that raises is marked as failed
        import mlflow

        run = mlflow.start_run()
    with run, FitProgress("train for the hardware") as shown:
        network.fit(x, y, epochs=epochs, batch_size=batch_size, verbose=0, callbacks=[shown, *callbacks])
    with whole_file(out) as path:
        network.save(path)


def _check_samples(network, x: np.ndarray, data: Path) -> None:
    """Said here in one line, where Keras would say it in nine. A last axis of 1 may be left out, as in `fit`."""
    shape = network.input_shape
    if not isinstance(shape, tuple):
        raise ValueError(f"The command line takes models of one input. Received: {len(shape)} inputs")
    expected, received = (list(s[:-1] if s[-1] == 1 else s) for s in (shape[1:], x.shape[1:]))
    fits = len(expected) == len(received) and all(a in (None, b) for a, b in zip(expected, received, strict=True))
    if not fits:
        raise ValueError(f"The samples in {data} must have the shape {shape[1:]}. Received: {x.shape[1:]}")


def _check_labels(network, y: np.ndarray, data: Path) -> None:
    """TensorFlow would raise inside the graph, or (one output) train on a loss of NaN."""
    classes = network.output_shape[-1]
    if not np.issubdtype(y.dtype, np.number):
        raise ValueError(f"The labels in {data} must be class numbers. Received: dtype {y.dtype}")
    if y.ndim != 1 or not np.array_equal(y, np.floor(y)) or y.min() < 0 or y.max() >= classes:
        shown = f"shape {y.shape}, {y.min()} to {y.max()}"
        raise ValueError(
            f"The labels in {data} must be class numbers, one per sample, from 0 to {classes - 1} as the model "
            f"has {classes} output(s). Received: {shown}"
        )


def _on_hardware(network, hardware: Path, x_train):
    return convert(network, Hardware.from_json(hardware), calibration=x_train[:512])
