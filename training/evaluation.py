"""Accuracy over many chips: the figure a design is judged by."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import keras
import numpy as np
from scipy import stats

from axtrain.controls import hardware_layers, put_on_chip
from axtrain.layers.playing import STATISTICAL
from axtrain.running_state import state_kept

_Item = TypeVar("_Item")

_ROUNDING = 1e-6  # how far a probability may be rounded beyond 0 and 1
_WAY_OUT = "for anything else pass metric=, a function of (y_true, y_pred) to a number."
_LOGIT = (
    "`accuracy` takes a single output as a probability, above 0.5 class 1, and this is none. End the network in a "
    "sigmoid, or pass for a logit metric=lambda y, p: ((p[:, 0] > 0) == y).mean(), for anything else your own."
)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `evaluate` measured.

    Attributes:
        accuracies: float64, one per chip.
        seed: of the chips drawn.
        samples: how many samples each accuracy was measured on.
        metric: what was measured, in words.
        deterministic: nothing was left to chance, so one measurement stands for every chip.
        in_float: no layer ran on hardware, so this is a figure of the float network.

    Raises:
        ValueError: accuracies that are not finite.
    """

    accuracies: np.ndarray
    seed: int
    samples: int
    metric: str = "accuracy"
    deterministic: bool = False
    in_float: bool = False

    def __post_init__(self) -> None:
        if not np.isfinite(self.accuracies).all():
            raise ValueError(f"The figures of an evaluation must be finite. Received: {self.accuracies.tolist()}")

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
        said = {name: described.get(name, False) for name in ("deterministic", "in_float")}  # not in older files
        return cls(accuracies, described["seed"], described["samples"], described["metric"], **said)

    def __str__(self) -> str:
        if self.in_float:
            return f"{self.metric} {self.mean:.4f}, measured in float: no layer runs on hardware"
        if self.deterministic:
            return f"{self.metric} {self.mean:.4f}, measured once: no chip differs from another"
        return (
            f"{self.metric} {self.mean:.4f} +- {self.std:.4f} over {len(self.accuracies)} chips "
            f"(95 % interval of the mean {self.interval[0]:.4f} .. {self.interval[1]:.4f}), worst {self.worst:.4f}"
        )


def accuracy(y_true, y_pred) -> float:
    """Share of right classes.

    Args:
        y_true: class numbers from 0, shape (N,) or (N, 1), or one-hot rows (N, classes).
        y_pred: scores (N, classes), or probabilities (N, 1) where above 0.5 means class 1.

    Raises:
        ValueError: outputs or labels that it cannot judge: outputs that are not finite, a single output that is no
            probability, labels that are not the numbers of the classes, or rows of several ones.
    """
    outputs = keras.tree.flatten(y_pred)
    if isinstance(y_pred, (list, tuple, dict)) and any(isinstance(one, np.ndarray) and one.ndim > 1 for one in outputs):
        raise ValueError(f"`accuracy` takes one array of outputs; {_WAY_OUT} Received: {len(outputs)} arrays")
    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
    if y_pred.ndim == 0 or y_pred.dtype.kind in "OSU":
        raise ValueError(
            f"`accuracy` takes one array of outputs; {_WAY_OUT} Received: dtype {y_pred.dtype}, shape {y_pred.shape}"
        )
    check_finite_outputs(y_pred)
    y_pred = y_pred[:, None] if y_pred.ndim == 1 else y_pred
    classes = y_pred.shape[-1]
    if classes == 1 and not -_ROUNDING <= y_pred.min() <= y_pred.max() <= 1 + _ROUNDING:
        raise ValueError(f"{_LOGIT} Received: outputs from {float(y_pred.min()):.4g} to {float(y_pred.max()):.4g}")
    predicted = y_pred.argmax(axis=-1) if classes > 1 else y_pred[..., 0] > 0.5
    return float((predicted == _class_numbers(y_true, predicted.shape, classes)).mean())


def check_finite_outputs(outputs: np.ndarray) -> None:
    """Raises ValueError for outputs that are not finite: they would compare with labels, and mean nothing."""
    finite = np.isfinite(outputs)
    if not finite.all():
        raise ValueError(
            "The outputs are not finite, so nothing can be said of them. Are the weights and the samples finite? "
            f"Received: {int(finite.size - finite.sum())} of {finite.size} outputs NaN or infinite"
        )


def _class_numbers(labels: np.ndarray, shape: tuple[int, ...], classes: int) -> np.ndarray:
    """Of labels or one-hot rows; raises ValueError for anything else."""
    received = f"labels of shape {labels.shape}, dtype {labels.dtype}, for {classes} output(s) of shape {shape}"
    if labels.dtype.kind in "biuf":
        received += f", from {labels.min()} to {labels.max()}"
        if classes > 1 and labels.shape == (*shape, classes):
            if ((labels == 0) | (labels == 1)).all() and (labels.sum(axis=-1) == 1).all():
                return labels.argmax(axis=-1)
            raise ValueError(
                "`accuracy` takes one-hot rows, of one 1 and else 0. Where several classes may be right pass "
                f"metric=lambda y, p: ((p > 0.5) == y).mean(), or your own. Received: {received}"
            )
        numbers = labels.reshape(shape) if labels.shape in (shape, (*shape, 1)) else None
        if numbers is not None and ((numbers >= 0) & (numbers < max(classes, 2)) & (numbers % 1 == 0)).all():
            return numbers
    raise ValueError(
        f"`accuracy` takes class numbers from 0 to {max(classes, 2) - 1}, or one-hot rows; {_WAY_OUT} "
        f"Received: {received}"
    )


def figure(metric: Callable[[Any, Any], float], y, predicted, model: keras.Model, where: str) -> float:
    """What a metric says of a model's outputs.

    Args:
        metric: function of (y_true, y_pred) to a number.
        y: labels.
        predicted: the outputs.
        model: that gave them.
        where: they were measured, in words, such as `"chip 12"`.

    Raises:
        ValueError: `accuracy` cannot judge the outputs, or the figure is not finite.
    """
    if metric is accuracy and _ends_in_a_logit(model):
        raise ValueError(f"{_LOGIT} Received: model {model.name!r}, whose one output has no activation")
    try:
        value = float(metric(y, predicted))
    except ValueError as error:
        if metric is not accuracy:
            raise
        raise ValueError(f"{error}, on {where}") from error
    if not np.isfinite(value):
        raise ValueError(
            f"A metric must give a finite number, else nothing can be judged by it. Received: {value} from "
            f"{metric_name(metric)} on {where}"
        )
    return value


def _ends_in_a_logit(model) -> bool:
    """Whether the last layer has one output and no activation; its values alone need not show it."""
    last = model
    while isinstance(last, keras.Model):
        outputs = keras.tree.flatten(getattr(last, "outputs", None))
        history = getattr(outputs[0], "_keras_history", None) if len(outputs) == 1 else None
        if history is None or outputs[0].shape[-1:] != (1,):
            return False
        last = history.operation
    return getattr(last, "activation", None) is keras.activations.linear


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
    no randomness every chip gives the same figure, so it is measured once and stands for all. Every chip is measured
    from the state that the model has: its own chip, random streams and the states of stateful recurrent layers are
    put back before each and at the end.

    Args:
        model: a model from `convert` (compiled or not), or a plain one.
        x, y: test samples and labels.
        chips: how many chips to draw, at least 1.
        seed: chips are numbered from the generator of this seed: same seed, same chips.
        metric: function of (y_true, y_pred) to a finite number; default `accuracy`, of class numbers or one-hot rows.
        batch_size: samples per prediction step.
        verbose: show a progress bar.

    Returns:
        an `Evaluation`.

    Raises:
        ValueError: `chips` below 1, `x` and `y` of different lengths, labels or outputs that `accuracy` cannot judge,
            or a figure that is not finite.
    """
    numbers, count = chip_numbers(seed, chips), sample_count(x, y)
    layers = list(hardware_layers(model))
    certain = leaves_nothing_to_chance(layers, [layer.hardware for layer in layers])
    if certain:
        numbers = numbers[:1]
    accuracies = []
    given = as_pipeline(x, batch_size, len(numbers))
    shown = progress(numbers, "chips", shown=verbose and len(numbers) > 1)
    with state_kept(model) as put_back, closing(shown):
        for number in shown:
            put_back()
            if layers:
                put_on_chip(model, number)
            predicted = model.predict(**given, verbose=0)
            accuracies.append(figure(metric, y, predicted, model, f"chip {number}" if layers else "the float network"))
    return Evaluation(
        np.resize(accuracies, chips).astype(np.float64),
        seed,
        count,
        metric_name(metric),
        certain,
        in_float=all(layer.fidelity == "float" for layer in layers),
    )


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
