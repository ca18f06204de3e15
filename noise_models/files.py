"""Files and folders that are whole or absent: written beside their place, then moved there in one step.

What a killed process left behind is found by its name, ``.axtrain-...``, and by its lock, which ended with the process;
the next write into the same folder removes it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_PREFIX = ".axtrain-"
_OLD = 24 * 3600  # seconds after which a temporary file without a lock is taken for left behind (chosen here)
_CURRENT_FOLDER, _EXCHANGE = -100, 2  # AT_FDCWD; RENAME_EXCHANGE of Linux, RENAME_SWAP of macOS


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary file beside `path`, moved there when the block ends well and removed when it does not.

    The temporary name keeps the suffix, since many writers choose their format by it. A symbolic link stays, and what
    it points to is written.

    Raises:
        OSError: a place that cannot be written, before the block; within it always with a file's name.
    """
    target = _target(path)
    if target.is_dir():
        raise IsADirectoryError(f"A folder lies where a file is to be written; choose another name. Received: {target}")
    with _temporary(lambda: _new_file(target)) as temporary, _named(target):
        yield temporary
        temporary.chmod(0o666 & ~_mask())
        os.replace(temporary, target)


@contextmanager
def whole_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary folder beside `path`, which takes its place when the block ends well and is removed when it does not.

    Where a folder lies there, the two change places in one step (Linux and macOS) and the old one is deleted after it.
    Elsewhere the old one is moved aside first, and comes back at the next call if the process ends between the two.

    Raises:
        OSError: as for `whole_file`.
    """
    target = _target(path)
    aside = target.with_name(f"{_PREFIX}before-{hashlib.sha256(target.name.encode()).hexdigest()[:16]}")
    if aside.exists() and not target.exists():
        os.replace(aside, target)
    shutil.rmtree(aside, ignore_errors=True)
    with _temporary(lambda: Path(tempfile.mkdtemp(prefix=_PREFIX, dir=target.parent))) as temporary, _named(target):
        yield temporary
        temporary.chmod(0o777 & ~_mask())
        if not target.exists():
            os.replace(temporary, target)
        elif not _exchanged(temporary, target):
            os.replace(target, aside)
            try:
                os.replace(temporary, target)
            finally:
                if not target.exists():
                    os.replace(aside, target)
            shutil.rmtree(aside)


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes `content` to `path`, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


def save_figure(figure: Any, path: str | os.PathLike[str]) -> None:
    """Writes a matplotlib `Figure`; the suffix chooses the format."""
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=150)


def _target(path: str | os.PathLike[str]) -> Path:
    """The place that a path means, links followed; raises where its name is impossible, and makes its folder."""
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        os.lstat(target)  # refuses a name that is too long, before there is something to lose
    _remove_left_behind(target.parent)
    return target


@contextmanager
def _temporary(make: Callable[[], Path]) -> Iterator[Path]:
    """What `make` makes, locked as long as it is needed; whatever lies there at the end is removed."""
    while True:
        path = make()
        lock = _lock(path)
        if path.exists():
            break
        if lock is not None:  # another process took it for left behind before it had its lock
            os.close(lock)
    try:
        yield path
    finally:
        try:
            _remove(path)
        finally:
            if lock is not None:
                os.close(lock)


def _new_file(target: Path) -> Path:
    suffix = target.suffix if len(target.suffix) < 16 else ""  # a name has 255 bytes
    handle, name = tempfile.mkstemp(prefix=_PREFIX, suffix=suffix, dir=target.parent)
    os.close(handle)
    return Path(name)


def _lock(path: Path, wait: bool = True) -> int | None:
    """A handle that locks a file or folder until it is closed; `None` without locks, or where another holds it."""
    if fcntl is None:
        return None
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:  # held by another, or a file system without locks
        os.close(handle)
        return None
    return handle


def _remove_left_behind(folder: Path) -> None:
    """Removes the temporary files and folders of processes that are gone."""
    try:
        names = [name for name in os.listdir(folder) if name.startswith(_PREFIX) and "-before-" not in name]
    except OSError:  # a folder that may be written but not listed
        return
    for name in names:
        path = folder / name
        lock = _lock(path, wait=False)
        try:
            if lock is not None or (fcntl is None and time.time() - path.stat().st_mtime > _OLD):
                _remove(path)
        except OSError:  # another process was faster, or it is another's
            pass
        finally:
            if lock is not None:
                os.close(lock)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _exchanged(one: Path, other: Path) -> bool:
    """Lets two folders change places in one step, where the system can; else False."""
    if os.name == "nt":
        return False
    import ctypes

    system, names = ctypes.CDLL(None, use_errno=True), (os.fsencode(one), os.fsencode(other))
    if hasattr(system, "renameat2"):
        done = system.renameat2(_CURRENT_FOLDER, names[0], _CURRENT_FOLDER, names[1], _EXCHANGE)
    elif hasattr(system, "renamex_np"):
        done = system.renamex_np(*names, _EXCHANGE)
    else:
        return False
    return done == 0


@contextmanager
def _named(target: Path) -> Iterator[None]:
    """Gives an error of the system the name of the file, which a full disk's error lacks."""
    try:
        yield
    except OSError as error:
        if error.filename is None and str(target) not in str(error):
            raise OSError(error.errno, error.strerror or str(error), str(target)) from error
        raise


def _mask() -> int:
    """The permissions that new files do not get: temporary ones are private, a result is like any other new file."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
