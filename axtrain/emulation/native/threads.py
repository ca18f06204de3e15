"""The threads of the native engine: parts of one product, run side by side.

Kernels let go of the global lock, so plain threads do; numba's own thread layers are not used (one of them
ends the process when two threads call it at once).
"""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parts(length: int, count: int, multiple: int = 1) -> list[tuple[int, int]]:
    """Cuts 0 .. length into at most `count` nearly equal parts at multiples of `multiple`."""
    pieces = -(-length // multiple)
    count = max(1, min(count, pieces))
    edges = [min(length, round(pieces * i / count) * multiple) for i in range(count + 1)]
    return list(pairwise(edges))


def run(jobs: list[tuple]) -> list:
    """Calls functions side by side; gives their results in order, or raises the first error.

    The caller takes jobs as the threads do, so nobody waits while there is one left.

    Args:
        jobs: (function, *arguments) of each.
    """
    left, results = deque(enumerate(jobs)), [None] * len(jobs)

    def work() -> None:
        while True:
            try:
                number, (function, *arguments) = left.popleft()
            except IndexError:
                return
            results[number] = function(*arguments)

    waiting = [_pool().submit(work) for _ in range(min(len(jobs), cores()) - 1)]
    work()
    for future in waiting:
        future.result()
    return results


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, cores() - 1), thread_name_prefix="axtrain")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork
