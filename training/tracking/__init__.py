"""MLflow: runs that hold hardware, figures and models, go on after a kill, and outlast their server.

Where runs go is MLflow's own choice (its local SQLite store unless a tracking URI is set). Nothing is
logged by itself: a callback or a call does it. What a server does not take waits in an outbox until
`sync`, or `axtrain track sync`, sends it.
"""

from __future__ import annotations

import importlib
from typing import Any

# Loaded when first used, so that `axtrain track list` needs neither Keras nor MLflow.
_PUBLIC = {
    "run": "opening",
    "Run": "runs",
    "MLflow": "callback",
    "sync": "syncing",
    "Sent": "syncing",
    "waiting": "outbox",
    "Waiting": "outbox",
    "OUTBOX": "outbox",
    "TrackingWarning": "sending",
    "log_hardware": "active",
    "log_evaluation": "active",
    "log_model": "active",
    "LOADER": "models",
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
