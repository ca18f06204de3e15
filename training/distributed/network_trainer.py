"""Training by agents on a sparse network, each with data of its own and none in the centre."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from axtrain.training.distributed.agents import Agents
from axtrain.training.distributed.executor import Executor
from axtrain.training.distributed.gradient_worker import GradientFunction
from axtrain.training.distributed.graphs import edges_of, is_connected
from axtrain.training.distributed.in_process import InProcess
from axtrain.training.distributed.keras_loop import KerasLoop, same_model
from axtrain.training.distributed.linearised import LinearisedModel
from axtrain.training.distributed.network_agent import AgentSettings
from axtrain.training.distributed.surrogates import SURROGATES, Penalty


class NetworkTrainer:
    """Trains a Keras model by agents that talk to their neighbours only (NEXT).

    ``min_w sum_i g_i(w) + r(w)``: each agent minimises a convex surrogate of everybody's loss, moves a step towards it,
    and mixes weights and tracked gradients with its neighbours by Metropolis weights. The driver says what is next and
    records; weights and gradients go between agents. Sources: Scardapane and Di Lorenzo 2017; Di Lorenzo and Scutari
    2016; theory page, section 10.

    Args:
        model: compiled for its loss and metrics; the optimizer is not used. Not changed.
        graph: a networkx graph of agents 0, 1, 2 and so on; pairs of agents; or a function of the step to one of them.
        surrogate: `full` linearises the loss (any layers, any loss); `partial` only the network inside it (mean
            squared error, or categorical cross-entropy from logits; small networks); `descent` is decentralised
            gradient descent, to compare with.
        regularizer: `keras.regularizers.L2`, `L1` or `None`, of all weights.
        tau: of the proximal term: about the Lipschitz constant of an agent's gradient.
        step: alpha, of the first move; ``alpha[n] = alpha[n-1] (1 - decay alpha[n-1])`` after it.
        decay: mu.
        blocks: C, of each agent's weights, solved side by side on as many threads.
        sum_of_losses: the losses' sum over all samples in the place of their mean.
        executor: where agents are; by default in this process.
        deadline: in seconds, after which a step goes on without an agent.

    Raises:
        ValueError: another surrogate or regularizer, a model whose loss `partial` does not know.

    Attributes:
        model: a copy of the model given, with the agents' mean weights after each epoch.
        agents: on the executor; `agents.left` is who is there.
    """

    def __init__(
        self,
        model: keras.Model,
        graph: Any,
        surrogate: str = "full",
        regularizer: Any = None,
        *,
        tau: float = 1.0,
        step: float = 0.1,
        decay: float = 0.01,
        blocks: int = 1,
        sum_of_losses: bool = False,
        executor: Executor | None = None,
        deadline: float | None = None,
    ) -> None:
        if surrogate not in SURROGATES:
            raise ValueError(f"`surrogate` must be one of {', '.join(SURROGATES)}. Received: surrogate={surrogate!r}")
        if not tau > 0 or not 0 < step <= 1 or not 0 <= decay < 1 or blocks < 1:
            raise ValueError(
                "`tau` must be positive, `step` in (0, 1], `decay` in [0, 1) and `blocks` at least 1. "
                f"Received: tau={tau!r}, step={step!r}, decay={decay!r}, blocks={blocks!r}"
            )
        self._function = GradientFunction(model)
        self._linearised = LinearisedModel(model) if surrogate == "partial" else None
        self.surrogate, self.penalty, self.blocks = surrogate, _penalty(regularizer), blocks
        self.graph, self.tau, self.alpha, self.decay = graph, tau, step, decay
        self.sum_of_losses = sum_of_losses
        self.executor, self.deadline = executor or InProcess(), deadline
        self.model = same_model(model)
        self.agents: Agents | None = None

    def fit(
        self,
        data: Sequence[tuple[np.ndarray, np.ndarray]],
        *,
        epochs: int = 10,
        steps_per_epoch: int = 10,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        validation_data: tuple | None = None,
        verbose: int | str = "auto",
        checkpoint: Any = None,
    ) -> keras.callbacks.History:
        """Trains; the same call with a checkpoint goes on where a killed driver was, with any number of agents.

        Args:
            data: for each agent its own (x, y); see `split`.
            epochs: after each of them the agents' weights are looked at, and kept.
            steps_per_epoch: steps of all agents together.
            callbacks, validation_data, verbose: as for `keras.Model.fit`.
            checkpoint: a file.

        Returns:
            Keras's history: `loss`, the agents' sum, mean over the epoch; `penalty`; `disagreement`, the largest
            difference of a weight from the mean; `tracking`, the largest difference of the mean of y from the
            gradients' mean, of the latter's size, NaN while an agent is late; `agents`, how many are left, and how
            many of them are `late`.

        Raises:
            ValueError: a graph that is in pieces or lacks an agent.
            RuntimeError: no agent is left.
        """
        samples = sum(len(x) for x, _ in data)
        note = {"samples": samples, "surrogate": self.surrogate}
        loop = KerasLoop(
            self.model, steps_per_epoch, epochs, callbacks, validation_data, verbose, note, checkpoint,
            described={"trainer": "NetworkTrainer", "agents": len(data), **self._described()},
        )  # fmt: skip
        if not callable(self.graph) and not is_connected(edges_of(self.graph, range(len(data)))):
            raise ValueError("The graph is in several pieces, so agents never agree. Add edges between them.")
        weights = self._flat() if loop.found is None else loop.found.arrays["weights"][0]
        scale = 1.0 if self.sum_of_losses else 1.0 / samples
        settings = AgentSettings(self.surrogate, self.penalty, self.tau, scale, self.blocks)
        shared = self._function, self._linearised, weights
        agents = self.agents = Agents(self.executor, data, shared, settings, self.deadline)
        alpha = self.alpha
        for _ in range(loop.first):
            alpha *= 1 - self.decay * alpha
        agents.begin(loop.first, alpha)

        def step(number: int) -> tuple[int, float, dict[str, float]]:
            nonlocal alpha
            alpha *= 1 - self.decay * alpha
            graph = self.graph(number + 1) if callable(self.graph) else self.graph
            loss = agents.advance(number + 1, alpha, graph)
            return number + 1, loss, {"agents": float(len(agents.left)), "late": float(agents.late)}

        def epoch_end() -> dict[str, float]:
            mean, logs = agents.look(0)
            for variable, value in zip(self.model.trainable_variables, self._function.parts(mean), strict=True):
                variable.assign(value)
            return {"penalty": self.penalty.value(mean), **logs}

        return loop.run(step, epoch_end, lambda: {"weights": [self._flat()]})

    def _described(self) -> dict[str, Any]:
        numbers = {"tau": self.tau, "step": self.alpha, "decay": self.decay, "blocks": self.blocks}
        return {"surrogate": self.surrogate, "penalty": f"{self.penalty.kind} {self.penalty.strength:g}", **numbers}

    def _flat(self) -> np.ndarray:
        parts = [keras.ops.convert_to_numpy(v).reshape(-1) for v in self.model.trainable_variables]
        return np.concatenate(parts).astype(np.float64)


def split(x: np.ndarray, y: np.ndarray, agents: int, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Samples dealt to agents at random, as evenly as they can be."""
    order = np.random.default_rng(seed).permutation(len(x))
    return [(np.asarray(x)[part], np.asarray(y)[part]) for part in np.array_split(order, agents)]


def _penalty(regularizer: Any) -> Penalty:
    if regularizer is None:
        return Penalty()
    if type(regularizer) is keras.regularizers.L2:
        return Penalty("l2", float(regularizer.l2))
    if type(regularizer) is keras.regularizers.L1:
        return Penalty("l1", float(regularizer.l1))
    raise ValueError(f"`regularizer` must be keras.regularizers.L2, L1 or None. Received: {regularizer!r}")
