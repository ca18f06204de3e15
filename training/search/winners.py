"""The cheapest assignment within the budget, before training and after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras

from axtrain.training.search.playing import Player
from axtrain.training.search.results import SearchPoint, within

_HOPELESS = 0.5  # of the reference's accuracy: what lost more before training is not tried (chosen here)
_FINE = 0.01  # of the reference's energy: two that are nearer than that have nothing between them (chosen here)


def choose(
    points: list[SearchPoint],
    exact: SearchPoint,
    player: Player,
    budget: float,
    train: Callable[[keras.Model], Any] | None,
    most: int,
) -> tuple[int | None, keras.Model | None, list[str]]:
    """The chosen point's number, its trained model, and notes; points that are trained take their evaluations.

    Without training the cheapest within the budget, cheaper than the reference. With it, cheaper points are trained:
    those of the played front, halving between the dearest for which training was not enough and the cheapest for which
    it was; then, where none of the played is left between the two, the point halfway in energy, played first. It ends
    after `most` trainings, or when the two are near. If training was never enough, the one that needs none is trained
    as well, and kept untrained if that made it worse than the budget.

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
    if train is None:
        return best, None, _notes(best, [], points, exact, budget)
    models: dict[int, keras.Model] = {}
    tried: list[int] = []

    def enough(number: int) -> bool:
        tried.append(number)
        found, evaluation = player.trained(points[number].assignment, train)
        points[number] = replace(points[number], trained=evaluation)
        if within(evaluation, exact, budget):
            models[number] = found
        return number in models

    low, high = 0.0, exact.energy_pj if best is None else points[best].energy_pj
    while len(tried) < most:
        number = _between(points, exact, low, high)
        if number is None:
            break
        if not points[number].confirmed:
            points[number] = replace(points[number], evaluation=player.played(points[number].assignment))
        energy = points[number].energy_pj
        if _hopeful(points[number], exact) and enough(number):
            high = energy
        else:
            low = energy
    if models:
        best = min(models, key=lambda number: points[number].energy_pj)
    elif best is not None:
        enough(best)
    model = None if best is None else models.get(best)
    notes = _notes(best, tried, points, exact, budget)
    if best is not None and model is None:
        points[best] = replace(points[best], trained=None)
        notes.append("training made the chosen one worse than the budget allows, so it is left untrained")
    return best, model, notes


def _between(points: list[SearchPoint], exact: SearchPoint, low: float, high: float) -> int | None:
    """The next point to train, of an energy between these: the middle one of the played front, else one to play."""
    front = [number for number, point in enumerate(points) if point.confirmed and not point.dominated]
    low = max([low, *(points[n].energy_pj for n in front if not _hopeful(points[n], exact))])
    inside = sorted(
        (number for number, point in enumerate(points) if low < point.energy_pj < high),
        key=lambda number: points[number].energy_pj,
    )
    played = [number for number in inside if number in front]
    if played:
        return played[len(played) // 2]
    if high - low < 2 * _FINE * exact.energy_pj:
        return None
    low = max(low, min(point.energy_pj for point in points))
    unplayed = [number for number in inside if not points[number].confirmed]
    return min(unplayed, key=lambda number: abs(points[number].energy_pj - (low + high) / 2), default=None)


def _hopeful(point: SearchPoint, exact: SearchPoint) -> bool:
    evaluation, reference = point.evaluation, exact.evaluation
    return evaluation is not None and reference is not None and evaluation.mean >= _HOPELESS * reference.mean


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
