"""Training that survives a kill: the whole state of a fit in one file, and data that go on at the same step."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np

from axtrain.noise_models.files import write_whole
from axtrain.noise_models.reading import read_arrays, reading

_FORMAT = "axtrain-training-state-1"


class TrainingState(keras.callbacks.Callback):
    """Keeps everything that a fit depends on, so that another process goes on as if nothing had happened.

    Weights, the optimizer's state, every seed (dropout's too, which `.keras` files leave out), chips, schedules and
    the epoch's metrics so far: all variables of the model, in one file that is whole or absent. The data must come
    in the same order: see `ResumableBatches`.

    Args:
        path: of the file, `.npz`.
        every: steps between two states; `None` keeps one at the end of each epoch.
        note: JSON-able, kept beside the state: what it belongs to.

    Raises:
        ValueError: `every` that is not an int >= 1.
    """

    def __init__(self, path: str | os.PathLike[str], *, every: int | None = None, note: Any = None) -> None:
        super().__init__()
        if every is not None and (isinstance(every, bool) or not isinstance(every, int) or every < 1):
            raise ValueError(f"`every` must be an int >= 1, or None for every epoch. Received: every={every!r}")
        self.path, self.every, self.note = Path(path), every, note
        self.history: list[dict[str, float]] = []
        self._epoch = self._skipped = 0
        self._metrics: dict[str, np.ndarray] = {}
        self._stopping = False

    def stop(self) -> None:
        """Asks the fit to end after this step: the state is kept there, then `KeyboardInterrupt` is raised."""
        self._stopping = True

    def begin(self, epoch: int, step: int, history: list, metrics: dict) -> None:
        """Says where in the training the next fit begins, as `restored` told it."""
        self._epoch, self._skipped, self.history, self._metrics = epoch, step, list(history), metrics

    def on_train_batch_end(self, batch, logs=None) -> None:
        """Keeps the state, at every so many steps."""
        for variable in self.model.metrics_variables if self._metrics else ():
            # Keras makes compiled metrics at the first step, so here at last; they are sums, of all but a few kinds.
            if variable.path in self._metrics:
                variable.assign_add(self._metrics[variable.path])
        self._metrics = {}
        if batch + 1 == (self.params or {}).get("steps"):
            return  # the end of the epoch keeps what comes after its last step
        done = self._skipped + batch + 1
        if self._stopping or (self.every is not None and done % self.every == 0):
            self._keep(done)
        self._stop_if_asked()

    def on_epoch_end(self, epoch, logs=None) -> None:
        """Keeps the state between two epochs."""
        self.history.append({name: float(value) for name, value in (logs or {}).items()})
        self._epoch, self._skipped = self._epoch + 1, 0
        self._keep(0)
        self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        if self._stopping:
            self._stopping = False
            raise KeyboardInterrupt

    def _keep(self, step: int) -> None:
        measured = self.model.metrics_variables
        place = {"epoch": self._epoch, "step": step, "history": self.history, "note": self.note}
        place["metrics"] = [variable.path for variable in measured]
        content = {f"variable_{i:05}": keras.ops.convert_to_numpy(v) for i, v in enumerate(_variables(self.model))}
        metrics = {f"metric_{i:05}": keras.ops.convert_to_numpy(v) for i, v in enumerate(measured)}
        buffer = io.BytesIO()
        described = np.frombuffer(json.dumps({"format": _FORMAT, **place}).encode(), np.uint8)
        np.savez(buffer, place=described, **content, **metrics)
        write_whole(self.path, buffer.getvalue())


def place_of(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Where the state in a file was kept: `epoch`, `step` within it, `history`, `note`; `None` without a file.

    Raises:
        ValueError: a file that is not such a state.
    """
    if not Path(path).exists():
        return None
    place = _read(path, ["place"])[0]
    if place.get("format") != _FORMAT:
        raise ValueError(f"{path} is a state of another version. Received: {place.get('format')!r}")
    return place


def restore(model: keras.Model, path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Puts a kept state into a compiled model of the same structure.

    Returns:
        the metrics of the begun epoch, for `TrainingState.begin`.

    Raises:
        ValueError: the state is of another model.
    """
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    place, arrays = _read(path)
    kept = [arrays[name] for name in sorted(arrays) if name.startswith("variable_")]
    metrics = [arrays[name] for name in sorted(arrays) if name.startswith("metric_")]
    variables = _variables(model)
    shapes = [[tuple(part.shape) for part in parts] for parts in (kept, variables)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"The training state in {path} is of another model or optimizer; give the one that it was kept for, or "
            f"another folder. Received: {len(variables)} variables, there {len(kept)}"
        )
    for variable, value in zip(variables, kept, strict=True):
        variable.assign(value)
    return dict(zip(place["metrics"], metrics, strict=True))


def _read(path: str | os.PathLike[str], names: list[str] | None = None) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Where the state was kept, and its arrays."""
    what, remedy = "a kept training state", "remove it to begin anew"
    arrays = read_arrays(path, what, remedy, names)
    with reading(path, what, remedy):
        place = json.loads(arrays["place"].tobytes())
        wanted = {"format", "epoch", "step", "history", "note", "metrics"}
        if not isinstance(place, dict) or not wanted <= set(place):
            raise ValueError(f"a state without {sorted(wanted - set(place))}")
        return place, arrays


def _variables(model: keras.Model) -> list:
    metrics = {id(variable) for variable in model.metrics_variables}
    return [v for v in (*model.variables, *model.optimizer.variables) if id(v) not in metrics]


class ResumableBatches:
    """Shuffled batches of arrays in an order that depends on the seed and the epoch alone.

    Args:
        x, y: arrays, or nests of them, first axis samples.
        batch_size: samples in each batch; the last of an epoch may be smaller.
        seed: of the order.
    """

    def __init__(self, x: Any, y: Any, batch_size: int, seed: int) -> None:
        self.data, self.batch_size, self.seed = (x, y), batch_size, seed
        self.count = len(keras.tree.flatten(x)[0])

    def __len__(self) -> int:
        return -(-self.count // self.batch_size)

    def from_step(self, epoch: int, step: int, epochs: int):
        """A `tf.data.Dataset` of the batches from a step of an epoch to the end of the last of `epochs`."""
        import tensorflow as tf

        orders = [np.random.default_rng([self.seed, e]).permutation(self.count) for e in range(epoch, epochs)]
        order = tf.constant(np.concatenate(orders) if orders else np.zeros(0), tf.int32)
        held = keras.tree.map_structure(tf.convert_to_tensor, self.data)

        def batch(number):
            at, within = number // len(self), number % len(self)
            start = at * self.count + within * self.batch_size
            chosen = order[start : tf.minimum(start + self.batch_size, (at + 1) * self.count)]
            return tuple(keras.tree.map_structure(lambda array: tf.gather(array, chosen), part) for part in held)

        numbers = tf.data.Dataset.range(step, len(orders) * len(self), output_type=tf.int32)
        return numbers.map(batch, num_parallel_calls=2, deterministic=True).prefetch(2)
