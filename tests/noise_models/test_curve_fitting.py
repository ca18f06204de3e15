"""Curves fitted to counted failures, on readings drawn from known distributions and against plain loops."""

from __future__ import annotations

import itertools
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import integrate, optimize, stats

from axtrain.noise_models.curve_fitting import Readings, _exact_bounds, fit_curve
from axtrain.noise_models.curve_likelihood import Outcomes, log_mass
from axtrain.noise_models.curves import ProbitCurve, TabulatedCurve, curve_from_dict

MEAN, DEVIATION = 0.35, 0.065
BULK = np.linspace(0.30, 0.50, 8)  # every outcome of 20,000 cells is expected 50 times or more
REPEATS = 400
HOLES = Readings(voltages=(0.5, 0.55, 0.6, 0.65), failures=(40, 9, 0, 0), cells=1000)


def true_rate(voltages):
    return stats.norm.sf((np.asarray(voltages) - MEAN) / DEVIATION)


def draw(rng, voltages, cells, *, nested, rates=None):
    rates = true_rate(voltages) if rates is None else rates
    if not nested:
        return Readings(voltages=voltages, failures=rng.binomial(cells, rates), cells=cells, nested=False)
    shares = -np.diff(np.concatenate(([1.0], rates, [0.0])))
    counts = rng.multinomial(cells, shares[::-1])  # the rarest first
    return Readings(voltages=voltages, failures=np.cumsum(counts)[:-1][::-1], cells=cells)


@pytest.fixture(autouse=True)
def fewer_draws(monkeypatch):
    """p-values of small counts from 199 drawn readings, for speed: 0.005 at the least."""
    monkeypatch.setattr("axtrain.noise_models.curve_likelihood._RESAMPLES", 199)


@pytest.fixture(scope="module", params=[True, False], ids=["nested", "independent"])
def repeats(request):
    """Fits of 400 readings of 20,000 cells each."""
    rng = np.random.default_rng(1)
    return [fit_curve(draw(rng, BULK, 20_000, nested=request.param), method="probit") for _ in range(REPEATS)]


@pytest.mark.parametrize("nested", [True, False])
def test_recovers_the_distribution(nested):
    fit = fit_curve(draw(np.random.default_rng(0), BULK, 1_000_000, nested=nested))  # n = 1,000,000 cells
    assert fit.method == "probit" and isinstance(fit.curve, ProbitCurve)
    assert (fit.curve.mean_v, fit.curve.deviation_v) == (fit.mean_v, fit.deviation_v)
    for found, error, truth in zip((fit.mean_v, fit.deviation_v), fit.standard_errors, (MEAN, DEVIATION), strict=True):
        assert 0 < error < 1e-3
        assert abs(found - truth) < 5 * error


def test_standard_errors_are_the_spread_over_repeats(repeats):
    for i, name in enumerate(("mean_v", "deviation_v")):
        spread = np.std([getattr(fit, name) for fit in repeats], ddof=1)
        stated = np.mean([fit.standard_errors[i] for fit in repeats])
        assert abs(spread / stated - 1) < 5 / math.sqrt(2 * REPEATS)  # n = 400: 0.18


def test_estimates_are_gaussian_around_the_truth(repeats):
    for i, (name, truth) in enumerate((("mean_v", MEAN), ("deviation_v", DEVIATION))):
        scores = [(getattr(fit, name) - truth) / fit.standard_errors[i] for fit in repeats]
        assert stats.kstest(scores, "norm").pvalue > 1e-6  # 5 standard errors of a normal: 6e-7


@pytest.mark.parametrize("voltage", [0.3, 0.4, 0.55])  # the last one outside what was measured
def test_the_band_covers_as_often_as_it_says(repeats, voltage):
    bands = np.array([fit.band(voltage) for fit in repeats])
    covered = np.mean((bands[:, 0] <= true_rate(voltage)) & (true_rate(voltage) <= bands[:, 1]))
    assert abs(covered - 0.95) < 5 * math.sqrt(0.95 * 0.05 / REPEATS)  # n = 400: 0.054


def test_p_values_are_uniform_when_the_probit_is_true(repeats):
    p_values = np.array([fit.p_value for fit in repeats])
    assert all("chi-square" in fit.reason and "6 degrees of freedom" in fit.reason for fit in repeats)
    assert stats.kstest(p_values, "uniform").pvalue > 1e-6
    assert abs(np.mean(p_values < 0.1) - 0.1) < 5 * math.sqrt(0.1 * 0.9 / REPEATS)  # n = 400: 0.075


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.cases("True")
def test_p_values_from_drawn_readings_are_uniform_too(nested):
    """Few cells and rare failures; 150 readings, each against 19 drawn: p is one of 1/20, 2/20, ..., 1."""
    rng, voltages, p_values = np.random.default_rng(2), np.linspace(0.4, 0.7, 7), []
    for _ in range(150):
        outcomes = Outcomes(draw(rng, voltages, 1000, nested=nested))
        parameters, _ = outcomes.fit(outcomes.counts, outcomes.start)
        p_values.append(outcomes.bootstrap(parameters, int(rng.integers(1 << 31)), 19))
    assert abs(np.mean(p_values) - 0.525) < 5 * np.std(np.arange(1, 21) / 20) / math.sqrt(150)  # n = 150: 0.118
    assert len(set(p_values)) > 10


@pytest.mark.parametrize("nested", [True, False])
def test_drawn_readings_are_those_of_the_fit(nested, monkeypatch):
    outcomes = Outcomes(draw(np.random.default_rng(9), np.linspace(0.4, 0.7, 7), 1000, nested=nested))
    parameters, _ = outcomes.fit(outcomes.counts, outcomes.start)
    drawn = []

    def capture(counts, draw, statistic, **options):
        drawn.extend(draw((4000, len(counts))))
        return SimpleNamespace(pvalue=1.0)

    monkeypatch.setattr(stats, "monte_carlo_test", capture)
    outcomes.bootstrap(parameters, 0, 1)
    shares = np.exp(outcomes.log_probabilities(parameters)[0])
    expected = outcomes.totals * shares
    variance = expected * (1 - shares)
    assert (np.abs(np.mean(drawn, axis=0) - expected) < 5 * np.sqrt(variance / 4000)).all()  # n = 4000 readings
    common = variance > 5  # rarer failures, or rarer passes, have heavier tails
    spread = np.var(drawn, axis=0)[common] / variance[common]
    assert (np.abs(spread - 1) < 5 * math.sqrt(2.2 / 4000)).all()  # relative variance (2 + 1/5) / n: 0.117


def two_populations(voltages):
    """One cell in a thousand is weak."""
    voltages = np.asarray(voltages)
    return 0.999 * stats.norm.sf((voltages - 0.35) / 0.04) + 0.001 * stats.norm.sf((voltages - 0.6) / 0.03)


@pytest.mark.parametrize("nested", [True, False])
def test_two_populations_are_rejected_and_the_table_follows_them(nested):
    voltages, cells = np.linspace(0.40, 0.75, 12), 1_000_000
    fit = fit_curve(draw(np.random.default_rng(3), voltages, cells, nested=nested, rates=two_populations(voltages)))
    assert fit.p_value < 0.01 and "rejected at p < 0.01" in fit.reason and "not rejected" not in fit.reason
    assert fit.method == "isotonic" and isinstance(fit.curve, TabulatedCurve)
    assert fit.mean_v is fit.deviation_v is fit.standard_errors is None
    assert all(high >= low for high, low in itertools.pairwise(fit.curve.rates))
    for voltage, truth in zip(voltages, two_populations(voltages), strict=True):
        # n = 1,000,000 cells; one count is allowed for where hardly any is expected
        assert abs(fit.curve(voltage) - truth) < 5 * math.sqrt(truth / cells) + 1 / cells
    between = np.linspace(0.40, 0.75, 50)
    low, high = fit.band(between)
    rates = np.array([fit.curve(voltage) for voltage in between])
    assert (low <= rates).all() and (rates <= high).all()
    truth = two_populations(between)
    assert np.mean((low <= truth) & (truth <= high)) > 0.9  # conservative between the voltages


@pytest.mark.parametrize("nested", [True, False])
def test_far_tail(nested):
    """n = 1e9 cells, rates from 3e-6 to 1e-11: the last voltages see no failure."""
    voltages = np.linspace(0.65, 0.785, 7)
    readings = draw(np.random.default_rng(4), voltages, 10**9, nested=nested)
    assert readings.failures[0][-1] == 0 and 1 <= readings.failures[0][3] < 100
    fit = fit_curve(readings, method="probit")
    assert abs(fit.mean_v - MEAN) < 5 * fit.standard_errors[0] < 0.1
    assert abs(fit.deviation_v - DEVIATION) < 5 * fit.standard_errors[1] < 0.1
    assert fit.p_value > 1e-3
    at = MEAN + DEVIATION * stats.norm.isf(1e-8)
    low, high = fit.band(at)
    assert 1e-9 < low < fit.curve(at) < high < 1e-7
    error = (math.log(high) - math.log(low)) / (2 * 1.96)
    assert abs(math.log(fit.curve(at) / 1e-8)) < 5 * error


def test_cells_that_nearly_all_fail_fit_as_well():
    """Mirrored readings give the mirrored curve."""
    failures = np.array([5000, 700, 60, 3])
    tail = fit_curve(Readings(voltages=(0.5, 0.55, 0.6, 0.65), failures=failures, cells=10**8), method="probit")
    head = fit_curve(
        Readings(voltages=(0.35, 0.4, 0.45, 0.5), failures=10**8 - failures[::-1], cells=10**8), method="probit"
    )
    assert math.isclose(head.mean_v, 1.0 - tail.mean_v, rel_tol=1e-6)
    assert math.isclose(head.deviation_v, tail.deviation_v, rel_tol=1e-6)
    assert math.isclose(head.deviance, tail.deviance, rel_tol=1e-6)


def plain_log_likelihood(readings, mean, deviation):
    voltages, (failures,), (cells,) = readings.voltages, readings.failures, readings.cells
    rates = [0.5 * math.erfc((v - mean) / deviation / math.sqrt(2)) for v in voltages]
    total = 0.0
    if not readings.nested:
        for k, n, rate in zip(failures, cells, rates, strict=True):
            total += k * math.log(rate) + (n - k) * math.log1p(-rate)
        return total
    counts = [cells[0], *failures, 0]
    edges = [1.0, *rates, 0.0]
    for i in range(len(counts) - 1):
        total += (counts[i] - counts[i + 1]) * math.log(edges[i] - edges[i + 1])
    return total


@pytest.mark.parametrize("nested", [True, False])
def test_likelihood_is_that_of_a_plain_loop_and_the_fit_its_maximum(nested):
    readings = draw(np.random.default_rng(5), BULK, 5000, nested=nested)
    outcomes, fit = Outcomes(readings), fit_curve(readings, method="probit")
    best = plain_log_likelihood(readings, fit.mean_v, fit.deviation_v)

    def half_deviance(mean, deviation):
        slope = outcomes.scale / deviation
        return outcomes.half_deviance(np.array([(mean - outcomes.centre) / deviation, slope]), outcomes.counts)[0]

    for i, j in itertools.product((-1, 0, 1), repeat=2):
        mean = fit.mean_v + i * fit.standard_errors[0]
        deviation = fit.deviation_v + j * fit.standard_errors[1]
        drop = best - plain_log_likelihood(readings, mean, deviation)
        assert drop > 0.1 or i == j == 0
        assert math.isclose(half_deviance(mean, deviation) - fit.deviance / 2, drop, rel_tol=1e-6, abs_tol=1e-6)
    # the curvature of the plain loop, by differences, is the observed information
    h = np.array(fit.standard_errors) / 20
    point = np.array([fit.mean_v, fit.deviation_v])
    information = np.empty((2, 2))
    for i, j in itertools.product((0, 1), repeat=2):
        a, b = h[i] * np.eye(2)[i], h[j] * np.eye(2)[j]
        corners = [
            plain_log_likelihood(readings, *p) for p in (point + a + b, point + a - b, point - a + b, point - a - b)
        ]
        information[i, j] = -(corners[0] - corners[1] - corners[2] + corners[3]) / (4 * h[i] * h[j])
    np.testing.assert_allclose(np.linalg.inv(information), fit.covariance, rtol=1e-3)


@pytest.mark.parametrize("nested", [True, False])
def test_gradient_and_hessian_are_those_of_the_value(nested):
    outcomes = Outcomes(draw(np.random.default_rng(6), np.linspace(0.3, 0.7, 6), 5000, nested=nested))
    at, counts = np.array([-1.7, 1.9]), outcomes.counts
    _, gradient, hessian = outcomes.half_deviance(at, counts)
    numeric = optimize.approx_fprime(at, lambda p: outcomes.half_deviance(p, counts)[0], 1e-6)
    np.testing.assert_allclose(gradient, numeric, rtol=1e-4)
    numeric = [optimize.approx_fprime(at, lambda p, i=i: outcomes.half_deviance(p, counts)[1][i], 1e-6) for i in (0, 1)]
    np.testing.assert_allclose(hessian, numeric, rtol=1e-4)


@pytest.mark.parametrize(("upper", "lower"), [(1, -1), (0.5, 0.4), (-6, -6.1), (9, 8.5), (-30, -31), (50, 49)])
def testlog_mass_is_an_integral_in_both_tails(upper, lower):
    nearest = min(abs(upper), abs(lower)) if upper * lower > 0 else 0
    scaled, _ = integrate.quad(lambda z: math.exp((nearest**2 - z**2) / 2), lower, upper, epsrel=1e-12)
    expected = math.log(scaled) - nearest**2 / 2 - math.log(2 * math.pi) / 2
    assert math.isclose(float(log_mass(np.array(float(upper)), np.array(float(lower)))), expected, rel_tol=1e-10)


def test_exact_bounds_are_clopper_and_pearsons():
    failures, cells = np.array([0, 1, 7, 99, 100]), np.full(5, 100)
    for low, high, k in zip(*_exact_bounds(failures, cells, 0.9), failures, strict=True):
        expected = stats.binomtest(int(k), 100).proportion_ci(0.9, "exact")
        np.testing.assert_allclose((low, high), (expected.low, expected.high), rtol=1e-6, atol=1e-12)
    low, high = _exact_bounds(np.array([1]), np.array([10**9]), 0.95)  # Poisson: chi2.ppf(q, 2k) / 2
    np.testing.assert_allclose((low[0], high[0]), (0.0253178e-9, 5.571643e-9), rtol=1e-5)


def test_isotonic_pools_what_rises_and_gives_zeros_half_a_failure():
    readings = Readings(
        voltages=(0.4, 0.5, 0.6, 0.7, 0.8), failures=(90, 10, 40, 0, 0), cells=(100, 100, 300, 400, 600), nested=False
    )
    curve = fit_curve(readings, method="isotonic").curve
    assert curve.rates == pytest.approx((0.9, 50 / 400, 50 / 400, 0.5 / 1000, 0.5 / 1000))
    nested = fit_curve(HOLES, method="isotonic", source="lot 7")
    assert nested.curve.rates == pytest.approx((0.04, 0.009, 0.0005, 0.0005))  # the same 1000 cells twice
    assert nested.curve.source == "lot 7"
    few = Readings(voltages=(0.4, 0.5, 0.6), failures=(900, 10, 0), cells=(1000, 1000, 2), nested=False)
    assert fit_curve(few, method="isotonic").curve.rates == pytest.approx((0.9, 0.01, 0.01))


def test_isotonic_band_is_exact_where_measured_and_all_of_the_step_between():
    fit = fit_curve(HOLES, method="isotonic", confidence=0.9)
    bounds = [stats.binomtest(k, 1000).proportion_ci(0.9, "exact") for k in (40, 9, 0, 0)]
    low, high = fit.band(HOLES.voltages)
    np.testing.assert_allclose(low, [bound.low for bound in bounds], rtol=1e-6)
    np.testing.assert_allclose(high, [bound.high for bound in bounds], rtol=1e-6)
    low, high = fit.band([[0.52], [0.58]])
    np.testing.assert_allclose(low, [[bounds[1].low], [0.0]], rtol=1e-6)
    np.testing.assert_allclose(high, [[bounds[0].high], [bounds[1].high]], rtol=1e-6)
    with pytest.raises(ValueError, match="not extrapolated"):
        fit.band(0.7)


def test_band_widens_with_the_confidence_and_away_from_the_readings():
    readings = draw(np.random.default_rng(7), BULK, 20_000, nested=True)
    narrow, wide = (fit_curve(readings, confidence=confidence) for confidence in (0.5, 0.99))
    (low, high), (lower, higher) = narrow.band([0.4, 0.7]), wide.band([0.4, 0.7])
    assert (lower < low).all() and (low < high).all() and (high < higher).all()
    assert high[1] / low[1] > high[0] / low[0]


def test_two_voltages_are_fitted_exactly_and_not_tested():
    fit = fit_curve(Readings(voltages=(0.4, 0.5), failures=(2000, 100), cells=10_000))
    assert fit.method == "probit" and fit.p_value is None and "nothing to test" in fit.reason
    assert fit.curve(0.4) == pytest.approx(0.2, rel=1e-9) and fit.curve(0.5) == pytest.approx(0.01, rel=1e-9)
    assert abs(fit.deviance) < 1e-6


def test_same_seed_same_p_value():
    assert fit_curve(HOLES, seed=1).p_value == fit_curve(HOLES, seed=1).p_value
    assert 0 < fit_curve(HOLES, seed=1).p_value <= 1


def test_chips_are_summed():
    both = Readings(voltages=(0.5, 0.4, 0.45), failures=[[10, 90, 40], [30, 110, 60]], cells=[[1000], [2000]])
    assert both.failures == ((90, 40, 10), (110, 60, 30)) and both.cells == ((1000,) * 3, (2000,) * 3)
    one = Readings(voltages=(0.4, 0.45, 0.5), failures=(200, 100, 40), cells=3000)
    assert fit_curve(both).mean_v == fit_curve(one).mean_v
    assert "3,000 nested cells of 2 chip(s) at 3 voltages" in str(fit_curve(both))


def test_text_of_a_fit():
    lines = str(fit_curve(draw(np.random.default_rng(8), BULK, 20_000, nested=True))).splitlines()
    assert lines[0] == "readings: 20,000 nested cells of 1 chip(s) at 8 voltages"
    assert lines[1].startswith("probit: not rejected at p < 0.01; deviance of the probit ")
    assert lines[2].startswith("mean_v 0.3") and " +- 0.00" in lines[2] and lines[3].startswith("deviation_v 0.06")


@pytest.mark.parametrize("method", ["probit", "isotonic"])
def test_round_trip_through_json(method):
    fit = fit_curve(HOLES, method=method)
    assert fit.method == method and fit.reason.startswith("asked for")
    assert fit.curve.source == f"{method} fit to readings"
    assert curve_from_dict(json.loads(json.dumps(fit.curve.to_dict()))) == fit.curve


def test_csv_of_several_chips(tmp_path):
    path = tmp_path / "lot.csv"
    path.write_text("\ufeffchip, voltage, failures, cells\na,0.5,3,1e3\na,0.4,9,1000\nb,0.4,12,2000\nb,0.5,1,2000\n")
    expected = {"voltages": (0.4, 0.5), "source": "lot.csv"}
    assert Readings.from_csv(path) == Readings(failures=[[9, 3], [12, 1]], cells=[[1000], [2000]], **expected)
    summed = Readings(failures=(21, 4), cells=3000, nested=False, **expected)
    assert Readings.from_csv(path, nested=False) == summed
    with path.open("a") as file:
        file.write(path.read_text().splitlines()[1] + "\n")
    with pytest.raises(ValueError, match="remove the second row.*Received: a row like an earlier one"):
        Readings.from_csv(path, nested=False)


def test_csv_round_trip_of_one_chip(tmp_path):
    path = tmp_path / "chip.csv"
    rows = zip(HOLES.voltages, *HOLES.failures, *HOLES.cells, strict=True)
    path.write_text("voltage,failures,cells\n" + "".join(f"{v!r},{k},{n}\n" for v, k, n in rows))
    assert fit_curve(Readings.from_csv(path)).curve.source == "probit fit to chip.csv"
    assert Readings.from_csv(path).failures == HOLES.failures and Readings.from_csv(path).cells == HOLES.cells


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("voltage,rate\n", r"bad\.csv needs the columns voltage, failures, cells. Received: \['voltage', 'rate'\]"),
        ("", "needs the columns.*Received: None"),
        ("voltage,failures,cells\n", r"whole number for each voltage.*Received: voltages=\[\]"),
        ("voltage,failures,cells\n0.4,9,10\n0.5,x,10\n", "line 3: .*whole numbers of cells. Received: .*'x'"),
        ("voltage,failures,cells\n0.4,1.5,10\n", "line 2: .*Received: .*'1.5'"),
        ("voltage,failures,cells\n0.4,1\n", "line 2: .*Received: "),
        ("voltage,failures,cells\n0.4,9,10\n0.4,8,10\n", r"line 3: .*`chip`.*nested=False.*Received: 0\.4 V twice"),
        (
            "chip,voltage,failures,cells\na,0.4,9,10\na,0.5,9,10\nb,0.4,8,10\n",
            r"Received: no row of chip 'b' at 0\.5 V",
        ),
        ("voltage,failures,cells\n0.4,1,10\n0.5,2,10\n", r"cannot rise.*1 of 10 at 0\.4 V and 2 of 10 at 0\.5 V"),
        ("voltage,failures,cells\n-0.4,1,10\n", r"Received: voltage=-0\.4"),
    ],
)
def test_bad_csv(tmp_path, text, message):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        Readings.from_csv(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"failures": (9, 3)}, r"whole number for each voltage.*Received: voltages="),
        ({"failures": (9.0, 3.0, 1.0)}, "whole number"),
        ({"failures": (True, True, False)}, "whole number"),
        ({"cells": 1e4}, "whole number"),
        ({"cells": (100, 100)}, "`cells` one or as many"),
        ({"failures": (9, 3, -1)}, r"0 <= failures <= cells. Received: -1 of 100 at 0\.6 V, chip 0 of 1"),
        ({"failures": (101, 3, 1)}, r"Received: 101 of 100 at 0\.4 V"),
        ({"failures": (0, 0, 0), "cells": 0, "nested": False}, "0 <= failures <= cells"),
        ({"voltages": (0.4, 0.4, 0.5)}, r"stand once.*Received: 0\.4 V twice"),
        ({"voltages": (0.4, math.nan, 0.5)}, "Received: voltage=nan"),
        ({"failures": (9, 3, 4)}, r"cannot rise.*Received: 3 of 100 at 0\.5 V and 4 of 100 at 0\.6 V"),
        ({"failures": [[9, 3, 1], [3, 5, 1]]}, r"Received: 3 of 100 at 0\.4 V and 5 of 100 at 0\.5 V, chip 1 of 2"),
        ({"cells": (100, 90, 90)}, r"same cells; pass nested=False.*9 of 100 at 0\.4 V and 3 of 90 at 0\.5 V"),
    ],
)
def test_bad_readings(changes, message):
    with pytest.raises(ValueError, match=message):
        Readings(**{"voltages": (0.4, 0.5, 0.6), "failures": (9, 3, 1), "cells": 100, **changes})


@pytest.mark.parametrize(
    ("failures", "nested", "message"),
    [
        ((0, 0, 0), True, r"lower the voltage. Received: 0 of 100 at 0\.4 V"),
        ((100, 100, 100), False, r"raise the voltage. Received: 100 of 100 at 0\.4 V"),
        ((100, 7, 0), True, "two or more voltages.*measure between"),
        ((100, 7, 0), False, "two or more voltages.*measure between"),
        ((7, 7, 7), True, "in different numbers; measure between"),
        ((3, 7, 20), False, r"do not fall as the voltage rises.*3 of 100 at 0\.4 V, 7 of 100 at 0\.5 V"),
        ((7, 7, 7), False, "do not fall"),
        ((5, 5, 4), False, r"mean must be positive; use method='isotonic'. Received: -"),
    ],
)
def test_readings_that_hold_no_curve(failures, nested, message):
    with pytest.raises(ValueError, match=message):
        fit_curve(Readings(voltages=(0.4, 0.5, 0.6), failures=failures, cells=100, nested=nested))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "spline"}, r"'auto', 'probit' or 'isotonic'. Received: method='spline'"),
        ({"confidence": 95}, r"between 0 and 1. Received: confidence=95"),
        ({"confidence": "high"}, "Received: confidence='high'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        fit_curve(HOLES, **arguments)


@pytest.mark.parametrize("method", ["probit", "isotonic"])
def test_plot_shows_what_was_measured_and_what_was_fitted(method, tmp_path):
    fit = fit_curve(HOLES, method=method)
    figure = fit.plot()
    assert isinstance(figure, Figure)
    (axes,) = figure.axes
    assert axes.get_yscale() == "log" and "[V]" in axes.get_xlabel() and axes.get_title() == "readings"
    lines = {line.get_label(): line for line in axes.get_lines()}
    curve, bound = lines[f"{method} fit"], lines["no failure: 95 % bound"]
    np.testing.assert_allclose(curve.get_ydata(), [fit.curve(voltage) for voltage in curve.get_xdata()])
    assert set(HOLES.voltages) <= set(curve.get_xdata())
    np.testing.assert_allclose(bound.get_xdata(), [0.6, 0.65])
    np.testing.assert_allclose(bound.get_ydata(), stats.binomtest(0, 1000).proportion_ci().high, rtol=1e-6)
    (measured,) = axes.containers
    np.testing.assert_allclose(measured[0].get_xydata(), [(0.5, 0.04), (0.55, 0.009)])
    (bars,) = measured[2]
    expected = [stats.binomtest(k, 1000).proportion_ci() for k in (40, 9)]
    np.testing.assert_allclose([bar[:, 1] for bar in bars.get_segments()], [tuple(e) for e in expected], rtol=1e-6)
    (band,) = (item for item in axes.collections if item.get_label() == "95 % band")
    corners = band.get_paths()[0].vertices
    low, high = fit.band(0.5)
    at = corners[np.isclose(corners[:, 0], 0.5), 1]
    np.testing.assert_allclose((at.min(), at.max()), (low, high), rtol=1e-6)
    figure.savefig(tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_plot_without_holes_promises_no_bound():
    figure = fit_curve(Readings(voltages=(0.4, 0.5), failures=(2000, 100), cells=10_000)).plot()
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == [
        "95 % band",
        "probit fit",
        "measured",
    ]
