"""The assignments that no other beats in energy and predicted rise, both sums over the layers."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

OPTIMISERS = ("exact", "nsga2")
_KEPT = 4096  # assignments kept from layer to layer; more are thinned
_POPULATION = 50


def front(costs: np.ndarray, rises: np.ndarray, *, optimiser: str = "exact", trials: int = 2000, seed: int = 0):
    """Assignments of one candidate to each layer, the cheapest first, each worse only than dearer ones.

    Energy and predicted rise are sums over the layers, so the front of the first k layers is among the sums of the
    front of k - 1 with the candidates of the next: `"exact"` adds layer after layer and drops what is dominated. It
    keeps at most 4,096 assignments, beyond that the best in each of as many equal steps of energy. `"nsga2"` is
    optuna's NSGA-II (Deb 2002), started from all layers on one candidate and from the convex part of the front; where
    there are no more assignments than `trials` it looks at all.

    Args:
        costs, rises: float64 (layers, candidates), rises >= 0.
        optimiser: `"exact"` or `"nsga2"`.
        trials: assignments that `"nsga2"` looks at.
        seed: of `"nsga2"`.

    Returns:
        int array (assignments, layers) of candidates' numbers.

    Raises:
        ModuleNotFoundError: `"nsga2"` without optuna.
    """
    if optimiser == "exact":
        return _exact(costs, rises)
    layers, candidates = costs.shape
    if candidates**layers <= trials:
        found = np.array(list(itertools.product(range(candidates), repeat=layers)))
    else:
        found = _evolved(costs, rises, trials, seed)
    return found[_kept(*sums(costs, rises, found))]


def sums(costs: np.ndarray, rises: np.ndarray, assignments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(energies, rises) of assignments, float64 (assignments,)."""
    rows = np.arange(len(costs))
    return costs[rows, assignments].sum(axis=1), rises[rows, assignments].sum(axis=1)


def _kept(energies: np.ndarray, rises: np.ndarray) -> np.ndarray:
    """Numbers of those that no other beats, the cheapest first; of equals one."""
    order = np.lexsort((rises, energies))
    lowest = np.minimum.accumulate(rises[order])
    return order[np.concatenate([[True], rises[order][1:] < lowest[:-1]])]


def _exact(costs: np.ndarray, rises: np.ndarray) -> np.ndarray:
    found, energy, rise = np.zeros((1, 0), int), np.zeros(1), np.zeros(1)
    for own_cost, own_rise in zip(costs, rises, strict=True):
        choices = len(own_cost)
        energy, rise = (energy[:, None] + own_cost).ravel(), (rise[:, None] + own_rise).ravel()
        kept = _kept(energy, rise)
        if len(kept) > _KEPT:
            steps = np.linspace(energy[kept[0]], energy[kept[-1]], _KEPT)
            kept = kept[np.unique(np.searchsorted(energy[kept], steps, side="right") - 1)]  # the best up to each step
        found = np.column_stack([found[kept // choices], kept % choices])
        energy, rise = energy[kept], rise[kept]
    return found


def supported(costs: np.ndarray, rises: np.ndarray) -> list[list[int]]:
    """The front's convex part, the least rise first: in each layer's turn the cheapest saving in rise per energy."""
    rows = np.arange(len(costs))
    at = np.lexsort((costs, rises))[:, 0] if costs.shape[1] > 1 else np.zeros(len(costs), int)
    found = [at.tolist()]
    while True:
        saved, paid = costs[rows, at][:, None] - costs, rises - rises[rows, at][:, None]
        price = np.where(saved > 0, paid / np.where(saved > 0, saved, 1), np.inf)
        layer, candidate = np.unravel_index(np.argmin(price), price.shape)
        if not np.isfinite(price[layer, candidate]):
            return found
        at[layer] = candidate
        found.append(at.tolist())


def _evolved(costs: np.ndarray, rises: np.ndarray, trials: int, seed: int) -> np.ndarray:
    optuna = _optuna()
    layers, candidates = costs.shape
    names = [f"layer_{number}" for number in range(layers)]
    choices = {name: optuna.distributions.CategoricalDistribution(tuple(range(candidates))) for name in names}
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        sampler = optuna.samplers.NSGAIISampler(population_size=_POPULATION, seed=seed)
        study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
        for start in [*([number] * layers for number in range(candidates)), *supported(costs, rises)]:
            study.enqueue_trial(dict(zip(names, start, strict=True)))
        found = []
        for _ in range(trials):
            trial = study.ask(choices)
            found.append([trial.params[name] for name in names])
            spent, risen = sums(costs, rises, np.array(found[-1:]))
            study.tell(trial, [float(spent[0]), float(risen[0])])
    finally:
        optuna.logging.set_verbosity(before)
    return np.unique(found, axis=0)


def _optuna() -> Any:
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "optimiser='nsga2' is optuna's: pip install 'axtrain[search]'; optimiser='exact' needs nothing more. "
            "Received: no module named 'optuna'"
        ) from error
    return optuna
