"""A multiplier and a weight memory for every layer: least energy within an accuracy, or the whole Pareto front."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from axtrain.energy_estimate import circuits_in_words
from axtrain.hardware import Hardware
from axtrain.training.evaluation import accuracy, progress, sample_count
from axtrain.training.search.assignments import Choices, calibration_data
from axtrain.training.search.confirmations import farthest, most_promising, spread_out
from axtrain.training.search.front_search import OPTIMISERS, front, sums
from axtrain.training.search.layer_rises import layer_rises
from axtrain.training.search.playing import Player
from axtrain.training.search.results import SearchPoint, SearchResult, is_dominated, within
from axtrain.training.search.winners import choose
from axtrain.training.sensitivity.results import SensitivityMap

_OBJECTIVES = ("total", "multipliers")


def search(
    model: keras.Model,
    x,
    y=None,
    *,
    candidates: Sequence[Hardware],
    budget: float | None = None,
    confirm: int = 24,
    objective: str = "total",
    train: Callable[[keras.Model], Any] | None = None,
    train_candidates: int = 3,
    chips: int = 10,
    seed: int = 0,
    metric: Callable[[Any, Any], float] = accuracy,
    sensitivity: SensitivityMap | None = None,
    measure: bool | None = None,
    samples: int = 512,
    loss: Any = None,
    optimiser: str = "exact",
    trials: int = 2000,
    calibration=None,
    reference: Hardware | None = None,
    batch_size: int = 128,
    folder: str | os.PathLike[str] | None = None,
    verbose: bool = True,
) -> SearchResult:
    """Gives every layer one of the candidates: the cheapest network within an accuracy, or the Pareto front.

    1. The rise of the loss that each candidate costs in each layer alone, from `axtrain.sensitivity`; an assignment's
       is taken as their sum.
    2. The assignments that no other beats in energy and that sum (`optimiser`).
    3. `confirm` of them are played bit-exactly, on the same data and chips, after each candidate in all layers alike,
       which a search must beat. With a budget the first third is spread over the front, then each next one is that
       of the largest expected saving, by what the played ones say of the rise that the budget allows; without one
       they fill the largest gaps.
    4. The cheapest played one within the budget is chosen. With `train`, cheaper ones of the played front are trained
       too, halving between those that are good enough after training and those that are not, then one halfway between
       the two in energy, and so on; the cheapest good one is chosen.

    A layer's energy on a candidate does not depend on the other layers' (`axtrain.energy`).

    Args:
        model: plain, or from `axtrain.convert`; it is not changed. Layers that it keeps in float stay in float.
        x, y: samples and labels to choose by, a part of the training data rather than the test data, since what is
            chosen by them looks better on them; or a tuple (x, y) in place of both.
        candidates: `Hardware`, known by name; with different multipliers, weight memories or voltages. Add
            `Hardware()` where a layer may stay exact.
        budget: largest loss of the metric against all layers on the reference, such as 0.01, by the mean over chips;
            `None` draws the front and chooses nothing.
        confirm: how many assignments are played beside those of one candidate in all layers, at least 2.
        objective: `"total"`, all energy of an inference, or `"multipliers"`, that of the multipliers alone.
        train: function of the converted model that trains it in place, compile included; known by its effect only,
            so take another folder for another one. Needs a budget.
        train_candidates: how many are trained at most, before the chosen one if it is none of them.
        chips, seed, metric, batch_size: as for `axtrain.evaluate`; the metric's larger values are better. Keras's
            global seed is set to `seed` before each training.
        sensitivity: from `axtrain.sensitivity` with the same layers and candidates; `None` makes it.
        measure: whether single layers are measured (rises above noise are then taken in place of predicted ones)
            or only predicted; `None` measures where that takes at most 400 passes.
        samples: how many samples of x, from its start, the sensitivity is made with.
        loss: as for `axtrain.sensitivity`.
        optimiser: `"exact"`, or `"nsga2"`, optuna's (`pip install 'axtrain[search]'`).
        trials: assignments that `"nsga2"` looks at.
        calibration: input samples for the activation ranges; `None` takes the first 512 of `x`.
        reference: the machine to compare with; `None` is the exact multiplier of the widest candidate, at nominal
            voltage.
        folder: keeps every figure and trained model as soon as it is known, so that the same call goes on after an
            interruption; more candidates, chips or confirmations may be asked for later.
        verbose: show progress bars.

    Returns:
        a `SearchResult`.

    Raises:
        TypeError: no Keras model, or candidates that are no `Hardware`.
        ValueError: bad numbers, data or options, or a folder that holds another search.
        ModuleNotFoundError: `"nsga2"` without optuna.

    Examples:
        >>> import keras, numpy as np, axtrain as ax
        >>> layers = [keras.layers.Dense(8, activation="relu", name="a"), keras.layers.Dense(3, name="b")]
        >>> model = keras.Sequential([keras.Input((4,)), *layers])
        >>> x = np.random.default_rng(0).random((64, 4), "float32")
        >>> labels = model.predict(x, verbose=0).argmax(-1)
        >>> circuits = [ax.Hardware(multiplier=ax.multipliers.get(name)) for name in ("exact", "broken_array_2_4")]
        >>> found = ax.search(model, x, labels, candidates=circuits, budget=1.0, confirm=4, verbose=False)
        >>> found.best.assignment
        {'a': 'broken_array_2_4', 'b': 'broken_array_2_4'}
    """
    if y is None and isinstance(x, tuple) and len(x) == 2:
        x, y = x
    _check(x, y, budget, confirm, objective, train, train_candidates, samples, optimiser, trials)
    choices = Choices(model, candidates, calibration_data(x, calibration), reference)
    costs = choices.costs[objective]
    options: dict[str, Any] = {"chips": chips, "seed": seed, "metric": metric, "batch_size": batch_size}
    player = Player(choices, x, y, folder=folder, **options)
    sources: dict[str, Any] = {"sensitivity": sensitivity, "measure": measure, "samples": samples, "loss": loss}
    options = {"seed": seed, "metric": metric, "batch_size": batch_size, "verbose": verbose}
    rises, words = layer_rises(model, x, y, choices, folder=folder, **sources, **options)
    found = front(costs, rises, optimiser=optimiser, trials=trials, seed=seed)
    uniform = np.tile(np.arange(len(choices.candidates))[:, None], len(choices.layers))
    found = np.unique(np.concatenate([found, uniform]), axis=0)
    found = found[np.argsort(sums(costs, rises, found)[0], kind="stable")]
    energies, predicted = sums(costs, rises, found)
    base = choices.reference_cost[objective]
    exact = SearchPoint(assignment={}, energy_pj=base, saving=0.0, predicted=0.0, evaluation=player.played({}))
    names = tuple(choices.candidates)
    points = [
        SearchPoint(
            assignment={layer: names[one] for layer, one in zip(choices.layers, row, strict=True)},
            energy_pj=float(energy),
            saving=float(1 - energy / base) if base else 0.0,
            predicted=float(rise),
        )
        for row, energy, rise in zip(found.tolist(), energies, predicted, strict=True)
    ]
    _confirm(points, exact, player, budget, confirm, verbose)
    points = _with_front(points, exact)
    best: int | None = None
    trained, notes = None, list[str]()
    if budget is not None:
        best, trained, notes = choose(points, exact, player, budget, train, train_candidates)
        points = _with_front(points, exact)
    return SearchResult(
        points=tuple(points),
        exact=exact,
        best=None if best is None else points[best],
        budget=budget,
        objective=objective,
        rises=words,
        notes=(*notes, *circuits_in_words([*choices.candidates.items(), ("the reference", choices.reference)])),
        model=trained if best is None or trained is not None else choices.converted(points[best].assignment),
    )


def _check(x, y, budget, confirm, objective, train, train_candidates, samples, optimiser, trials) -> None:
    sample_count(x, y)
    if budget is not None and (isinstance(budget, bool) or not isinstance(budget, (int, float)) or not budget >= 0):
        raise ValueError(f"`budget` must be a number >= 0 or None. Received: budget={budget!r}")
    for name, value, low in (
        ("confirm", confirm, 2),
        ("train_candidates", train_candidates, 1),
        ("samples", samples, 1),
        ("trials", trials, 1),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise ValueError(f"`{name}` must be an int >= {low}. Received: {name}={value!r}")
    for name, value, known in (("objective", objective, _OBJECTIVES), ("optimiser", optimiser, OPTIMISERS)):
        if value not in known:
            raise ValueError(f"`{name}` must be one of {', '.join(known)}. Received: {name}={value!r}")
    if train is not None and (not callable(train) or budget is None):
        raise ValueError(
            "`train` must be a function of the model, and needs a budget to choose by. "
            f"Received: train={train!r}, budget={budget!r}"
        )


def _with_front(points: list[SearchPoint], exact: SearchPoint) -> list[SearchPoint]:
    """The points, told whether a played one dominates them."""
    played = [exact, *(point for point in points if point.confirmed)]
    return [replace(point, dominated=is_dominated(point, played)) for point in points]


def _confirm(
    points: list[SearchPoint], exact: SearchPoint, player: Player, budget, confirm: int, verbose: bool
) -> None:
    """Plays the uniform points and `confirm` others, which take their evaluations."""
    energies, rises = (np.array([getattr(point, name) for point in points]) for name in ("energy_pj", "predicted"))
    first = [number for number, point in enumerate(points) if point.uniform]
    spread = spread_out(rises, max(2, confirm // (2 if budget is None else 3)))
    first += [number for number in spread if number not in first]
    good: dict[int, bool] = {}
    total = confirm + sum(point.uniform for point in points)
    with closing(progress(range(total), "confirmed", shown=verbose)) as shown:
        for step in shown:
            chosen = first[step] if step < len(first) else _next(points, energies, rises, good, exact, budget)
            if chosen is None:
                break
            points[chosen] = replace(points[chosen], evaluation=player.played(points[chosen].assignment))
            good[chosen] = budget is None or within(points[chosen].evaluation, exact, budget)


def _next(points: list[SearchPoint], energies, rises, good: dict[int, bool], exact: SearchPoint, budget) -> int | None:
    if budget is None:
        return farthest(energies, rises, good)
    dearest = max(float(energies.max()) * (1 + 1e-9), exact.energy_pj)
    cheapest = min((points[number].energy_pj for number, fine in good.items() if fine), default=dearest)
    return most_promising(energies, rises, good, cheapest)
