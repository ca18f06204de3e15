"""Time to finish: the renewal formula against its published figures and against playing every event."""

import math

import numpy as np
import pytest

from axtrain.coded import (
    Checksum,
    CodeNet,
    MeasuredLatency,
    Replication,
    ShiftedExponential,
    SoftErrors,
    Uncoded,
    simulate,
)
from axtrain.coded.renewal import best_interval, expected_iterations, success
from axtrain.coded.simulation import iteration_time


def test_success_is_that_of_the_theory_page():
    """(4, 5, t = 1) at p = 1e-2: 0.968 forward and 0.971 backward; uncoded (1 - p)^(m n), copies (1 - p)^(2 m n)."""
    assert success(CodeNet(4, 5, 1), 1e-2) == pytest.approx(0.968 * 0.971, abs=1e-3)
    for code, nodes in ((Uncoded(4, 5), 20), (Checksum(4, 5), 20), (Replication(2, 4, 5), 40)):
        assert success(code, 1e-2) == pytest.approx(0.99 ** (2 * nodes))


def test_expected_iterations_by_summing_the_series():
    """E = sum over attempts: progress of I successes in a row, each failure begins anew."""
    q, interval = 0.93, 9
    state = np.zeros(interval + 1)  # expected iterations from k successes in a row, solved backwards
    matrix, ones = np.eye(interval), np.ones(interval)
    for k in range(interval):
        matrix[k, 0] -= 1 - q
        if k + 1 < interval:
            matrix[k, k + 1] -= q
    state[:interval] = np.linalg.solve(matrix, ones)
    assert expected_iterations(q, interval) == pytest.approx(state[0])
    assert expected_iterations(1.0, 7) == 7
    assert expected_iterations(0.0, 1) == math.inf


def test_the_best_interval_is_the_best_of_all():
    for q in (0.7, 0.99, 0.9999):
        times = [(expected_iterations(q, i) + 0.5) / i for i in range(1, 2000)]
        found = best_interval(q, 0.5)
        assert times[found - 1] <= 1.01 * min(times)


@pytest.mark.parametrize("code", [CodeNet(4, 5, 1), Replication(3, 2, 2), Uncoded(4, 5), Checksum(2, 2)], ids=repr)
def test_playing_agrees_with_the_formula(code):
    """Within 5 standard errors of 60 plays of 200 iterations."""
    found = simulate(code, SoftErrors(rate=5e-3), iterations=200, trials=60, seed=1)
    assert abs(found.played - found.expected) < 5 * found.error + 1e-9
    assert found.iteration_time == 3
    assert (found.rollbacks > 0) == (found.success < 1)


def test_latency_of_the_slowest_node():
    """Shifted exponential: the mean of the largest of n is shift + H_n / rate; 5 standard errors of 60 plays."""
    code, latency = CodeNet(2, 2), ShiftedExponential(1.0, 2.0)
    harmonic = [sum(1 / k for k in range(1, n + 1)) for n in (8, 8, 12)]
    assert iteration_time(code, latency) == pytest.approx(sum(1 + h / 2 for h in harmonic), rel=1e-3)
    found = simulate(code, SoftErrors(rate=0.0), latency, iterations=100, trials=60, checkpoint_cost=0.0)
    assert abs(found.played - found.expected) < 5 * found.error
    drawn = MeasuredLatency((1.0, 3.0))
    assert iteration_time(Uncoded(), drawn) == pytest.approx(6.0, rel=1e-3)


def test_what_is_hopeless_is_not_played():
    found = simulate(Uncoded(8, 8), SoftErrors(rate=0.5), iterations=100)
    assert found.expected > 1e10
    assert math.isnan(found.played)
    with pytest.raises(ValueError, match="interval"):
        simulate(Uncoded(), SoftErrors(rate=0.1), interval=0)
