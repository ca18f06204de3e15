"""Logging to a run: parameters, metrics, tags and files, on their way to the store or the outbox."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from axtrain.training.tracking import content
from axtrain.training.tracking.delivery import LOCAL
from axtrain.training.tracking.sending import Sender


class BasicRun:
    """What every run takes, whatever it is about: parameters, metrics, tags, files, tables and figures."""

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
        at = now()
        if values:
            self._send("metrics", metrics=[[key, float(one), at, int(step)] for key, one in values.items()], once=once)

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

    def _files(self, files: Mapping[str, bytes], tables: Sequence[str] = ()) -> None:
        with tempfile.TemporaryDirectory() as staged:
            for name, data in files.items():
                path = Path(staged) / content.checked_name(name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            self._send("files", Path(staged), path="", tables=list(tables))

    def _send(self, op: str, files: Path | None = None, **entry: Any) -> Any:
        return self.sender.send({"op": op, "run": self.run_id, **entry}, files)


def now() -> int:
    """As MLflow counts: milliseconds since 1970."""
    return time.time_ns() // 1_000_000
