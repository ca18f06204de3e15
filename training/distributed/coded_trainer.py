"""Training on coded nodes: a driver that starts, stops and records, and computes nothing itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from axtrain.coded.code import Code
from axtrain.training.distributed.coded_nodes import EVENTS, CodedNodes
from axtrain.training.distributed.dense_stack import DenseStack
from axtrain.training.distributed.executor import Executor
from axtrain.training.distributed.keras_loop import Batches, KerasLoop, same_model


class CodedTrainer:
    """Trains a Keras network on coded nodes that may be wrong, late or gone.

    Each node holds one shard of each layer and does its products, its update, its own decoding and nonlinearity; the
    driver says what is next, replaces who is gone and records. What the driver is for can fail: a driver that is
    killed goes on from its file.

    Args:
        model: compiled, a chain of Dense layers, with SGD and a loss that fits its last activation. Not changed.
        code: `CodeNet`, `GeneralizedPolyDot`, `Replication` or `Uncoded`: one shard for each node.
        executor: where the nodes are: `InProcess` or `RayActors`.
        deadline: in seconds, after which a stage goes on without a node.
        adversarial: trust only corrections that are right whatever the errors are.

    Raises:
        ValueError: a model, an optimizer or a code that nodes cannot work with.

    Attributes:
        model: a copy of the model given, with the trained weights after each epoch.
        events: what happened, by the names in `EVENTS`.
    """

    def __init__(
        self,
        model: keras.Model,
        code: Code,
        executor: Executor,
        *,
        deadline: float | None = None,
        adversarial: bool = False,
    ) -> None:
        self.stack = DenseStack.of(model)
        if type(model.optimizer) is not keras.optimizers.SGD or _changes_gradients(model.optimizer):
            raise ValueError(
                "Updates of coded shards are SGD's, with momentum and Nesterov at most. "
                f"Received: {model.optimizer.get_config()}"
            )
        if len(set(code.owner("update"))) != code.shards:
            raise ValueError(f"Nodes hold one shard each; {code!r} gives them more. Use CodeNet with the same grid.")
        code.check_dtype("float32")
        self.code, self.executor, self.deadline, self.adversarial = code, executor, deadline, adversarial
        self.model = same_model(model)
        self.events = dict.fromkeys(EVENTS, 0)
        self.nodes: CodedNodes | None = None

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
        keep_every: int = 10,
        checkpoint: Any = None,
        checkpoint_every: int | None = None,
    ) -> keras.callbacks.History:
        """Trains; the same call with a checkpoint goes on where a killed driver was.

        Args:
            x, y: arrays, first axis samples.
            batch_size, epochs, callbacks, validation_data, verbose: as for `keras.Model.fit`.
            seed: of the order of samples.
            keep_every: steps between two checkpoints in the nodes' memories.
            checkpoint: a file; another code and another number of nodes can go on from it.
            checkpoint_every: steps between two of them; `None` for one at the end of each epoch.

        Returns:
            Keras's history; `alive` is the nodes at the end of each epoch, others are counted in it.

        Raises:
            RuntimeError: more nodes are wrong or gone than the code corrects, again and again.
        """
        batches = Batches(x, y, batch_size, seed)
        loop = KerasLoop(
            self.model, batches.steps, epochs, callbacks, validation_data, verbose, batches.to_dict(), checkpoint,
            checkpoint_every, {"trainer": "CodedTrainer", "code": repr(self.code), "nodes": self.code.shards},
        )  # fmt: skip
        optimizer = self.model.optimizer
        nodes = self.nodes = CodedNodes(
            self.stack, self.code, self.executor, (np.asarray(x), np.asarray(y)), deadline=self.deadline,
            momentum=float(optimizer.momentum), nesterov=optimizer.nesterov, adversarial=self.adversarial,
        )  # fmt: skip
        weights = [self._matrix(layer.name) for layer in self.stack.layers]
        velocity = [np.zeros_like(matrix) for matrix in weights]
        if loop.found is not None:
            weights, velocity = loop.found.arrays["weights"], loop.found.arrays["velocity"]
        nodes.adopt(loop.first, weights, velocity)

        def happened() -> dict[str, float]:
            return {**{name: nodes.events[name] - self.events[name] for name in EVENTS}, "alive": nodes.alive}

        def step(number: int) -> tuple[int, float | None, dict[str, float]]:
            samples = batches.samples(number)
            after = number + 1
            read = after % batches.steps == 0 or bool(checkpoint_every and after % checkpoint_every == 0)
            loss = nodes.train(samples, loop.rate(number), number % keep_every == 0, read)
            outputs = nodes.outputs() if loop.has_metrics and loss is not None else None
            return nodes.step, loss, {**loop.metrics(np.asarray(y)[samples], outputs), **happened()}

        def epoch_end() -> dict[str, float]:
            for layer, matrix in zip(self.stack.layers, nodes.last_read[0], strict=True):
                own = [matrix[: layer.inputs], matrix[-1]] if layer.use_bias else [matrix]
                self.model.get_layer(layer.name).set_weights(own)
            logs = happened()
            self.events = dict(nodes.events)
            return logs

        def state() -> dict[str, list]:
            return dict(zip(("weights", "velocity"), nodes.last_read, strict=True))

        return loop.run(step, epoch_end, state)

    def _matrix(self, name: str) -> np.ndarray:
        """A layer's kernel with its bias below it."""
        parts = self.model.get_layer(name).get_weights()
        return np.concatenate([parts[0], *(part[None] for part in parts[1:])])


def _changes_gradients(optimizer: Any) -> bool:
    config = optimizer.get_config()
    names = ("weight_decay", "clipnorm", "global_clipnorm", "clipvalue", "use_ema", "gradient_accumulation_steps")
    return any(config.get(name) for name in (*names, "loss_scale_factor"))
