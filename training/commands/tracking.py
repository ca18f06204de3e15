"""`axtrain track`: what a tracking server did not take, listed and sent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import click

from axtrain.training.commands.options import told

_folder = click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default=Path("axtrain_outbox"))
_as_json = click.option("--json", "as_json", is_flag=True, help="For machines.")


@click.group(short_help="Runs in MLflow: what is not sent yet, and sending it.")
def track() -> None:
    """Send what an MLflow server did not take.

    `axtrain train`, `evaluate`, `sweep` and `search` log to MLflow with --track, and scripts with
    `axtrain.tracking.run`. A server that is down at their start is an error; one that goes down later stops nothing:
    what it did not take waits in an outbox, a folder named axtrain_outbox unless the script chose another.

    \b
    axtrain train model.keras out.keras --data data.npz --track --tracking-uri http://server:5000
    axtrain track list      what waits, for which run
    axtrain track sync      send it; what is sent is removed, and nothing is sent twice
    """


@track.command("list", short_help="What waits to be sent.")
@_folder
@_as_json
def list_waiting(folder: Path, as_json: bool) -> None:
    """List what waits in the outbox FOLDER, for each run."""
    from axtrain.training.tracking import outbox

    with told():
        found = outbox.waiting(folder)
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found], indent=1))
        return
    for one in found:
        since = datetime.fromtimestamp(one.since).isoformat(" ", "seconds")
        click.echo(f"run {one.owner.name} ({one.owner.run_id}) at {one.owner.tracking_uri}, since {since}")
        click.echo(f"  {_words(one.counts)}; {one.size / 1e6:.2f} MB")
    click.echo(f"Send it with: axtrain track sync {folder}" if found else f"Nothing waits in {folder}.")


@track.command("sync", short_help="Send what waits.")
@_folder
@click.option("--tracking-uri", help="Where to send it, if the server has moved; else where each run is.")
@_as_json
def sync(folder: Path, tracking_uri: str | None, as_json: bool) -> None:
    """Send what waits in the outbox FOLDER, each run's entries in their order, and say what was sent.

    Interrupted at any moment it loses nothing; call it again. Ends with 1 where something could not be sent.
    """
    import os

    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # a command that says nothing of it sends nothing
    from axtrain.training.tracking import syncing

    with told():
        done = syncing.sync(folder, tracking_uri=tracking_uri)
    if as_json:
        click.echo(json.dumps([asdict(one) for one in done], indent=1))
    else:
        for one in done:
            click.echo(f"run {one.owner.name} ({one.owner.run_id}): sent {_words(one.counts) or 'nothing'}")
        if not done:
            click.echo(f"Nothing waits in {folder}.")
    problems = [f"{one.left} entries of run {one.owner.name} still wait: {one.problem}" for one in done if one.problem]
    if problems:
        raise click.ClickException("; ".join(problems))


def _words(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {what}" for what, number in counts.items())
