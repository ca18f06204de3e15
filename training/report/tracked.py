"""A run read from MLflow: its parameters, metrics, artifacts and the runs within it. Nothing is written there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlparse

from axtrain.training.report.folder import LARGEST, SUFFIXES, take_folder
from axtrain.training.report.run import Run

_PARENT = "mlflow.parentRunId"
_NOT_OURS = ("system/",)  # the machine's own load
_MOST = 500  # artifacts of a run that are looked at (chosen here)


def read_tracked(run_id: str, folder: Path, tracking_uri: str | None = None) -> Run:
    """A run of an MLflow store.

    Args:
        run_id: 32 hexadecimal digits.
        folder: empty; the artifacts that can be shown are copied there.
        tracking_uri: of the store; `None` is MLflow's own choice.

    Raises:
        ValueError: no store there, or no such run in it.
    """
    import mlflow

    uri = tracking_uri or mlflow.get_tracking_uri()
    _check_store(uri)
    client = mlflow.MlflowClient(tracking_uri=uri)
    try:
        found = client.get_run(run_id)
    except mlflow.MlflowException as error:
        raise ValueError(f"MLflow has no such run in {uri}: {error.message}. Received: {run_id!r}") from error
    run = Run(name=found.info.run_name or run_id, where=f"MLflow run {run_id} in {uri}", about=_about(found))
    _take(run, client, found, folder / "run")
    filtered = f"tags.`{_PARENT}` = '{run_id}'"
    children = client.search_runs([found.info.experiment_id], filter_string=filtered, order_by=["start_time ASC"])
    for number, child in enumerate(children):
        name = child.info.run_name or child.info.run_id
        run.children.append((name, child.info.status.lower(), _single(client, child)[0]))
        _take_artifacts(run, client, child, folder / f"child{number}", f"{name}/")
    return run


def _check_store(uri: str) -> None:
    """A client would make a store that is not there; a report only reads."""
    parts = urlparse(uri)
    path = {"sqlite": uri.partition("///")[2], "file": parts.path, "": uri}.get(parts.scheme)
    if path is not None and not Path(path).exists():
        raise ValueError(
            f"There is no MLflow store at {path}. Run this where the run was made, or give --tracking-uri. "
            f"Received: {uri!r}"
        )


def _about(found: Any) -> dict[str, str]:
    info = found.info
    about = {"state": info.status.lower(), "experiment": info.experiment_id}
    if info.start_time is not None:
        about["started"] = datetime.fromtimestamp(info.start_time / 1e3, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    if info.end_time is not None:
        about["took"] = f"{(info.end_time - info.start_time) / 1e3:.0f} s"
    source = found.data.tags.get("mlflow.source.name")
    return about if source is None else {**about, "source": source}


def _take(run: Run, client: Any, found: Any, folder: Path) -> None:
    if found.data.params:
        run.settings["parameters"] = dict(sorted(found.data.params.items()))
    numbers, trainings = _single(client, found)
    run.figures |= numbers
    run.trainings |= trainings
    _take_artifacts(run, client, found, folder, "")
    for name in ("axtrain", "tensorflow", "keras"):
        version = found.data.tags.get(f"{name}.version") or found.data.tags.get(name)
        if version is not None:
            run.versions.setdefault(name, version)


def _single(client: Any, found: Any) -> tuple[dict[str, float], dict[str, dict[str, Any]]]:
    """Metrics of one figure each; and those of several steps, as trainings by what stands before their last dot."""
    numbers: dict[str, float] = {}
    by_prefix: dict[str, dict[str, dict[int, float]]] = {}
    for name, last in sorted(found.data.metrics.items()):
        if name.startswith(_NOT_OURS):
            continue
        steps = {one.step: one.value for one in client.get_metric_history(found.info.run_id, name)}
        prefix, _, metric = name.rpartition(".")
        if len(steps) > 1 or metric.removeprefix("val_") == "loss":
            by_prefix.setdefault(prefix or "training", {})[metric] = steps
        else:
            numbers[name] = last
    trainings = {}
    for prefix, curves in by_prefix.items():
        epochs = sorted(set.union(*(set(steps) for steps in curves.values())))
        history = {name: [steps.get(epoch, float("nan")) for epoch in epochs] for name, steps in curves.items()}
        trainings[prefix] = {"epochs": epochs, "history": history}
    return numbers, trainings


def _take_artifacts(run: Run, client: Any, found: Any, folder: Path, prefix: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for number, path in enumerate(_artifacts(client, found.info.run_id)):
            if number == _MOST:
                run.notes.append(f"more than {_MOST} artifacts: only these were looked at")
                break
            target = folder / PurePosixPath(path).parent  # MLflow gives a file its last name alone
            target.mkdir(parents=True, exist_ok=True)
            client.download_artifacts(found.info.run_id, path, str(target))
    except Exception as error:  # a store may raise what its client raises; the page is made of what is there
        run.notes.append(f"artifacts of {found.info.run_id} could not be read: {error}")
    take_folder(run, folder, prefix)


def _artifacts(client: Any, run_id: str, path: str | None = None) -> Iterator[str]:
    for item in client.list_artifacts(run_id, path):
        if item.is_dir:
            yield from _artifacts(client, run_id, item.path)
        elif (item.path.endswith(SUFFIXES) or item.path.endswith("integers.npz")) and (item.file_size or 0) <= LARGEST:
            yield item.path


def is_run_id(text: str) -> bool:
    """Whether a text looks like the id of an MLflow run."""
    return re.fullmatch(r"[0-9a-f]{32}", text) is not None
