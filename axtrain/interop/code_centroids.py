"""Which few weight codes a clustered kernel should have, so that the multiplier is accurate at them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from axtrain.layers.state import HardwareState
from axtrain.weight_noise import activation_distribution

_SCALES = np.linspace(0.2, 1.0, 41)  # of the largest weight's own, tried one by one (chosen here)


class CodeCentroids(NamedTuple):
    """The values of a clustered kernel.

    Attributes:
        codes: int64, ascending, distinct; one of them is the largest or smallest code there is.
        scale: real units per code, so that the values are ``scale * codes``.
        cost: the mean over the weights of what `choose` minimises, squared real weights.
    """

    codes: np.ndarray
    scale: float
    cost: float

    @property
    def values(self) -> np.ndarray:
        """float32, ascending: the values themselves."""
        return np.float32(self.scale) * self.codes.astype(np.float32)


def code_errors(state: HardwareState) -> tuple[np.ndarray, np.ndarray]:
    """The symmetric weight codes, and what the multiplier's error at each is worth, in squared weight steps.

    ``e(c) = E_a[E(a, c)^2] / E_a[(a - z)^2]``: by so much would the weight have to be off for products as wrong.

    Args:
        state: of a layer that saw calibration data: its activations' distribution.

    Raises:
        ValueError: it saw none.
    """
    share, offset = activation_distribution(state)
    table = state.hardware.code_table
    limit = (1 << (state.hardware.weight_bits - 1)) - 1
    codes = np.arange(-limit, limit + 1)
    errors = share @ table.error.astype(np.float64) ** 2 / (share @ offset**2)
    return codes, errors[codes - table.weight_low]


def choose(
    weights: np.ndarray, codes: np.ndarray, errors: np.ndarray, clusters: int, keep_zeros: bool
) -> CodeCentroids:
    """The at most `clusters` codes C and the scale s of least ``sum_w [(w - s c)^2 + s^2 e(c)]``, c nearest to w / s.

    Rounding and the multiplier count as independent errors. For each of some scales the best codes are found exactly,
    by dynamic programming over neighbouring codes. One code is the largest or the smallest there is: a quantiser
    takes its scale from the largest weight, so the values keep their codes only if one of them is there.

    Args:
        weights: of a kernel, not all 0.
        codes, errors: as `code_errors` gives them.
        clusters: how many codes at most, at least 2.
        keep_zeros: weights that are 0 do not count, and 0 is one of the codes.
    """
    found = np.sort(np.asarray(weights, np.float64).ravel())
    found = found[found != 0] if keep_zeros else found
    largest = np.abs(found).max()
    tried = [
        CodeCentroids(*_best_codes(found, codes, errors, clusters, keep_zeros, largest * share / codes[-1]))
        for share in _SCALES
    ]
    return min(tried, key=lambda one: one.cost)


def _best_codes(weights, codes, errors, clusters: int, keep_zeros: bool, scale: float):
    """The best codes for sorted weights under one scale: (codes, scale, mean cost)."""
    values, penalty = scale * codes, scale**2 * errors
    moments = np.concatenate(
        [np.zeros((3, 1)), np.cumsum([np.ones_like(weights), weights, weights**2], axis=1)], axis=1
    )
    at = moments[:, np.searchsorted(weights, values)]  # of the weights below each value
    middle = (values[:, None] + values[None, :]) / 2
    split = moments[:, np.searchsorted(weights, middle)]

    def cost(first, last, place):
        count, total, squares = last - first
        return squares - 2 * values[place] * total + (values[place] ** 2 + penalty[place]) * count

    every = np.arange(len(codes))
    between = cost(at[:, :, None], split, every[:, None]) + cost(split, at[:, None, :], every[None, :])
    between[np.tril_indices(len(codes))] = np.inf
    start = cost(np.zeros((3, 1)), at, every)
    end = cost(at, moments[:, -1:], every)
    if keep_zeros:
        zero = len(codes) // 2
        between[:zero, zero + 1 :] = start[zero + 1 :] = end[:zero] = np.inf
    best: tuple[float, list[int]] = (np.inf, [])
    for begins, ends in ((_only(start, 0), end), (start, _only(end, -1))):
        sums, before = [begins], []
        for _ in range(1, clusters):
            through = sums[-1][:, None] + between
            before.append(through.argmin(axis=0))
            sums.append(through.min(axis=0))
            last = int((sums[-1] + ends).argmin())
            if sums[-1][last] + ends[last] < best[0]:
                path = [last]
                for step in reversed(before):
                    path.append(int(step[path[-1]]))
                best = (float(sums[-1][last] + ends[last]), path[::-1])
    return codes[best[1]], scale, best[0] / len(weights)


def _only(costs: np.ndarray, place: int) -> np.ndarray:
    kept = np.full_like(costs, np.inf)
    kept[place] = costs[place]
    return kept
