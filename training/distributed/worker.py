"""A worker's state, and what can be made to go wrong with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

KINDS = ("kill", "sleep", "corrupt")


@dataclass(frozen=True)
class Trouble:
    """Something that goes wrong with one worker, for tests and studies.

    Args:
        worker: its name.
        kind: `kill`, its process ends at once; `sleep`, it answers `seconds` later; `corrupt`, its values come back
            as other numbers of their size.
        method: only in this method; `None` for all.
        step: the first step in which it happens.
        steps: for how many.
        seconds: of sleep.

    Raises:
        ValueError: another kind, or numbers that are not positive.

    Examples:
        >>> Trouble("node-3", "corrupt", step=5, steps=10).strikes("forward", 14)
        True
    """

    worker: str
    kind: str
    method: str | None = None
    step: int = 0
    steps: int = 1
    seconds: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"`kind` must be one of {', '.join(KINDS)}. Received: kind={self.kind!r}")
        if self.steps < 1 or self.step < 0 or self.seconds < 0:
            raise ValueError(f"`steps` must be at least 1, `step` and `seconds` not negative. Received: {self!r}")

    def strikes(self, method: str, step: Any) -> bool:
        """Whether it happens in a call whose first argument is `step`."""
        numbered = isinstance(step, int) and self.step <= step < self.step + self.steps
        return numbered and self.method in (None, method)


def of_worker(troubles: Sequence[Trouble], name: str, again: bool) -> list[Trouble]:
    """Those of one worker; a process that takes another's place is not killed for what killed that one."""
    return [trouble for trouble in troubles if trouble.worker == name and not (again and trouble.kind == "kill")]


class Worker:
    """Holds a state and calls its methods.

    Args:
        factory: makes the state.
        args: for it.
        troubles: of this worker.
        die: ends the worker's process; for `kill`.
        sleep: takes time; for `sleep`.
    """

    def __init__(
        self,
        factory: Callable[..., Any],
        args: tuple,
        troubles: Sequence[Trouble] = (),
        *,
        die: Callable[[], None],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._state = factory(*args)
        self._troubles, self._die, self._sleep = tuple(troubles), die, sleep
        self._random = np.random.default_rng(0)

    def run(self, method: str, args: tuple, inputs: list) -> tuple[Any, Any]:
        """The method's note and value, after what goes wrong."""
        struck = [trouble for trouble in self._troubles if trouble.strikes(method, args[0] if args else None)]
        for trouble in struck:
            if trouble.kind == "kill":
                self._die()
            elif trouble.kind == "sleep":
                self._sleep(trouble.seconds)
        note, value = getattr(self._state, method)(*args, inputs=inputs)
        if any(trouble.kind == "corrupt" for trouble in struck):
            value = self._corrupted(value)
        return note, value

    def _corrupted(self, value: Any) -> Any:
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            size = float(np.abs(value).mean()) + 1e-3
            return np.asarray(3 * size * self._random.standard_normal(value.shape), value.dtype)
        if isinstance(value, dict):
            return {name: self._corrupted(part) for name, part in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(self._corrupted(part) for part in value)
        return value


def size_of(value: Any) -> int:
    """Bytes of the arrays in a value."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, dict):
        return sum(size_of(part) for part in value.values())
    if isinstance(value, (list, tuple)):
        return sum(size_of(part) for part in value)
    return 0
