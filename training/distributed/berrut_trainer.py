"""Data-parallel training with coded batches: a step waits for whoever has answered, not for all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from axtrain.coded.berrut import Berrut
from axtrain.training.distributed.executor import DEAD, DONE, LATE, Executor, Ticket
from axtrain.training.distributed.gradient_codes import BerrutGradients, GradientCode
from axtrain.training.distributed.gradient_worker import GradientFunction, GradientWorker
from axtrain.training.distributed.in_process import InProcess
from axtrain.training.distributed.keras_loop import Batches, KerasLoop, same_model
from axtrain.training.distributed.losses import one_hot

EVENTS = ("late", "replaced", "skipped")
"""What a training counts: answers that were not waited for; workers; steps in which nobody answered."""


class BerrutTrainer:
    """Trains a Keras model with gradients of coded batches, decoded from whichever workers have answered.

    Each batch is cut into K groups, the groups and their targets are encoded together, and the mean gradient is one
    weighted sum of what came back. Any optimizer. Source: Jahani-Nezhad and Maddah-Ali 2020; theory page, section 9.

    Args:
        model: compiled. Not changed.
        groups: K.
        workers: how many; more for the same K make the gradient more exact.
        wait_for: answers that a step waits for; `None` for all.
        executor: where workers are; by default in this process.
        deadline: in seconds, after which a step goes on with what is there.
        decoder, degree: as for `axtrain.coded.Berrut`.
        code: another way to spread the batch, in the place of groups and workers.

    Raises:
        ValueError: a model with state besides its weights, or numbers that do not fit.

    Attributes:
        model: a copy of the model given, which is trained.
        events: what happened, by the names in `EVENTS`.
    """

    def __init__(
        self,
        model: keras.Model,
        groups: int = 4,
        workers: int = 8,
        wait_for: int | None = None,
        *,
        executor: Executor | None = None,
        deadline: float | None = None,
        decoder: str = "berrut",
        degree: int = 3,
        code: GradientCode | None = None,
    ) -> None:
        self.code = code or BerrutGradients(Berrut(groups, workers, decoder, degree))
        if wait_for is not None and not 1 <= wait_for <= self.code.workers:
            raise ValueError(f"`wait_for` must be 1 to {self.code.workers}, the workers. Received: {wait_for!r}")
        self._gradient = GradientFunction(model, one_hot=True)
        self._sparse = self._gradient.loss != keras.losses.serialize(keras.losses.get(model.loss))
        self.executor, self.deadline = executor or InProcess(), deadline
        self.wait_for = wait_for
        self.model = same_model(model)
        self.events = dict.fromkeys(EVENTS, 0)
        self.names = [f"worker-{number}" for number in range(self.code.workers)]
        self._shared: Any = None
        self._busy: dict[int, Ticket] = {}

    def fit(
        self,
        x: np.ndarray,
        y: np.ndarray,
        *,
        batch_size: int = 32,
        epochs: int = 1,
        seed: int = 0,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        validation_data: tuple | None = None,
        verbose: int | str = "auto",
        checkpoint: Any = None,
        checkpoint_every: int | None = None,
    ) -> keras.callbacks.History:
        """Trains; the same call with a checkpoint goes on where a killed driver was, with any number of workers.

        Args:
            x, y: arrays; y class numbers, one-hot or real targets.
            batch_size: a multiple of the groups; what is over in an epoch's last batch is left out.
            epochs, callbacks, validation_data, verbose: as for `keras.Model.fit`.
            seed: of the order of samples.
            checkpoint: a file.
            checkpoint_every: steps between two of them; `None` for one at the end of each epoch.

        Raises:
            ValueError: batches that are smaller than the groups.
        """
        if batch_size < self.code.groups:
            raise ValueError(f"A batch needs a sample for each of {self.code.groups} groups. Received: {batch_size}")
        batches = Batches(x, y, batch_size, seed)
        loop = KerasLoop(
            self.model, batches.steps, epochs, callbacks, validation_data, verbose, batches.to_dict(), checkpoint,
            checkpoint_every, self._described(),
        )  # fmt: skip
        x, targets = np.asarray(x), self._targets(np.asarray(y))
        optimizer = self.model.optimizer
        optimizer.build(self.model.trainable_variables)
        if loop.found is not None:
            self.model.set_weights(loop.found.arrays["weights"])
            for variable, value in zip(optimizer.variables, loop.found.arrays["optimizer"], strict=True):
                variable.assign(value)
        self._shared, self._busy = self.executor.share(self._gradient), {}
        for number in range(len(self.names)):
            self._place(number)
        before = dict(self.events)

        def happened() -> dict[str, float]:
            alive = len(self.names) - len(self._busy)
            return {**{name: self.events[name] - before[name] for name in EVENTS}, "alive": alive}

        def step(number: int) -> tuple[int, float | None, dict[str, float]]:
            samples = batches.samples(number)
            return number + 1, self._step(number, x[samples], targets[samples]), happened()

        def epoch_end() -> dict[str, float]:
            logs = happened()
            before.update(self.events)
            return logs

        def state() -> dict[str, list]:
            slots = [keras.ops.convert_to_numpy(variable) for variable in optimizer.variables]
            return {"weights": self.model.get_weights(), "optimizer": slots}

        return loop.run(step, epoch_end, state)

    def _described(self) -> dict[str, Any]:
        numbers = {"workers": self.code.workers, "groups": self.code.groups, "wait_for": self.wait_for}
        return {"trainer": "BerrutTrainer", "code": repr(self.code), **numbers}

    def _place(self, number: int) -> None:
        self.executor.place(self.names[number], GradientWorker, self._shared)

    def _step(self, number: int, x: np.ndarray, y: np.ndarray) -> float | None:
        """One update; the decoded loss, or `None` where nobody answered."""
        count = len(x) // self.code.groups
        if not count:
            return None
        parts = [self.code.encode(_cut(values, self.code.groups, count)) for values in (x, y)]
        self._look_after(number)
        weights = self.executor.share([keras.ops.convert_to_numpy(v) for v in self.model.trainable_variables])
        asked = [j for j in range(len(self.names)) if j not in self._busy]
        tickets = [
            self.executor.call(self.names[j], "gradient", number, weights, parts[0][j], parts[1][j]) for j in asked
        ]
        wanted = None if self.wait_for is None else min(self.wait_for, len(asked))
        outcomes = self.executor.wait(tickets, wanted, self.deadline)
        received = []
        for j, ticket in zip(asked, tickets, strict=True):
            outcome = outcomes[self.names[j]]
            if outcome.status == DONE:
                received.append((j, outcome.note, self.executor.fetch(ticket)))
            elif outcome.status == DEAD:
                self._replace(j, number)
            else:
                self._busy[j] = ticket
                self.events["late"] += 1
        self.executor.cancel(self._busy.values())
        if not received:
            self.events["skipped"] += 1
            return None
        share = self.code.weights(np.array([j for j, _, _ in received]))
        gradient = np.tensordot(share, np.stack([value for _, _, value in received]), axes=1)
        parts = [keras.ops.convert_to_tensor(part, "float32") for part in self._gradient.parts(gradient)]
        self.model.optimizer.apply(parts, self.model.trainable_variables)
        return float(share @ np.array([loss for _, loss, _ in received]))

    def _look_after(self, number: int) -> None:
        """Whoever is still at an earlier step is not asked; whoever is gone is replaced."""
        for j, ticket in list(self._busy.items()):
            outcome = self.executor.wait([ticket], deadline=0.0)[self.names[j]]
            if outcome.status == DEAD:
                self._replace(j, number)
            elif outcome.status != LATE:
                del self._busy[j]

    def _replace(self, j: int, number: int) -> None:
        self._place(j)
        self._busy[j] = self.executor.call(self.names[j], "ready", number)
        self.events["replaced"] += 1

    def _targets(self, y: np.ndarray) -> np.ndarray:
        if not self._sparse:
            return y.astype(np.float32).reshape(len(y), *(y.shape[1:] or (1,)))
        return one_hot(y, self.model.output_shape[-1]).astype(np.float32)


def _cut(values: np.ndarray, groups: int, count: int) -> np.ndarray:
    """The first `groups * count` samples as (groups, count, ...)."""
    return values[: groups * count].reshape(groups, count, *values.shape[1:])
