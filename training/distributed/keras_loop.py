"""What `fit` is for people when steps are done elsewhere: callbacks, metrics, progress, and a file for the driver."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from axtrain.training.distributed.checkpoints import Checkpoint

Step = Callable[[int], tuple[int, float | None, dict[str, float]]]
"""Number of a step -> number of the next one, loss (`None` where it was undone), further logs."""


class Batches:
    """Which samples each step is done on: an order that depends on the seed and the epoch alone.

    Args:
        x, y: arrays, first axis samples.
        batch_size: samples in each; the last of an epoch may be smaller.
        seed: of the order.

    Raises:
        ValueError: x and y of different lengths, or none.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, batch_size: int, seed: int) -> None:
        if len(x) != len(y) or not len(x) or batch_size < 1:
            raise ValueError(f"x and y need the same number of samples, at least one. Received: {len(x)} and {len(y)}")
        self.count, self.batch_size, self.seed = len(x), batch_size, seed
        self.steps = -(-self.count // batch_size)

    def samples(self, step: int) -> np.ndarray:
        """Of a step, by their numbers."""
        epoch, within = divmod(step, self.steps)
        order = np.random.default_rng([self.seed, epoch]).permutation(self.count)
        return order[within * self.batch_size : (within + 1) * self.batch_size]

    def to_dict(self) -> dict[str, int]:
        """What a training depends on."""
        return {"samples": self.count, "batch_size": self.batch_size, "seed": self.seed}


class KerasLoop:
    """Epochs and steps around somebody's own step.

    Args:
        model: compiled; callbacks see it, and it is measured on the validation data.
        steps: of an epoch.
        epochs, callbacks, validation_data, verbose: as for `keras.Model.fit`.
        note: JSON-able, what the training depends on.
        checkpoint: a file, for a driver that is killed; `None` keeps nothing.
        checkpoint_every: steps between two states in it; `None` for one at the end of each epoch.
        described: what callbacks find as `params["trainer"]`, and MLflow logs.

    Attributes:
        found: what the file held, or `None`.

    Raises:
        ValueError: a file of another training.
    """

    def __init__(
        self,
        model: keras.Model,
        steps: int,
        epochs: int,
        callbacks: Sequence[keras.callbacks.Callback],
        validation_data: tuple | None,
        verbose: int | str,
        note: dict[str, Any],
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int | None = None,
        described: dict[str, Any] | None = None,
    ) -> None:
        self.model, self.steps, self.epochs, self.validation = model, steps, epochs, validation_data
        self.every = checkpoint_every
        shapes = [list(weight.shape) for weight in model.get_weights()]
        self._kept = None if checkpoint is None else Checkpoint(checkpoint, {**note, "weights": shapes})
        self.found = None if self._kept is None else self._kept.load()
        self.history: list[dict[str, float]] = [] if self.found is None else self.found.history
        shown = 1 if verbose == "auto" else int(verbose)
        self.callbacks = keras.callbacks.CallbackList(
            list(callbacks), add_history=True, add_progbar=shown != 0, model=model, verbose=shown, epochs=epochs,
            steps=steps, trainer=described or {},
        )  # fmt: skip

    @property
    def first(self) -> int:
        """The step to begin with."""
        return 0 if self.found is None else self.found.step

    @property
    def has_metrics(self) -> bool:
        """Whether the model was compiled with metrics besides the loss."""
        return bool(self.model.get_compile_config().get("metrics"))

    def rate(self, step: int) -> float:
        """The optimizer's rate of learning in a step."""
        self.model.optimizer.iterations.assign(step)
        return float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))

    def metrics(self, y: np.ndarray, outputs: np.ndarray | None) -> dict[str, float]:
        """The model's metrics so far in this epoch, with a batch's targets and outputs."""
        if outputs is None:
            return {}
        found = self.model.compute_metrics(None, y, keras.ops.convert_to_tensor(outputs, "float32"))
        return {name: float(value) for name, value in found.items() if name != "loss"}

    def run(
        self, step: Step, epoch_end: Callable[[], dict[str, float]], state: Callable[[], dict[str, list]]
    ) -> keras.callbacks.History:
        """From the step to begin with to the end of the last epoch.

        Args:
            step: does one.
            epoch_end: puts the weights into the model; what it gives is logged.
            state: lists of arrays for the file, by name.

        Returns:
            Keras's history, with the epochs before a kill too.
        """
        callbacks, number = self.callbacks, self.first
        logs: dict[str, float] = {}
        callbacks.on_train_begin()
        for epoch in range(self.first // self.steps, self.epochs):
            callbacks.on_epoch_begin(epoch)
            self.model.reset_metrics()
            losses: list[float] = []
            while number < (epoch + 1) * self.steps:
                callbacks.on_train_batch_begin(number % self.steps)
                at, (number, loss, further) = number, step(number)
                if loss is not None:
                    losses.append(loss)
                    logs = {"loss": float(np.mean(losses)), **further}
                    if self._kept is not None and self.every and number % self.every == 0 and number % self.steps:
                        self._kept.save(number, self.history, **state())
                callbacks.on_train_batch_end(at % self.steps, logs)
            logs = {**logs, **epoch_end(), **self._validated()}
            self.history.append({name: float(value) for name, value in logs.items()})
            callbacks.on_epoch_end(epoch, logs)
            if self._kept is not None:
                self._kept.save(number, self.history, **state())
            if self.model.stop_training:
                break
        callbacks.on_train_end(logs)
        history = self.model.history
        history.epoch = list(range(len(self.history)))
        history.history = {name: [logs.get(name) for logs in self.history] for name in (self.history or [{}])[-1]}
        return history

    def _validated(self) -> dict[str, float]:
        if self.validation is None:
            return {}
        found = self.model.evaluate(*self.validation, verbose=0, return_dict=True, batch_size=256)
        return {f"val_{name}": value for name, value in found.items()}


def same_model(model: keras.Model) -> keras.Model:
    """A copy with the same weights, compiled alike."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    copy.compile_from_config(model.get_compile_config())
    return copy
