"""The data sets and networks of the AxTrain study: small, real, and cut into training, tuning and test parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from resnet8 import resnet8

_TRAINING = 10_000  # images, where there are more


@dataclass(frozen=True)
class Task:
    """A data set and its network.

    Attributes:
        title: in words.
        file: in `DIR/data`.
        network: makes the network.
        seeds: how many.
        epochs: of the clean network, and of each continuation.
        batch: samples in each step.
        rate: of Adam, for the clean network.
        tuning: training samples held out for tuning.
        tests: the parts it is evaluated on.
        rates: bit-error rates; every task has all multipliers.
    """

    title: str
    file: str
    network: Callable[[], keras.Model]
    seeds: int = 5
    epochs: tuple[int, int] = (20, 3)
    batch: int = 64
    rate: float = 2e-3
    tuning: int = 2000
    tests: tuple[str, ...] = ("test",)
    rates: tuple[float, ...] = (1e-3, 5e-3, 1e-2)


def cnn() -> keras.Model:
    """Two convolutions and two dense layers for 28x28x1 in 0..1."""
    layers = keras.layers
    x = inputs = keras.Input((28, 28, 1), name="image")
    for number, filters in enumerate((8, 16)):
        x = layers.Conv2D(filters, 3, activation="relu", name=f"conv_{number}")(x)
        x = layers.MaxPooling2D()(x)
    x = layers.Dense(64, activation="relu", name="hidden")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(10, activation="softmax", name="dense")(x), name="cnn")


def mlp(inputs: int, hidden: int, classes: int) -> keras.Model:
    """One hidden layer."""
    layers = keras.layers
    x = features = keras.Input((inputs,), name="features")
    x = layers.Dense(hidden, activation="relu", name="hidden")(x)
    return keras.Model(features, layers.Dense(classes, activation="softmax", name="dense")(x), name="mlp")


TASKS = {
    "mnist": Task("MNIST, CNN", "mnist", cnn),
    "fashion": Task("Fashion-MNIST, CNN", "fashion_mnist", cnn),
    "usps": Task("USPS, MLP", "usps", lambda: mlp(256, 64, 10), tuning=1200, batch=32),
    "isolet": Task("ISOLET, MLP", "isolet", lambda: mlp(617, 64, 26), tuning=1000, batch=32),
    "cifar": Task(
        "CIFAR-10, ResNet-8",
        "cifar10",
        resnet8,
        seeds=3,
        tests=("val", "test"),
        rates=(5e-3,),
    ),
}


def load(task: Task, folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The parts `train`, `tuning` and the tests: float32 inputs and int64 labels."""
    with np.load(folder / "data" / f"{task.file}.npz", allow_pickle=False) as arrays:
        parts = {name: (arrays[f"x_{name}"], arrays[f"y_{name}"]) for name in ("train", *task.tests)}
        scale = float(arrays["scale"]) if "scale" in arrays.files else 1.0
    found = {name: (_inputs(x, scale), y.astype(np.int64).ravel()) for name, (x, y) in parts.items()}
    x, y = found.pop("train")
    order = np.random.default_rng(0).permutation(len(x))
    held, kept = order[: task.tuning], order[task.tuning : task.tuning + _TRAINING]
    return {"train": (x[kept], y[kept]), "tuning": (x[held], y[held]), **found}


def _inputs(x: np.ndarray, scale: float) -> np.ndarray:
    if x.ndim == 3:  # grey images
        return (x[..., None] / 255).astype(np.float32)
    return x.astype(np.float32) * np.float32(scale)  # ResNet-8 takes 0..255
