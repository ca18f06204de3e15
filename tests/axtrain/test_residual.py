"""What the error model leaves: the ring of noise, windows of single outputs, mixtures, and the report."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

import axtrain as ax
from axtrain.emulation.code_table import CodeTable
from axtrain.emulation.geometry import Convolution, Dense
from axtrain.layers import noise, residual
from axtrain.layers.chip import NoiseStream
from axtrain.layers.statistics import fit_statistics
from axtrain.layers.windows import Windows, cut_windows


def drawn(shape, seed, levels=None):
    stream = NoiseStream(seed=seed)
    return np.asarray(noise.read(shape, noise.places(shape, stream), levels))


def test_the_ring_is_normal_and_without_correlation():
    ring = noise.normal_ring().astype(np.float64)
    assert abs(ring.mean()) < 1e-6
    assert abs(ring.std() - 1) < 1e-6
    assert stats.kstest(ring, "norm").statistic < 2 / noise.RING  # the quantiles themselves
    # Independent values would correlate by 1 / sqrt(2^16) = 4e-3 at each distance.
    correlation = np.fft.irfft(np.abs(np.fft.rfft(ring)) ** 2)[1:] / noise.RING
    assert np.abs(correlation).max() < 1e-4


@pytest.mark.parametrize("shape", [(3, 7, 5, 11), (2, 1), (1, 64), (65,)])
def test_any_shape(shape):
    assert drawn(shape, 0).shape == shape
    assert np.isfinite(drawn(shape, 0)).all()


def test_draws_are_standard_normal_and_uncorrelated():
    """n = 2^20 values a call: within a call, between steps of one stream, and between the streams of two layers."""
    n = 1 << 20
    stream = NoiseStream(seed=1)
    first, second = (np.asarray(noise.read((n,), noise.places((n,), stream))) for _ in range(2))
    other = drawn((n,), 2)
    # A row is a piece of the ring, so n values carry the information of n / 2^16 rings about the distribution at
    # most; 16 of them put the distance far below that of 2^16 independent values.
    assert stats.kstest(first, "norm").statistic < 1.95 / np.sqrt(1 << 16)
    standard_error = 1 / np.sqrt(n)
    assert abs(first.mean()) < 5 * standard_error
    assert abs(first.std() - 1) < 5 / np.sqrt(2 * n)
    for lag in (1, 2, 3, 16, 63, 64, 65, 128, 1024, n // 2):
        assert abs((first[lag:] * first[:-lag]).mean()) < 5 / np.sqrt(n - lag), lag
    assert abs((first * second).mean()) < 5 * standard_error
    assert abs((first * other).mean()) < 5 * standard_error
    assert np.abs(first - second).max() > 1


def test_one_output_over_many_steps_is_standard_normal():
    """The same position at 4000 steps (n): no position has a bias of its own."""
    n = 4000
    stream = NoiseStream(seed=3)
    step = tf.function(lambda: noise.read((5,), noise.places((5,), stream)))
    values = np.stack([step().numpy() for _ in range(n)])
    for column in values.T:
        assert stats.kstest(column, "norm").pvalue > 0.001 / 5
        assert abs(column.mean()) < 5 / np.sqrt(n)
        assert abs((column[1:] * column[:-1]).mean()) < 5 / np.sqrt(n - 1)


def test_a_mixture_is_fitted_and_drawn():
    """60 % near -1, 40 % near 2: the draws follow the values that the shape was fitted to."""
    rng = np.random.default_rng(0)
    values = np.where(rng.random(10_000) < 0.6, rng.normal(-1, 0.3, 10_000), rng.normal(2, 0.5, 10_000))
    levels = residual.mixture_levels(values)
    standard = (values - values.mean()) / values.std()
    assert abs(levels.mean()) < 1e-6
    assert levels.std() == pytest.approx(1, abs=1e-6)
    # 10,000 values decide to 1.95 / sqrt(n) = 0.02; the normal is 0.27 off.
    assert residual.distance(standard, levels) < 0.02 < 0.2 < residual.distance(standard, None)
    draws = drawn((1 << 16,), 0, levels)
    assert stats.ks_2samp(draws, standard).statistic < 0.02
    assert abs(draws.mean()) < 5 / 256
    assert abs(draws.std() - 1) < 5 / np.sqrt(2 << 16)


def test_levels_of_the_normal_give_the_normal():
    assert stats.kstest(drawn((1 << 16,), 0, noise.normal_levels()), "norm").statistic < 0.01
    assert residual.distance(np.random.default_rng(0).normal(size=10_000), noise.normal_levels()) < 0.02


@pytest.mark.parametrize("values", [np.zeros(500), np.arange(50.0)])
def test_too_little_for_a_shape_gives_the_normal(values):
    np.testing.assert_array_equal(residual.mixture_levels(values), noise.normal_levels())


GEOMETRIES = {
    "dense": (Dense(), (4, 6), (6, 5)),
    "conv1d": (Convolution((2,), "same", (1,)), (2, 9, 2), (3, 2, 4)),
    "causal": (Convolution((1,), "causal", (2,)), (2, 9, 2), (3, 2, 4)),
    "conv2d": (Convolution((2, 1), "same", (1, 1)), (2, 7, 6, 3), (3, 2, 3, 4)),
    "depthwise": (Convolution((1, 1), "same", (1, 1), depthwise=True), (2, 5, 6, 3), (3, 3, 3, 2)),
}


class Looping:
    """An engine that looks every product up: sums of a table over each output's terms."""

    def __init__(self, table):
        from axtrain.emulation.gather import GatherEngine

        self._engine = GatherEngine(table)

    def __getattr__(self, name):
        return getattr(self._engine, name)


@pytest.mark.parametrize("case", GEOMETRIES)
def test_windows_hold_what_each_output_sums(case):
    """Every output of a small product: sums over its window give the engine's sums, padding included."""
    geometry, a_shape, w_shape = GEOMETRIES[case]
    rng = np.random.default_rng(0)
    table = CodeTable(rng.integers(-99, 99, (16, 16)), 0, -8)
    # Codes relative to the zero point: cut_windows pads with 0.
    a, w = rng.integers(0, 16, a_shape), rng.integers(-8, 8, w_shape)
    windows = cut_windows(geometry, a.astype(np.float32), w.astype(np.float32), 10_000)
    rows, columns = windows.rows.astype(int), windows.columns.astype(int)
    sums = table.products[rows[..., None], columns + 8].sum(axis=2)  # (M, groups, N)
    expected = np.asarray(geometry.codes(Looping(table), tf.constant(a, tf.float32), tf.constant(w, tf.float32), 0.0))
    np.testing.assert_array_equal(sums.reshape(expected.shape), expected)


def test_few_windows_are_drawn_from_all():
    geometry, a_shape, w_shape = GEOMETRIES["conv2d"]
    a = np.random.default_rng(0).normal(size=a_shape).astype(np.float32)
    every = cut_windows(geometry, a, np.ones(w_shape, np.float32), 10_000).rows
    some = cut_windows(geometry, a, np.ones(w_shape, np.float32), 7, seed=1).rows
    assert len(some) == 7
    assert all((every == row).all(axis=(1, 2)).any() for row in some)


@pytest.mark.parametrize("product_form", [False, True])
@pytest.mark.parametrize("rank", [0, 2])
def test_prediction_by_plain_loops(rank, product_form):
    rng = np.random.default_rng(0)
    table = CodeTable(rng.integers(0, 200, (8, 6)), 0, -3)
    p, q = rng.random(8), rng.random(6)
    fitted = fit_statistics(table, p, q, rank)
    windows = Windows(rng.integers(0, 8, (5, 2, 4)), rng.integers(-3, 3, (2, 4, 3)))
    found = residual.predict(table, fitted, windows, product_form=product_form)
    for m, g, n in np.ndindex(5, 2, 3):
        a, b = windows.rows[m, g], windows.columns[g, :, n] + 3
        assert found.exact[m, g, n] == sum(table.error[i, j] for i, j in zip(a, b, strict=True))
        mean = sum(
            fitted.mean_given_weight[j]
            + sum(fitted.activation_factors[r, i] * fitted.weight_factors[r, j] for r in range(rank))
            for i, j in zip(a, b, strict=True)
        )
        assert found.mean[m, g, n] == pytest.approx(mean, rel=1e-4)
        s, t = fitted.activation_variance[a], fitted.weight_variance[b]
        variance = s.sum() * t.sum() / 4 if product_form else (s * t).sum()
        assert found.std[m, g, n] == pytest.approx(np.sqrt(variance), rel=1e-4)


def test_the_report_of_a_model_that_is_right():
    """Errors drawn from the model itself, n = 40,000: no bias, ratio 1, and the correlation that was put in."""
    rng = np.random.default_rng(0)
    mean, std = rng.normal(0, 3, (10_000, 1, 4)), np.full((10_000, 1, 4), 4.0)
    right = residual.Predicted(mean + std * rng.normal(size=mean.shape), mean, std)
    found = residual.report("", right, 1, "normal", None)
    assert found.samples == 40_000
    assert found.bias < 5 * (4 / 5) / np.sqrt(10_000)
    assert found.std_ratio == pytest.approx(1, abs=5 / np.sqrt(2 * 40_000))
    assert found.correlation == pytest.approx(3 / 5, abs=5 / np.sqrt(40_000))
    assert found.ks_normal < 1.95 / np.sqrt(40_000)
    assert found.ks_mixture is None
    assert "bias" in str(found)
    wrong = residual.report("", residual.Predicted(right.exact + 10, mean, 2 * std), 1, "normal", None)
    assert wrong.bias == pytest.approx(10 / 5, rel=0.05)
    assert wrong.std_ratio > 1.5
    assert wrong.ks_normal > 0.3
    silent = residual.report("", residual.Predicted(right.exact, mean, std), 1, "none", None)
    assert silent.std_ratio == pytest.approx(3 / 5, rel=0.05)


def test_an_exact_circuit_has_nothing_to_report():
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2)])
    noisy = ax.convert(model, ax.Hardware(), np.random.default_rng(0).random((64, 6), np.float32))
    assert noisy.layers[0].fidelity_report == ()
    ax.set_fidelity(noisy, "gaussian")
    (report,) = noisy.layers[0].fidelity_report
    assert (report.bias, report.std_ratio, report.correlation, report.ks_normal) == (0, 1, 0, 0)
