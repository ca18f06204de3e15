"""The page itself: one HTML file that needs nothing else."""

from __future__ import annotations

import tempfile
from datetime import datetime, timezone
from importlib import resources
from pathlib import Path

from axtrain import __version__
from axtrain.noise_models.files import write_whole
from axtrain.training.report.content import sections
from axtrain.training.report.folder import read_folder
from axtrain.training.report.run import Run
from axtrain.training.report.tracked import is_run_id, read_tracked


def report(where: str, out: Path, tracking_uri: str | None = None) -> list[str]:
    """Writes the page of a run, whole or not at all.

    Args:
        where: a folder of results, or the id of an MLflow run.
        out: file to write.
        tracking_uri: of the MLflow store; `None` is MLflow's own choice.

    Returns:
        what could not be read, in words.

    Raises:
        ValueError: neither a folder nor a run's id, nothing to report there, or no such run.
    """
    if Path(where).is_dir():
        run = read_folder(Path(where))
        write_whole(out, render(run).encode())
    elif is_run_id(where):
        with tempfile.TemporaryDirectory() as folder:
            run = read_tracked(where, Path(folder), tracking_uri)
            write_whole(out, render(run).encode())
    else:
        raise ValueError(
            "Give a folder of results, such as `axtrain demo` and `axtrain sweep` write, or the id of an MLflow run "
            f"(32 hexadecimal digits). Received: {where!r}"
        )
    return run.notes


def render(run: Run) -> str:
    """The page as text. Every word of the run is escaped; only our own figures are markup."""
    import jinja2
    from markupsafe import Markup

    files = resources.files("axtrain.training.report")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(files.joinpath("page.html.jinja").read_text(encoding="utf-8"))
    headlines, parts = sections(run)
    return template.render(
        run=run,
        headlines=headlines,
        sections=parts,
        style=Markup(files.joinpath("page.css").read_text(encoding="utf-8")),
        made=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
    )
