"""The `axtrain` command. Heavy libraries load inside the commands, so that `--help` is instant."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from axtrain import __version__

_MODEL = click.Path(exists=True, dir_okay=False, path_type=Path)
_DATA_HELP = "An .npz file with x_train, y_train, x_test, y_test."


class _HardwareChoice(click.ParamType):
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


_HARDWARE = _HardwareChoice()
_SCALE = click.option("--scale", type=float, default=1.0, show_default=True, help="Inputs are divided by this.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
def main() -> None:
    """Train Keras networks for approximate multipliers and failing memories, and prove that it worked.

    Start with `axtrain demo`. Then `axtrain multipliers` to choose a circuit or `axtrain hardware` a whole
    machine, `axtrain train` to make your own model resilient, `axtrain evaluate` to measure it on many chips,
    `axtrain export` to deploy it.
    """


@main.command(short_help="The whole job on real data, in half a minute.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default="axtrain_demo",
    show_default=True,
    help="Folder for the results.",
)
@click.option("--chips", type=click.IntRange(2), default=20, show_default=True, help="Chips to measure on.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of everything.")
@click.option("--smoke", is_flag=True, help="A few epochs and chips, only to see that everything runs.")
def demo(out: Path, chips: int, seed: int, smoke: bool) -> None:
    """The whole job on scikit-learn's digits: train, break, make resilient, measure, export.

    Takes about a minute. Writes the export, a plot and the hardware description to --out, and logs the run
    to MLflow's default store.
    """
    with _quiet_start():
        from axtrain.training.demo import run_demo
    with _told():
        run_demo(out, chips=chips, seed=seed, smoke=smoke)


@main.command(short_help="List multipliers with their errors.")
@click.argument("name", required=False)
@click.option("--bits", type=click.IntRange(2, 10), default=8, show_default=True, help="Operand width.")
@click.option("--signed", is_flag=True, help="Signed operands.")
def multipliers(name: str | None, bits: int, signed: bool) -> None:
    """List the multiplier families with their errors, or show one: NAME or a table file.

    Examples: `axtrain multipliers`, `axtrain multipliers drum4 --bits 6`, `axtrain multipliers my_table.npy`.
    """
    from axtrain.noise_models import multipliers as registry
    from axtrain.noise_models.multiplier import Multiplier

    with _told():
        if name is None:
            chosen = []
            for known in registry.names():
                try:
                    chosen.append(registry.get(known, bits=bits, signed=signed))
                except ValueError:  # a parameter that these widths do not allow
                    continue
        elif Path(name).suffix:
            chosen = [Multiplier.load(Path(name), signed=signed, bits=bits)]
        else:
            chosen = [registry.get(name, bits=bits, signed=signed)]
    _print_multipliers(chosen)


@main.group(short_help="Hardware by name: list it, show it, write it as JSON.")
def hardware() -> None:
    """Hardware that comes with the package, by name: published operating points and illustrative examples.

    `axtrain evaluate` and `axtrain train` take the names, and the files that `show NAME --out` writes.
    """


@hardware.command("list", short_help="All names, and what they are.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def list_hardware(as_json: bool) -> None:
    """List the catalogue."""
    from axtrain import catalogue

    cards = [catalogue.card(name) for name in catalogue.names()]
    if as_json:
        shown = ("name", "title", "description", "illustrative")
        click.echo(json.dumps([{name: getattr(card, name) for name in shown} for card in cards], indent=1))
        return
    _print_catalogue(cards)


@hardware.command("show", short_help="One of them in full.")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="The card as it is kept: machine-readable.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write the hardware description to this file (JSON), for --hardware or Hardware.from_json.",
)
def show_hardware(name: str, as_json: bool, out: Path | None) -> None:
    """Show the hardware NAME: what it is, its numbers with their units and sources, and where it is valid."""
    from axtrain import catalogue

    with _told():
        card = catalogue.card(name)
        if out is not None:
            card.hardware.to_json(out)
    if as_json:
        click.echo(json.dumps(card.to_dict(), indent=1))
    else:
        _print_card(card)
    if out is not None:
        click.echo(f"Wrote {out}", err=as_json)


@main.command(short_help="Measure a saved model on many chips.")
@click.argument("model", type=_MODEL)
@click.option("--data", type=_MODEL, required=True, help=_DATA_HELP)
@click.option("--hardware", type=_HARDWARE, help="Put the model on it first: JSON, or a name of `hardware list`.")
@click.option("--chips", type=click.IntRange(1), default=20, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Same seed, same chips.")
@_SCALE
@click.option("--json", "report", type=click.Path(path_type=Path), help="Also write the figures to this file.")
def evaluate(model: Path, data: Path, hardware: Path | str | None, chips: int, seed: int, scale: float, report) -> None:
    """Measure MODEL (.keras) on many chips: mean, spread, worst chip."""
    with _quiet_start():
        from axtrain.training import jobs
    with _told(), _file_of(hardware) as path:
        measured = jobs.evaluate_file(model, data, hardware=path, chips=chips, seed=seed, scale=scale, report=report)
    click.echo(str(measured))


@main.command(short_help="Train a saved model for hardware.")
@click.argument("model", type=_MODEL)
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--data", type=_MODEL, required=True, help=_DATA_HELP)
@click.option(
    "--hardware",
    type=_HARDWARE,
    help="JSON from Hardware.to_json, or a name of `hardware list`; not needed for a converted model.",
)
@click.option("--epochs", type=click.IntRange(1), default=5, show_default=True)
@click.option("--learning-rate", type=click.FloatRange(0, min_open=True), default=1e-3, show_default=True)
@click.option("--batch-size", type=click.IntRange(1), default=64, show_default=True)
@click.option("--anneal", type=click.IntRange(0), default=0, show_default=True, help="Epochs to raise the noise over.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of shuffling and noise.")
@_SCALE
@click.option("--mlflow", "track", is_flag=True, help="Log the run to MLflow.")
def train(model: Path, out: Path, hardware: Path | str | None, track: bool, **options) -> None:
    """Train MODEL (.keras) for the hardware and write it to OUT (.keras).

    Labels are class numbers; the optimiser is Adam; the loss is the cross-entropy, of probabilities or logits
    as the model gives them.
    """
    with _quiet_start():
        from axtrain.training import jobs
    with _told(), _file_of(hardware) as path:
        jobs.train_file(model, out, hardware=path, track=track, **options)
    click.echo(f"Wrote {out}")


@main.command(short_help="Write weights to deploy, with checksums.")
@click.argument("model", type=_MODEL)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--overwrite", is_flag=True, help="Replace an earlier export.")
def export(model: Path, folder: Path, overwrite: bool) -> None:
    """Write MODEL (.keras, converted) to FOLDER: Keras file, integers, manifest with checksums."""
    with _quiet_start():
        from axtrain.exporting import MANIFEST
        from axtrain.exporting import export as export_model
        from axtrain.loading import load_model
    with _told():
        written = export_model(load_model(model), folder, overwrite=overwrite)
    for name in (*written.manifest["files"], MANIFEST):
        click.echo(f"  {written.folder / name}")
    click.echo(f"Wrote {len(written.integers)} layers to {written.folder}")


def _print_multipliers(chosen) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Errors over every pair of operands", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("name", "MRE %", "MAE", "WCE", "bias", "EP %", "NMED %", "power"):
        table.add_column(heading, justify="left" if heading == "name" else "right", no_wrap=True)
    for multiplier in chosen:
        m = multiplier.metrics()
        power = "-" if multiplier.power is None else f"{multiplier.power:.2f}"
        relative = f"{100 * m.mre:.2f}", f"{m.mae:.1f}", f"{m.wce:.0f}", f"{m.bias:.1f}"
        table.add_row(multiplier.name, *relative, f"{100 * m.ep:.2f}", f"{100 * m.nmed:.3f}", power)
    console = Console()
    console.print(table)
    console.print("power: relative to the exact circuit; - where no figure is known.", highlight=False)
    if len(chosen) == 1 and chosen[0].source:
        console.print(f"source: {chosen[0].source}", highlight=False)


def _print_catalogue(cards) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Hardware by name", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("name", no_wrap=True)
    table.add_column("what it is")
    table.add_column("illustrative", justify="right")
    for card in cards:
        table.add_row(card.name, card.title, "yes" if card.illustrative else "no")
    console = Console()
    console.print(table)
    console.print("illustrative: its numbers are chosen here, fit no measured part, and show only what would happen.")


def _print_card(card) -> None:
    from rich.console import Console

    console = Console()
    lines = [
        (None, f"{card.name}: {card.title}"),
        (None, card.description),
        ("valid", card.valid),
        ("illustrative", "yes" if card.illustrative else "no"),
    ]
    lines += [("illustrative part", part) for part in card.illustrative_parts]
    lines += [("source", source) for source in card.sources]
    for part, described in card.parts.items():
        if described:
            entries = described if isinstance(described, dict) else {"name": described}
            lines.append((part, ", ".join(f"{name} {json.dumps(value)}" for name, value in entries.items())))
    lines += [("unit", f"{name}: {unit}") for name, unit in card.units.items()]
    for heading, words in lines:
        console.print(words if heading is None else f"{heading}: {words}", highlight=False, markup=False)


@contextmanager
def _file_of(hardware: Path | str | None) -> Iterator[Path | None]:
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
def _quiet_start() -> Iterator[None]:
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
def _told() -> Iterator[None]:
    """Bad input ends with its message, not with a traceback."""
    try:
        yield
    except (ValueError, TypeError, OSError, KeyError) as error:
        raise click.ClickException(str(error)) from error
