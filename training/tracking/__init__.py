"""MLflow: runs that hold hardware, figures and models, go on after a kill, and outlast their server.

Where runs go is MLflow's own choice (its local SQLite store unless a tracking URI is set). Nothing is
logged by itself: a callback or a call does it. What a server does not take waits in an outbox until
`sync`, or `axtrain track sync`, sends it.
"""

from __future__ import annotations

from axtrain.lazy_names import import_when_used

# Loaded when first used, so that `axtrain track list` needs neither Keras nor MLflow.
_MODULES = {
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
_PUBLIC = {name: f"{__name__}.{module}:{name}" for name, module in _MODULES.items()}

__all__ = list(_PUBLIC)
__getattr__, __dir__ = import_when_used(__name__, _PUBLIC)
