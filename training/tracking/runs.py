"""A run of this field: hardware, what was measured, exports and models, and the runs below it."""

from __future__ import annotations

import hashlib
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from axtrain.training.tracking import content
from axtrain.training.tracking.basic_run import BasicRun, now
from axtrain.training.tracking.content import Content
from axtrain.training.tracking.delivery import LOCAL


class Run(BasicRun):
    """An MLflow run. `axtrain.tracking.run` opens one.

    All that is logged goes to the store at once; what the store does not take waits in the outbox, in its order.
    Logging the same again changes nothing: a script that is run again with `run_id` after a kill fills the gaps.
    """

    def hardware(self, model: Any, *, prefix: str = "") -> None:
        """Logs each distinct hardware of a model, or one `Hardware`: JSON, and flat parameters to search by.

        Args:
            model: from `convert`; a plain one logs nothing.
            prefix: put before the names where the run holds other hardware already: parameters cannot change.
        """
        described = content.of_hardware(model)
        if not described.params:
            return
        given = {key: str(value) for key, value in described.params.items()}
        held = {key: value for key, value in self._params.items() if key.startswith("hardware")}
        prefix = "" if not held or held == given else prefix
        self.log_params({prefix + key: value for key, value in given.items()})
        self._files({prefix + name: data for name, data in described.files.items()})

    def evaluation(self, result: Any, name: str = "evaluate") -> None:
        """Logs an `Evaluation` as a child run: mean, spread, worst chip, interval, and every chip as a table.

        This run gets `NAME.mean`, `NAME.std` and `NAME.worst`, to compare runs by.
        """
        self._result(content.of_evaluation(result), "evaluate", name)

    def sweep(self, result: Any, name: str = "sweep") -> None:
        """Logs a `Sweep` as a child run: a step of the metrics for each voltage, tables, picture."""
        self._result(content.of_sweep(result), "sweep", name)

    def search(self, result: Any, name: str = "search") -> None:
        """Logs a `SearchResult` as a child run: the chosen hardware of each layer, the played points, picture.

        This run gets `NAME.saving`, `NAME.energy_pj` and `NAME.mean` of the chosen one.
        """
        self._result(content.of_search(result), "search", name)

    def export(self, folder: Any, name: str = "export") -> None:
        """Logs an exported folder, checked against its manifest first.

        Args:
            folder: that `axtrain.export` wrote, or the `Export` that it gave.
            name: of the folder among the artifacts.

        Raises:
            FileNotFoundError, ValueError: not such a folder, or a file in it has changed.
        """
        from axtrain.exporting import read_export

        self.artifact(read_export(getattr(folder, "folder", folder)).folder, name)

    def model(self, model: Any, x: Any = None, *, name: str = "model", registered_name: str | None = None) -> Any:
        """Logs a model as `mlflow.pyfunc`, which `mlflow.pyfunc.load_model` loads in a fresh process.

        Args:
            model: any Keras model.
            x: input samples, or a dictionary of them for several inputs; the first two are the input example, and of
                them and their outputs is the signature.
            name: of the logged model.
            registered_name: also make it a version of this registered model.

        Returns:
            MLflow's `ModelInfo`; `None` where the server is gone.
        """
        from axtrain.training.tracking.models import packed

        with tempfile.TemporaryDirectory() as folder:
            described = packed(model, Path(folder), name=name, x=x, registered_name=registered_name)
            return self._send(described.pop("op"), Path(folder), **described)

    def callback(self, **options: Any) -> Any:
        """A `callbacks.MLflow` that logs to this run.

        Args:
            options: as for it.
        """
        from axtrain.training.tracking.callback import MLflow

        return MLflow(run=self, **options)

    def child(self, name: str | None = None, *, tags: Mapping[str, Any] | None = None) -> Run:
        """A run below this one, for `with`; it ends as `tracking.run` does.

        Args:
            name: by which it is known again where this run is resumed; `None` makes another one each time.
            tags: of the child.
        """
        from axtrain.training.tracking.child_run import ChildRun

        return ChildRun(self, name, dict(tags or {}))

    def _result(self, described: Content, kind: str, name: str) -> None:
        child = self.make(name, f"{kind}-{name}-{described.digest}", {"axtrain.kind": kind})
        child.log_params(described.params, keep=True)
        if described.metrics:
            at = now()
            rows = enumerate(described.metrics)
            child._send(
                "metrics", metrics=[[k, float(v), at, step] for step, row in rows for k, v in row.items()], once=True
            )
        child._files(described.files, described.tables)
        child.end("FINISHED")
        self.log_metrics({f"{name}.{key}": value for key, value in described.summary.items()})

    def make(self, name: str, known_as: str, tags: dict[str, str]) -> Run:
        """A child in the store, or in the outbox; the same one for the same `known_as`."""
        child = Run()
        child._sender, child.name, child.run_id = self.sender, name, f"{LOCAL}{uuid.uuid4().hex}"
        key = hashlib.sha256(known_as.encode()).hexdigest()[:32]
        at = now()
        made = child._send("create", parent=self.run_id, name=name, key=key, tags=tags, start=at)
        child.run_id = made or child.run_id
        return child

    def end(self, status: str) -> None:
        """Marks the run as ended."""
        self._send("end", status=status, time=now())
