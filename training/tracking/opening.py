"""How runs begin and end: a run of one's own, a child, or one that MLflow has active."""

from __future__ import annotations

import contextvars
import os
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from axtrain.training.tracking.delivery import Delivery
from axtrain.training.tracking.outbox import OUTBOX, Owner
from axtrain.training.tracking.runs import Run
from axtrain.training.tracking.sending import Sender
from axtrain.training.tracking.store import at, patience, refusal, resolved, without_password

FITS_DONE = "axtrain.fits_done"
"""Tag: how many fits of a run came to their end."""

# The innermost open run of this thread or task, as MLflow's own active run; set and put back by `with` alone.
_innermost: contextvars.ContextVar[Run | None] = contextvars.ContextVar("axtrain_run", default=None)


class OpenedRun(Run):
    """A run that `with` begins and ends."""

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()

    def begin(self) -> Run:
        """Opens it."""
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __enter__(self) -> Run:
        self.begin()
        token = _innermost.set(self)
        self._stack.callback(_innermost.reset, token)
        return self

    def __exit__(self, kind, error, traceback) -> None:
        stopped = kind is not None and issubclass(kind, KeyboardInterrupt)
        try:
            self._close("KILLED" if stopped else "FINISHED" if kind is None else "FAILED")
        finally:
            self._stack.close()

    def _open(self) -> None:
        raise NotImplementedError

    def _close(self, status: str) -> None:
        """Ends it in the store and takes it off MLflow's stack, whether or not there is a server."""
        import mlflow

        sender = self.sender
        if sender.waits:
            sender.catch_up(at_once=True)
        active = mlflow.active_run()
        if active is None or active.info.run_id != self.run_id:
            self.end(status)
            return
        try:
            with sender.impatient():
                mlflow.end_run(status)
        except Exception as error:
            if refusal(error) is None:
                raise
            self.end(status)
        else:
            if sender.waits:
                self.end(status)


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
            sender = Sender(_owner(before, uri), self._outbox, delivery)
            if sender.waits and sender.catch_up(at_once=True):  # what an earlier process could not send
                before = delivery.client.get_run(run_id)
            _take_over(self, before)
            begun = mlflow.start_run(run_id=run_id, run_name=name, tags=tags)
        self.run_id, self.name = begun.info.run_id, begun.info.run_name
        self._sender = Sender(_owner(begun, uri), self._outbox, delivery)

    def _close(self, status: str) -> None:
        super()._close(status)
        self.sender.tell_what_waits()


class ChildRun(OpenedRun):
    """What `Run.child` gives."""

    def __init__(self, parent: Run, name: str | None, tags: dict[str, Any]) -> None:
        super().__init__()
        self._parent, self._asked, self._tags = parent, name, tags

    def _open(self) -> None:
        import mlflow

        known_as = f"child-{self._asked}" if self._asked is not None else uuid.uuid4().hex
        tags = {key: str(value) for key, value in self._tags.items()}
        made = self._parent.make(self._asked or f"{self._parent.name}-{uuid.uuid4().hex[:4]}", known_as, tags)
        self._sender, self.name, self.run_id = made.sender, made.name, made.run_id
        if made.made_offline:  # it is not on MLflow's stack then: MLflow would ask the server for it
            return
        try:
            with self.sender.impatient():
                _take_over(self, self.sender.delivery.client.get_run(self.run_id))
                mlflow.start_run(run_id=self.run_id, nested=True)
        except Exception as error:
            if refusal(error) is None:
                raise
        self.resumed = self._parent.resumed


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

    Example:
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


def current(outbox: str | os.PathLike[str] = OUTBOX) -> Run | None:
    """The open run: MLflow's active one, ours or not; `None` where there is none.

    Args:
        outbox: for a run that is not ours.
    """
    import mlflow

    ours, active = _innermost.get(), mlflow.active_run()
    if ours is not None and (active is None or active.info.run_id == ours.run_id or ours.made_offline):
        return ours
    if active is None:
        return None
    uri = resolved(None)
    joined, delivery = Run(), Delivery(uri)
    folder = outbox if ours is None else ours.sender.outbox.folder.parent
    joined._sender = Sender(_owner(active, without_password(uri)), folder, delivery)
    with joined._sender.impatient():
        _take_over(joined, delivery.client.get_run(active.info.run_id))
    joined.run_id, joined.name, joined.resumed, joined.finished = active.info.run_id, active.info.run_name, False, True
    return joined


def _take_over(run: Run, before) -> None:
    """What an earlier process logged."""
    run._params, run.tags_before = dict(before.data.params), dict(before.data.tags)
    run.resumed, run.finished = True, before.info.status == "FINISHED"


def _owner(run, uri: str) -> Owner:
    info = run.info
    return Owner(run_id=info.run_id, name=info.run_name, experiment_id=info.experiment_id, tracking_uri=uri)


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
