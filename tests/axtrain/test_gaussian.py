"""The statistical fidelity: its formulas, its distribution, and how near it comes to the bit-exact error."""

import keras
import numpy as np
import pytest
from scipy import stats

import axtrain as ax
from axtrain.emulation.code_table import CodeTable
from axtrain.layers.statistics import fit_statistics, histogram

pytestmark = pytest.mark.eager

DRAWS = 4000  # n: a mean's standard error is std / sqrt(n), a std's relative one 1 / sqrt(2 n)


def dense(multiplier, length=400, units=6, samples=2000, seed=0):
    """A converted one-layer model whose inputs are stationary, independent and fully calibrated."""
    rng = np.random.default_rng(seed)
    model = keras.Sequential([keras.Input((length,)), keras.layers.Dense(units, use_bias=False)])
    model.layers[0].kernel.assign(rng.normal(size=(length, units)))
    x = rng.uniform(0, 1, (samples, length)).astype(np.float32)
    hardware = ax.Hardware(multiplier=multiplier, quantisation=ax.Quantisation(activation_range="minmax"))
    return ax.convert(model, hardware, x), x


@pytest.fixture(scope="module")
def circuit(shared):
    return ax.Multiplier.load(shared / "luts" / "mul8u_17KS.npy", signed=False)


def fitted_by_hand(layer, x):
    """Mean and variance of one input's outputs, from the table and the operand distributions in NumPy."""
    state = layer.hardware_state
    table = layer.hardware.code_table
    scale = np.float32(float(state.high) - float(state.low)) / np.float32(255)
    zero_point = round(-float(state.low) / float(scale))
    codes = np.clip(np.round(x / scale) + zero_point, 0, 255).astype(int)
    kernel = np.asarray(layer.kernel)
    w_scale = np.abs(kernel).max(0) / 127
    weights = np.round(kernel / w_scale).astype(int) - table.weight_low
    rows, columns = table.products.shape
    p = np.bincount(codes.ravel(), minlength=rows) / codes.size
    q = np.bincount(weights.ravel(), minlength=columns) / weights.size
    error = table.error.astype(float)
    mean = p @ error
    squared = (error - mean) ** 2
    s = squared @ q
    t = p @ squared / (p @ s)
    first = codes[0]
    bias = mean[weights].sum(0)
    variance = s[first] @ t[weights]
    real = ((first - zero_point) * float(scale)) @ (np.round(kernel / w_scale) * w_scale)
    return real + float(scale) * w_scale * bias, float(scale) * w_scale * np.sqrt(variance)


def test_mean_std_and_shape_of_the_draws(circuit):
    model, x = dense(circuit)
    ax.set_fidelity(model, "gaussian")
    layer = model.layers[0]
    mean, std = fitted_by_hand(layer, x)
    draws = np.asarray(layer(np.repeat(x[:1], DRAWS, axis=0)))
    assert draws.shape == (DRAWS, 6)
    assert (np.abs(draws.mean(0) - mean) < 5 * std / np.sqrt(DRAWS)).all()
    assert (np.abs(draws.std(0, ddof=1) / std - 1) < 5 / np.sqrt(2 * DRAWS)).all()
    # Six channels are tested together: reject normality only below 0.001 / 6.
    p_values = [stats.kstest((draws[:, n] - mean[n]) / std[n], "norm").pvalue for n in range(6)]
    assert min(p_values) > 0.001 / 6
    correlations = np.corrcoef(draws.T)[np.triu_indices(6, 1)]
    assert np.abs(correlations).max() < 5 / np.sqrt(DRAWS)


def test_it_predicts_the_bit_exact_error(circuit):
    """17KS, K = 400, n = 2000 inputs: bias within 5 standard errors, std within 10 %."""
    model, x = dense(circuit)
    layer = model.layers[0]
    exact = np.asarray(layer(x))
    ax.set_fidelity(model, "gaussian")
    gaussian = np.asarray(layer(x))
    clean, _ = dense(None)
    reference = np.asarray(clean.layers[0](x))
    exact_error, gaussian_error = exact - reference, gaussian - reference
    bias = gaussian_error.mean(0) - exact_error.mean(0)
    ratio = gaussian_error.std(0) / exact_error.std(0)
    print("\nrms systematic / random error:", np.sqrt((exact_error.mean(0) ** 2).mean()), exact_error.std(0).mean())
    print("bias of the prediction / rms systematic:", np.abs(bias).max() / np.sqrt((exact_error.mean(0) ** 2).mean()))
    print("std ratio per channel:", ratio.round(3))
    # Both means come from n = 2000 draws of their own; the largest of 6 channels stays within 5 standard errors.
    assert (np.abs(bias) < 5 * np.sqrt(2 / 2000) * exact_error.std(0)).all()
    assert (np.abs(ratio - 1) < 0.1).all()


def test_statistics_by_plain_loops():
    table = CodeTable.plain(ax.multipliers.get("truncated2", bits=3))
    a_codes, b_codes = np.array([0, 1, 1, 5]), np.array([[2, 7], [7, 3]])
    p, q = (histogram(codes, 0, 8) for codes in (a_codes, b_codes))
    found = fit_statistics(table, p, q)
    for b in range(8):
        assert found.mean_given_weight[b] == pytest.approx(np.mean([table.error[a, b] for a in a_codes]))
    residual = table.error - found.mean_given_weight
    for a in range(8):
        assert found.activation_variance[a] == pytest.approx(np.mean([residual[a, b] ** 2 for b in b_codes.ravel()]))
    total = np.mean([residual[a, b] ** 2 for a in a_codes for b in b_codes.ravel()])
    for b in range(8):
        assert found.weight_variance[b] == pytest.approx(np.mean([residual[a, b] ** 2 for a in a_codes]) / total)


def test_an_exact_circuit_gets_no_noise():
    model, x = dense(None, length=20, samples=50)
    exact = np.asarray(model(x))
    ax.set_fidelity(model, "gaussian")
    np.testing.assert_allclose(model(x), exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["conv1d", "conv2d", "depthwise"])
def test_convolutions_follow_the_fitted_formula_inside_the_image(kind, circuit):
    """One constant input and kernel: every inner output is a draw from one normal distribution."""
    rng = np.random.default_rng(0)
    layer, shape, taps = {
        "conv1d": (keras.layers.Conv1D(2, 3, use_bias=False), (300, 4), 12),
        "conv2d": (keras.layers.Conv2D(2, 3, use_bias=False), (22, 22, 4), 36),
        "depthwise": (keras.layers.DepthwiseConv2D(3, use_bias=False), (22, 22, 2), 9),
    }[kind]
    model = keras.Sequential([keras.Input(shape), layer])
    layer.kernel.assign(np.full(layer.kernel.shape, 0.5))
    calibration = rng.uniform(0, 1, (20, *shape)).astype(np.float32)
    noisy = ax.convert(model, ax.Hardware(multiplier=circuit), calibration, fidelity="gaussian")
    state = noisy.layers[0].hardware_state
    weight = 127 - state.hardware.code_table.weight_low
    code = 100
    assert float(state.low) >= 0  # so the range is widened to hold 0, and the zero point is 0
    scale = float(state.high) / 255
    x = np.full((10, *shape), code * scale, np.float32)
    draws = np.asarray(noisy(x)).ravel()
    mean_error = taps * float(np.asarray(state.mean_given_weight)[weight])
    variance = taps * np.asarray(state.activation_variance)[code] * np.asarray(state.weight_variance)[weight]
    unit = scale * 0.5 / 127
    mean, std = taps * x.flat[0] * 0.5 + unit * mean_error, unit * np.sqrt(variance)
    n = draws.size
    assert n > 5000
    assert abs(draws.mean() - mean) < 5 * std / np.sqrt(n)
    assert abs(draws.std() / std - 1) < 5 / np.sqrt(2 * n)


def test_set_fidelity_on_a_compiled_model_keeps_the_model_and_the_optimizer():
    model, x = dense(ax.multipliers.get("drum3"), length=30, units=2, samples=64)
    model.compile(keras.optimizers.Adam(1e-3), "mse")
    y = np.zeros((64, 2))
    model.fit(x, y, epochs=2, batch_size=16, verbose=0)
    exact = model.predict(x, verbose=0)
    np.testing.assert_array_equal(exact, model.predict(x, verbose=0))
    loss = model.evaluate(x, y, verbose=0)
    assert loss == model.evaluate(x, y, verbose=0)
    optimizer, moments = model.optimizer, [np.asarray(v) for v in model.optimizer.variables]
    ax.set_fidelity(model, "gaussian")
    first, second = model.predict(x, verbose=0), model.predict(x, verbose=0)
    assert np.abs(first - exact).max() > 1e-3
    assert np.abs(first - second).max() > 1e-3  # fresh noise at each call
    assert model.evaluate(x, y, verbose=0) != loss
    assert model.optimizer is optimizer
    for variable, value in zip(optimizer.variables, moments, strict=True):
        np.testing.assert_array_equal(variable, value)
    assert int(optimizer.iterations) == 8
    model.fit(x, y, batch_size=16, verbose=0)
    assert int(optimizer.iterations) == 12
    ax.set_fidelity(model, "exact")
    again = model.predict(x, verbose=0)
    np.testing.assert_array_equal(again, model.predict(x, verbose=0))


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.graph
def test_gaussian_trains(jit_compile):
    model, x = dense(ax.multipliers.get("drum3"), length=30, units=2, samples=64)
    ax.set_fidelity(model, "gaussian")
    model.compile("adam", "mse", jit_compile=jit_compile)
    before = np.asarray(model.layers[0].kernel)
    history = model.fit(x, np.zeros((64, 2)), verbose=0)
    assert np.isfinite(history.history["loss"][0])
    assert np.abs(np.asarray(model.layers[0].kernel) - before).max() > 0


def test_gaussian_needs_calibration():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="head")])
    noisy = ax.convert(model, ax.Hardware())
    with pytest.raises(ValueError, match=r"fitted to calibration data.*layer 'head'"):
        ax.set_fidelity(noisy, "gaussian")
    assert noisy.layers[0].fidelity == "exact"
    with pytest.raises(ValueError, match="calibration"):
        ax.convert(model, ax.Hardware(), fidelity="gaussian")


def test_bad_fidelities_raise():
    model, _ = dense(None, length=4, samples=4)
    with pytest.raises(ValueError, match="`fidelity` must be.*'vague'"):
        ax.set_fidelity(model, "vague")
    with pytest.raises(ValueError, match="No layer of this model runs on hardware"):
        ax.set_fidelity(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]), "exact")
