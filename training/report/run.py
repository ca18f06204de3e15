"""What is known of a run, wherever it was read, and the file in which a run keeps its own figures."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from axtrain.hardware import Hardware
from axtrain.noise_models.files import write_whole
from axtrain.training.evaluation import Evaluation
from axtrain.training.search.results import SearchResult
from axtrain.training.sweep.results import Sweep

FIGURES = "axtrain-figures-1"


@dataclass(kw_only=True)
class Run:
    """A run as it was read; a dictionary's keys are what each thing is called on the page."""

    name: str
    """Heading of the page."""
    where: str
    """Where it was read, in words."""
    about: dict[str, str] = field(default_factory=dict)
    """When, how long, how it ended."""
    hardware: dict[str, Hardware] = field(default_factory=dict)
    """Descriptions that were found."""
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    """Figures of chips; `samples` is 0 where their number is not known."""
    trainings: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Of each `fit` the `epochs`, from 0, and the `history`: name to one figure per epoch."""
    sweeps: dict[str, Sweep] = field(default_factory=dict)
    """By folder."""
    searches: dict[str, SearchResult] = field(default_factory=dict)
    """By folder."""
    exports: dict[str, str] = field(default_factory=dict)
    """By folder whether its files are those that were exported, in words."""
    models: list[Path] = field(default_factory=list)
    """`.keras` files, exported ones first."""
    figures: dict[str, float] = field(default_factory=dict)
    """Single numbers, such as a tracked run's metrics."""
    settings: dict[str, dict[str, str]] = field(default_factory=dict)
    """By command, or kind, the parameters and options."""
    commands: list[str] = field(default_factory=list)
    """That made it."""
    versions: dict[str, str] = field(default_factory=dict)
    """Of the software that made it."""
    pictures: dict[str, bytes] = field(default_factory=dict)
    """PNG files."""
    children: list[tuple[str, str, dict[str, float]]] = field(default_factory=list)
    """Runs within it: name, how it ended, single numbers."""
    files: list[str] = field(default_factory=list)
    """All files that were looked at."""
    notes: list[str] = field(default_factory=list)
    """What could not be read, in words."""

    @property
    def empty(self) -> bool:
        """Whether nothing was found that a page could show."""
        shown = (self.hardware, self.evaluations, self.trainings, self.sweeps, self.searches, self.exports)
        return not any((*shown, self.models, self.figures, self.settings, self.commands, self.pictures))


def write_figures(
    path: str | os.PathLike[str],
    *,
    evaluations: Mapping[str, Evaluation] | None = None,
    trainings: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    command: Mapping[str, Any] | None = None,
) -> None:
    """Writes what a run measured as one JSON file, whole or not at all; `axtrain report` reads it.

    Args:
        path: where to.
        evaluations: what is measured to its `Evaluation`.
        trainings: what is trained to the `history` of its `fit`.
        command: as `axtrain.training.commands.record.command_record` gives it.
    """
    content = {
        "format": FIGURES,
        "evaluations": {name: one.to_dict() for name, one in (evaluations or {}).items()},
        "trainings": {
            name: {key: [float(figure) for figure in figures] for key, figures in history.items()}
            for name, history in (trainings or {}).items()
        },
        **({} if command is None else {"command": dict(command)}),
    }
    write_whole(path, json.dumps(content, indent=1).encode())
