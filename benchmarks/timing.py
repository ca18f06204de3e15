"""Timing two things side by side on a machine that others use too."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable

import numpy as np


def ratios(reference: Callable, others: dict[str, Callable], rounds: int) -> tuple[float, dict[str, float]]:
    """Median seconds of `reference`, and of each other the median of its ratio to the reference beside it.

    Every round runs all of them once, each after a run of the reference, so that a slow moment of the machine
    falls on both.

    Args:
        reference: a function of nothing that returns when its work is done.
        others: likewise, by name.
        rounds: how many.
    """
    for function in (reference, *others.values()):
        function()
        function()
    base, found = [], {name: [] for name in others}
    for _ in range(rounds):
        for name, function in others.items():
            base.append(seconds(reference))
            found[name].append(seconds(function) / base[-1])
    return float(np.median(base)), {name: float(np.median(values)) for name, values in found.items()}


def seconds(function: Callable) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    import tensorflow as tf

    features = set()
    try:
        with open("/proc/cpuinfo") as file:
            features = {word for line in file if line.startswith("flags") for word in line.split()}
    except OSError:  # another system
        pass
    return {
        "processor": platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "avx512_vbmi": "avx512vbmi" in features or "avx512_vbmi" in features,
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
    }
