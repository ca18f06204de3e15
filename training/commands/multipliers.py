"""`axtrain multipliers`: the families with their errors, one of them, or a table from elsewhere."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from axtrain.training.commands.options import NEW_FILE, told

_bits = click.option("--bits", type=click.IntRange(2, 10), default=8, show_default=True, help="Operand width.")
_signed = click.option("--signed", is_flag=True, help="Signed operands.")
_as_json = click.option("--json", "as_json", is_flag=True, help="Machine-readable.")


class _ShownByName(click.Group):
    """`axtrain multipliers` is `list`, `axtrain multipliers NAME` is `show NAME`."""

    def parse_args(self, ctx, args):
        """Puts the command that is meant in front."""
        if args and (args[0] in self.commands or args[0] in ctx.help_option_names):
            return super().parse_args(ctx, args)
        return super().parse_args(ctx, ["list" if not args or args[0].startswith("-") else "show", *args])


@click.group(cls=_ShownByName, short_help="List multipliers with their errors, show or import one.")
def multipliers() -> None:
    """Multipliers: those of the package, and any table.

    Examples: `axtrain multipliers`, `axtrain multipliers drum4 --bits 6`, `axtrain multipliers my_table.npy`,
    `axtrain multipliers import mul8u_JV3.bin jv3.npz`.
    """


@multipliers.command("list", short_help="Every family with its errors.")
@_bits
@_signed
@_as_json
def list_multipliers(bits: int, signed: bool, as_json: bool) -> None:
    """List the multiplier families with their errors over every pair of operands."""
    from axtrain.noise_models import multipliers as registry

    chosen = []
    for known in registry.names():
        try:
            chosen.append(registry.get(known, bits=bits, signed=signed))
        except ValueError:  # a parameter that these widths do not allow
            continue
    _show(chosen, as_json)


@multipliers.command("show", short_help="One of them: a name or a table's file.")
@click.argument("name")
@_bits
@_signed
@_as_json
@click.option("--plot", type=NEW_FILE, help="Draw its errors into this file.")
def show_multiplier(name: str, bits: int, signed: bool, as_json: bool, plot: Path | None) -> None:
    """Show the errors of NAME, a family or the file of a table."""
    with told():
        chosen = _found(name, bits, signed)
        if plot is not None:
            from axtrain.noise_models.files import save_figure

            save_figure(chosen.plot(), plot)
    _show([chosen], as_json)


@multipliers.command("import", short_help="A table from elsewhere, checked, as hardware.")
@click.argument("table", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("out", type=NEW_FILE)
@_bits
@_signed
@click.option("--name", help="What it is called from now on; its file's name by default.")
@click.option("--power", type=click.FloatRange(0), help="Its power, relative to the exact circuit.")
@click.option("--source", help="Where it comes from.")
@click.option("--check/--no-check", default=True, help="Refuse what looks like a table in another convention.")
def import_multiplier(table: Path, out: Path, bits: int, signed: bool, name, power, source, check: bool) -> None:
    """Check TABLE (.npy, .npz, .csv, tf-approximate's .bin, or a C source) and write it to OUT.

    OUT is a hardware description (.json), for --hardware of the other commands; or the bare table in another of the
    formats (.npy, .npz, .csv, .bin).
    """
    from axtrain.hardware import Hardware
    from axtrain.noise_models.multiplier import Multiplier

    with told():
        described = {"name": name, "power": power, "source": source}
        chosen = Multiplier.load(table, signed=signed, bits=bits, **described, check=check)
        if out.suffix == ".json":
            Hardware(multiplier=chosen, name=chosen.name).to_json(out)
        else:
            chosen.save(out)
    _show([chosen], as_json=False)
    click.echo(f"Wrote {out}")


def _found(name: str, bits: int, signed: bool):
    from axtrain.noise_models import multipliers as registry
    from axtrain.noise_models.multiplier import Multiplier

    if Path(name).suffix:
        return Multiplier.load(Path(name), signed=signed, bits=bits)
    return registry.get(name, bits=bits, signed=signed)


def _show(chosen, as_json: bool) -> None:
    if as_json:
        described = [{"name": m.name, "power": m.power, "source": m.source, **asdict(m.metrics())} for m in chosen]
        click.echo(json.dumps(described, indent=1))
        return
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
