"""The `axtrain` command. Heavy libraries load inside the commands, so that `--help` is instant."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from axtrain import __version__
from axtrain.noise_models.reading import reading
from axtrain.training.commands.exporting import export, verify
from axtrain.training.commands.hardware import hardware
from axtrain.training.commands.improving import search, train
from axtrain.training.commands.measuring import evaluate, summary, sweep
from axtrain.training.commands.multipliers import multipliers
from axtrain.training.commands.options import FOLDER, quiet_start, told
from axtrain.training.commands.record import results
from axtrain.training.commands.reporting import report
from axtrain.training.commands.tracking import track


def _configured(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
    """The options of the commands, from a TOML file."""
    if path is None:
        return
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        with reading(path, "a TOML file", "mend it"):
            settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise click.BadParameter(str(error), ctx, param) from error
    ctx.default_map = _checked(settings, main, str(path))


def _checked(settings: dict[str, Any], command: click.Command, where: str) -> dict[str, Any]:
    """Keys as click names them; a key that means nothing is an error rather than left out."""
    commands = command.commands if isinstance(command, click.Group) else {}
    names = {parameter.name: parameter.name for parameter in command.params if isinstance(parameter, click.Option)}
    for parameter in command.params:
        names |= {option.lstrip("-"): parameter.name for option in parameter.opts if option.startswith("--")}
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if key in commands and isinstance(value, dict):
            found[key] = _checked(value, commands[key], f"{where}: [{key}]")
        elif key in names and command is not main and not isinstance(value, dict):
            found[str(names[key])] = value
        else:
            known = ", ".join(sorted({*commands} if command is main else {*commands, *names}))
            raise click.UsageError(f"{where} has a key that means nothing there: {key!r}. Known: {known}")
    return found


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    callback=_configured,
    is_eager=True,
    expose_value=False,
    help="A TOML file with options: a table for each command, such as [train] epochs = 10.",
)
def main() -> None:
    """Train Keras networks for approximate multipliers and failing memories, and prove that it worked.

    Start with `axtrain demo`. Then `axtrain multipliers` to choose a circuit or `axtrain hardware` a whole
    machine, `axtrain train` to make your own model resilient, `axtrain evaluate` to measure it on many chips,
    `axtrain sweep` to find its lowest voltage, `axtrain search` to choose for every layer, `axtrain export` to
    deploy it, `axtrain verify` to check what was deployed, and `axtrain report` to show what came out. `axtrain
    track` is for runs in MLflow.
    """


@main.command(short_help="The whole job on real data, in half a minute.")
@click.option(
    "--out",
    type=FOLDER,
    default="axtrain_demo",
    show_default=True,
    help="Folder for the results.",
)
@click.option("--chips", type=click.IntRange(2), default=20, show_default=True, help="Chips to measure on.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of everything.")
@click.option("--smoke", is_flag=True, help="A few epochs and chips, only to see that everything runs.")
def demo(out: Path, chips: int, seed: int, smoke: bool) -> None:
    """The whole job on scikit-learn's digits: train, break, make resilient, measure, export.

    Takes about half a minute. Writes the export, a plot and the hardware description to --out, and logs the run
    to MLflow's default store.
    """
    with quiet_start():
        from axtrain.training.demo import run_demo
    with told(), results(out, "chips.png", "figures.json", "hardware.json"):
        run_demo(out, chips=chips, seed=seed, smoke=smoke)


for _command in (multipliers, hardware, summary, evaluate, sweep, train, search, export, verify, report, track):
    main.add_command(_command)
