"""Workers in this process, on a simulated clock: deterministic, with latencies, deaths and errors as they are asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from axtrain.coded.latency import Latency
from axtrain.training.distributed.executor import CANCELLED, DEAD, DONE, LATE, Executor, Outcome, Ticket
from axtrain.training.distributed.worker import Trouble, Worker, of_worker, size_of


class _Killed(Exception):
    """Instead of the end of a process."""


class _Answer:
    """A call's value, and when it is there."""

    def __init__(self, asked: float, ready: float, note: Any, value: Any) -> None:
        self.asked, self.ready, self.note, self.value = asked, ready, note, value
        self.cancelled = False


class InProcess(Executor):
    """Workers as objects of this process. A call is computed at once and is there when its latency is over.

    Args:
        latency: of a call, in seconds of the simulated clock; `None` for none.
        troubles: what goes wrong.
        seed: of the latencies.

    Examples:
        >>> from axtrain.training.distributed.worker import Trouble
        >>> class Adder:
        ...     def add(self, step, number, inputs):
        ...         return None, step + number
        >>> executor = InProcess(troubles=[Trouble("b", "kill", step=1)])
        >>> for name in ("a", "b"):
        ...     executor.place(name, Adder)
        >>> for step in range(2):
        ...     outcomes = executor.wait([executor.call(name, "add", step, 10) for name in ("a", "b")])
        >>> outcomes["b"].status, executor.fetch(outcomes["a"].ticket)
        ('dead', 11)
    """

    def __init__(self, *, latency: Latency | None = None, troubles: Sequence[Trouble] = (), seed: int = 0) -> None:
        self._latency, self._troubles = latency, list(troubles)
        self._generator = np.random.default_rng(seed)
        self._workers: dict[str, Worker | None] = {}
        self._free: dict[str, float] = {}
        self._now, self._moved, self._slept = 0.0, 0, 0.0

    def place(self, name: str, factory: Callable[..., Any], *args: Any) -> None:
        """As `Executor.place`."""
        troubles = of_worker(self._troubles, name, name in self._workers)
        self._workers[name] = Worker(factory, args, troubles, die=self._die, sleep=self._sleep)
        self._free[name] = self._now

    def share(self, value: Any) -> Any:
        """As `Executor.share`."""
        return value

    def call(self, worker: str, method: str, *args: Any, inputs: Sequence[Ticket | None] = ()) -> Ticket:
        """As `Executor.call`."""
        state = self._workers.get(worker)
        if state is None:
            return Ticket(worker, method, None)
        values = [None if ticket is None else self.fetch(ticket) for ticket in inputs]
        self._slept = 0.0
        try:
            note, value = state.run(method, args, values)
        except _Killed:
            self._workers[worker] = None
            return Ticket(worker, method, None)
        taken = self._slept if self._latency is None else self._slept + float(self._latency.draw(self._generator, None))
        ready = max(self._now, self._free[worker]) + taken
        self._free[worker] = ready
        return Ticket(worker, method, _Answer(self._now, ready, note, value))

    def wait(
        self, tickets: Iterable[Ticket], count: int | None = None, deadline: float | None = None
    ) -> dict[str, Outcome]:
        """As `Executor.wait`."""
        tickets = list(tickets)
        coming = [ticket for ticket in tickets if ticket.answer is not None and not ticket.answer.cancelled]
        coming.sort(key=lambda ticket: ticket.answer.ready)
        until = np.inf if deadline is None else self._now + deadline
        taken = [ticket for ticket in coming if ticket.answer.ready <= until]
        enough = taken if count is None else taken[:count]
        if len(enough) < (len(coming) if count is None else min(count, len(coming))):
            self._now = max(self._now, until)
        elif enough:
            self._now = max(self._now, enough[-1].answer.ready)
        return {ticket.worker: self._outcome(ticket) for ticket in tickets}

    def fetch(self, ticket: Ticket) -> Any:
        """As `Executor.fetch`."""
        self._moved += size_of(ticket.answer.value)
        return ticket.answer.value

    def cancel(self, tickets: Iterable[Ticket]) -> None:
        """As `Executor.cancel`; whoever is at one is free again, and it is never done."""
        for ticket in tickets:
            if ticket.answer is not None and ticket.answer.ready > self._now:
                ticket.answer.cancelled, self._free[ticket.worker] = True, self._now

    def remove(self, worker: str) -> None:
        """As `Executor.remove`."""
        if worker in self._workers:
            self._workers[worker] = None

    def close(self) -> None:
        """As `Executor.close`."""
        self._workers = dict.fromkeys(self._workers)

    @property
    def seconds(self) -> float:
        """Of the simulated clock."""
        return self._now

    @property
    def bytes_moved(self) -> int:
        """As `Executor.bytes_moved`."""
        return self._moved

    def _outcome(self, ticket: Ticket) -> Outcome:
        answer = ticket.answer
        if answer is None:
            return Outcome(ticket, DEAD)
        if answer.cancelled:
            return Outcome(ticket, CANCELLED)
        if answer.ready > self._now:
            return Outcome(ticket, LATE, seconds=self._now - answer.asked)
        return Outcome(ticket, DONE, answer.note, answer.ready - answer.asked)

    def _sleep(self, seconds: float) -> None:
        self._slept += seconds

    @staticmethod
    def _die() -> None:
        raise _Killed
