"""Calibration: traces whose origin is known give it back, and say how sure they are."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from axtrain.noise_models.datapath import DroppedMACs, MeasuredDatapath, TimingErrors, datapath_from_dict
from axtrain.noise_models.datapath_candidates import Trace, fit_bits, level_masses
from axtrain.noise_models.datapath_fitting import calibrate_datapath

ORIGIN = {"voltage": None, "nominal_voltage": None, "source": None}


def sums(n, seed=0, deviation=20_000):
    return np.rint(np.random.default_rng(seed).normal(0, deviation, n)).astype(np.int64)


def skewed_trace(n, rate, gain=1.0):
    """Now and then off by a shifted gamma of shape 2: bias 200, deviation 424."""
    rng = np.random.default_rng(1)
    exact = sums(n)
    residual = np.rint(rng.gamma(2.0, 300.0, n) - 400).astype(np.int64)
    return exact, np.rint(gain * exact).astype(np.int64) + np.where(rng.random(n) < rate, residual, 0)


def test_timing_errors_are_found_again():
    """n = 200,000 results, four bits that flip, the others never."""
    n, bits = 200_000, 20
    rates = np.zeros(bits)
    rates[[3, 15, 17, 19]] = 0.002, 0.01, 0.3, 0.2
    exact = sums(n)
    datapath = TimingErrors(flip_rates=rates, accumulator_bits=bits)
    observed = np.asarray(datapath.apply(exact, 3))
    fit = calibrate_datapath(exact, observed, accumulator_bits=bits, source="simulated", voltage=0.7)
    assert fit.chosen == "bits" and isinstance(fit.datapath, TimingErrors)
    assert fit.samples + fit.held_out_samples == n and fit.held_out_samples == 60_000
    error = 5 * np.sqrt(rates * (1 - rates) / np.array([[n], [fit.samples]]))
    assert np.all(np.abs(np.array([fit.flip_rates, fit.datapath.flip_rates]) - rates) <= error)
    assert fit.datapath.voltage == 0.7 and fit.datapath.source == "simulated"
    assert abs(fit.error_rate - datapath.error_rate) <= 5 * math.sqrt(0.45 * 0.55 / n)
    assert fit.error_rate < fit.error_rate_bound < fit.error_rate + 0.01
    # Some 26,800 held-out wrong results, and 65,536 that the model draws; two flips in 13 % of them.
    assert fit.ks < 1.95 * math.sqrt(1 / 26_800 + 1 / 65_536)
    # No candidate comes near the entropy of the flips, which is the best there is.
    entropy = stats.entropy([rates[rates > 0], 1 - rates[rates > 0]]).sum()
    assert fit.log_likelihoods["bits"] == pytest.approx(-entropy, abs=0.01)
    assert max(v for k, v in fit.log_likelihoods.items() if k != "bits") < -entropy - 0.02


def test_a_skewed_residual_is_found_again():
    """n = 100,000 results, a fifth of them wrong."""
    n, rate = 100_000, 0.2
    fit = calibrate_datapath(*skewed_trace(n, rate))
    assert fit.chosen in ("mixture", "empirical") and isinstance(fit.datapath, MeasuredDatapath)
    wrong = rate * n
    assert abs(fit.error_rate - rate) <= 5 * math.sqrt(rate * (1 - rate) / n) + 1e-3 * rate  # a few residuals are 0
    assert abs(fit.bias - 200) <= 5 * 424 / math.sqrt(wrong)
    # The gamma's kurtosis is 6: the standard error of its deviation is sqrt((6 - 1) / 4n).
    assert abs(fit.std / (300 * math.sqrt(2)) - 1) <= 5 * math.sqrt(5 / (4 * wrong))
    assert fit.datapath.gain == 1
    assert fit.ks < 0.02 + 1.95 / math.sqrt(0.3 * wrong)  # the mixture of three is itself off by about 0.01
    assert fit.log_likelihoods["bits"] < fit.log_likelihoods[fit.chosen] - 0.05
    normal = MeasuredDatapath(error_rate=rate, bias=fit.bias, std=fit.std)
    skewed = skewed_trace(n, 1.0)
    assert stats.ks_2samp(skewed[1] - skewed[0], normal.residuals).statistic > 0.05 > fit.ks


def test_a_fit_plays_what_it_was_fitted_to():
    """Drawn residuals against a fresh trace, 40,000 of each: two samples at 0.1 %, and 0.01 for the fit's own error."""
    exact, observed = skewed_trace(100_000, 0.4)
    fit = calibrate_datapath(exact[:50_000], observed[:50_000], model="residual")
    played = np.asarray(fit.datapath.apply(exact[50_000:], 7)) - exact[50_000:]
    real = (observed - exact)[50_000:]
    n = np.count_nonzero(played), np.count_nonzero(real)
    assert abs(n[0] - n[1]) <= 5 * math.sqrt(2 * 50_000 * 0.4 * 0.6)
    limit = 0.01 + 1.95 * math.sqrt(1 / n[0] + 1 / n[1])
    assert stats.ks_2samp(played[played != 0], real[real != 0]).statistic < limit < 0.05
    assert played.std() == pytest.approx(real.std(), rel=0.03)


def test_whole_residuals_are_drawn_as_they_are():
    """A trace of three different residuals gives three, in their shares."""
    rng = np.random.default_rng(2)
    exact = sums(60_000)
    residual = rng.choice([0, -7, 1, 4096], 60_000, p=[0.5, 0.1, 0.25, 0.15])
    fit = calibrate_datapath(exact, exact + residual, model="residual")
    assert fit.chosen == "empirical"
    values, counts = np.unique(fit.datapath.residuals, return_counts=True)
    counts = dict(zip(values.tolist(), (counts / 1024).tolist(), strict=True))
    for value, share in ((-7.0, 0.2), (1.0, 0.5), (4096.0, 0.3)):
        assert abs(counts[value] - share) <= 5 * math.sqrt(share * (1 - share) / 21_000) + 2 / 1024
    assert fit.ks < 0.02


def test_few_residuals_are_not_interpolated():
    """Twenty wrong results, all off by 500 or -500: at most the level that holds the step is between them."""
    exact = sums(400)
    residual = np.where(np.arange(400) % 20, 0, np.where(np.arange(400) % 40, 500, -500))
    fit = calibrate_datapath(exact, exact + residual, model="residual")
    assert fit.chosen == "empirical"
    assert np.count_nonzero(np.abs(fit.datapath.residuals) != 500) <= 1


@pytest.mark.parametrize("gain", [0.95, 1.02])
def test_a_gain_is_found_again(gain):
    n = 50_000
    fit = calibrate_datapath(*skewed_trace(n, 0.5, gain))
    assert fit.chosen.endswith("with gain")
    # The residual's deviation around its own mean is 400 over results of deviation 20,000.
    error = 5 * 400 / (20_000 * math.sqrt(0.7 * n))
    assert abs(fit.gain - gain) <= error and abs(fit.datapath.gain - gain) <= error
    assert fit.log_likelihoods[fit.chosen] > fit.log_likelihoods[fit.chosen.removesuffix(" with gain")] + 0.1


def test_dropped_macs_are_found_again():
    """n = 20,000 outputs of 200 products, large in some and small in others; 5 % are dropped one by one."""
    n, terms, rate = 20_000, 200, 0.05
    rng = np.random.default_rng(5)
    products = rng.integers(0, rng.integers(16, 257, (n, 1)), (n, terms)) * rng.integers(-30, 128, (n, terms))
    observed = (products * (rng.random((n, terms)) >= rate)).sum(axis=1)
    squares = (products.astype(float) ** 2).sum(axis=1)
    exact = products.sum(axis=1)
    fit = calibrate_datapath(exact, observed, squares=squares)
    assert fit.chosen == "dropped" and isinstance(fit.datapath, DroppedMACs)
    # p's standard error from the outputs' variances alone is p sqrt(2 / n), 1.2 % of it; the means say more.
    assert abs(fit.datapath.rate - rate) <= 5 * rate * math.sqrt(2 / (0.7 * n))
    # Ten dropped products, most of one sign, have a skewness of 0.5: 0.5 / (6 sqrt(2 pi)) = 0.03 off the normal, and
    # 6,000 results add 0.025 at 0.1 %.
    assert fit.ks < 0.055
    assert calibrate_datapath(exact, observed, squares=squares, model="bits").chosen == "bits"
    assert "dropped" not in calibrate_datapath(exact[:500], observed[:500]).log_likelihoods


def test_log_likelihood_of_bits_by_hand():
    """Four results to fit, three to judge, in three bits."""
    fitted = Trace(exact=np.array([0, 1, 2, 3]), observed=np.array([1, 1, 2, -1]), squares=None, bits=3)
    held = Trace(exact=np.array([0, -4, 3]), observed=np.array([0, -3, 3]), squares=None, bits=3)
    # Fitted flips 001, 000, 000, 100; held-out flips 000, 001, 000.
    low, mid, top = 1.5 / 5, 0.5 / 5, 1.5 / 5
    none = math.log(1 - low) + math.log(1 - mid) + math.log(1 - top)
    one = math.log(low) + math.log(1 - mid) + math.log(1 - top)
    candidate = fit_bits(fitted, held, ORIGIN)
    assert candidate.log_likelihood == pytest.approx((2 * none + one) / 3, rel=1e-12)
    assert candidate.datapath.flip_rates == (0.25, 0.0, 0.25)


def test_log_likelihood_of_a_residual_by_hand():
    """Every wrong result is off by 8: its probability is 1 but for the pseudo-observation."""
    exact = np.arange(1000)
    observed = exact + 8 * (exact % 10 == 0)
    fit = calibrate_datapath(exact, observed, accumulator_bits=12, seed=3)
    held = np.random.default_rng(3).permutation(1000)[:300]
    k, m = int((observed != exact).sum() - (observed != exact)[held].sum()), int((observed != exact)[held].sum())
    q = (k + 0.5) / 701
    mass = (k + 1 / (2**13 - 2)) / (k + 1)
    expected = ((300 - m) * math.log(1 - q) + m * (math.log(q) + math.log(mass))) / 300
    assert fit.log_likelihoods["empirical"] == pytest.approx(expected, rel=1e-9)
    assert fit.chosen in ("empirical", "mixture")
    assert fit.datapath.residuals.tolist() == [8.0] * 1024
    assert (fit.bias, fit.std, fit.ks) == (8.0, 0.0, 0.0)


def test_masses_sum_to_one():
    values = np.sort(np.random.default_rng(0).normal(3, 20, 1024))
    residuals = np.array([r for r in range(-200, 200) if r])
    assert level_masses(residuals, values).sum() == pytest.approx(1, abs=1e-9)
    assert np.all(level_masses(residuals, values) >= 0)


@pytest.mark.parametrize("model", ["auto", "bits", "residual", "dropped"])
def test_a_perfect_array(model):
    exact = sums(3000).reshape(30, 100)
    fit = calibrate_datapath(exact, exact, model=model, squares=np.full(exact.shape, 1e6))
    assert (fit.error_rate, fit.bias, fit.std, fit.ks) == (0.0, 0.0, 0.0, None)
    assert fit.error_rate_bound == pytest.approx(1 - 0.05 ** (1 / 3000))  # the rule of three
    assert not any(fit.flip_rates)
    np.testing.assert_array_equal(np.asarray(fit.datapath.apply(exact, 1, squares=np.float32(1e6))), exact)
    assert "error rate 0" in str(fit)
    fit.plot()


def test_an_array_that_is_always_wrong():
    fit = calibrate_datapath(np.arange(100), np.arange(100) + 3)
    assert fit.error_rate == fit.error_rate_bound == 1
    np.testing.assert_array_equal(np.asarray(fit.datapath.apply(np.arange(5), 1)), np.arange(5) + 3)


def test_errors_seen_on_one_side_of_the_split_only():
    exact = sums(200)
    held = np.random.default_rng(0).permutation(200)[0]
    observed = exact.copy()
    observed[held] += 512
    fit = calibrate_datapath(exact, observed)
    assert all(math.isfinite(value) for value in fit.log_likelihoods.values())
    assert fit.error_rate == 1 / 200 and fit.ks == 1


def test_a_split_is_the_seeds():
    trace = skewed_trace(2000, 0.3)
    first, again, other = (calibrate_datapath(*trace, seed=seed) for seed in (1, 1, 2))
    assert first.log_likelihoods == again.log_likelihoods != other.log_likelihoods
    assert first.datapath == again.datapath


def test_the_report_prints_draws_and_travels(tmp_path):
    fit = calibrate_datapath(*skewed_trace(3000, 0.3), source="bench", voltage=0.7, nominal_voltage=0.9)
    text = str(fit)
    for name in fit.log_likelihoods:
        assert f"{name} " in text
    assert f"chosen: {fit.chosen}" in text and "2100 results, judged on 900" in text
    figure = fit.plot()
    quantiles, bits = figure.axes
    model, trace = quantiles.lines[0].get_data()
    assert np.all(np.diff(model) >= 0) and np.all(np.diff(trace) >= 0)
    assert [bar.get_height() for bar in bits.patches] == list(fit.flip_rates)
    figure.savefig(tmp_path / "fit.png")
    again = datapath_from_dict(json.loads(json.dumps(fit.datapath.to_dict())))
    assert again == fit.datapath and again.source == "bench" and again.nominal_voltage == 0.9


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1, 2, 3], [1, 2]), ValueError, r"one shape.*\(3,\).*\(2,\)"),
        (([1.0, 2.0], [1, 2]), TypeError, "`exact` must hold integers.*float64"),
        (([1, 2], [True, False]), TypeError, "`observed` must hold integers.*bool"),
        (([1, 2], [1, 2**23]), ValueError, "`observed` must fit in 24 bits.*8388608"),
        (([1], [1]), ValueError, "both sides.*Received: 1 results"),
        ((np.zeros(0, int), np.zeros(0, int)), ValueError, "both sides.*Received: 0 results"),
        (([1, 2], [1, 2], {"held_out": 1.0}), ValueError, "held_out.*1.0"),
        (([1, 2], [1, 2], {"held_out": 0.9}), ValueError, "both sides"),
        (([1, 2], [1, 2], {"model": "nonsense"}), ValueError, "auto, residual.*nonsense"),
        (([1, 2], [1, 2], {"model": "dropped"}), ValueError, "squares=None"),
        (([1, 2], [1, 2], {"accumulator_bits": 33}), ValueError, "2 to 32.*33"),
        (([1, 2], [1, 2], {"squares": [1.0]}), ValueError, "one shape.*squares"),
        (([1, 2], [1, 2], {"squares": [1.0, -1.0]}), ValueError, "squares.*>= 0"),
        (([1, 2], [1, 2], {"voltage": -1.0}), ValueError, "voltage.*-1"),
    ],
)
def test_errors(arguments, error, message):
    *arrays, options = arguments if isinstance(arguments[-1], dict) else (*arguments, {})
    with pytest.raises(error, match=f"(?s){message}"):
        calibrate_datapath(*arrays, **options)
