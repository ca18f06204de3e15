"""Logging to MLflow's active run with one call."""

from __future__ import annotations

from typing import Any

import keras

from axtrain.training.tracking import content
from axtrain.training.tracking.open_run import current
from axtrain.training.tracking.runs import Run


def log_hardware(model: keras.Model, *, prefix: str = "") -> None:
    """Logs each distinct hardware of a model to the active run: JSON, and flat searchable parameters.

    Args:
        model: a model from `convert`; a plain model logs nothing.
        prefix: put before names where the run holds other hardware already: its parameters cannot change.
    """
    _active().hardware(model, prefix=prefix)


def log_evaluation(evaluation, name: str) -> None:
    """Logs an `Evaluation` to the active run itself: mean, spread, worst chip as metrics, every chip as a table.

    `Run.evaluation` logs it as a child run instead.
    """
    run = _active()
    run.log_metrics({f"{name}.{key}": value for key, value in content.of_evaluation(evaluation).summary.items()})
    chips = range(len(evaluation.accuracies))
    run.table({"chip": chips, "accuracy": evaluation.accuracies}, f"{name}_chips.json")


def log_model(model: keras.Model, name: str, *, example: Any = None, registered_name: str | None = None):
    """Logs a model to the active run as `mlflow.pyfunc`: our loader module and the `.keras` file as data.

    It loads in a fresh process with `mlflow.pyfunc.load_model`, without a pickle.

    Args:
        model: any Keras model.
        name: of the logged model.
        example: an input sample (batch of one or more) for signature and input example; optional.
        registered_name: also make it a version of this registered model.

    Returns:
        MLflow's `ModelInfo`.
    """
    return _active().model(model, example, name=name, registered_name=registered_name)


def _active() -> Run:
    """MLflow's active run; begun where there is none, as MLflow's own functions do."""
    import mlflow

    found = current()
    if found is None:
        mlflow.start_run()
        found = current()
    if found is None:
        raise ValueError("MLflow began no run. Received: no active run")
    return found
