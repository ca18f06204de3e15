"""What was asked of a command, kept beside what it found."""

from __future__ import annotations

import json
import platform
import shlex
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from axtrain.noise_models.files import write_whole

COMMAND = "axtrain-command-1"
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
        "finished": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    }


def write_record(folder: Path) -> None:
    """Writes the record to `command.json` in a folder of results."""
    write_whole(folder / "command.json", json.dumps(command_record(), indent=1).encode())


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
