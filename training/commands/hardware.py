"""`axtrain hardware`: the catalogue, and hardware made from a tester's readings."""

from __future__ import annotations

import json
from pathlib import Path

import click

from axtrain.training.commands.options import NEW_FILE, told


@click.group(short_help="Hardware by name: list it, show it, write it as JSON.")
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
    type=NEW_FILE,
    help="Also write the hardware description to this file (JSON), for --hardware or Hardware.from_json.",
)
def show_hardware(name: str, as_json: bool, out: Path | None) -> None:
    """Show the hardware NAME: what it is, its numbers with their units and sources, and where it is valid."""
    from axtrain import catalogue

    with told():
        card = catalogue.card(name)
        if out is not None:
            card.hardware.to_json(out)
    if as_json:
        click.echo(json.dumps(card.to_dict(), indent=1))
    else:
        _print_card(card)
    if out is not None:
        click.echo(f"Wrote {out}", err=as_json)


@hardware.command("fit", short_help="From a tester's counts to hardware.")
@click.argument("readings", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("out", type=NEW_FILE)
@click.option("--voltage", type=click.FloatRange(0, min_open=True), required=True, help="Of the memory, in volts.")
@click.option(
    "--confidence", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.95, show_default=True
)
@click.option("--plot", type=NEW_FILE, help="Draw the curve and its band into this file.")
def fit_hardware(readings: Path, out: Path, voltage: float, confidence: float, plot: Path | None) -> None:
    """Fit a curve to READINGS and write the hardware whose weight memory follows it, at --voltage, to OUT (.json).

    READINGS is a CSV with the columns `voltage`, `failures` and `cells`, and `chip` where there are several.
    """
    from axtrain.hardware import Hardware
    from axtrain.noise_models.curve_fitting import fit_curve
    from axtrain.noise_models.memories import NearThresholdSRAM
    from axtrain.noise_models.readings import Readings

    with told():
        fit = fit_curve(Readings.from_csv(readings), confidence=confidence)
        memory = NearThresholdSRAM(voltage=voltage, curve=fit.curve)
        Hardware(weight_memory=memory, name=readings.stem).to_json(out)
        if plot is not None:
            from axtrain.noise_models.files import save_figure

            save_figure(fit.plot(), plot)
    click.echo(f"{fit}\nat {voltage:g} V: {memory.rate:.3g} of the bits fail\nWrote {out}")


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
