"""`axtrain report`: one page that shows a run."""

from __future__ import annotations

import os
from pathlib import Path

import click

from axtrain.training.commands.options import NEW_FILE, quiet_start, told


@click.command(short_help="One HTML page of a run.")
@click.argument("run")
@click.option("--out", type=NEW_FILE, default="axtrain_report.html", show_default=True, help="File to write.")
@click.option("--tracking-uri", help="MLflow store of the run; by default the one that MLflow chooses.")
def report(run: str, out: Path, tracking_uri: str | None) -> None:
    """Show RUN as one HTML page: figures, tables and pictures, hardware, settings, versions.

    RUN is a folder that other commands wrote, or the id of an MLflow run, which is only read. The page needs no
    network and no other file; it suits screens large and small, and paper.
    """
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with quiet_start():
        from axtrain.training.report import page
    with told():
        notes = page.report(run, out, tracking_uri)
    for note in notes:
        click.echo(f"note: {note}", err=True)
    click.echo(f"Wrote {out}")
