"""Figures of a study, one row for each network and part, kept beside its results so that anyone can go on with it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from axtrain.noise_models.files import whole_file

KEY = ("task", "network", "hardware", "part")
COLUMNS = (*KEY, "commit", "seconds", "accuracies")


def key_of(row: dict) -> tuple[str, ...]:
    """What tells a figure from all others."""
    return tuple(row[name] for name in KEY)


def read(path: Path) -> dict[tuple[str, ...], dict]:
    """The kept figures, by their keys; none where there is no file yet."""
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        key_of(row): {
            **row,
            "seconds": float(row["seconds"]),
            "accuracies": [float(a) for a in row["accuracies"].split()],
        }
        for row in rows
    }


def gather(path: Path, cache: Path) -> dict[tuple[str, ...], dict]:
    """Adds what a cache holds to the kept figures, writes them, sorted and whole, and returns them."""
    found = read(path)
    for file in cache.glob("*/*.json"):
        row = json.loads(file.read_text())
        found[key_of(row)] = row
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        for key in sorted(found):
            row = found[key]
            texts = {"seconds": f"{row['seconds']:.1f}", "accuracies": " ".join(f"{a:.6g}" for a in row["accuracies"])}
            writer.writerow({**row, **texts})
    return found
