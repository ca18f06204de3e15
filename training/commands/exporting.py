"""`axtrain export` and `verify`: weights to deploy, and whether they are still what was measured."""

from __future__ import annotations

from pathlib import Path

import click

from axtrain.integers.formats import FORMATS
from axtrain.training.commands import options
from axtrain.training.commands.options import MODEL, quiet_start, told


@click.command(short_help="Write weights to deploy, with checksums.")
@click.argument("model", type=MODEL)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--overwrite", is_flag=True, help="Replace an earlier export.")
@click.option("--data", type=MODEL, help="An .npz file with x_test and y_test: state the accuracy of --chips chips.")
@click.option(
    "--format",
    "formats",
    type=click.Choice(sorted(FORMATS)),
    multiple=True,
    help="Write this form too; may be given several times; litert, c and onnx take ranges from the data's x_train.",
)
@options.chips
@options.seed
@options.scale
def export(model: Path, folder: Path, **given) -> None:
    """Write MODEL (.keras, converted) to FOLDER: Keras file, integers, manifest with checksums.

    With --format also litert (int8, model.tflite), c (C99), onnx, memory (the weight memory's image, for $readmemh),
    intel_hex (that, and as Intel HEX), saved_model (TensorFlow alone). LiteRT and ONNX multiply exactly; litert, c and
    onnx need --data.
    """
    with quiet_start():
        from axtrain.exporting import MANIFEST
        from axtrain.training import jobs
    with told():
        written = jobs.export_file(model, folder, **given)
    for name in (*written.manifest["files"], MANIFEST):
        click.echo(f"  {written.folder / name}")
    click.echo(f"Wrote {len(written.integers)} layers to {written.folder}")


@click.command(short_help="Are these the files that were exported, and as good?")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--data", type=MODEL, help="An .npz file with x_test and y_test: measure the accuracy again.")
@options.scale
def verify(folder: Path, data: Path | None, scale: float) -> None:
    """Check every file of the export in FOLDER against its manifest; with --data measure it again, on the same chips.

    Ends with 1 where a file or the accuracy differs.
    """
    with quiet_start():
        from axtrain.training import jobs
    with told():
        click.echo(jobs.verify_export(folder, data, scale))
