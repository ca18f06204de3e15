"""How long training takes with a code: by the renewal formula, and played event by event, for any number of nodes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.integrate import trapezoid

from axtrain.coded.code import Code, Stage
from axtrain.coded.faults import SoftErrors
from axtrain.coded.latency import Latency
from axtrain.coded.renewal import best_interval, expected_iterations, success

_HOPELESS = 1e7  # iterations for one of progress: not played


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """What `simulate` found; times are in the latency's unit, or in stages where there is none.

    Attributes:
        iterations: of progress wanted.
        interval: of them between two checkpoints.
        success: probability that an iteration needs no rollback.
        iteration_time: mean, its stages waiting for all of their nodes.
        expected: time by the renewal formula.
        played: mean time over the trials, NaN where it was hopeless to play.
        error: standard error of `played`.
        rollbacks: mean number of them.
    """

    iterations: int
    interval: int
    success: float
    iteration_time: float
    expected: float
    played: float
    error: float
    rollbacks: float


def simulate(
    code: Code,
    faults: SoftErrors,
    latency: Latency | None = None,
    *,
    iterations: int = 1000,
    interval: int | None = None,
    checkpoint_cost: float = 0.1,
    trials: int = 50,
    seed: int = 0,
) -> Simulation:
    """Time for `iterations` of progress, each of a forward, a backward and an update stage.

    In each stage every node errs with probability ``faults.rate``. What the code corrects costs nothing more; an
    iteration with an error beyond that is lost together with all since the last checkpoint. A network reaches an
    accuracy after as many iterations of progress as without errors, so this is the time to that accuracy. Formula:
    theory page, section 8.

    Args:
        code: also `Uncoded`, `Replication` and `Checksum`; without correction any error loses the iteration.
        faults: `rate` counts.
        latency: of a node in a stage; `None` for one unit of time.
        iterations: of progress.
        interval: between two checkpoints; `None` for the best by the formula.
        checkpoint_cost: in iterations.
        trials: plays.
        seed: of the plays.

    Raises:
        ValueError: numbers that are not positive.

    Examples:
        >>> from axtrain.coded import CodeNet, Uncoded
        >>> coded, plain = (simulate(code, SoftErrors(rate=1e-2)) for code in (CodeNet(4, 5), Uncoded(4, 5)))
        >>> coded.expected < plain.expected / 1.3
        True
    """
    if iterations < 1 or trials < 2 or checkpoint_cost < 0 or (interval is not None and interval < 1):
        raise ValueError(
            "`iterations` and `interval` must be at least 1, `trials` at least 2 and `checkpoint_cost` not negative. "
            f"Received: iterations={iterations}, interval={interval}, trials={trials}, "
            f"checkpoint_cost={checkpoint_cost}"
        )
    q = success(code, faults.rate)
    interval = min(interval or best_interval(q, checkpoint_cost), iterations)
    one = iteration_time(code, latency)
    per_interval = expected_iterations(q, interval) + checkpoint_cost
    expected = per_interval * iterations / interval * one
    played, rollbacks = np.full(trials, np.nan), np.full(trials, np.nan)
    if per_interval / interval < _HOPELESS / iterations:
        generator = np.random.default_rng(seed)
        for trial in range(trials):
            played[trial], rollbacks[trial] = _play(
                code, faults.rate, latency, iterations, interval, checkpoint_cost * one, generator
            )
    return Simulation(
        iterations=iterations,
        interval=interval,
        success=q,
        iteration_time=one,
        expected=expected,
        played=float(played.mean()),
        error=float(played.std(ddof=1) / math.sqrt(trials)),
        rollbacks=float(rollbacks.mean()),
    )


def iteration_time(code: Code, latency: Latency | None) -> float:
    """Mean time of an iteration: the sum over its stages of the mean of the slowest node, ``int 1 - F(t)^n dt``."""
    nodes = [len(code.forward.shards), len(code.backward.shards), code.shards]
    if latency is None:
        return float(len(nodes))
    longest = 1.0
    while latency.share_within(longest) < 1.0 - 1e-9 and longest < 1e9:
        longest *= 2.0
    times = np.linspace(0.0, longest, 20_001)
    within = np.array([latency.share_within(time) for time in times])
    return float(sum(trapezoid(1.0 - within**count, times) for count in nodes))


def _play(
    code: Code,
    rate: float,
    latency: Latency | None,
    iterations: int,
    interval: int,
    checkpoint: float,
    generator: np.random.Generator,
) -> tuple[float, float]:
    """Time and rollbacks of one training, iteration by iteration."""
    nodes = [len(code.forward.shards), len(code.backward.shards), code.shards]
    done, since, rollbacks, time = 0, 0, 0, 0.0
    drawn: list[bool] = []
    while done < iterations:
        drawn = drawn or _passed(code, rate, 1000, generator).tolist()  # many at once
        passed = drawn.pop()
        if latency is None:
            time += len(nodes)
        else:
            time += sum(float(latency.draw(generator, count).max()) for count in nodes)
        if passed:
            since += 1
        else:
            since, rollbacks = 0, rollbacks + 1
        if since == min(interval, iterations - done):
            done, since, time = done + since, 0, time + checkpoint
    return time, rollbacks


def _passed(code: Code, rate: float, count: int, generator: np.random.Generator) -> np.ndarray:
    """Which of `count` iterations need no rollback: nodes err one by one, results are wrong, codewords are judged."""
    passed: np.ndarray = np.ones(count, bool)
    for stage in (code.forward, code.backward):
        erring = generator.random((count, len(stage.shards))) < rate
        wrong = np.zeros((count, stage.results), bool)
        for node, result in enumerate(stage.sums):
            wrong[:, result] |= erring[:, node]
        passed &= _correctable(stage, wrong)
    return passed


def _correctable(stage: Stage, wrong: np.ndarray) -> np.ndarray:
    """Whether every codeword has no more wrong results than are corrected whatever the errors."""
    split = wrong.reshape(len(wrong), stage.groups, -1)
    return (split.sum(axis=2) <= stage.redundancy // 2).all(axis=1)
