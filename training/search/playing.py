"""Plays and trains assignments bit-exactly, and keeps each figure as it comes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from axtrain.controls import hardware_layers, set_chip
from axtrain.loading import load_model
from axtrain.noise_models.files import whole_file
from axtrain.running_state import state_kept
from axtrain.training.evaluation import (
    Evaluation,
    accuracy,
    as_pipeline,
    chip_numbers,
    evaluate,
    figure,
    leaves_nothing_to_chance,
    metric_name,
    sample_count,
)
from axtrain.training.kept_figures import KeptFigures, fingerprint
from axtrain.training.search.assignments import Choices


class Player:
    """Accuracies of assignments, on the same data and chips; what was found before is not played again.

    Args:
        choices: the network and its candidates.
        x, y: samples and labels.
        chips, seed, metric, batch_size: as for `axtrain.evaluate`.
        folder: where figures and trained models are kept; `None` keeps figures in memory.

    Raises:
        ValueError: a folder of another model, data or setting, or bad numbers.
    """

    def __init__(
        self,
        choices: Choices,
        x,
        y,
        *,
        chips: int,
        seed: int,
        metric: Callable[[Any, Any], float],
        batch_size: int,
        folder: str | os.PathLike[str] | None,
    ) -> None:
        self.choices, self.data, self.metric, self.batch_size = choices, (x, y), metric, batch_size
        self.chips, self.seed = chips, seed
        self._given = as_pipeline(x, batch_size)
        self._numbers, self._count = chip_numbers(seed, chips), sample_count(x, y)
        self._folder = None if folder is None else Path(folder)
        self._settings = {"seed": seed, "batch_size": batch_size, "reference": choices.reference.to_dict()}
        self._known: dict[str, KeptFigures] = {}
        if folder is not None:
            self._settings |= fingerprint(choices.plain, (x, choices.calibration), y, metric)
            KeptFigures(folder, [], self._settings)  # a folder of other settings is refused before any work

    def played(self, assignment: Mapping[str, str]) -> Evaluation:
        """What `evaluate` gives for the network converted with this assignment."""
        kept = self._kept("played", assignment)
        layers = list(hardware_layers(self.choices.played))
        certain = leaves_nothing_to_chance(layers, self.choices.hardware_of(assignment))
        needed = self._numbers[:1] if certain else self._numbers
        missing = [number for number in needed if number not in kept.found[0]]
        model = self.choices.play(assignment) if missing else self.choices.played
        with state_kept(model) as put_back:
            for number in missing:
                put_back()
                set_chip(model, number)
                predicted = model.predict(**self._given, verbose=0)
                where = f"chip {number}, {dict(assignment) or 'all layers on the reference'}"
                kept.add(0, number, figure(self.metric, self.data[1], predicted, model, where))
        figures = np.resize([kept.found[0][number] for number in needed], self.chips)
        return Evaluation(figures.astype(np.float64), self.seed, self._count, metric_name(self.metric), certain)

    def trained(self, assignment: Mapping[str, str], train: Callable[[keras.Model], Any]):
        """(model, `Evaluation`) of the network converted and trained; a trained model that was kept is read again."""
        file = None if self._folder is None else self._folder / f"trained_{self._name(assignment)}.keras"
        if file is not None and file.exists():
            model = load_model(file)
        else:
            model = self.choices.converted(assignment)
            keras.utils.set_random_seed(self.seed)
            train(model)
            if file is not None:
                with whole_file(file) as path:
                    model.save(path)
        kept = self._kept("trained", assignment)
        if any(number not in kept.found[0] for number in self._numbers):
            options: dict[str, Any] = {"metric": self.metric, "batch_size": self.batch_size, "verbose": False}
            measured = evaluate(model, *self.data, chips=self.chips, seed=self.seed, **options)
            for number, figure in zip(self._numbers, measured.accuracies, strict=True):
                kept.add(0, number, float(figure))
        figures = np.array([kept.found[0][number] for number in self._numbers])
        layers = list(hardware_layers(model))
        certain = leaves_nothing_to_chance(layers, [layer.hardware for layer in layers])
        return model, Evaluation(figures, self.seed, self._count, metric_name(self.metric), certain)

    def _kept(self, kind: str, assignment: Mapping[str, str]) -> KeptFigures:
        name = f"{kind}_{self._name(assignment)}"
        if name not in self._known:
            self._known[name] = KeptFigures(
                self._folder,
                [name],
                self._settings,
                lambda count: chip_numbers(self.seed, count),
                shares=self.metric is accuracy,
            )
        return self._known[name]

    def _name(self, assignment: Mapping[str, str]) -> str:
        """By what the layers run on, so that candidates may be renamed or added."""
        described = [
            {key: value for key, value in hardware.to_dict().items() if key not in ("name", "energy")}
            for hardware in self.choices.hardware_of(assignment)
        ]
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:24]
