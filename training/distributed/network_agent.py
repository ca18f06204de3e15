"""One agent of a network that trains without a centre: its data, its weights, and what it knows of the others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from axtrain.training.distributed.gradient_worker import GradientFunction
from axtrain.training.distributed.linearised import LinearisedModel
from axtrain.training.distributed.surrogates import Penalty, full, in_blocks, partial_entropy, partial_squares


@dataclass(frozen=True)
class AgentSettings:
    """How agents train.

    Args:
        surrogate: `full`, `partial`, or `descent` for decentralised gradient descent, to compare with.
        penalty: r.
        tau: of the proximal term.
        scale: of a sum over samples: 1 over the number of all agents' samples makes the sum of the losses a mean.
        blocks: C, of the weights, solved side by side.
    """

    surrogate: str = "full"
    penalty: Penalty = field(default_factory=Penalty)
    tau: float = 1.0
    scale: float = 1.0
    blocks: int = 1


class NetworkAgent:
    """An agent. It sends its z and y to its neighbours; its data stay where they are.

    Args:
        function: the loss and its gradient.
        linearised: the network's outputs and their Jacobian, for `partial`.
        weights: to begin with, flat.
        x, y: its own data.
        settings: as all agents have.
    """

    def __init__(
        self,
        function: GradientFunction,
        linearised: LinearisedModel | None,
        weights: np.ndarray,
        x: np.ndarray,
        y: np.ndarray,
        settings: AgentSettings,
    ) -> None:
        self.function, self.linearised, self.settings = function, linearised, settings
        self.x, self.y_data = x, y
        self.w = np.asarray(weights, np.float64)
        self.gradient = self.tracked = np.zeros_like(self.w)

    def begin(self, step: int, agents: int, alpha: float, inputs: Any = ()) -> tuple[Any, Any]:
        """``y = grad g(w)``, and the first move."""
        loss, self.gradient = self._gradient()
        self.tracked = self.gradient.copy()
        return loss, self._move(agents, alpha)

    def advance(
        self, step: int, agents: int, alpha: float, weights: list[float], restart: bool, inputs: list
    ) -> tuple[Any, Any]:
        """Mix the neighbours' z and y with one's own, look at the gradient there, and move.

        ``w = sum c_j z_j``, ``y = sum c_j y_j + grad g(w) - grad g(before)``.

        Args:
            step: of the training.
            agents: I.
            alpha: of the move.
            weights: of the inputs.
            restart: begin to track anew, where an agent was lost with what it knew.
            inputs: of each neighbour and of the agent itself (z, y).

        Returns:
            note: the agent's loss at its new weights; value: (z, y).
        """
        self.w = sum(weight * z for weight, (z, _) in zip(weights, inputs, strict=True))
        before = self.gradient
        loss, self.gradient = self._gradient()
        mixed = sum(weight * y for weight, (_, y) in zip(weights, inputs, strict=True))
        self.tracked = self.gradient.copy() if restart else mixed + self.gradient - before
        return loss, self._move(agents, alpha)

    def state(self, step: int, inputs: Any = ()) -> tuple[Any, Any]:
        """Weights, tracked gradient and own gradient, for the record."""
        return None, (self.w, self.tracked, self.gradient)

    def _gradient(self) -> tuple[float, np.ndarray]:
        """Of the agent's share of the loss: ``scale`` times the sum over its samples."""
        size = self.settings.scale * len(self.x)
        loss, gradient = self.function(self.function.parts(self.w.astype(np.float32)), self.x, self.y_data)
        return size * loss, size * gradient.astype(np.float64)

    def _move(self, agents: int, alpha: float) -> tuple[np.ndarray, np.ndarray]:
        """``z = w + alpha (w~ - w)`` with ``pi = I y - grad``."""
        settings = self.settings
        if settings.surrogate == "descent":
            whole = agents * self.gradient + settings.penalty.gradient(self.w)
            return self.w - alpha / settings.tau * whole, self.tracked
        others = agents * self.tracked - self.gradient
        if settings.surrogate == "full":
            best = full(self.w, self.gradient, others, settings.tau, settings.penalty)
        else:
            best = self._partial(others)
        return self.w + alpha * (best - self.w), self.tracked

    def _partial(self, others: np.ndarray) -> np.ndarray:
        linearised = self.linearised
        if linearised is None:
            raise ValueError("The partial surrogate needs the linearised network.")
        outputs, jacobian = linearised(self.function.parts(self.w.astype(np.float32)), self.x)
        targets = linearised.targets(self.y_data, outputs)
        settings = self.settings
        scale = settings.scale * linearised.weight

        def solve(places: np.ndarray) -> np.ndarray:
            inside = jacobian[:, places], others[places], settings.tau, settings.penalty, scale
            if linearised.is_entropy:
                return partial_entropy(self.w[places], outputs, targets, *inside)
            return partial_squares(self.w[places], outputs.reshape(-1), targets.reshape(-1), *inside)

        return in_blocks(solve, len(self.w), settings.blocks)
