"""The cheapest assignment within the budget, before training and after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras

from axtrain.training.search.playing import Player
from axtrain.training.search.results import SearchPoint, within

_HOPELESS = 0.5  # of the reference's accuracy: what lost more before training is not tried (chosen here)


def choose(
    points: list[SearchPoint],
    exact: SearchPoint,
    player: Player,
    budget: float,
    train: Callable[[keras.Model], Any] | None,
    most: int,
) -> tuple[int | None, keras.Model | None, list[str]]:
    """The chosen point's number, its trained model, and notes; points that are trained take their evaluations.

    Without training the cheapest within the budget, cheaper than the reference. With it, the ladder is that one and the
    cheaper points of the played front; it is halved, towards the cheaper where training was enough, `most` times or
    until nothing is between. If training was never enough, the one that needs none is trained as well, and kept
    untrained if that made it worse than the budget.

    Args:
        points: of the search.
        exact: all layers on the reference.
        player: trains and plays.
        budget: largest loss of the metric.
        train: trains a model in place, or `None`.
        most: how many are trained before that.
    """
    cheaper = [number for number, point in enumerate(points) if point.confirmed and point.energy_pj < exact.energy_pj]
    good = [number for number in cheaper if within(points[number].evaluation, exact, budget)]
    best = min(good, key=lambda number: points[number].energy_pj, default=None)
    model = None
    if train is None:
        return best, None, _notes(best, [], points, exact, budget)
    ladder = sorted(
        (number for number in cheaper if _worth(points, number, best, exact)), key=lambda n: points[n].energy_pj
    )
    models: dict[int, keras.Model] = {}

    def enough(number: int) -> bool:
        found, evaluation = player.trained(points[number].assignment, train)
        points[number] = replace(points[number], trained=evaluation)
        if within(evaluation, exact, budget):
            models[number] = found
        return number in models

    low, high = 0, len(ladder)
    tried: list[int] = []
    while low < high and len(tried) < most:
        middle = (low + high) // 2
        tried.append(ladder[middle])
        if enough(ladder[middle]):
            high = middle
        else:
            low = middle + 1
    if models:
        best = min(models, key=lambda number: points[number].energy_pj)
    elif best is not None and best not in tried:
        tried.append(best)
        enough(best)
    model = None if best is None else models.get(best)
    notes = _notes(best, tried, points, exact, budget)
    if best is not None and model is None:
        points[best] = replace(points[best], trained=None)
        notes.append("training made the chosen one worse than the budget allows, so it is left untrained")
    return best, model, notes


def _worth(points: list[SearchPoint], number: int, best: int | None, exact: SearchPoint) -> bool:
    """Whether a point is on the ladder of those to train: of the front, no dearer than the best, and not hopeless."""
    point = points[number]
    if number == best:
        return True
    if best is not None and point.energy_pj >= points[best].energy_pj:
        return False
    evaluation, reference = point.evaluation, exact.evaluation
    hopeful = evaluation is not None and reference is not None and evaluation.mean >= _HOPELESS * reference.mean
    return hopeful and not point.dominated


def _notes(best, tried: list[int], points: list[SearchPoint], exact: SearchPoint, budget: float) -> list[str]:
    notes = []
    if tried:
        enough = sum(within(points[number].trained, exact, budget) for number in tried)
        notes.append(f"{len(tried)} trained, {enough} of them within the budget after it")
    if best is None:
        notes.append(
            "none of the played assignments cheaper than the reference is within the budget: allow more, confirm more, "
            "or add candidates"
        )
    return notes
