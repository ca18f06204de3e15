"""`run`: a new run of one's own, or one that goes on after a kill."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from axtrain.training.tracking.delivery import Delivery
from axtrain.training.tracking.open_run import OpenedRun, owner_of, take_over
from axtrain.training.tracking.outbox import OUTBOX
from axtrain.training.tracking.sending import Sender
from axtrain.training.tracking.store import at, patience, refusal, resolved, without_password


class RootRun(OpenedRun):
    """What `run` gives."""

    def __init__(self, name, experiment, tracking_uri, run_id, outbox, tags) -> None:
        super().__init__()
        self._asked = name, experiment, run_id, tags
        self._tracking_uri, self._outbox = tracking_uri, outbox

    def _open(self) -> None:
        import mlflow

        active = mlflow.active_run()
        if active is not None:
            raise ValueError(
                "An MLflow run is open already; make a child of it with `run.child(...)`, or end it with "
                f"mlflow.end_run(). Received: an open run {active.info.run_name!r} ({active.info.run_id})"
            )
        uri = resolved(self._tracking_uri)
        if self._tracking_uri is not None:
            self._stack.enter_context(at(uri))
        delivery = Delivery(uri)
        try:
            with patience():
                self._begin(mlflow, delivery)
        except Exception as error:
            reason = refusal(error)
            if reason is None:
                raise
            raise ConnectionError(
                f"The tracking server cannot be used: {reason}. Start it (`mlflow server`), give another "
                "tracking_uri, or unset MLFLOW_TRACKING_URI for a local store. "
                f"Received: tracking_uri={without_password(uri)!r}"
            ) from error

    def _begin(self, mlflow, delivery: Delivery) -> None:
        name, experiment, run_id, tags = self._asked
        run_id = run_id or os.environ.get("MLFLOW_RUN_ID")
        uri = without_password(delivery.tracking_uri)
        if run_id is None:
            number = None if experiment is None else _experiment(delivery.client, experiment)
            begun = mlflow.start_run(run_name=name, experiment_id=number, tags=tags)
            delivery.begun(begun.info.run_id)
        else:
            before = _existing(delivery.client, run_id, experiment, uri)
            sender = Sender(owner_of(before, uri), self._outbox, delivery)
            if sender.waits and sender.catch_up(at_once=True):  # what an earlier process could not send
                before = delivery.client.get_run(run_id)
            take_over(self, before)
            begun = mlflow.start_run(run_id=run_id, run_name=name, tags=tags)
        self.run_id, self.name = begun.info.run_id, begun.info.run_name
        self._sender = Sender(owner_of(begun, uri), self._outbox, delivery)

    def _close(self, status: str) -> None:
        super()._close(status)
        self.sender.tell_what_waits()


def run(
    name: str | None = None,
    *,
    experiment: str | None = None,
    tracking_uri: str | os.PathLike[str] | None = None,
    run_id: str | None = None,
    outbox: str | os.PathLike[str] = OUTBOX,
    tags: Mapping[str, Any] | None = None,
) -> RootRun:
    """An MLflow run for `with`: what belongs to a piece of hardware and the network on it, in one place.

    Inside, it is MLflow's active run, so `mlflow.log_*` and `callbacks.MLflow()` log to it too. A block that ends
    marks it FINISHED, an exception FAILED, Ctrl-C KILLED. After a kill the same script with `run_id` goes on:
    it logs what is missing, and nothing twice.

    A server that is down at the start is an error within seconds. One that goes down later stops nothing: what it
    did not take waits in the outbox, in order, and is sent when it is back, by this run or by `axtrain track sync`.
    Only what goes through the run waits; `mlflow.log_*` itself would try for minutes, then raise.

    Args:
        name: of the run; `None` lets MLflow name it.
        experiment: its name, made if there is none; `None` is MLflow's current one.
        tracking_uri: of the store; `None` is MLflow's choice.
        run_id: of a run to go on with.
        outbox: folder for what could not be sent.
        tags: of the run.

    Returns:
        a `Run`, open inside `with`.

    Raises:
        ConnectionError: the server does not answer.
        ValueError: another run is open, no run of this id, or it is in another experiment.

    Examples:
        >>> import tempfile, axtrain as ax
        >>> hardware = ax.Hardware(multiplier=ax.multipliers.get("drum4"))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with ax.tracking.run("first", experiment="doc", tracking_uri=f"sqlite:///{folder}/mlflow.db") as run:
        ...         run.hardware(hardware)
        ...         run.log_metrics({"accuracy": 0.97})
        ...         run.params["hardware.multiplier"]
        'drum4'
    """
    return RootRun(name, experiment, tracking_uri, run_id, outbox, None if tags is None else dict(tags))


def _experiment(client, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        return client.create_experiment(name)
    if found.lifecycle_stage != "active":
        raise ValueError(f"The experiment was deleted; restore it, or give another name. Received: {name!r}")
    return found.experiment_id


def _existing(client, run_id: str, experiment: str | None, uri: str):
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise ValueError(f"No run of this id is at {uri}. Received: run_id={run_id!r}") from error
    if found.info.lifecycle_stage != "active":
        raise ValueError(f"The run was deleted; restore it first. Received: run_id={run_id!r}")
    if experiment is not None and client.get_experiment(found.info.experiment_id).name != experiment:
        raise ValueError(f"The run is in another experiment. Received: run_id={run_id!r}, experiment={experiment!r}")
    return found
