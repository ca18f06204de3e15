"""A run read from the files that the commands leave in a folder. What a file is, its content says, not its name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from axtrain.exporting import MANIFEST, read_export
from axtrain.hardware import Hardware
from axtrain.noise_models.reading import read_json
from axtrain.training.commands.record import COMMAND
from axtrain.training.evaluation import Evaluation
from axtrain.training.report.run import FIGURES, Run
from axtrain.training.search.results import SearchResult
from axtrain.training.sweep.results import Sweep

SUFFIXES = (".json", ".keras", ".png")
LARGEST = 64 << 20  # bytes of a file that is read (chosen here)
_DEPTH = 3
_PASSED_OVER = ("kept", "mlruns", "mlartifacts", "__pycache__")


def read_folder(folder: Path) -> Run:
    """What `axtrain demo`, `train --json`, `evaluate --json`, `sweep`, `search` and `export` left in a folder.

    Raises:
        ValueError: nothing of the kind is there.
    """
    run = Run(name=folder.resolve().name, where=f"folder {folder}")
    take_folder(run, folder)
    if run.empty:
        raise ValueError(
            "There is nothing to report in this folder: what `axtrain demo`, `sweep`, `search` and `export` write, "
            f"or JSON files of `evaluate --json`, `train --json` and Hardware.to_json. Received: {folder}"
        )
    return run


def take_folder(run: Run, folder: Path, prefix: str = "") -> None:
    """Adds to `run` what is in a folder; what cannot be read becomes a note.

    Args:
        run: to add to.
        folder: to read.
        prefix: put before what things are called.
    """
    for path in _files(folder):
        inside = path.relative_to(folder)
        name = prefix + str(inside.with_suffix(""))
        run.files.append(prefix + str(inside))
        try:
            if path.stat().st_size > LARGEST:
                raise ValueError(f"larger than {LARGEST >> 20} MiB")
            if path.name == MANIFEST:
                _take_export(run, path, name)
            elif path.suffix == ".json":
                take_json(run, name, read_json(path, "results in JSON", "run the command again"))
            elif path.suffix == ".png":
                run.pictures[name] = path.read_bytes()
            elif path.suffix == ".keras" and path not in run.models:
                run.models.append(path)
        except (ValueError, TypeError, KeyError, OSError) as error:
            run.notes.append(f"{prefix}{inside} could not be read: {error}")


def take_json(run: Run, name: str, content: Any) -> None:
    """Adds what a JSON document holds; one that is none of ours is passed over.

    Raises:
        ValueError, TypeError, KeyError: one of ours that is damaged.
    """
    if not isinstance(content, dict):
        return
    kind = str(content.get("format", ""))
    folder = os.path.dirname(name) or name
    if kind.startswith("axtrain-hardware"):
        run.hardware[name] = Hardware.from_dict(content)
    elif kind.startswith("axtrain-sweep"):
        run.sweeps[folder] = Sweep.from_dict(content)
    elif kind.startswith("axtrain-search"):
        run.searches[folder] = SearchResult.from_dict(content)
    elif kind == COMMAND:
        _take_command(run, content)
    elif kind == FIGURES:
        run.evaluations |= {key: Evaluation.from_dict(one) for key, one in content["evaluations"].items()}
        for key, history in content["trainings"].items():
            count = max(map(len, history.values()), default=0)
            run.trainings[key] = {"epochs": list(range(count)), "history": history}
        if "command" in content:
            _take_command(run, content["command"])
    elif "accuracies" in content and "metric" in content:
        run.evaluations[name] = Evaluation.from_dict(content)
    elif {"chip", "accuracy"} <= set(content.get("columns", ())):  # a table that MLflow keeps
        column = content["columns"].index("accuracy")
        accuracies = np.array([row[column] for row in content["data"]], np.float64)
        run.evaluations[name.removesuffix("_chips")] = Evaluation(accuracies, 0, 0)


def _take_export(run: Run, path: Path, name: str) -> None:
    content = read_json(path, "a manifest", "export again")
    if not str(content.get("format", "")).startswith("axtrain-export"):
        return
    folder = os.path.dirname(name) or path.parent.resolve().name
    try:
        read_export(path.parent)
        run.exports[folder] = f"all {len(content['files'])} files are as they were exported (sha256)"
    except (ValueError, OSError) as error:
        run.exports[folder] = str(error)
    for key in ("axtrain", "keras"):
        if key in content:
            run.versions.setdefault(key, str(content[key]))
    if isinstance(content.get("accuracy"), dict) and "accuracies" in content["accuracy"]:
        run.evaluations[folder] = Evaluation.from_dict(content["accuracy"])
    if (path.parent / "model.keras").is_file():
        run.models.insert(0, path.parent / "model.keras")


def _take_command(run: Run, content: dict[str, Any]) -> None:
    run.commands.append(str(content["command"]))
    named = " ".join(str(content["command"]).split()[:2])
    run.settings[named] = {str(key): str(value) for key, value in content["settings"].items()}
    run.versions |= {str(key): str(value) for key, value in content["versions"].items()}
    run.about |= {"finished": str(content["finished"])}


def _files(folder: Path, depth: int = _DEPTH) -> Iterator[Path]:
    """Files of a known kind, a folder's own before those of its folders, by name."""
    entries = sorted(folder.iterdir(), key=lambda path: (path.is_dir(), path.name))
    for path in entries:
        if path.name.startswith(".") or path.name in _PASSED_OVER or path.is_symlink():
            continue
        if path.is_dir() and depth > 1:
            yield from _files(path, depth - 1)
        elif path.is_file() and path.suffix in SUFFIXES:
            yield path
