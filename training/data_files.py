"""Samples and labels from `.npz` files, checked against the model before any work is done."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np

from axtrain.noise_models.reading import read_arrays
from axtrain.running_state import state_kept
from axtrain.training.evaluation import check_finite_outputs


def load_split(path: str | os.PathLike[str], part: str, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Samples (float32, divided by `scale`) and labels of one part of an `.npz` file.

    Args:
        path: a file with `x_PART` and `y_PART`.
        part: `"train"` or `"test"`.
        scale: a positive divisor, such as 255.

    Raises:
        ValueError: no `.npz` file, a bad scale, or arrays missing, not numbers, or of different lengths.
    """
    if not 0 < scale < math.inf:
        raise ValueError(f"`scale` must be a positive number. Received: scale={scale}")
    names = (f"x_{part}", f"y_{part}")
    what, remedy = "an .npz file of samples", f"write one with numpy.savez(path, {names[0]}=..., {names[1]}=...)"
    arrays = read_arrays(path, what, remedy, names)
    x, y = (arrays[name] for name in names)
    if not (np.issubdtype(x.dtype, np.number) or x.dtype == bool):
        raise ValueError(f"x_{part} in {path} must hold numbers. Received: dtype {x.dtype}")
    x = x.astype("float32", copy=False) / scale
    if not np.isfinite(x).all():
        raise ValueError(f"x_{part} in {path} must be finite. Received: {np.sum(~np.isfinite(x))} values that are not")
    if x.ndim == 0 or len(x) == 0:
        raise ValueError(f"x_{part} in {path} must hold samples. Received: shape {x.shape}")
    if y.ndim == 0 or len(x) != len(y):
        raise ValueError(f"Samples and labels differ in number in {path}. Received: {len(x)} and {y.size}")
    return x, y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y


def check_samples(network, x: np.ndarray, data: Path) -> None:
    """Raises ValueError in one line, where Keras takes nine; as in `fit`, a last axis of 1 may be left out."""
    shape = network.input_shape
    if not isinstance(shape, tuple):
        raise ValueError(f"The command line takes models of one input. Received: {len(shape)} inputs")
    expected, received = (list(s[:-1] if s[-1] == 1 else s) for s in (shape[1:], x.shape[1:]))
    fits = len(expected) == len(received) and all(a in (None, b) for a, b in zip(expected, received, strict=True))
    if not fits:
        raise ValueError(f"The samples in {data} must have the shape {shape[1:]}. Received: {x.shape[1:]}")


def check_labels(network, y: np.ndarray, data: Path) -> None:
    """Raises ValueError where TensorFlow would raise inside the graph, or (one output) train on a loss of NaN."""
    classes = network.output_shape[-1]
    if not np.issubdtype(y.dtype, np.number):
        raise ValueError(f"The labels in {data} must be class numbers. Received: dtype {y.dtype}")
    if y.ndim != 1 or not np.array_equal(y, np.floor(y)) or y.min() < 0 or y.max() >= classes:
        shown = f"shape {y.shape}, {y.min()} to {y.max()}"
        raise ValueError(
            f"The labels in {data} must be class numbers, one per sample, from 0 to {classes - 1} as the model "
            f"has {classes} output(s). Received: {shown}"
        )


def gives_probabilities(network, x: np.ndarray) -> bool:
    """Whether the outputs for some samples are probabilities: none negative, each row summing to 1.

    Anything else is taken as logits; the wrong loss would train without a word.

    Raises:
        ValueError: outputs that are not finite.
    """
    with state_kept(network):
        outputs = network.predict(x, verbose=0)
    check_finite_outputs(outputs)
    return bool((outputs >= 0).all() and np.allclose(outputs.sum(axis=-1), 1, atol=1e-3))
