"""The threads of the native engine: parts of one product, run side by side.

Kernels let go of the global lock, so plain threads do; numba's own thread layers are not used (one of them
ends the process when two threads call it at once).
"""

from __future__ import annotations

import os
from functools import lru_cache
from itertools import count, pairwise
from queue import SimpleQueue
from threading import Lock, Thread


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@lru_cache(maxsize=1024)
def parts(length: int, count: int, multiple: int = 1) -> tuple[tuple[int, int], ...]:
    """Cuts 0 .. length into at most `count` nearly equal parts at multiples of `multiple`."""
    pieces = -(-length // multiple)
    count = max(1, min(count, pieces))
    edges = [min(length, round(pieces * i / count) * multiple) for i in range(count + 1)]
    return tuple(pairwise(edges))


def run(jobs: list[tuple]) -> list:
    """Calls functions side by side; gives their results in order, or raises the first error.

    The caller takes jobs as the threads do, and waits for those alone that another has begun: a thread that the system
    wakes late holds nobody up.

    Args:
        jobs: (function, *arguments) of each.
    """
    helpers = min(len(jobs), cores()) - 1
    if helpers < 1:
        return [function(*arguments) for function, *arguments in jobs]
    shared = _Shared(jobs)
    for _ in range(helpers):
        _queue().put(shared)
    shared.work()
    return shared.results()


class _Shared:
    """Jobs that several threads take from.

    Args:
        jobs: (function, *arguments) of each.
    """

    def __init__(self, jobs: list[tuple]) -> None:
        self._jobs, self._results = jobs, [None] * len(jobs)
        self._taken, self._ended = count(), count(1)  # one step each, so that threads need no lock
        self._errors: list[BaseException] = []
        self._unfinished = Lock()
        self._unfinished.acquire()

    def work(self) -> None:
        """Takes jobs until there is none left."""
        jobs = self._jobs
        while (number := next(self._taken)) < len(jobs):
            function, *arguments = jobs[number]
            try:
                self._results[number] = function(*arguments)
            except BaseException as error:
                self._errors.append(error)
            if next(self._ended) == len(jobs):
                self._unfinished.release()

    def results(self) -> list:
        """Of all jobs, once they have ended."""
        self._unfinished.acquire()
        if self._errors:
            raise self._errors[0]
        return self._results


def _help(queue: SimpleQueue) -> None:
    while True:
        queue.get().work()


@lru_cache(maxsize=1)
def _queue() -> SimpleQueue:
    """What the threads take shared jobs from; they start with it, and end with the process."""
    queue: SimpleQueue = SimpleQueue()
    for _ in range(max(1, cores() - 1)):
        Thread(target=_help, args=(queue,), name="axtrain", daemon=True).start()
    return queue


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_queue.cache_clear)  # threads do not survive a fork
