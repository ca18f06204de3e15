"""What was asked of a command, kept beside what it found."""

from __future__ import annotations

import json
import platform
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from axtrain.noise_models.files import write_whole
from axtrain.noise_models.reading import read_json

COMMAND = "axtrain-command-1"
_RECORD = "command.json"
_SOFTWARE = ("axtrain", "tensorflow", "keras", "numpy", "numba", "mlflow")


def command_record() -> dict[str, Any]:
    """The command that is running: as one would type it, with all its settings, and the versions of the software."""
    context = click.get_current_context()
    typed, settings = context.command_path.split(), {}
    for parameter in context.command.params:
        name = str(parameter.name)
        value = context.params.get(name)
        settings[name] = _text(value)
        if isinstance(parameter, click.Argument):
            typed.append(_text(value))
        elif context.get_parameter_source(name) is not ParameterSource.DEFAULT and value is not None:
            flag = max(parameter.opts, key=len)
            values = value if parameter.multiple else [value]
            typed += [flag] if value is True else [word for one in values for word in (flag, _text(one))]
    return {
        "format": COMMAND,
        "command": shlex.join(typed),
        "settings": settings,
        "versions": {"python": platform.python_version(), **dict(_versions())},
        "finished": _now(),
    }


@contextmanager
def results(folder: Path, *names: str) -> Iterator[None]:
    """A folder of results, with the record of the command that is running in `command.json`.

    The record lists the files that commands wrote there, from the start on, so that an interrupted command may be
    called again. No other file is replaced.

    Args:
        folder: to write into.
        names: of the files that the block writes.

    Raises:
        FileExistsError: one of these names is another's.
    """
    record = folder / _RECORD
    ours, inputs = _listed(record, names), {path.resolve() for path in given_files()}
    present = [name for name in (*names, _RECORD) if (folder / name).exists()]
    others = [name for name in present if name not in ours or (folder / name).resolve() in inputs]
    if others:
        raise FileExistsError(
            "Not overwriting an input, or what no axtrain command wrote; choose another --out, or move it away. "
            f"Received: {folder} with {', '.join(others)}"
        )
    described = {**command_record(), "files": sorted({*ours, *names, _RECORD})}
    write_whole(record, json.dumps({**described, "finished": "not yet"}, indent=1).encode())
    try:
        yield
    except Exception:
        if not any((folder / name).exists() for name in names):
            record.unlink()
            with suppress(OSError):  # figures that are kept
                folder.rmdir()
        raise
    write_whole(record, json.dumps({**described, "finished": _now()}, indent=1).encode())


def given_files() -> Iterator[Path]:
    """The files that the command which is running reads."""
    context = click.get_current_context()
    for parameter in context.command.params:
        value = context.params.get(str(parameter.name))
        if not isinstance(parameter.type, click.Path) or parameter.type.exists:
            yield from (one for one in (value if isinstance(value, tuple) else [value]) if isinstance(one, Path))


def _listed(record: Path, names: tuple[str, ...]) -> set[str]:
    """The files that a record of ours lists, `names` where it lists none, as earlier versions; nothing without one."""
    try:
        content = read_json(record, "the record of a command", "move it away")
    except (ValueError, OSError):
        return set()
    return {_RECORD, *content.get("files", names)} if content.get("format") == COMMAND else set()


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(map(_text, value))
    return "" if value is None else str(value)


def _versions():
    for name in _SOFTWARE:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            if name == "axtrain":
                from axtrain import __version__

                yield name, __version__
