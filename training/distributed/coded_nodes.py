"""The nodes of one coded network on an executor: step by step, with those replaced that are gone or wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from axtrain.coded.code import Code
from axtrain.coded.repair import recipe
from axtrain.training.distributed.coded_node import CodedNode
from axtrain.training.distributed.dense_stack import DenseStack
from axtrain.training.distributed.executor import DEAD, DONE, Executor, Ticket
from axtrain.training.distributed.node_weights import decoded

EVENTS = ("corrected", "regenerated", "replaced", "late", "rolled_back")
"""What a training counts: stages with a wrong result; shards; nodes; answers after the deadline; returns."""

_MOST_RETURNS = 10  # without a step of progress


class CodedNodes:
    """The nodes of one coded network on an executor, step by step.

    Args:
        stack: the network.
        code: one shard for each node.
        executor: where the nodes are.
        data: (x, y).
        momentum, nesterov: of SGD.
        deadline: in seconds, after which a stage goes on without a node; `None` waits for all that live.
        adversarial: trust only corrections that are right whatever the errors are.
    """

    def __init__(
        self,
        stack: DenseStack,
        code: Code,
        executor: Executor,
        data: tuple,
        *,
        momentum: float = 0.0,
        nesterov: bool = False,
        deadline: float | None = None,
        adversarial: bool = False,
    ) -> None:
        self.stack, self.code, self.executor, self.deadline = stack, code, executor, deadline
        self.names = [f"node-{number}" for number in range(code.shards)]
        self._made = (stack, code, executor.share(data), momentum, nesterov, adversarial)
        self.events = dict.fromkeys(EVENTS, 0)
        self.step = 0
        self._away: dict[int, Ticket] = {}  # not asked: replaced and not ready, or late with this call
        self._suspects: set[int] = set()
        self._strays: set[int] = set()  # whose stored shards are wrong, by what they contradict
        self._returns = self._unread = 0
        self.last_read: tuple[list, list] = [], []
        self._spare = min(code.forward.redundancy, code.backward.redundancy)
        for number in range(code.shards):
            self._place(number)

    @property
    def alive(self) -> int:
        """Nodes that are asked."""
        return len(self.names) - len(self._away)

    def adopt(self, step: int, weights: list, velocity: list) -> None:
        """Give all nodes their shards of these kernels, each with its bias as last row."""
        given = self.executor.share(weights), self.executor.share(velocity)
        self._all("adopt", step, *given)
        self.step, self.last_read = step, (weights, velocity)

    def train(self, samples: np.ndarray, rate: float, keep: bool, read: bool = False) -> float | None:
        """One step.

        Args:
            samples: by their numbers.
            rate: of learning.
            keep: a checkpoint in the nodes' memories before the update.
            read: the weights after it into `last_read`.

        Returns:
            its loss, or `None` where it was undone and `step` is an earlier one.

        Raises:
            RuntimeError: returns to a checkpoint do not help.
        """
        self._suspects, self._strays = set(), set()
        layers = len(self.stack.layers)
        stages = [("forward", layer) for layer in range(layers)] + [("backward", n) for n in range(layers - 1, 0, -1)]
        done, _ = self._round("begin", (self.step, samples), ())
        loss, hopeless = float("nan"), False
        for method, layer in stages:
            done, said = self._round(method, (self.step, layer), done)
            notes = list(said.values())
            hopeless = hopeless or not notes or sum(note["hopeless"] for note in notes) * 2 > len(notes)
            self._suspect(method, notes)
            self._strays |= _agreed([note["stray"] for note in notes if "stray" in note])
            losses = [note["loss"] for note in notes if "loss" in note]
            loss = float(np.median(losses)) if losses else loss
        if hopeless or not np.isfinite(loss):
            self._go_back()
            return None
        self._returns = 0
        _, said = self._round("update", (self.step, rate, keep and not self._strays), done)
        self._suspects |= self._strays | {number for number, note in said.items() if "stale" in note}
        self.step += 1
        self._mend()
        if read:
            found = self.weights()
            if found is None:
                self._unread += 1
                self._returns = self._unread
                self._go_back()
                return None
            self.last_read, self._unread = found, 0
        return loss

    def outputs(self) -> np.ndarray | None:
        """The last step's, of the network before its update: the median of three nodes'."""
        names = [self.names[n] for n in range(len(self.names)) if n not in self._away][:3]
        tickets = [self.executor.call(name, "outputs", self.step - 1) for name in names]
        outcomes = self.executor.wait(tickets, deadline=self.deadline).values()
        values = [self.executor.fetch(outcome.ticket) for outcome in outcomes if outcome.status == DONE]
        found = [value for value in values if value is not None]
        return np.median(found, axis=0) if found else None

    def weights(self) -> tuple[list, list] | None:
        """Kernels and velocities as `node_weights.decoded` gives them; `None` where the nodes' shards do not say."""
        outcomes = self._asked("state", self.step)
        states = {n: self.executor.fetch(o.ticket) for n, o in outcomes.items() if o.status == DONE}
        return decoded(self.stack, self.code, states)

    def _place(self, number: int) -> None:
        self.executor.place(self.names[number], CodedNode, number, *self._made)

    def _replace(self, number: int) -> None:
        self._place(number)
        self._away[number] = self.executor.call(self.names[number], "ready", self.step)
        self.events["replaced"] += 1

    def _round(self, method: str, args: tuple, inputs: Sequence[Ticket | None]) -> tuple[list, dict[int, Any]]:
        """One method of all nodes that are there: their tickets, `None` for those that did not answer, and notes."""
        outcomes = self._asked(method, *args, inputs=inputs)
        tickets: list[Ticket | None] = [None] * len(self.names)
        notes = {}
        for number, outcome in outcomes.items():
            if outcome.status == DONE:
                tickets[number] = outcome.ticket
                notes[number] = outcome.note
            elif outcome.status == DEAD:
                self._replace(number)
            else:
                self._away[number] = outcome.ticket
                self.events["late"] += 1
        return tickets, notes

    def _asked(self, method: str, *args: Any, inputs: Sequence[Ticket | None] = ()) -> dict:
        asked = [number for number in range(len(self.names)) if number not in self._away]
        tickets = [self.executor.call(self.names[number], method, *args, inputs=inputs) for number in asked]
        outcomes = self.executor.wait(tickets, deadline=self.deadline)
        done = sum(outcome.status == DONE for outcome in outcomes.values())
        if done < len(asked) - self._spare:  # nobody can be done without so many: the deadline was too short for all
            outcomes = self.executor.wait(tickets, len(asked) - self._spare)
        return {number: outcomes[self.names[number]] for number in asked}

    def _all(self, method: str, *args: Any) -> None:
        tickets = [self.executor.call(name, method, *args) for name in self.names]
        self.executor.wait(tickets)

    def _suspect(self, name: str, notes: list) -> None:
        """Shards behind results that most nodes found wrong."""
        stage = getattr(self.code, name)
        votes = np.zeros(stage.results)
        for note in notes:
            votes[note["wrong"]] += 1
        wrong = np.flatnonzero(votes * 2 > len(notes))
        self.events["corrected"] += int(len(wrong) > 0)
        self._suspects |= {int(shard) for shard in stage.shards[np.isin(stage.sums, wrong)]}

    def _mend(self, *, patient: bool = False) -> None:
        """Between two steps: nodes that were replaced or late, and those suspected, get their shards from the others.

        Args:
            patient: wait for those that are not ready, rather than go on without them.
        """
        for number, ticket in list(self._away.items()):
            outcome = self.executor.wait([ticket], deadline=None if patient else 0.0)[self.names[number]]
            if outcome.status == DEAD:
                self._replace(number)
            elif outcome.status == DONE and self._regenerated(number):
                del self._away[number]
        for number in sorted(self._suspects - set(self._away)):
            self._regenerated(number)

    def _regenerated(self, number: int) -> bool:
        unasked = set(self._away) | self._suspects | {number}
        available = np.array([n not in unasked for n in range(len(self.names))])
        asked = recipe(self.code, number, available) or recipe(self.code, number, available | self._present(number))
        if not asked:
            return False
        calls = {n: self.executor.call(self.names[n], "state", self.step) for n in asked}
        outcomes = self.executor.wait(calls.values(), deadline=self.deadline)
        if any(outcome.status != DONE for outcome in outcomes.values()):
            return False
        states = [calls[n] for n in asked]
        mended = self.executor.call(self.names[number], "regenerate", self.step, list(asked.values()), inputs=states)
        outcome = self.executor.wait([mended])[self.names[number]]
        self.events["regenerated"] += int(outcome.status == DONE and outcome.note["changed"])
        return outcome.status == DONE

    def _present(self, number: int) -> np.ndarray:
        """Whoever is there, suspected or not, but for those whose shards are wrong."""
        absent = {*self._away, *self._strays, number}
        return np.array([n not in absent for n in range(len(self.names))])

    def _go_back(self) -> None:
        """All nodes to the last checkpoint in their memories.

        Raises:
            RuntimeError: none is left, or it does not help.
        """
        self._returns += 1
        outcomes = self._asked("go_back", self.step)
        steps = {number: outcome.note["step"] for number, outcome in outcomes.items() if outcome.status == DONE}
        known = [step for step in steps.values() if step is not None]
        if not known or self._returns > _MOST_RETURNS:
            raise RuntimeError(
                f"More nodes are wrong or gone than {self.code!r} corrects, {self._returns} times in a row. Go on from "
                "a checkpoint on disk (fit(..., checkpoint=FILE)) with more redundancy, or give a longer deadline. "
                f"Received: {self.alive} of {len(self.names)} nodes"
            )
        self.step = int(np.median(known))
        self._suspects |= {number for number, step in steps.items() if step != self.step}
        self.events["rolled_back"] += 1
        self._mend(patient=True)


def _agreed(answers: list) -> set[int]:
    """Numbers that most nodes have named."""
    votes = Counter(int(number) for answer in answers for number in answer)
    return {number for number, count in votes.items() if count * 2 > len(answers)}
