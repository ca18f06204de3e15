"""Accuracy over many chips: the figure a design is judged by."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import keras
import numpy as np
from scipy import stats

from axtrain.controls import hardware_layers, set_chip
from axtrain.layers.playing import STATISTICAL

_Item = TypeVar("_Item")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `evaluate` measured.

    Attributes:
        accuracies: float64, one per chip.
        seed: of the chips drawn.
        samples: how many samples each accuracy was measured on.
        metric: what was measured, in words.
        deterministic: nothing was left to chance, so one measurement stands for every chip.
    """

    accuracies: np.ndarray
    seed: int
    samples: int
    metric: str = "accuracy"
    deterministic: bool = False

    @property
    def mean(self) -> float:
        """Mean over chips."""
        return float(self.accuracies.mean())

    @property
    def std(self) -> float:
        """Standard deviation over chips (n - 1); 0 for a single chip."""
        return float(self.accuracies.std(ddof=1)) if len(self.accuracies) > 1 else 0.0

    @property
    def worst(self) -> float:
        """The worst chip."""
        return float(self.accuracies.min())

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of the mean over chips (Student's t); the data's own spread is not in it."""
        count = len(self.accuracies)
        if count == 1 or self.std == 0:
            return self.mean, self.mean
        half = float(stats.t.ppf(0.975, count - 1)) * self.std / count**0.5
        return self.mean - half, self.mean + half

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, with the derived figures."""
        return {
            **asdict(self),
            "accuracies": self.accuracies.tolist(),
            "mean": self.mean,
            "std": self.std,
            "worst": self.worst,
            "interval": list(self.interval),
        }

    @classmethod
    def from_dict(cls, described: dict[str, Any]) -> Evaluation:
        """Rebuilds what `to_dict` gave; the derived figures are derived again."""
        accuracies = np.array(described["accuracies"], np.float64)
        certain = described.get("deterministic", False)  # older files do not say it
        return cls(accuracies, described["seed"], described["samples"], described["metric"], certain)

    def __str__(self) -> str:
        if self.deterministic:
            return f"{self.metric} {self.mean:.4f}, measured once: no chip differs from another"
        return (
            f"{self.metric} {self.mean:.4f} +- {self.std:.4f} over {len(self.accuracies)} chips "
            f"(95 % interval of the mean {self.interval[0]:.4f} .. {self.interval[1]:.4f}), worst {self.worst:.4f}"
        )


def accuracy(y_true, y_pred) -> float:
    """Share of right classes.

    Args:
        y_true: labels, shape (N,) or (N, 1), or one-hot (N, classes).
        y_pred: scores (N, classes), or (N, 1) where above 0.5 means class 1.
    """
    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
    predicted = y_pred.argmax(axis=-1) if y_pred.shape[-1] > 1 else (y_pred > 0.5).reshape(-1)
    one_hot = y_true.ndim == y_pred.ndim and y_true.shape[-1] == y_pred.shape[-1] > 1
    labels = y_true.argmax(axis=-1) if one_hot else y_true.reshape(predicted.shape)
    return float((predicted == labels).mean())


def evaluate(
    model: keras.Model,
    x,
    y,
    *,
    chips: int = 20,
    seed: int = 0,
    metric: Callable[[Any, Any], float] = accuracy,
    batch_size: int = 128,
    verbose: bool = True,
) -> Evaluation:
    """Measures a model on many chips.

    Each chip has its own faulty cells; random faults get their own stream per chip. Where the hardware holds
    no randomness every chip gives the same figure, so it is measured once and stands for all. The model's
    own chip and streams are put back afterwards.

    Args:
        model: a model from `convert` (compiled or not), or a plain one.
        x, y: test samples and labels.
        chips: how many chips to draw, at least 1.
        seed: chips are numbered from the generator of this seed: same seed, same chips.
        metric: function of (y_true, y_pred) to a number; default `accuracy`.
        batch_size: samples per prediction step.
        verbose: show a progress bar.

    Returns:
        an `Evaluation`.

    Raises:
        ValueError: `chips` below 1, or `x` and `y` of different lengths.
    """
    numbers, count = chip_numbers(seed, chips), sample_count(x, y)
    layers = list(hardware_layers(model))
    certain = leaves_nothing_to_chance(layers, [layer.hardware for layer in layers])
    if certain:
        numbers = numbers[:1]
    states = [product.state for layer in layers for product in layer.products]
    generators = [generator for state in states for generator in state.generators.values()]
    before = [keras.ops.convert_to_numpy(generator.state) for generator in generators]
    accuracies = []
    given = as_pipeline(x, batch_size, len(numbers))
    try:
        with closing(progress(numbers, "chips", shown=verbose and len(numbers) > 1)) as shown:
            for number in shown:
                if layers:
                    set_chip(model, number)
                accuracies.append(float(metric(y, model.predict(**given, verbose=0))))
    finally:
        for generator, state in zip(generators, before, strict=True):
            generator.state.assign(state)
    return Evaluation(np.resize(accuracies, chips).astype(np.float64), seed, count, metric_name(metric), certain)


def as_pipeline(x, batch_size: int, calls: int = 2) -> dict[str, Any]:
    """What to call `predict` with again and again: the samples in batches as Keras would make them of an array.

    Of an array itself it makes a pipeline at every call, which takes ten times as long as a small network's outputs.
    A single call, other samples than one array of numbers, and other backends than TensorFlow, are left to it.
    """
    pays = calls > 1 and isinstance(x, np.ndarray) and x.dtype.kind in "biuf"
    if not pays or keras.backend.backend() != "tensorflow":
        return {"x": x, "batch_size": batch_size}
    import tensorflow as tf

    samples = x.astype(keras.config.floatx(), copy=False) if x.dtype.kind == "f" else x
    return {"x": tf.data.Dataset.from_tensor_slices(samples).batch(batch_size)}


def chip_numbers(seed: int, chips: int) -> list[int]:
    """The numbers of the first `chips` chips of a seed; more chips begin with the same ones.

    Raises:
        ValueError: `chips` that is no int >= 1.
    """
    if isinstance(chips, bool) or not isinstance(chips, (int, np.integer)) or chips < 1:
        raise ValueError(f"`chips` must be an int >= 1. Received: chips={chips!r}")
    return np.random.default_rng(seed).integers(0, 1 << 31, chips).tolist()


def leaves_nothing_to_chance(layers, hardware: Sequence) -> bool:
    """Whether layers on such `Hardware`, one for each, give every chip the same figure."""
    return not any(
        layer.fidelity in STATISTICAL or (layer.fidelity == "exact" and described.has_faults)
        for layer, described in zip(layers, hardware, strict=True)
    )


def sample_count(x, y) -> int:
    """How many samples there are.

    Raises:
        ValueError: none, or not as many labels.
    """
    if y is None:
        raise ValueError(f"Give samples and labels. Received: x of type {type(x).__name__}, y=None")
    count = len(keras.tree.flatten(x)[0])
    if count != len(y):
        raise ValueError(f"`x` and `y` must have the same length. Received: {count} and {len(y)}")
    if count == 0:
        raise ValueError("`x` must hold at least one sample. Received: 0 samples")
    return count


def metric_name(metric: Callable) -> str:
    """What a metric is called: the function's name, or the object's class."""
    return getattr(metric, "__name__", type(metric).__name__)


def progress(items: Sequence[_Item], description: str, *, shown: bool) -> Generator[_Item, None, None]:
    """The items, under a bar where it is `shown`. Close it: an error between two items leaves the bar alive."""
    if not shown:
        yield from items
        return
    from rich.progress import track

    yield from track(items, description=description)
