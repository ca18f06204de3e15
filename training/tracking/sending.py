"""What goes to MLflow at once, and into the outbox where it cannot."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from axtrain.training.tracking.delivery import Delivery
from axtrain.training.tracking.outbox import Outbox, Owner
from axtrain.training.tracking.store import UPLOAD, patience, refusal, without_password

_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 60.0  # seconds between two tries; chosen here
_PROBE = 3  # seconds that a server may take which did not answer before


class TrackingWarning(UserWarning):
    """Something was not sent to the tracking server and waits in the outbox."""


class Sender:
    """Delivers the entries of a run and its children in their order; those that the store does not take wait.

    While a server is gone it is asked again after 5 s, then 10 s, up to every minute, for at most 3 s each time;
    between two tries everything goes straight to the outbox.

    Args:
        owner: the run.
        outbox: folder of the outbox.
        delivery: to the store.
    """

    def __init__(self, owner: Owner, outbox: str | os.PathLike[str], delivery: Delivery) -> None:
        self.owner, self.delivery = owner, delivery
        self.outbox = Outbox(outbox, owner)
        self._pause, self._next, self._gone = _FIRST_PAUSE, 0.0, False

    def send(self, content: dict[str, Any], files: Path | None = None) -> Any:
        """Delivers an entry, or keeps it.

        Returns:
            what `Delivery.deliver` returned; `None` where it was kept.

        Raises:
            ValueError: what no store would take.
        """
        if self.waits and not self.catch_up():
            self.outbox.put(content, files)
            return None
        try:
            return self._delivered(content, files)
        except Exception as error:
            reason = refusal(error)
            if reason is None and files is not None and not isinstance(error, (ValueError, TypeError)):
                reason = str(error)  # each kind of artifact store has errors of its own
            if reason is None:
                raise
            self.outbox.put(content, files)
            self._rest(reason)
            return None

    @property
    def waits(self) -> bool:
        """Whether anything was not sent."""
        return bool(self.outbox.entries())

    def catch_up(self, *, at_once: bool = False) -> bool:
        """Sends what waits, if it is time to try again; whether nothing waits any more.

        Args:
            at_once: whether it is time or not.
        """
        if not at_once and time.monotonic() < self._next:
            return False
        with self.outbox.sending() as alone:
            if not alone:  # `axtrain track sync` is at it
                return False
            for entry in self.outbox.entries():
                try:
                    self._delivered(entry.content, entry.files)
                except Exception as error:  # nothing that waits may end a training
                    self._rest(refusal(error) or str(error))
                    return False
                self.outbox.drop(entry)
        self._pause, self._gone = _FIRST_PAUSE, False
        return True

    def tell_what_waits(self) -> None:
        """Warns at the end of a run whose entries were not all sent."""
        if self.waits:
            warnings.warn(
                f"Not all of run {self.owner.name!r} was sent. When the server is back: axtrain track sync "
                f"{self.outbox.folder.parent}",
                TrackingWarning,
                stacklevel=4,
            )

    @contextmanager
    def impatient(self) -> Iterator[None]:
        """MLflow's client waits for seconds inside, and for few where the server was gone before."""
        with patience(_PROBE, retries=0) if self._gone else patience():
            yield

    def _delivered(self, content: dict[str, Any], files: Path | None) -> Any:
        if files is not None:
            with self.impatient():
                self.delivery.client.get_run(self.owner.run_id)  # a server that is gone is not waited for so long
            with patience(UPLOAD):
                return self.delivery.deliver(content, self.owner, files)
        with self.impatient():
            return self.delivery.deliver(content, self.owner, files)

    def _rest(self, reason: str) -> None:
        self._next = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        if not self._gone:
            self._gone = True
            warnings.warn(
                f"The tracking server at {without_password(self.delivery.tracking_uri)} takes nothing: {reason}. Work "
                f"goes on; what is not sent waits in {self.outbox.folder.parent}, and is sent when the server is back.",
                TrackingWarning,
                stacklevel=4,
            )
