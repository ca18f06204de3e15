"""What several commands share: their options, what they silence, and how they end on bad input."""

from __future__ import annotations

import functools
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from axtrain.training.commands.record import given_files

MODEL = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
NEW_FILE = click.Path(dir_okay=False, path_type=Path)


class HardwareChoice(click.ParamType):
    """A hardware description: a file that `Hardware.to_json` wrote, or a name of the catalogue."""

    name = "FILE|NAME"

    def convert(self, value, param, ctx):
        """The file's path, or the name; neither is a usage error."""
        if isinstance(value, Path) or Path(value).is_file():
            return Path(value)
        from axtrain import catalogue

        if value in catalogue.names():
            return value
        try:
            catalogue.card(value)
        except ValueError as error:
            self.fail(f"No file {value!r}. {error}", param, ctx)


class Numbers(click.ParamType):
    """Numbers with commas between them."""

    name = "A,B,..."

    def convert(self, value, param, ctx):
        """A list of floats."""
        if isinstance(value, (list, tuple)):
            return [float(number) for number in value]
        try:
            return [float(number) for number in str(value).split(",")]
        except ValueError:
            self.fail(f"{value!r} is not numbers with commas between them, such as 0.5,0.55,0.6", param, ctx)


HARDWARE = HardwareChoice()
data = click.option("--data", type=MODEL, required=True, help="An .npz file with x_train, y_train, x_test, y_test.")
scale = click.option("--scale", type=float, default=1.0, show_default=True, help="Inputs are divided by this.")
chips = click.option("--chips", type=click.IntRange(1), default=20, show_default=True, help="Chips to measure on.")
seed = click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Same seed, same chips.")
report = click.option("--json", "report", type=NEW_FILE, help="Also write the figures to this file.")


def tracked(command: Callable[..., None]) -> Callable[..., None]:
    """Options to log a command to MLflow; it gets them as `track`, a dictionary for `tracking.run`, or `None`."""

    @click.option("--track", "--mlflow", is_flag=True, help="Log to MLflow: `axtrain track --help`.")
    @click.option("--experiment", help="Of MLflow, made if there is none.  [implies --track]")
    @click.option("--run-id", help="Go on with this run of MLflow.  [implies --track]")
    @click.option("--tracking-uri", help="MLflow's store; by default its own choice.  [implies --track]")
    @functools.wraps(command)
    def wrapped(*arguments: Any, track: bool, **options: Any) -> None:
        chosen = {name: options.pop(name) for name in ("experiment", "run_id", "tracking_uri")}
        asked = track or any(value is not None for value in chosen.values())
        command(*arguments, track=chosen if asked else None, **options)

    return wrapped


@contextmanager
def file_of(hardware: Path | str | None) -> Iterator[Path | None]:
    """The file that describes the hardware; for a name of the catalogue one that is gone afterwards."""
    if not isinstance(hardware, str):
        yield hardware
        return
    from axtrain import catalogue

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hardware.json"
        catalogue.get(hardware).to_json(path)
        yield path


@contextmanager
def quiet_start() -> Iterator[None]:
    """Silences what TensorFlow's C++ says while it is imported; if the import fails, shows it after all."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # a command that says nothing of it sends nothing
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
            import logging

            import keras
            import mlflow  # noqa: F401 - it sets its own log level when imported

            keras.ops.zeros(())  # the first tensor makes TensorFlow look for devices, and talk about them

            for name in ("alembic", "mlflow"):
                logging.getLogger(name).setLevel(logging.WARNING)
        except BaseException:
            said.seek(0)
            os.write(kept, said.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


@contextmanager
def told() -> Iterator[None]:
    """Bad input ends with its message, Ctrl-C with a word about what is kept, a fault of the program with a traceback.

    Bad input is what an error says `Received: ...` of, and what the system refuses.
    """
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _said(warnings.showwarning)
            _check_new_files()
            yield
    except KeyboardInterrupt:
        click.echo("Interrupted. Files are whole or absent; what was kept in a folder is taken up again.", err=True)
        raise SystemExit(130) from None
    except Exception as error:
        if isinstance(error, (OSError, ImportError)) or "Received" in str(error):
            raise click.ClickException(str(error)) from error
        click.echo(
            "This is a fault of axtrain, not of what it was given. Please report it with what follows.", err=True
        )
        raise


def _check_new_files() -> None:
    """Raises FileExistsError where a file to be written is one that the command reads."""
    context = click.get_current_context()
    new = [context.params.get(str(one.name)) for one in context.command.params if one.type is NEW_FILE]
    for path in new:
        if path is not None and path.resolve() in {given.resolve() for given in given_files()}:
            raise FileExistsError(f"Not overwriting an input; give another name. Received: {path}")


def _said(show: Callable[..., None]) -> Callable[..., None]:
    """Our own warnings in words; others as Python shows them."""

    def said(message, category, filename, lineno, file=None, line=None) -> None:
        if category.__module__.startswith("axtrain."):
            click.echo(f"Warning: {message}", err=True)
        else:
            show(message, category, filename, lineno, file, line)

    return said
