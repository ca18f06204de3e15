"""What a tracking server has not taken, on disk: a journal for each run, each entry a file that is whole or absent."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from axtrain.noise_models.files import whole_folder, write_whole
from axtrain.noise_models.reading import read_json, reading

OUTBOX = "axtrain_outbox"
"""The folder, in the current one, where no other is given."""

_FORMAT = "axtrain-outbox-1"


@dataclass(frozen=True, kw_only=True)
class Owner:
    """The run that a journal belongs to; its child runs write into the same one."""

    run_id: str
    """MLflow's."""
    name: str
    """Its name for people."""
    experiment_id: str
    """Of the run and its children."""
    tracking_uri: str
    """Where it is, without a password."""


@dataclass(frozen=True)
class Entry:
    """One thing that was not sent."""

    path: Path
    """Its file."""
    content: dict[str, Any]
    """What `Delivery.deliver` takes."""
    owner: Owner
    """Its run."""

    @property
    def files(self) -> Path | None:
        """The folder of the files that belong to it, if there are any."""
        folder = self.path.with_suffix("")
        return folder if folder.is_dir() else None


class Outbox:
    """The journal of one run.

    Entries are only ever added, and removed one by one as they are sent, so a kill at any moment loses nothing.

    Args:
        folder: of all journals.
        owner: the run.
    """

    def __init__(self, folder: str | os.PathLike[str], owner: Owner) -> None:
        self.folder = Path(folder).absolute() / owner.run_id
        self.owner = owner
        self._last = 0

    def put(self, content: dict[str, Any], files: Path | None = None) -> None:
        """Adds an entry, with a copy of the files in a folder."""
        self._last = max(self._last + 1, time.time_ns())  # in order, even if the clock is set back
        path = self.folder / f"{self._last:020d}-{os.getpid()}.json"
        if files is not None:
            with whole_folder(path.with_suffix("")) as copy:
                shutil.copytree(files, copy, dirs_exist_ok=True)
        write_whole(path, json.dumps({"format": _FORMAT, "owner": asdict(self.owner), **content}).encode())

    def entries(self) -> list[Entry]:
        """What waits, the oldest first."""
        return _entries(self.folder)

    def drop(self, entry: Entry) -> None:
        """Removes what was sent."""
        entry.path.unlink(missing_ok=True)
        shutil.rmtree(entry.path.with_suffix(""), ignore_errors=True)

    @contextmanager
    def sending(self) -> Iterator[bool]:
        """Whether this process alone may send now; an emptied journal is removed at the end."""
        if not self.folder.is_dir():
            yield True
            return
        with (self.folder / ".lock").open("w") as lock:
            try:
                import fcntl

                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # gone with the process that holds it
            except ImportError:  # Windows
                pass
            except BlockingIOError:
                yield False
                return
            yield True
            if not self.entries():
                (self.folder / ".lock").unlink(missing_ok=True)
                for folder in (self.folder, self.folder.parent):
                    try:
                        folder.rmdir()
                    except OSError:  # something was added meanwhile, or another run waits
                        break


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """What waits for one run."""

    owner: Owner
    """The run."""
    counts: dict[str, int]
    """How many metric values, parameters, tags, files, models, child runs, ends of runs."""
    since: float
    """When the oldest was kept, in seconds since 1970."""
    size: int
    """Bytes of all of it."""


def waiting(folder: str | os.PathLike[str] = OUTBOX) -> tuple[Waiting, ...]:
    """What waits in an outbox, a `Waiting` for each run.

    Args:
        folder: the outbox; one that does not exist holds nothing.

    Raises:
        ValueError: a file in it is no entry of an outbox.

    Examples:
        >>> import axtrain as ax
        >>> ax.tracking.waiting("no_such_folder")
        ()
    """
    found = []
    for journal in journals(folder):
        entries = journal.entries()
        files = [path for path in journal.folder.rglob("*") if path.is_file()]
        counts = sum((count(entry.content, entry.files) for entry in entries), Counter())
        found.append(
            Waiting(
                owner=journal.owner,
                counts=dict(counts),
                since=int(re.split(r"\D", entries[0].path.name)[0]) / 1e9,
                size=sum(path.stat().st_size for path in files),
            )
        )
    return tuple(found)


def journals(folder: str | os.PathLike[str]) -> list[Outbox]:
    """The journals that hold something."""
    folders = sorted(path for path in Path(folder).glob("*") if path.is_dir())
    return [Outbox(folder, entries[0].owner) for entries in map(_entries, folders) if entries]


def count(content: dict[str, Any], files: Path | None) -> Counter[str]:
    """What an entry holds, for people."""
    kind = content["op"]
    if kind in ("metrics", "params", "tags"):
        return Counter({{"params": "parameters"}.get(kind, kind): len(content[kind])})
    if kind == "files":
        return Counter(files=sum(path.is_file() for path in files.rglob("*")) if files else 0)
    return Counter({{"create": "child runs", "end": "ends of runs", "model": "models"}[kind]: 1})


def _entries(folder: Path) -> list[Entry]:
    found = []
    for path in sorted(folder.glob("[0-9]*.json")):
        what, remedy = "an entry of an outbox", "move it away"
        try:
            content = read_json(path, what, remedy, finite=False)  # a metric may be NaN
        except FileNotFoundError:  # sent by another process meanwhile
            continue
        with reading(path, what, remedy):
            if content.pop("format", None) != _FORMAT:
                raise ValueError(f"another format than {_FORMAT!r}: {content!r:.200}")
            entry = Entry(path, content, Owner(**content.pop("owner")))
            count(entry.content, entry.files)  # fails where something is missing that sending needs
            if entry.owner.run_id != folder.name:
                raise ValueError(f"an entry of run {entry.owner.run_id!r}")
            found.append(entry)
    return found
