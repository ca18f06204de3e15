"""`axtrain summary`, `evaluate` and `sweep`: what a model is on its hardware, and how good."""

from __future__ import annotations

from pathlib import Path

import click

from axtrain.training.commands import options
from axtrain.training.commands.options import FOLDER, HARDWARE, MODEL, Numbers, file_of, quiet_start, told
from axtrain.training.commands.record import results


@click.command(short_help="How each layer plays its hardware, and the energy.")
@click.argument("model", type=MODEL)
@click.option("--hardware", type=HARDWARE, help="Put the model on it first: JSON, or a name of `hardware list`.")
@click.option("--data", type=MODEL, help="An .npz file with x_train, for the activation ranges.")
@options.scale
def summary(model: Path, hardware: Path | str | None, data: Path | None, scale: float) -> None:
    """Show how each layer of MODEL (.keras) plays its hardware, what stays in float, and the energy."""
    with quiet_start():
        from axtrain.reporting import summary as summarise
        from axtrain.training import jobs
    with told(), file_of(hardware) as path:
        summarise(jobs.on_hardware(model, path, data, scale))


@click.command(short_help="Measure a saved model on many chips.")
@click.argument("model", type=MODEL)
@options.data
@click.option("--hardware", type=HARDWARE, help="Put the model on it first: JSON, or a name of `hardware list`.")
@options.chips
@options.seed
@options.scale
@options.report
@options.tracked
def evaluate(model: Path, data: Path, hardware: Path | str | None, **given) -> None:
    """Measure MODEL (.keras) on many chips: mean, spread, worst chip."""
    with quiet_start():
        from axtrain.training import jobs
    with told(), file_of(hardware) as path:
        measured = jobs.evaluate_file(model, data, hardware=path, **given)
    click.echo(str(measured))


@click.command(short_help="Accuracy and energy at every voltage or rate.")
@click.argument("model", type=MODEL)
@options.data
@click.option("--hardware", type=HARDWARE, help="Put the model on it first: JSON, or a name of `hardware list`.")
@click.option("--voltages", type=Numbers(), help="Supply voltages, such as 0.5,0.55,0.6.")
@click.option("--rates", type=Numbers(), help="Error rates, in place of voltages.")
@click.option("--accuracy", type=click.FloatRange(0, 1), help="Also find the lowest voltage that reaches it.")
@click.option("--worst", is_flag=True, help="Ask the accuracy of the worst chip.  [default: of the mean]")
@click.option("--confident", is_flag=True, help="Ask it of the lower end of the mean's 95 % interval.")
@click.option(
    "--yield", "chip_yield", type=click.FloatRange(0, 1, min_open=True), help="Ask it of this share of chips."
)
@click.option("--out", type=FOLDER, default="axtrain_sweep", show_default=True, help="Folder for figures and picture.")
@options.chips
@options.seed
@options.scale
@options.tracked
def sweep(model: Path, hardware: Path | str | None, **given) -> None:
    """Measure MODEL (.keras) on the same chips at every voltage; an interrupted sweep goes on in its folder."""
    with quiet_start():
        from axtrain.training import jobs
    with told(), file_of(hardware) as path:
        with results(given["out"], "sweep.json", "sweep.csv", "sweep.png"):
            result = jobs.sweep_file(model, hardware=path, **given)
        if result.requirement is not None and result.operating_point is None:
            raise click.ClickException(result.verdict)
    if result.requirement is not None:
        click.echo(result.verdict)
