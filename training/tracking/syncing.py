"""What waits in an outbox, sent."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from axtrain.training.tracking.delivery import Delivery
from axtrain.training.tracking.outbox import OUTBOX, Outbox, Owner, count, journals
from axtrain.training.tracking.store import UPLOAD, patience, refusal, resolved


@dataclass(frozen=True, kw_only=True)
class Sent:
    """What `sync` did for one run."""

    owner: Owner
    """The run."""
    counts: dict[str, int]
    """How many metric values, parameters, tags, files, models, child runs and ends of runs the store now has."""
    left: int
    """How many entries still wait."""
    problem: str | None
    """Why, in words; `None` where nothing is left."""


def sync(
    folder: str | os.PathLike[str] = OUTBOX, *, tracking_uri: str | os.PathLike[str] | None = None
) -> tuple[Sent, ...]:
    """Sends what waits in an outbox, each run's entries in the order in which they were logged.

    What was sent is removed at once, and nothing is logged twice, whenever this is interrupted: a second call goes
    on. An entry that the store refuses stays, and those after it are sent.

    Args:
        folder: the outbox.
        tracking_uri: where to send; `None` is where each run is. Needed where the store has moved, or its URI
            holds a password, which is not written down.

    Returns:
        a `Sent` for each run; none where nothing waits.

    Raises:
        ValueError: the folder does not exist where it is not the default one, or holds what is no outbox.
    """
    if not Path(folder).is_dir() and str(folder) != OUTBOX:
        raise ValueError(f"There is no such outbox. Received: {folder}")
    deliveries: dict[str, Delivery] = {}
    done = []
    for journal in journals(folder):
        uri = resolved(journal.owner.tracking_uri if tracking_uri is None else tracking_uri)
        if uri not in deliveries:
            deliveries[uri] = Delivery(uri)
        done.append(_sent(journal, deliveries[uri]))
    return tuple(done)


def _sent(journal: Outbox, delivery: Delivery) -> Sent:
    counts: Counter[str] = Counter()
    problem = None
    with journal.sending() as alone:
        if not alone:
            left = len(journal.entries())
            return Sent(owner=journal.owner, counts={}, left=left, problem="another process is sending it")
        try:
            with patience():
                delivery.client.get_run(journal.owner.run_id)
        except Exception as error:
            return Sent(
                owner=journal.owner, counts={}, left=len(journal.entries()), problem=refusal(error) or str(error)
            )
        for entry in journal.entries():
            held = count(entry.content, entry.files)
            try:
                with patience(UPLOAD if entry.files else 10):
                    delivery.deliver(entry.content, entry.owner, entry.files)
            except Exception as error:  # the others may still go
                problem = problem or refusal(error) or str(error)
                continue
            journal.drop(entry)
            counts += held
        left = len(journal.entries())
    return Sent(owner=journal.owner, counts=dict(counts), left=left, problem=problem)
