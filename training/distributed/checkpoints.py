"""A driver's state in one file, whole or absent: arrays, the step, the history, and what it belongs to."""

from __future__ import annotations

import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from axtrain.noise_models.files import write_whole
from axtrain.noise_models.reading import read_arrays, reading

_FORMAT = "axtrain-distributed-1"


@dataclass(frozen=True)
class Found:
    """What a file held.

    Attributes:
        step: the next one.
        history: logs of the epochs so far.
        arrays: lists of arrays, by name.
    """

    step: int
    history: list[dict[str, float]]
    arrays: dict[str, list[np.ndarray]]


class Checkpoint:
    """A file of a driver's state.

    Args:
        path: of the file, `.npz`.
        note: JSON-able: what the training depends on. A file with another one is refused.
    """

    def __init__(self, path: str | os.PathLike[str], note: dict[str, Any]) -> None:
        self.path, self.note = Path(path), note

    def save(self, step: int, history: list, **lists: list[np.ndarray]) -> None:
        """Keeps lists of arrays under their names."""
        arrays: dict[str, Any] = {
            f"{name}_{i:05}": part for name, parts in lists.items() for i, part in enumerate(parts)
        }
        counts = {name: len(parts) for name, parts in lists.items()}
        place = {"format": _FORMAT, "step": step, "history": history, "note": self.note, "lists": counts}
        buffer = io.BytesIO()
        np.savez(buffer, place=np.frombuffer(json.dumps(place).encode(), np.uint8), **arrays)
        write_whole(self.path, buffer.getvalue())

    def load(self) -> Found | None:
        """What is in the file; `None` where there is none.

        Raises:
            ValueError: a file of another kind, or of another training.
        """
        if not self.path.exists():
            return None
        what, remedy = "a checkpoint of a distributed training", "remove it to begin anew"
        arrays = read_arrays(self.path, what, remedy)
        with reading(self.path, what, remedy):
            place = json.loads(arrays["place"].tobytes())
            lists = {n: [arrays[f"{n}_{i:05}"] for i in range(count)] for n, count in place["lists"].items()}
            step, history, found = place["step"], place["history"], (place["format"], place["note"])
        if found != (_FORMAT, self.note):
            raise ValueError(
                f"{self.path} is the checkpoint of another training; give another file, or remove that one. "
                f"Received: {found[1]}, wanted {self.note}"
            )
        return Found(step, history, lists)
