"""Figures that are kept as they come, so that interrupted work goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from axtrain import __version__
from axtrain.controls import hardware_layers
from axtrain.noise_models.files import write_whole
from axtrain.noise_models.reading import read_json
from axtrain.training.evaluation import metric_name


def fingerprint(model: keras.Model, x, y, metric: Callable) -> dict[str, Any]:
    """What a figure depends on, as short JSON: the network with its hardware and state, the data, the metric's name."""
    return {
        "axtrain": __version__,
        "network": network_digest(model),
        "data": _digest("", *keras.tree.flatten(x), y),
        "metric": f"{getattr(metric, '__module__', '')}.{getattr(metric, '__qualname__', metric_name(metric))}",
    }


def network_digest(model: keras.Model) -> str:
    """Of the network, its hardware and its state; the same for the same network built again."""
    described = {key: value for key, value in model.get_config().items() if key != "name"}
    # Keras numbers the names that it gives through the whole process: the same network built again has others.
    numberless = re.sub(r'_\d+"', '"', json.dumps(described, sort_keys=True, default=str))
    products = [product for layer in hardware_layers(model) for product in layer.products]
    state = [variable for product in products for variable in product.state.own_variables]
    return _digest(numberless, *model.weights, *state)


def _digest(text: str, *arrays) -> str:
    digest = hashlib.sha256(text.encode())
    for item in arrays:
        array = np.ascontiguousarray(keras.ops.convert_to_numpy(item) if hasattr(item, "dtype") else np.asarray(item))
        digest.update(f"{array.dtype.str}{array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


class KeptFigures:
    """Figures of chips under several conditions; with a folder also kept there as they come, each file whole.

    Args:
        folder: `None` keeps them in memory alone.
        names: of the conditions, fit for file names.
        settings: what the figures depend on, JSON-able; a folder is of one such.
        chips: function of a count to the first so many numbers that a file may hold figures of; `None` takes any.
        shares: whether the figures are shares, from 0 to 1.

    Raises:
        ValueError: the folder is of other settings, a file in it is none of these, or holds a figure that cannot have
            been measured: not finite, no share, or of a chip that is none of these.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None,
        names: Sequence[str],
        settings: Any = None,
        chips: Callable[[int], Sequence[int]] | None = None,
        *,
        shares: bool = False,
    ) -> None:
        self.found: list[dict[int, float]] = [{} for _ in names]
        """For each condition the figure of each chip that is known."""
        self._files = None if folder is None else [Path(folder) / f"{name}.json" for name in names]
        if self._files is None or folder is None:
            return
        described = Path(folder) / "settings.json"
        if described.exists():
            before = _read(described)
            differ = [name for name in settings if before.get(name) != settings[name]]
            if differ:
                received = ", ".join(f"{name}={settings[name]!r}, there {before.get(name)!r}" for name in differ)
                raise ValueError(
                    f"{folder} holds figures of another model, data or setting, which must not be mixed with these. "
                    f"Give another folder, or remove that one. Received: {received}"
                )
        else:
            write_whole(described, json.dumps(settings, indent=1).encode())
        for file, found in zip(self._files, self.found, strict=True):
            if file.exists():
                found.update(_figures(file, chips, shares))

    def add(self, index: int, chip: int, figure: float) -> None:
        """Keeps one chip's figure under one condition."""
        self.found[index][chip] = figure
        if self._files is not None:
            write_whole(self._files[index], json.dumps(self.found[index]).encode())


def _figures(file: Path, chips: Callable[[int], Sequence[int]] | None, shares: bool) -> dict[int, float]:
    content, found = _read(file), dict[int, float]()
    known = None if chips is None else set(chips(2 * len(content) + 1))  # files grow from the first chip on
    for chip, figure in content.items():
        number = int(chip) if chip.isdecimal() else None
        sound = isinstance(figure, (int, float)) and not isinstance(figure, bool) and math.isfinite(figure)
        if number is None or (known is not None and number not in known):
            wrong = "a chip that is none of this seed's"
        elif not sound or (shares and not 0 <= figure <= 1):
            wrong = f"what is no {'share from 0 to 1' if shares else 'finite number'}"
        else:
            found[number] = float(figure)
            continue
        raise ValueError(
            f"{file} holds a figure of {wrong}, so it is not what was measured; remove it, or give another folder. "
            f"Received: chip {chip}, figure {figure!r}"
        )
    return found


def _read(file: Path) -> dict[str, Any]:
    return read_json(file, "a file of kept figures", "remove it, or give another folder", finite=False)
