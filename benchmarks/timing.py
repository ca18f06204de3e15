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

    return {
        "processor": platform.machine(),
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "numba_target": _numba_target(),
        "float32": _float32(),
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
    }


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
        return names[0]
    except (OSError, IndexError):  # another system
        return platform.processor() or platform.machine()


def _float32() -> str:
    """How TensorFlow was told to compute, if it was."""
    names = ("TF_ENABLE_ONEDNN_OPTS", "ONEDNN_MAX_CPU_ISA")
    told = [f"{name}={os.environ[name]}" for name in names if name in os.environ]
    return "with " + " ".join(told) if told else "as TensorFlow chooses"


def _numba_target() -> str:
    """The processor that numba compiles for, as LLVM calls it."""
    try:
        from numba.core.registry import cpu_target
    except ImportError:
        return "none (numba is not installed)"
    _, name, features = cpu_target.target_context.codegen().magic_tuple()
    return f"{name} with{'' if '+avx512f' in features else 'out'} AVX-512"
