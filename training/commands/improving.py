"""`axtrain train` and `search`: a model that suits its hardware, and hardware that suits the model."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import click

from axtrain.training.commands import options
from axtrain.training.commands.options import FOLDER, HARDWARE, MODEL, NEW_FILE, file_of, quiet_start, told
from axtrain.training.commands.record import command_record, results


@click.command(short_help="Train a saved model for hardware.")
@click.argument("model", type=MODEL)
@click.argument("out", type=NEW_FILE)
@options.data
@click.option(
    "--hardware",
    type=HARDWARE,
    help="JSON from Hardware.to_json, or a name of `hardware list`; not needed for a converted model.",
)
@click.option("--epochs", type=click.IntRange(1), default=5, show_default=True)
@click.option("--learning-rate", type=click.FloatRange(0, min_open=True), default=1e-3, show_default=True)
@click.option("--batch-size", type=click.IntRange(1), default=64, show_default=True)
@click.option("--anneal", type=click.IntRange(0), default=0, show_default=True, help="Epochs to raise the noise over.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of shuffling and noise.")
@click.option("--checkpoint", type=FOLDER, help="Keep the state here: the same command goes on after Ctrl-C or a kill.")
@click.option("--save-every", type=click.IntRange(1), help="Steps between two states; by default one each epoch.")
@options.scale
@options.report
@options.tracked
def train(model: Path, out: Path, hardware: Path | str | None, report: Path | None, **given) -> None:
    """Train MODEL (.keras) for the hardware and write it to OUT (.keras).

    Labels are class numbers; the optimiser is Adam; the loss is the cross-entropy, of probabilities or logits
    as the model gives them. With --checkpoint a training that was interrupted ends with the weights that it would
    have had; with more --epochs a finished one goes on.
    """
    with quiet_start():
        from axtrain.training import jobs
    with told(), file_of(hardware) as path:
        history = jobs.train_file(model, out, hardware=path, **given)
        if report is not None:
            from axtrain.training.report.run import write_figures

            write_figures(report, trainings={out.stem: history}, command=command_record())
    click.echo(f"Wrote {out}")


@click.command(short_help="The cheapest hardware for every layer.")
@click.argument("model", type=MODEL)
@options.data
@click.option(
    "--candidate",
    "candidates",
    type=HARDWARE,
    multiple=True,
    required=True,
    help="Hardware that a layer may have, as often as wanted: JSON, or a name of `hardware list`.",
)
@click.option("--budget", type=click.FloatRange(0, 1), help="Accuracy that may be lost, such as 0.01; else the front.")
@click.option("--confirm", type=click.IntRange(2), default=24, show_default=True, help="Assignments played.")
@click.option("--objective", type=click.Choice(["total", "multipliers"]), default="total", show_default=True)
@click.option(
    "--epochs", type=click.IntRange(0), default=0, show_default=True, help="Train the promising ones so long."
)
@click.option("--out", type=FOLDER, default="axtrain_search", show_default=True, help="Folder for everything found.")
@options.chips
@options.seed
@options.scale
@options.tracked
def search(model: Path, candidates: tuple[Path | str, ...], **given) -> None:
    """Give every layer of MODEL (.keras) one of the candidates; an interrupted search goes on in its folder.

    The last fifth of the training samples chooses, the others train: x_test stays for `axtrain evaluate`.
    """
    with quiet_start():
        from axtrain.training import jobs
    with told(), ExitStack() as stack, results(given["out"], "search.json", "search.png", "model.keras"):
        paths = [stack.enter_context(file_of(candidate)) for candidate in candidates]
        said = jobs.search_file(model, [path for path in paths if path is not None], **given)
    click.echo(said)
