"""A run while it is open: between the beginning and the end of a `with` block, and which one that is now."""

from __future__ import annotations

import contextvars
import os
from contextlib import ExitStack

from axtrain.training.tracking.delivery import Delivery
from axtrain.training.tracking.outbox import OUTBOX, Owner
from axtrain.training.tracking.runs import Run
from axtrain.training.tracking.sending import Sender
from axtrain.training.tracking.store import refusal, resolved, without_password

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
    joined._sender = Sender(owner_of(active, without_password(uri)), folder, delivery)
    with joined._sender.impatient():
        take_over(joined, delivery.client.get_run(active.info.run_id))
    joined.run_id, joined.name, joined.resumed, joined.finished = active.info.run_id, active.info.run_name, False, True
    return joined


def take_over(run: Run, before) -> None:
    """What an earlier process logged."""
    run._params, run.tags_before = dict(before.data.params), dict(before.data.tags)
    run.resumed, run.finished = True, before.info.status == "FINISHED"


def owner_of(run, uri: str) -> Owner:
    """Of the outbox of MLflow's `Run` at a store."""
    info = run.info
    return Owner(run_id=info.run_id, name=info.run_name, experiment_id=info.experiment_id, tracking_uri=uri)
