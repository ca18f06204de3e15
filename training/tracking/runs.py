"""A run: what is logged to it, and the runs below it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from axtrain.training.tracking import content
from axtrain.training.tracking.content import Content
from axtrain.training.tracking.delivery import LOCAL
from axtrain.training.tracking.sending import Sender


class Run:
    """An MLflow run. `axtrain.tracking.run` opens one.

    All that is logged goes to the store at once; what the store does not take waits in the outbox, in its order.
    Logging the same again changes nothing: a script that is run again with `run_id` after a kill fills the gaps.
    """

    run_id: str
    """MLflow's; of a child that was made while the server was gone, a name of our own until the server is back."""
    name: str
    """For people."""
    resumed: bool = False
    """Whether an earlier process began it."""
    finished: bool = False
    """Whether it had ended well when it was resumed."""

    def __init__(self) -> None:
        self._sender: Sender | None = None
        self._params: dict[str, str] = {}
        self.tags_before: dict[str, str] = {}
        self.fit_number: int | None = None
        """Of the last fit that this process logged, from 1; `callbacks.MLflow` counts."""

    @property
    def sender(self) -> Sender:
        """Where everything goes.

        Raises:
            ValueError: the run is not open.
        """
        if self._sender is None:
            raise ValueError("This run is not open; log to it inside `with axtrain.tracking.run(...) as run:`.")
        return self._sender

    @property
    def made_offline(self) -> bool:
        """Whether it is a child that the store did not number when it was made."""
        return self.run_id.startswith(LOCAL)

    @property
    def params(self) -> dict[str, str]:
        """The parameters that the run has."""
        return dict(self._params)

    def log_params(self, values: Mapping[str, Any], *, keep: bool = False) -> None:
        """Logs parameters.

        Args:
            values: by name.
            keep: those that the run has already stay as they are, else another value is an error.

        Raises:
            ValueError: a parameter with another value.
        """
        given = {key: str(value) for key, value in values.items()}
        new = {key: value for key, value in given.items() if self._params.get(key) != value}
        if keep:
            new = {key: value for key, value in new.items() if key not in self._params}
        if new:
            self._send("params", params=new, keep=keep)
            self._params = new | self._params

    def log_metrics(self, values: Mapping[str, float], step: int = 0, *, once: bool = False) -> None:
        """Logs metrics of a step.

        Args:
            values: by name.
            step: such as the epoch.
            once: not where the run has a value at this step already; else not where it has the same value there.
        """
        now = _now()
        if values:
            self._send("metrics", metrics=[[key, float(one), now, int(step)] for key, one in values.items()], once=once)

    def log_tags(self, values: Mapping[str, Any]) -> None:
        """Sets tags, which unlike parameters may change."""
        if values:
            self._send("tags", tags={key: str(value) for key, value in values.items()})

    def artifact(self, path: str | os.PathLike[str], folder: str = "") -> None:
        """Logs a file, or all that is in a folder; it replaces what has the same name.

        Args:
            path: of the file or folder.
            folder: of the run's artifacts; the top by default.

        Raises:
            FileNotFoundError: nothing there.
        """
        source = Path(path)
        target = content.checked_name(folder) if folder else ""
        if source.is_dir():
            self._send("files", source, path=target, tables=[])
            return
        if not source.is_file():
            raise FileNotFoundError(f"There is no such file or folder to log. Received: {source}")
        with tempfile.TemporaryDirectory() as staged:
            shutil.copy2(source, staged)
            self._send("files", Path(staged), path=target, tables=[])

    def json(self, value: Any, name: str) -> None:
        """Logs a JSON-able value as the artifact `name`."""
        self._files({name: json.dumps(value, indent=1).encode()})

    def table(self, columns: Mapping[str, Sequence], name: str) -> None:
        """Logs columns of one length as a table, which MLflow shows and `mlflow.load_table` reads.

        Args:
            columns: by name.
            name: of the artifact, `.json`.

        Raises:
            ValueError: columns of different lengths, or another suffix.
        """
        if not name.endswith(".json"):
            raise ValueError(f"A table is written as .json. Received: {name!r}")
        self._files({name: content.as_table(columns)}, (name,))

    def figure(self, figure: Any, name: str) -> None:
        """Logs a matplotlib `Figure`.

        Args:
            figure: such as a result's `.plot()`.
            name: `"sweep"` is written to `figures/sweep.png`; a suffix chooses another format.
        """
        path = Path(name)
        named = name if path.suffix else f"{name}.png"
        where = named if len(path.parts) > 1 else f"figures/{named}"
        self._files({where: content.as_picture(figure, Path(named).suffix[1:])})

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
        from axtrain.training.tracking.opening import ChildRun

        return ChildRun(self, name, dict(tags or {}))

    def _result(self, described: Content, kind: str, name: str) -> None:
        child = self.make(name, f"{kind}-{name}-{described.digest}", {"axtrain.kind": kind})
        child.log_params(described.params, keep=True)
        if described.metrics:
            now = _now()
            rows = enumerate(described.metrics)
            child._send(
                "metrics", metrics=[[k, float(v), now, step] for step, row in rows for k, v in row.items()], once=True
            )
        child._files(described.files, described.tables)
        child.end("FINISHED")
        self.log_metrics({f"{name}.{key}": value for key, value in described.summary.items()})

    def make(self, name: str, known_as: str, tags: dict[str, str]) -> Run:
        """A child in the store, or in the outbox; the same one for the same `known_as`."""
        child = Run()
        child._sender, child.name, child.run_id = self.sender, name, f"{LOCAL}{uuid.uuid4().hex}"
        key = hashlib.sha256(known_as.encode()).hexdigest()[:32]
        now = _now()
        made = child._send("create", parent=self.run_id, name=name, key=key, tags=tags, start=now)
        child.run_id = made or child.run_id
        return child

    def end(self, status: str) -> None:
        """Marks the run as ended."""
        self._send("end", status=status, time=_now())

    def _files(self, files: Mapping[str, bytes], tables: Sequence[str] = ()) -> None:
        with tempfile.TemporaryDirectory() as staged:
            for name, data in files.items():
                path = Path(staged) / content.checked_name(name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            self._send("files", Path(staged), path="", tables=list(tables))

    def _send(self, op: str, files: Path | None = None, **entry: Any) -> Any:
        return self.sender.send({"op": op, "run": self.run_id, **entry}, files)


def _now() -> int:
    """As MLflow counts: milliseconds since 1970."""
    return time.time_ns() // 1_000_000
