"""Training on many machines that may be wrong, late or gone: coded, Berrut approximated, and without a centre."""

from __future__ import annotations

import importlib
from typing import Any

# Loaded when first used: a process that serves as an actor imports this package, and Keras only if its work needs it.
_PUBLIC = {
    "BerrutGradients": "gradient_codes",
    "BerrutTrainer": "berrut_trainer",
    "CodedTrainer": "coded_trainer",
    "Executor": "executor",
    "GradientCode": "gradient_codes",
    "InProcess": "in_process",
    "NetworkTrainer": "network_trainer",
    "RayActors": "ray_actors",
    "Repetition": "gradient_codes",
    "Trouble": "worker",
    "berrut_map": "berrut_mapping",
    "split": "network_trainer",
}

__all__ = list(_PUBLIC)  # resolved by __getattr__


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
