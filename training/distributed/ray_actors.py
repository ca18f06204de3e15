"""Workers as Ray actors: processes of this machine, or of a cluster's."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from axtrain.training.distributed.executor import CANCELLED, DEAD, DONE, LATE, Executor, Outcome, Ticket
from axtrain.training.distributed.worker import Trouble, Worker, of_worker, size_of


class RayActors(Executor):
    """Each worker an actor, a process of its own. Nothing is restarted or tried again by Ray.

    Where Ray is not initialised yet, it is: with `RAY_ADDRESS` on that cluster, otherwise on this machine, and then
    shut down again by `close`. Use it in a `with` block, so that Ctrl-C leaves no actor behind.

    Args:
        cpus: of each actor, as Ray counts them; 0 lets any number of them share a machine.
        troubles: what goes wrong, for tests.

    Raises:
        ImportError: without the extra `ray`.

    Examples:
        with RayActors() as executor:
            trainer = CodedTrainer(model, code, executor)
            trainer.fit(x, y, epochs=3)
    """

    def __init__(self, *, cpus: float = 0, troubles: Sequence[Trouble] = ()) -> None:
        self._ray = _ray()
        self._started = not self._ray.is_initialized()
        if self._started:
            _start(self._ray)
        self._kind = self._ray.remote(max_restarts=0, max_task_retries=0, num_cpus=cpus)(_Actor)
        self._troubles = list(troubles)
        self._actors: dict[str, Any] = {}
        self._placed: set[str] = set()
        self._moved, self._begun = 0, time.perf_counter()

    def place(self, name: str, factory: Callable[..., Any], *args: Any) -> None:
        """As `Executor.place`; returns before the worker is ready. A process that is there takes the new state."""
        troubles = of_worker(self._troubles, name, name in self._placed)
        self._placed.add(name)
        if name in self._actors:
            self._actors[name].become.remote(factory, args, troubles)
        else:
            self._actors[name] = self._kind.remote(factory, args, troubles)

    def expect(self, troubles: Sequence[Trouble]) -> None:
        """From the next placement on these go wrong, instead of those before; for tests that share processes."""
        self._troubles, self._placed = list(troubles), set()

    def share(self, value: Any) -> Any:
        """As `Executor.share`."""
        return self._ray.put(value)

    def call(self, worker: str, method: str, *args: Any, inputs: Sequence[Ticket | None] = ()) -> Ticket:
        """As `Executor.call`."""
        actor = self._actors.get(worker)
        if actor is None:
            return Ticket(worker, method, None)
        values = [None if ticket is None else ticket.answer.value for ticket in inputs]
        self._moved += sum(ticket.answer.size for ticket in inputs if ticket is not None)
        note, value = actor.run.options(num_returns=2).remote(method, args, *values)
        return Ticket(worker, method, _Answer(note, value))

    def wait(
        self, tickets: Iterable[Ticket], count: int | None = None, deadline: float | None = None
    ) -> dict[str, Outcome]:
        """As `Executor.wait`."""
        found: dict[str, Outcome] = {}
        pending: dict[Any, Ticket] = {}
        for ticket in tickets:
            if ticket.answer is None:
                found[ticket.worker] = Outcome(ticket, DEAD)
            else:
                pending[ticket.answer.note] = ticket
        until = None if deadline is None else time.perf_counter() + deadline
        wanted = len(pending) if count is None else count
        while pending and wanted > 0:
            left = None if until is None else max(until - time.perf_counter(), 0.0)
            ready, _ = self._ray.wait(list(pending), num_returns=min(wanted, len(pending)), timeout=left)
            for reference in ready:
                ticket = pending.pop(reference)
                found[ticket.worker] = self._outcome(ticket)
                wanted -= found[ticket.worker].status == DONE
            if until is not None and time.perf_counter() >= until:
                break
        for ticket in pending.values():
            found[ticket.worker] = Outcome(ticket, LATE, seconds=time.perf_counter() - ticket.answer.begun)
        return found

    def _outcome(self, ticket: Ticket) -> Outcome:
        begun = ticket.answer.begun
        try:
            note, ticket.answer.size = self._ray.get(ticket.answer.note)
        except _lost(self._ray):
            self.remove(ticket.worker)
            return Outcome(ticket, DEAD, seconds=time.perf_counter() - begun)
        except self._ray.exceptions.TaskCancelledError:
            return Outcome(ticket, CANCELLED, seconds=time.perf_counter() - begun)
        except self._ray.exceptions.RayTaskError as error:
            raise error.as_instanceof_cause() from None
        return Outcome(ticket, DONE, note, time.perf_counter() - begun)

    def fetch(self, ticket: Ticket) -> Any:
        """As `Executor.fetch`."""
        value = self._ray.get(ticket.answer.value)
        self._moved += size_of(value)
        return value

    def cancel(self, tickets: Iterable[Ticket]) -> None:
        """As `Executor.cancel`."""
        for ticket in tickets:
            if ticket.answer is not None:
                self._ray.cancel(ticket.answer.note, force=False)

    def remove(self, worker: str) -> None:
        """As `Executor.remove`."""
        actor = self._actors.pop(worker, None)
        if actor is not None:
            self._ray.kill(actor, no_restart=True)

    def close(self) -> None:
        """As `Executor.close`; ends Ray too, where it was begun here."""
        for worker in list(self._actors):
            self.remove(worker)
        if self._started and self._ray.is_initialized():
            self._ray.shutdown()

    @property
    def seconds(self) -> float:
        """Of the wall, since the executor was made."""
        return time.perf_counter() - self._begun

    @property
    def bytes_moved(self) -> int:
        """As `Executor.bytes_moved`."""
        return self._moved

    def process_of(self, worker: str) -> int:
        """The process that a worker is, by its number on its machine."""
        return self._ray.get(self._actors[worker].process.remote())


class _Answer:
    """References to a call's note and value; when it was asked for, and how large the value is once it is there."""

    def __init__(self, note: Any, value: Any) -> None:
        self.note, self.value, self.begun, self.size = note, value, time.perf_counter(), 0


class _Actor:
    """What runs in an actor's process."""

    def __init__(self, factory: Callable[..., Any], args: tuple, troubles: list) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        self.become(factory, args, troubles)

    def become(self, factory: Callable[..., Any], args: tuple, troubles: list) -> None:
        """Take another state, and none where it cannot be made."""
        self._worker: Worker | None = None
        self._worker = Worker(factory, _resolved(args), troubles, die=lambda: os.kill(os.getpid(), signal.SIGKILL))

    def run(self, method: str, args: tuple, *inputs: Any) -> Any:
        """Note with the value's size, and value, as two objects: the driver looks at the first only."""
        if self._worker is None:
            raise RuntimeError("This worker's state could not be made.")
        note, value = self._worker.run(method, _resolved(args), list(inputs))
        return (note, size_of(value)), value

    def process(self) -> int:
        """Its number."""
        return os.getpid()


def _resolved(args: tuple) -> tuple:
    """What was shared, in its place."""
    ray = _ray()
    return tuple(ray.get(part) if isinstance(part, ray.ObjectRef) else part for part in args)


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ImportError("Actors on many machines need Ray: pip install 'axtrain[ray]'.") from error
    return ray


def _lost(ray: Any) -> tuple[type[Exception], ...]:
    """What Ray says of an actor that is gone: by itself, with its machine, or killed because memory ran short."""
    known = ray.exceptions
    return known.RayActorError, known.OutOfMemoryError, known.NodeDiedError, known.WorkerCrashedError


def _start(ray: Any) -> None:
    """Ray on the cluster of `RAY_ADDRESS`, or on this machine with nothing sent anywhere."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # its future default; else it warns
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    ray.init(**({"log_to_driver": False} if os.environ.get("RAY_ADDRESS") else quiet))
