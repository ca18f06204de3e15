"""What is done to an MLflow store, such that doing it twice leaves what doing it once leaves."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from axtrain.training.tracking.outbox import Owner
from axtrain.training.tracking.store import at

LOCAL = "local-"
"""Before the name of a child run that the store has not numbered yet."""

CHILD = "axtrain.child"
"""Tag by which a child run is known again."""

_INHERITED = ("mlflow.user", "mlflow.source.name", "mlflow.source.type", "mlflow.source.git.commit")
_TABLES = "mlflow.loggedArtifacts"


@dataclass
class _Held:
    """What a run holds already: parameters, and for each metric the values of each step."""

    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, dict[int, set[str]] | None] = field(default_factory=dict)  # `None`: there, not read yet


class Delivery:
    """Delivers entries to a store.

    - A metric is not sent where the run has the same value at the same step; one of an epoch (`once`) not where it
      has any.
    - A parameter is not sent where the run has it; with another value it is an error, or with `keep` left as it is.
    - A child run is known by a tag, a model by another; files replace those of their name.

    Args:
        tracking_uri: of the store.
    """

    def __init__(self, tracking_uri: str) -> None:
        from mlflow import MlflowClient

        self.tracking_uri = tracking_uri
        self.client = MlflowClient(tracking_uri)
        self._held: dict[str, _Held] = {}
        self._ids: dict[str, str] = {}

    def begun(self, run_id: str) -> None:
        """Says that this process made the run, so that nothing is there to ask for."""
        self._held[run_id] = _Held()

    def deliver(self, content: dict[str, Any], owner: Owner, files: Path | None = None) -> Any:
        """Delivers one entry.

        Args:
            content: `op`, `run`, and what belongs to it.
            owner: the run that the entry's journal belongs to.
            files: folder of the files that belong to it.

        Returns:
            for `create` the new run's id, for `model` its `ModelInfo`.

        Raises:
            ValueError: a parameter with another value, or a child run that was never made.
            Exception: whatever MLflow raises; `store.refusal` tells what it means.
        """
        action = getattr(self, f"_{content['op']}")
        with at(self.tracking_uri):  # some of MLflow's client's calls ask the tracking URI, not the client
            if content["op"] == "create":
                return action(content, owner)
            run_id = self._id(content["run"], owner)
            try:
                return action(run_id, content, files)
            except BaseException:
                self._held.pop(run_id, None)  # it may have arrived, and only the answer not
                raise

    def _id(self, run: str, owner: Owner) -> str:
        """The store's number of a run."""
        if run.startswith(LOCAL) and run not in self._ids:
            found = self._find(f"tags.`axtrain.made_as` = '{run}'", owner)
            if found is None:
                raise ValueError(f"The child run that this belongs to was not made yet. Received: {run}")
            self._ids[run] = found
        return self._ids.get(run, run)

    def _find(self, filter_string: str, owner: Owner) -> str | None:
        found = self.client.search_runs([owner.experiment_id], filter_string, max_results=1)
        return found[0].info.run_id if found else None

    def _create(self, content: dict[str, Any], owner: Owner) -> str:
        parent = self._id(content["parent"], owner)
        known = f"tags.`{CHILD}` = '{content['key']}' and tags.`mlflow.parentRunId` = '{parent}'"
        run_id = self._find(known, owner)
        if run_id is None:
            above = self.client.get_run(parent).data.tags
            tags = {name: above[name] for name in _INHERITED if name in above}
            tags |= {CHILD: content["key"], "axtrain.made_as": content["run"], "mlflow.parentRunId": parent}
            made = self.client.create_run(
                owner.experiment_id, content["start"], tags | content["tags"], content["name"]
            )  # fmt: skip
            run_id = made.info.run_id
            self.begun(run_id)
        else:
            self.client.set_tag(run_id, "axtrain.made_as", content["run"])
        self._ids[content["run"]] = run_id
        return run_id

    def _metrics(self, run_id: str, content: dict[str, Any], files: Path | None) -> None:
        from mlflow.entities import Metric

        held = self._of(run_id)
        new = []
        for key, value, timestamp, step in content["metrics"]:
            there = self._history(run_id, held, key).setdefault(step, set())
            if (content["once"] and there) or _written(value) in there:
                continue
            new.append(Metric(key, value, timestamp, step))
            there.add(_written(value))
        if new:
            self.client.log_batch(run_id, metrics=new)

    def _params(self, run_id: str, content: dict[str, Any], files: Path | None) -> None:
        from mlflow.entities import Param

        held = self._of(run_id).params
        given: dict[str, str] = content["params"]
        differ = {key: value for key, value in given.items() if held.get(key, value) != value}
        if differ and not content["keep"]:
            there = ", ".join(f"{key}={value!r}, there {held[key]!r}" for key, value in differ.items())
            raise ValueError(
                "A parameter of an MLflow run cannot change; log it under another name, or, in a callback, give "
                f"another prefix. Received: {there}"
            )
        new = {key: value for key, value in given.items() if key not in held}
        if new:
            self.client.log_batch(run_id, params=[Param(key, value) for key, value in new.items()])
            held |= new

    def _tags(self, run_id: str, content: dict[str, Any], files: Path | None) -> None:
        from mlflow.entities import RunTag

        self.client.log_batch(run_id, tags=[RunTag(key, value) for key, value in content["tags"].items()])

    def _files(self, run_id: str, content: dict[str, Any], files: Path | None) -> None:
        if content["tables"]:  # first, so that no table is there without being known as one
            known = json.loads(self.client.get_run(run_id).data.tags.get(_TABLES, "[]"))
            described = [{"path": table, "type": "table"} for table in content["tables"]]
            if new := [table for table in described if table not in known]:
                self.client.set_tag(run_id, _TABLES, json.dumps([*known, *new]))
        self.client.log_artifacts(run_id, str(files), content["path"] or None)

    def _model(self, run_id: str, content: dict[str, Any], files: Path | None) -> Any:
        from axtrain.training.tracking.models import deliver_model

        if files is None:
            raise ValueError(f"The files of the model are gone. Received: {content['name']!r}")
        return deliver_model(self.client, run_id, content, files)

    def _end(self, run_id: str, content: dict[str, Any], files: Path | None) -> None:
        if self.client.get_run(run_id).info.status != content["status"]:  # else its time would change
            self.client.set_terminated(run_id, content["status"], content["time"])

    def _of(self, run_id: str) -> _Held:
        if run_id not in self._held:
            data = self.client.get_run(run_id).data
            self._held[run_id] = _Held(dict(data.params), dict.fromkeys(data.metrics))
        return self._held[run_id]

    def _history(self, run_id: str, held: _Held, key: str) -> dict[int, set[str]]:
        found = held.metrics.setdefault(key, {})
        if found is None:
            found = {}
            for metric in self.client.get_metric_history(run_id, key):
                found.setdefault(metric.step, set()).add(_written(metric.value))
            held.metrics[key] = found
        return found


def _written(value: float) -> str:
    """A value such that equal ones are equal, as stores keep them: NaN is one, infinity the largest number."""
    return repr(max(-sys.float_info.max, min(float(value), sys.float_info.max)) if value == value else "nan")
