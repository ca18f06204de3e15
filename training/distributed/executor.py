"""Workers that hold state and answer calls: one interface for this process and for many machines.

A worker's methods give `(note, value)`. The note is small and goes to the driver with the outcome; the value stays
where it was made until it is fetched, or handed by its ticket to a call of another worker, so that the driver passes
no data through itself. Nothing is tried twice: a call that fails has failed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

DONE, LATE, DEAD, CANCELLED = "done", "late", "dead", "cancelled"


@dataclass(frozen=True, eq=False)
class Ticket:
    """A call that was made.

    Attributes:
        worker: its name.
        method: what was called.
        answer: the executor's own.
    """

    worker: str
    method: str
    answer: Any = field(repr=False)


@dataclass(frozen=True)
class Outcome:
    """What became of a call.

    Attributes:
        ticket: of the call; hand it on as an input, or fetch its value.
        status: `done`; `late`, not there at the deadline; `dead`, its worker is gone; `cancelled`.
        note: what the method said to the driver.
        seconds: from the call to the answer; until now where there is none.
    """

    ticket: Ticket
    status: str
    note: Any = None
    seconds: float = 0.0


class Executor(ABC):
    """Places workers, calls them, waits for some of their answers, and replaces them."""

    @abstractmethod
    def place(self, name: str, factory: Callable[..., Any], *args: Any) -> None:
        """Make a worker whose state is ``factory(*args)``, made where the worker is; in the place of one of that name.

        Args:
            name: of the worker.
            factory: a class or function that can be imported by name.
            args: for it.
        """

    @abstractmethod
    def share(self, value: Any) -> Any:
        """Something large that several workers are given: what stands for it in their `args`."""

    @abstractmethod
    def call(self, worker: str, method: str, *args: Any, inputs: Sequence[Ticket | None] = ()) -> Ticket:
        """Call a method of a worker's state, without waiting for it.

        Args:
            worker: its name.
            method: of its state; called with `args`, then with `inputs=` a list, `None` where a ticket is `None`.
            args: small; the first is the step where there is one.
            inputs: calls that are done, whose values are wanted.
        """

    @abstractmethod
    def wait(
        self, tickets: Iterable[Ticket], count: int | None = None, deadline: float | None = None
    ) -> dict[str, Outcome]:
        """Wait until `count` calls are done, or none is left that could be, or the deadline.

        Args:
            tickets: at most one of each worker.
            count: of answers that suffice; `None` for all.
            deadline: in seconds from now; `None` waits for ever.

        Returns:
            for each worker its outcome.

        Raises:
            Exception: what a worker's method raised.
        """

    @abstractmethod
    def fetch(self, ticket: Ticket) -> Any:
        """The value of a call that is done."""

    @abstractmethod
    def cancel(self, tickets: Iterable[Ticket]) -> None:
        """Give up calls that have not begun; those that have run to their end, and nobody looks at them."""

    @abstractmethod
    def remove(self, worker: str) -> None:
        """Stop a worker, if it is there still."""

    @abstractmethod
    def close(self) -> None:
        """Stop all workers."""

    @property
    @abstractmethod
    def seconds(self) -> float:
        """Time: of the wall, or of the simulation."""

    @property
    @abstractmethod
    def bytes_moved(self) -> int:
        """Between workers and with the driver, so far: values that were handed on, and notes not counted."""

    def __enter__(self) -> Executor:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()
