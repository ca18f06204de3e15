"""Expected time of training with errors, by the renewal formula.

An iteration succeeds with probability q, on its own. Training I iterations between two checkpoints, starting again
from the last one at each failure, takes ``(q^-I - 1) / (1 - q)`` iterations on average. Source: theory page, section 8.
"""

from __future__ import annotations

import math

from axtrain.coded.code import Code

_LONGEST = 1_000_000


def success(code: Code, rate: float) -> float:
    """Probability q that an iteration needs no rollback, each node erring in each stage with probability `rate`.

    Each of an iteration's two products succeeds where no codeword has more wrong results than the code corrects
    whatever the errors; a result is wrong where any of the nodes it adds up erred. Without redundancy any error fails.
    """
    q = 1.0
    for stage in (code.forward, code.backward):
        nodes_of_result = len(stage.sums) // stage.results
        wrong = 1.0 - (1.0 - rate) ** nodes_of_result
        results = stage.generator.shape[0]
        most = stage.redundancy // 2
        one = sum(math.comb(results, k) * wrong**k * (1.0 - wrong) ** (results - k) for k in range(most + 1))
        q *= one**stage.groups
    return q


def expected_iterations(q: float, interval: int) -> float:
    """Iterations run, on average, for `interval` iterations of progress: ``(q^-I - 1) / (1 - q)``.

    Args:
        q: probability in (0, 1] that an iteration succeeds.
        interval: I, iterations between two checkpoints, at least 1.

    Examples:
        >>> expected_iterations(1.0, 10), round(expected_iterations(0.9, 10), 2)
        (10.0, 18.68)
    """
    if q >= 1.0:
        return float(interval)
    exponent = -interval * math.log(q) if q > 0 else math.inf
    return math.expm1(exponent) / (1.0 - q) if exponent < 700 else math.inf


def best_interval(q: float, cost: float = 0.1) -> int:
    """The interval with the least expected time for each iteration of progress.

    Args:
        q: probability that an iteration succeeds.
        cost: of a checkpoint, in iterations.

    Returns:
        between 1 and a million.
    """

    def each(interval: int) -> float:
        return (expected_iterations(q, interval) + cost) / interval

    best = 1
    while best < _LONGEST and each(2 * best) < each(best):
        best *= 2
    return min(range(max(1, best // 2), min(2 * best, _LONGEST) + 1, max(1, best // 64)), key=each)
