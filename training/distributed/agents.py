"""Agents on an executor: steps on whatever graph there is, with agents late, lost and back again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from axtrain.training.distributed.executor import DEAD, DONE, LATE, Executor, Outcome, Ticket
from axtrain.training.distributed.graphs import edges_of, metropolis
from axtrain.training.distributed.network_agent import NetworkAgent


class Agents:
    """All agents of one training.

    What an agent sends goes to its neighbours by its ticket, and never through the driver.

    Args:
        executor: where they are.
        data: for each its own (x, y).
        shared: what all of them get: loss, linearised network, first weights.
        settings: likewise.
        deadline: in seconds, after which a step goes on without an agent.
    """

    def __init__(
        self, executor: Executor, data: Sequence[tuple], shared: tuple, settings: Any, deadline: float | None
    ) -> None:
        self.executor, self.deadline = executor, deadline
        self.left = list(range(len(data)))
        self._latest: dict[int, Ticket] = {}
        self._late: dict[int, Ticket] = {}
        self._lost_knowledge = False
        held = [executor.share(part) for part in shared]
        for agent, (x, y) in enumerate(data):
            executor.place(_name(agent), NetworkAgent, *held, np.asarray(x), np.asarray(y), settings)

    @property
    def late(self) -> int:
        """Agents that are still at an earlier step."""
        return len(self._late)

    def begin(self, step: int, alpha: float) -> None:
        """Everybody's first gradient and move."""
        calls = {agent: self.executor.call(_name(agent), "begin", step, len(self.left), alpha) for agent in self.left}
        outcomes = self.executor.wait(calls.values())
        for agent, ticket in calls.items():
            if self._kept(agent, outcomes[_name(agent)]):
                self._latest[agent] = ticket

    def advance(self, step: int, alpha: float, graph: Any) -> float:
        """One step of all agents that are there; the sum of their losses.

        Raises:
            RuntimeError: nobody is there.
        """
        restart = self._returned()
        present = [agent for agent in self.left if agent not in self._late]
        if not present:
            raise RuntimeError(f"No agent has answered within {self.deadline} s.")
        weights = metropolis(edges_of(graph, present))
        calls = {}
        for agent in present:
            arguments = (step, len(self.left), alpha, list(weights[agent].values()), restart)
            inputs = [self._latest[j] for j in weights[agent]]
            calls[agent] = self.executor.call(_name(agent), "advance", *arguments, inputs=inputs)
        outcomes = self.executor.wait(calls.values(), deadline=self.deadline)
        for agent, ticket in calls.items():
            if not self._kept(agent, outcomes[_name(agent)]):
                continue
            if outcomes[_name(agent)].status == LATE:
                self._late[agent] = ticket
            else:
                self._latest[agent] = ticket
        return float(sum(outcome.note for outcome in outcomes.values() if outcome.status == DONE))

    def look(self, step: int) -> tuple[np.ndarray, dict[str, float]]:
        """The agents' mean weights, and how far they agree and track everybody's gradient."""
        names = [_name(agent) for agent in self.left if agent not in self._late]
        outcomes = self.executor.wait(
            [self.executor.call(name, "state", step) for name in names], deadline=self.deadline
        )
        states = [self.executor.fetch(o.ticket) for o in outcomes.values() if o.status == DONE]
        w, tracked, gradients = (np.stack(parts) for parts in zip(*states, strict=True))
        error = np.abs(tracked.mean(axis=0) - gradients.mean(axis=0)).max()
        whole = not self._late and not self._lost_knowledge
        return w.mean(axis=0), {
            "disagreement": float(np.abs(w - w.mean(axis=0)).max()),
            "tracking": float(error / max(np.abs(gradients).max(), 1e-300)) if whole else float("nan"),
            "agents": float(len(self.left)),
        }

    def _returned(self) -> bool:
        """Take back agents that were late; whether all begin to track anew, since what a lost one knew is missing."""
        for agent, ticket in list(self._late.items()):
            outcome = self.executor.wait([ticket], deadline=0.0)[_name(agent)]
            if outcome.status != LATE:
                del self._late[agent]
                if self._kept(agent, outcome):
                    self._latest[agent] = ticket
        restart = self._lost_knowledge and not self._late
        self._lost_knowledge = self._lost_knowledge and not restart
        return restart

    def _kept(self, agent: int, outcome: Outcome) -> bool:
        """Whether an agent is still there."""
        if outcome.status != DEAD:
            return True
        self.left.remove(agent)
        self._latest.pop(agent, None)
        self._lost_knowledge = True
        if not self.left:
            raise RuntimeError("No agent is left.")
        return False


def _name(agent: int) -> str:
    return f"agent-{agent}"
