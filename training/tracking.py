"""MLflow: runs, hardware descriptions, models that load in a fresh process.

Where runs go is MLflow's own choice (its local SQLite store unless a tracking URI is set). Nothing is
logged by itself: a callback or a call does it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from axtrain.controls import hardware_layers
from axtrain.hardware import Hardware

LOADER = "axtrain.training.pyfunc"


class MLflow(keras.callbacks.Callback):
    """Logs a `fit` to MLflow: parameters, hardware, and the metrics of every epoch.

    Inside an active run it logs there; otherwise it starts a run at the beginning of `fit` and ends it with
    `fit`. Keras tells no callback that `fit` raised: call `fit` inside `with mlflow.start_run():` to have such
    a run marked as failed.

    Args:
        run_name: name of a run that this callback starts; `None` lets MLflow name it.
        prefix: put before parameters and metrics, such as `"warm_up."`. By default nothing for the first
            `fit` of a run and `"fit2."`, `"fit3."` for those that follow in the same run.
        log_model: also log the trained model at the end, loadable by `mlflow.pyfunc`.
    """

    def __init__(self, run_name: str | None = None, *, prefix: str | None = None, log_model: bool = False) -> None:
        super().__init__()
        self.run_name = run_name
        self.prefix = prefix
        self.log_model = log_model
        self._own_run = False
        self._prefix = ""

    def on_train_begin(self, logs=None) -> None:
        """Starts or joins a run; logs parameters and hardware."""
        import mlflow

        self._own_run = mlflow.active_run() is None
        if self._own_run:
            mlflow.start_run(run_name=self.run_name)
        self._prefix = self._free_prefix() if self.prefix is None else self.prefix
        parameters = {key: self.params[key] for key in ("epochs", "steps") if self.params.get(key) is not None}
        optimizer = getattr(self.model, "optimizer", None)
        if optimizer is not None:
            parameters["optimizer"] = type(optimizer).__name__
            parameters["learning_rate"] = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
        mlflow.log_params({self._prefix + key: value for key, value in parameters.items()})
        log_hardware(self.model, prefix=self._prefix)

    @staticmethod
    def _free_prefix() -> str:
        """MLflow's parameters cannot change, so a later fit of the same run needs names of its own."""
        taken = _run_parameters()
        candidates = ["", *(f"fit{number}." for number in range(2, len(taken) + 3))]
        return next(prefix for prefix in candidates if prefix + "epochs" not in taken)

    def on_epoch_end(self, epoch, logs=None) -> None:
        """Logs the epoch's metrics under Keras's own names, after the prefix."""
        import mlflow

        mlflow.log_metrics({self._prefix + key: float(value) for key, value in (logs or {}).items()}, step=epoch)

    def on_train_end(self, logs=None) -> None:
        """Logs the model if asked, and ends a run that this callback started."""
        import mlflow

        if self.log_model:
            log_model(self.model, "model")
        if self._own_run:
            mlflow.end_run()
            self._own_run = False


def log_hardware(model: keras.Model, *, prefix: str = "") -> None:
    """Logs each distinct hardware of a model to the active run: JSON, and flat searchable parameters.

    Args:
        model: a model from `convert`; a plain model logs nothing.
        prefix: put before names where the run holds other hardware already: its parameters cannot change.
    """
    import mlflow

    described: dict[Hardware, list[str]] = {}
    for layer in hardware_layers(model):
        described.setdefault(layer.hardware, []).append(layer.name)
    if not described:
        return
    names = ["hardware"] if len(described) == 1 else [f"hardware{number}" for number in range(len(described))]
    parameters: dict[str, Any] = {}
    for name, hardware in zip(names, described, strict=True):
        memory = hardware.weight_memory
        parameters[f"{name}.multiplier"] = hardware.circuit.name
        parameters[f"{name}.activation_bits"] = hardware.activation_bits
        parameters[f"{name}.weight_bits"] = hardware.weight_bits
        parameters[f"{name}.bit_error_rate"] = 0.0 if memory is None else memory.rate
        if memory is not None and memory.voltage is not None:
            parameters[f"{name}.voltage"] = memory.voltage
    logged = {key: value for key, value in _run_parameters().items() if key.startswith("hardware")}
    if not logged or logged == {key: str(value) for key, value in parameters.items()}:
        prefix = ""
    mlflow.log_params({prefix + key: value for key, value in parameters.items()})
    for name, hardware in zip(names, described, strict=True):
        mlflow.log_dict(hardware.to_dict(), f"{prefix}{name}.json")
    if len(described) > 1:
        mlflow.log_dict(dict(zip(names, described.values(), strict=True)), f"{prefix}hardware_of_layers.json")


def _run_parameters() -> dict[str, str]:
    """What the active run holds already."""
    import mlflow

    run = mlflow.active_run()
    return {} if run is None else mlflow.get_run(run.info.run_id).data.params


def log_evaluation(evaluation, name: str) -> None:
    """Logs an `Evaluation` to the active run: mean, spread, worst chip as metrics, every chip as a table."""
    import mlflow

    mlflow.log_metrics(
        {
            f"{name}.mean": evaluation.mean,
            f"{name}.std": evaluation.std,
            f"{name}.worst": evaluation.worst,
        }
    )
    chips = list(range(len(evaluation.accuracies)))
    mlflow.log_table({"chip": chips, "accuracy": evaluation.accuracies.tolist()}, f"{name}_chips.json")


def log_model(model: keras.Model, name: str, *, example=None):
    """Logs a model to the active run as `mlflow.pyfunc`: our loader module and the `.keras` file as data.

    It loads in a fresh process with `mlflow.pyfunc.load_model`, without a pickle.

    Args:
        model: any Keras model.
        name: of the logged model.
        example: an input sample (batch of one or more) for signature and input example; optional.

    Returns:
        MLflow's `ModelInfo`.
    """
    import mlflow

    from axtrain import __version__

    signature = None
    if example is not None:
        example = np.asarray(example)
        signature = mlflow.models.infer_signature(example, model.predict(example, verbose=0))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        return mlflow.pyfunc.log_model(
            name=name,
            loader_module=LOADER,
            data_path=str(path),
            signature=signature,
            input_example=example,
            pip_requirements=[f"axtrain=={__version__}"],
        )
