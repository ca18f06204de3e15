"""Which assignment to play next, from what has been played and what is predicted."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import stats

_SURE = 0.3  # least deviation of the bound's logarithm: a sum of rises is seldom better (chosen here)


def spread_out(rises: np.ndarray, count: int) -> list[int]:
    """Numbers of `count` assignments, or fewer, evenly over the logarithm of the predicted rise, both ends included."""
    logs = log_rises(rises)
    wanted = np.linspace(logs.min(), logs.max(), count)
    return list(dict.fromkeys(int(np.argmin(np.abs(logs - one))) for one in wanted))


def most_promising(energies, rises, played: Mapping[int, bool], cheapest: float) -> int | None:
    """The assignment of the largest expected saving, or `None` where none is left that could save anything.

    What it saves, times the chance that it is good enough: ``Phi((log bound - log rise) / s)``, the bound midway
    between the largest rise found good enough and the smallest found too large, s half their distance, at least 0.3;
    averaged, as one observation, with the played ones, each weighing ``exp(-1/2 (d / 0.3)^2)`` at a distance d of the
    logarithms. Chosen here, after the expected improvement of Bayesian optimisation.

    Args:
        energies, rises: of all assignments.
        played: whether it was good enough, by number.
        cheapest: energy of the cheapest that was good enough.
    """
    logs = log_rises(rises)
    good = [logs[number] for number, fine in played.items() if fine]
    bad = [logs[number] for number, fine in played.items() if not fine]
    low = max(good) if good else min(bad) - 2 * _SURE if bad else float(np.median(logs))
    high = min(bad) if bad else low + 2 * _SURE
    chance = stats.norm.cdf(((low + high) / 2 - logs) / max(_SURE, abs(high - low) / 2))
    near = np.exp(-0.5 * ((logs[:, None] - logs[list(played)]) / _SURE) ** 2)
    chance = (chance + near @ np.array(list(played.values()), float)) / (1 + near.sum(axis=1))
    score = np.maximum(cheapest - energies, 0) * chance
    score[list(played)] = 0
    best = int(np.argmax(score))
    return best if score[best] > 0 else None


def farthest(energies, rises, played) -> int | None:
    """The assignment farthest from all that were played, by energy and the logarithm of the rise, each over its range.

    `None` where all were played.
    """
    places = np.stack([energies, log_rises(rises)], axis=1)
    places = places / np.maximum(np.ptp(places, axis=0), 1e-12)
    if len(played) == len(places):
        return None
    distance = np.linalg.norm(places[:, None] - places[list(played)][None], axis=-1).min(axis=1)
    distance[list(played)] = -1
    return int(np.argmax(distance))


def log_rises(rises: np.ndarray) -> np.ndarray:
    """Natural logarithms; rises below a thousandth of the median one count as that."""
    positive = rises[rises > 0]
    return np.log(np.maximum(rises, np.median(positive) / 1e3 if len(positive) else 1e-12))
