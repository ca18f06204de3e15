"""The calibrated fidelity: its fit, its distribution, and what it keeps when a model is switched, saved, trained."""

import fresh
import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

import axtrain as ax
from axtrain.emulation.code_table import CodeTable
from axtrain.layers import noise
from axtrain.layers.statistics import fit_statistics, weighted_factors

pytestmark = pytest.mark.eager


def low_rank(rank=2):
    """An unsigned circuit whose error has that rank, with M(0, b) and M(a, 0) that are not 0."""
    rng = np.random.default_rng(rank)
    u, v = rng.integers(-9, 10, (256, rank)), rng.integers(-9, 10, (rank, 256))
    table = np.outer(np.arange(256), np.arange(256)) + u @ v
    return ax.Multiplier(table, name=f"rank {rank}", bits=8, signed=False)


# The sign bit of sign-magnitude weights is a factor of the error: two ranks where the table has one.
OFFSET = ax.Quantisation(weight_encoding="offset")
LAYERS = {
    "dense": (keras.layers.Dense(3), (7,)),
    "conv1d": (keras.layers.Conv1D(3, 3, padding="causal", dilation_rate=2), (9, 2)),
    "conv2d": (keras.layers.Conv2D(4, 3, padding="same", strides=2), (7, 6, 3)),
    "depthwise": (keras.layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2), (6, 5, 3)),
    "separable": (keras.layers.SeparableConv2D(4, 3, padding="same"), (6, 5, 3)),
    "transposed": (keras.layers.Conv2DTranspose(2, 3, strides=2, padding="same"), (5, 4, 3)),
    "einsum": (keras.layers.EinsumDense("btd,dhk->bthk", (None, 2, 3), bias_axes="hk"), (4, 5)),
}


def converted(case, multiplier, samples=40, **options):
    layer, shape = LAYERS[case]
    layer = type(layer).from_config(layer.get_config())
    model = keras.Sequential([keras.Input(shape), layer])
    rng = np.random.default_rng(0)
    for variable in layer.trainable_weights:
        variable.assign(rng.normal(size=variable.shape))
    x = rng.normal(0.3, 1, (samples, *shape)).astype(np.float32)
    return ax.convert(model, ax.Hardware(multiplier=multiplier, quantisation=OFFSET), x, **options), x


def network(fidelity="exact", multiplier=None, **options):
    """A convolution, a depthwise one and a dense layer, converted, and their calibration data."""
    layers = [
        keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="conv"),
        keras.layers.DepthwiseConv2D(3, activation="relu", name="depthwise"),
        keras.layers.Flatten(),
        keras.layers.Dense(3, name="dense"),
    ]
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8, 8, 2)), *layers])
    x = np.random.default_rng(0).uniform(0, 1, (128, 8, 8, 2)).astype(np.float32)
    hardware = ax.Hardware(multiplier=multiplier or ax.multipliers.get("mitchell"))
    return ax.convert(model, hardware, x, fidelity=fidelity, **options), x


def weighted_error(error, p, q, u, v):
    return float((p[:, None] * q * (error - u.T @ v) ** 2).sum())


@pytest.mark.parametrize("rank", [0, 1, 3, 6, 9])
def test_the_fit_is_the_weighted_best(rank):
    """What is left is the sum of the squared singular values beyond the rank, and nothing near it is better."""
    rng = np.random.default_rng(0)
    error, p, q = rng.normal(size=(9, 6)), rng.random(9), rng.random(6)
    p, q = p / p.sum(), q / q.sum()
    u, v = weighted_factors(error, p, q, rank)
    assert u.shape == (rank, 9)
    assert v.shape == (rank, 6)
    singular = np.linalg.svd(np.sqrt(p)[:, None] * error * np.sqrt(q), compute_uv=False)
    left = weighted_error(error, p, q, u, v)
    assert left == pytest.approx((singular[rank:] ** 2).sum(), rel=1e-4, abs=1e-10)
    if 0 < rank < 6:
        for _ in range(20):
            nearby = weighted_error(error, p, q, u + rng.normal(0, 0.01, u.shape), v + rng.normal(0, 0.01, v.shape))
            assert nearby > left


def test_codes_that_never_occurred_get_what_a_regression_gives_them():
    rng = np.random.default_rng(0)
    error, p, q = rng.normal(size=(9, 6)), rng.random(9), rng.random(6)
    p[4] = q[2] = 0
    u, v = weighted_factors(error, p / p.sum(), q / q.sum(), 2)
    weighted_v, weighted_u = v * np.sqrt(q), u * np.sqrt(p)
    np.testing.assert_allclose(np.linalg.lstsq(weighted_v.T, np.sqrt(q) * error[4], rcond=None)[0], u[:, 4], rtol=1e-3)
    found = np.linalg.lstsq(weighted_u.T, np.sqrt(p) * error[:, 2], rcond=None)[0]
    np.testing.assert_allclose(found, v[:, 2], rtol=1e-3)


def test_at_full_rank_the_error_is_rebuilt_where_the_data_never_was():
    table = ax.Hardware(multiplier=low_rank(3), quantisation=OFFSET).code_table
    p, q = (np.zeros(size) for size in table.products.shape)
    p[100:140], q[90:160] = 1, 1
    fitted = fit_statistics(table, p, q, 3)
    np.testing.assert_allclose(fitted.activation_factors.T @ fitted.weight_factors, table.error, atol=0.01)
    assert not fitted.activation_variance.any()
    assert np.abs(fitted.mean_given_weight).max() < 1e-3


@pytest.mark.parametrize("rank", [1, 2])
def test_statistics_of_the_residual_by_plain_loops(rank):
    table = CodeTable(np.random.default_rng(0).integers(0, 99, (5, 4)), 0, -2)
    p, q = np.array([1, 2, 0, 3, 4.0]), np.array([5, 1, 2, 2.0])
    found = fit_statistics(table, p, q, rank)
    p, q = p / p.sum(), q / q.sum()
    left = table.error - found.activation_factors.T.astype(float) @ found.weight_factors.astype(float)
    total = 0.0
    for b in range(4):
        assert found.mean_given_weight[b] == pytest.approx(sum(p[a] * left[a, b] for a in range(5)), abs=1e-3)
    left = left - found.mean_given_weight
    total = sum(p[a] * q[b] * left[a, b] ** 2 for a in range(5) for b in range(4))
    for a in range(5):
        assert found.activation_variance[a] == pytest.approx(sum(q[b] * left[a, b] ** 2 for b in range(4)), rel=1e-3)
    for b in range(4):
        expected = sum(p[a] * left[a, b] ** 2 for a in range(5)) / total
        assert found.weight_variance[b] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("case", LAYERS)
def test_at_the_errors_rank_it_is_the_bit_exact_layer(case):
    """Every geometry, padding and all: no noise is left, and inputs that calibration never saw are right too."""
    model, x = converted(case, low_rank(2))
    x = np.concatenate([x[:3], 3 * x[3:6]])
    exact = np.asarray(model(x))
    ax.set_fidelity(model, "calibrated", rank=2)
    largest = np.abs(exact).max()
    np.testing.assert_allclose(model(x), exact, atol=2e-6 * largest)
    ax.set_fidelity(model, "calibrated", rank=1)
    assert np.abs(np.asarray(model(x)) - exact).max() > 1e-4 * largest


def test_lstm_at_the_errors_rank_is_the_bit_exact_layer():
    keras.utils.set_random_seed(0)  # with some weights a state lies on the edge of two codes, and rounding decides
    model = keras.Sequential([keras.Input((5, 4)), keras.layers.LSTM(3)])
    x = np.random.default_rng(0).normal(size=(32, 5, 4)).astype(np.float32)
    noisy = ax.convert(model, ax.Hardware(multiplier=low_rank(2), quantisation=OFFSET), x)
    exact = np.asarray(noisy(x))
    ax.set_fidelity(noisy, "calibrated", rank=2)
    np.testing.assert_allclose(noisy(x), exact, atol=1e-5)
    reports = noisy.layers[0].fidelity_report
    assert [report.product for report in reports] == ["input", "recurrent"]


def test_attention_is_played_too():
    inputs = keras.Input((5, 8))
    model = keras.Model(inputs, keras.layers.MultiHeadAttention(2, 4)(inputs, inputs))
    x = np.random.default_rng(0).normal(size=(16, 5, 8)).astype(np.float32)
    noisy = ax.convert(model, ax.Hardware(multiplier=low_rank(2), quantisation=OFFSET), x)
    exact = np.asarray(noisy(x))
    ax.set_fidelity(noisy, "calibrated", rank=2)
    np.testing.assert_allclose(noisy(x), exact, atol=1e-4)


def predicted_by_hand(layer, x, rank):
    """Mean and standard deviation of a stride 1, SAME 3x3 convolution's outputs, from the state's statistics."""
    state, table = layer.hardware_state, layer.hardware.code_table
    scale = np.float32(float(state.high) - min(float(state.low), 0.0)) / np.float32(255)
    zero_point = round(-min(float(state.low), 0.0) / float(scale))
    codes = np.clip(np.round(x / scale) + zero_point, 0, 255).astype(int)
    codes = np.pad(codes, [(0, 0), (1, 1), (1, 1), (0, 0)], constant_values=zero_point)
    kernel = np.asarray(layer.kernel)
    w_scale = np.abs(kernel).max((0, 1, 2)) / 127
    b = np.round(kernel / w_scale).astype(int)
    mu, s, t = (
        np.asarray(v, float) for v in (state.mean_given_weight, state.activation_variance, state.weight_variance)
    )
    u, v = (np.asarray(f, float) for f in (state.activation_factors, state.weight_factors))
    column = b - table.weight_low
    size = x.shape[1]
    mean, variance = 0.0, 0.0
    for i, j in np.ndindex(3, 3):
        a = codes[:, i : i + size, j : j + size]
        mean = mean + (a - zero_point) @ b[i, j] + mu[column[i, j]].sum(0)
        mean = mean + sum(u[r][a] @ v[r][column[i, j]] for r in range(rank))
        variance = variance + s[a].sum(-1, keepdims=True) / (9 * x.shape[-1])
    variance = variance * t[column].sum((0, 1, 2))
    unit = float(scale) * w_scale
    return mean * unit + np.asarray(layer.bias), np.sqrt(variance) * unit


def test_mean_std_and_shape_of_the_draws():
    """n = 2000 draws of each of 6 * 6 * 4 outputs, borders included, Mitchell's error at rank 2."""
    n, rng = 2000, np.random.default_rng(0)
    model = keras.Sequential([keras.Input((6, 6, 8)), keras.layers.Conv2D(4, 3, padding="same")])
    x = rng.uniform(0, 1, (64, 6, 6, 8)).astype(np.float32)
    hardware = ax.Hardware(multiplier=ax.multipliers.get("mitchell"))
    noisy = ax.convert(model, hardware, x, fidelity="calibrated", rank=2, residual="normal")
    layer = noisy.layers[0]
    mean, std = predicted_by_hand(layer, x[:1], 2)
    draws = np.concatenate([np.asarray(layer(np.repeat(x[:1], 500, axis=0))) for _ in range(n // 500)])
    standardised = (draws - mean) / std
    # 144 outputs are tested together: 5 standard errors each, and one distribution test of all.
    assert np.abs(standardised.mean(0)).max() < 5 / np.sqrt(n)
    assert np.abs(standardised.std(0) - 1).max() < 5 / np.sqrt(2 * n)
    assert stats.kstest(standardised.ravel(), "norm").statistic < 1.95 / np.sqrt(1 << 16)
    flat = standardised.reshape(n, -1)
    correlation = np.corrcoef(flat.T)[np.triu_indices(flat.shape[1], 1)]
    assert np.abs(correlation).max() < 5.5 / np.sqrt(n)  # the largest of 10,296


def test_a_higher_rank_predicts_better():
    model, x = network()
    exact = np.asarray(model(x))
    misses, correlations = [], []
    for rank in (0, 2, 8):
        ax.set_fidelity(model, "calibrated", rank=rank)
        misses.append(np.sqrt(np.mean([(np.asarray(model(x)) - exact) ** 2 for _ in range(4)])))
        correlations.append(model.get_layer("conv").fidelity_report[0].correlation)
    assert misses[0] > 1.5 * misses[1] > 1.5 * misses[2]
    assert correlations[0] == 0
    assert correlations[-1] > 0.95
    report = model.get_layer("conv").fidelity_report[0]
    assert report.bias < 0.1
    assert report.std_ratio == pytest.approx(1, abs=0.1)


def test_short_sums_get_their_measured_shape():
    """Nine terms of a skewed error: the mixture is nearer on held-out windows, and it is what is drawn."""
    table = np.outer(np.arange(256), np.arange(256))
    skewed = np.random.default_rng(0).gamma(0.1, 9000, (256, 256)).astype(int)
    multiplier = ax.Multiplier(table + skewed, name="rarely far off", bits=8, signed=False)
    model = keras.Sequential([keras.Input((12, 12, 4)), keras.layers.DepthwiseConv2D(3, use_bias=False)])
    kernel = model.layers[0].kernel
    kernel.assign(np.abs(np.asarray(kernel)))  # a negative weight turns its error round
    x = np.random.default_rng(1).uniform(0, 1, (64, 12, 12, 4)).astype(np.float32)
    noisy = ax.convert(model, ax.Hardware(multiplier=multiplier), x, fidelity="calibrated", rank=0)
    layer = noisy.layers[0]
    (report,) = layer.fidelity_report
    assert report.residual == "mixture"
    assert report.ks_mixture < 0.5 * report.ks_normal
    drawn = {}
    for residual in ("none", "auto", "normal"):
        ax.set_fidelity(noisy, "calibrated", rank=0, residual=residual)
        drawn[residual] = np.asarray(layer(x)).ravel()
    # n = 25,600: the skewness of a symmetric distribution has a standard error of sqrt(6 / n) = 0.015, and a few
    # times that where the variances differ.
    assert stats.skew(drawn["auto"] - drawn["none"]) > 0.5
    assert abs(stats.skew(drawn["normal"] - drawn["none"])) < 0.1
    ax.set_fidelity(noisy, "calibrated", rank=0, residual="normal")
    assert layer.fidelity_report[0].residual == "normal"


def test_auto_takes_the_normal_for_long_sums():
    model, _ = network("calibrated")
    residuals = {
        layer.name: r.residual
        for layer in model.layers
        if hasattr(layer, "fidelity_report")
        for r in layer.fidelity_report
    }
    assert residuals["dense"] == "normal"  # 144 terms
    ax.set_fidelity(model, "calibrated", residual="mixture")
    assert model.get_layer("dense").fidelity_report[0].residual == "mixture"
    assert np.abs(np.asarray(model.get_layer("dense").hardware_state.residual_levels) - noise.normal_levels()).max() > 0


def test_no_residual_is_a_function():
    model, x = network("calibrated", residual="none")
    np.testing.assert_array_equal(model(x), model(x))
    assert model.layers[0].fidelity_report[0].residual == "none"
    ax.set_fidelity(model, "calibrated")
    assert np.abs(np.asarray(model(x)) - np.asarray(model(x))).max() > 1e-4


def test_there_and_back_is_bit_identical_and_the_optimizer_stays():
    model, x = network()
    y = np.arange(128) % 3
    model.compile(keras.optimizers.Adam(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, y, batch_size=32, verbose=0)
    before = model.predict(x, verbose=0)
    optimizer = model.optimizer
    moments = [np.asarray(variable) for variable in optimizer.variables]
    outputs = {}
    for fidelity, options in (("calibrated", {"rank": 2}), ("gaussian", {})):
        ax.set_fidelity(model, fidelity, **options)
        assert {layer.fidelity for layer in model.layers if hasattr(layer, "fidelity")} == {fidelity}
        outputs[fidelity] = model.predict(x, verbose=0)
        assert np.abs(outputs[fidelity] - before).max() > 1e-4
    ax.set_fidelity(model, "exact")
    np.testing.assert_array_equal(model.predict(x, verbose=0), before)
    assert model.optimizer is optimizer
    for variable, value in zip(optimizer.variables, moments, strict=True):
        np.testing.assert_array_equal(variable, value)
    ax.set_fidelity(model, "calibrated", rank=3)
    model.fit(x, y, batch_size=32, verbose=0)
    assert int(optimizer.iterations) == 8
    assert all(np.isfinite(np.asarray(w)).all() for w in model.trainable_weights)


def test_a_new_fit_needs_no_data_and_takes_the_weights_as_they_are():
    model, _ = network("calibrated", rank=1)
    state = model.get_layer("conv").hardware_state
    share, levels = np.asarray(state.activation_histogram), np.asarray(state.weight_histogram)
    assert share.sum() == pytest.approx(1, abs=1e-5)
    # SAME padding of 8x8 by a 3x3 window: 100 of the 576 taps along both axes, 1 - (22 / 24)^2, are the zero point.
    assert share[0] > 1 - (22 / 24) ** 2
    kernel = model.get_layer("conv").kernel
    kernel.assign(np.sign(np.asarray(kernel)))
    ax.set_fidelity(model, "calibrated", rank=3)
    np.testing.assert_array_equal(state.activation_histogram, share)
    assert np.abs(np.asarray(state.weight_histogram) - levels).max() > 0.1
    assert state.activation_factors.shape == (3, 256)
    table = model.get_layer("conv").hardware.code_table
    fitted = fit_statistics(table, share.astype(float), np.asarray(state.weight_histogram, float), 3)
    np.testing.assert_allclose(state.activation_factors, fitted.activation_factors, rtol=1e-4, atol=1e-4)


@pytest.mark.slow  # tests/contract/test_saving.py loads one in a fresh process
@pytest.mark.graph
def test_saved_and_loaded_here_and_in_a_fresh_process(tmp_path):
    model, x = network("calibrated", rank=2, residual="mixture")
    ax.set_chip(model, 5)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", x)
    loaded = ax.load_model(tmp_path / "model.keras")
    outputs = np.asarray(model(x))
    assert (loaded.layers[0].playing.rank, loaded.layers[0].playing.residual) == (2, "mixture")
    np.testing.assert_array_equal(loaded(x), outputs)  # the noise's stream too
    for ours, theirs in zip(model.layers, loaded.layers, strict=True):
        if hasattr(ours, "fidelity_report"):
            assert ours.fidelity_report == theirs.fidelity_report != ()
    ax.set_fidelity(loaded, "calibrated", rank=4)  # from the histograms in the file
    ax.set_fidelity(model, "calibrated", rank=4)
    ours, theirs = (each.layers[0].hardware_state.weight_factors for each in (model, loaded))
    np.testing.assert_array_equal(ours, theirs)
    code = (
        "import sys, numpy as np, axtrain as ax\n"
        "model = ax.load_model(sys.argv[1] + '/model.keras')\n"
        "np.save(sys.argv[1] + '/fresh.npy', model(np.load(sys.argv[1] + '/x.npy')))\n"
        "ax.set_fidelity(model, 'calibrated', rank=1)\n"
        "assert model.layers[0].fidelity_report[0].rank == 1\n"
    )
    done = fresh.run(code, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    np.testing.assert_array_equal(np.load(tmp_path / "fresh.npy"), outputs)


def test_a_clone_takes_the_weights():
    model, x = network("calibrated", rank=2, residual="none")
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    np.testing.assert_array_equal(clone(x), model(x))


@pytest.mark.parametrize(
    ("compile_arguments", "policy"),
    [
        ({"jit_compile": True}, "float32"),
        ({"run_eagerly": True}, "float32"),
        ({"jit_compile": False}, "mixed_bfloat16"),
    ],
)
@pytest.mark.graph
@pytest.mark.cases("arguments1", "arguments2")
def test_one_training_step_moves_every_weight(compile_arguments, policy, float_policy):
    keras.config.set_dtype_policy(policy)
    model, x = network("calibrated", rank=2)
    model.compile(keras.optimizers.SGD(0.1), "mse", **compile_arguments)
    before = [np.asarray(w) for w in model.trainable_weights]
    history = model.fit(x[:8], np.ones((8, 3)), batch_size=8, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    for weight, old in zip(model.trainable_weights, before, strict=True):
        assert np.abs(np.asarray(weight) - old).max() > 0, weight.path
    assert all(w.dtype == "float32" for w in model.weights if "seed" not in w.path)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("case", ["dense", "conv2d", "depthwise"])
@pytest.mark.graph
def test_the_gradient_is_the_float_products_to_second_order(case, compiled):
    """Equal to that of the exact fidelity, whose gradient tests/axtrain/test_gradients.py writes out."""
    model, x = converted(case, low_rank(2), fidelity="calibrated", rank=1, residual="none")
    layer, x = model.layers[0], tf.constant(x[:4])
    kernel = layer.trainable_weights[0].value
    weights = tf.random.stateless_normal(layer(x).shape, (0, 0))

    def gradients():
        with tf.GradientTape() as outer:
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = tf.reduce_sum(weights * layer(x))  # linear: its gradient does not see the value
            first = tape.gradient(loss, [x, kernel])
            squared = tf.reduce_sum(first[0] ** 2)
        return [*first, outer.gradient(squared, kernel)]

    def found():
        return (tf.function(gradients) if compiled else gradients)()

    calibrated = found()
    ax.set_fidelity(model, "exact")
    for ours, theirs in zip(calibrated, found(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
        assert np.abs(ours).max() > 0.1


def test_bad_options_raise():
    model, _ = network()
    known = r"Unknown options of fidelity 'calibrated'. Known: rank, residual.*\['ranks'\]"
    with pytest.raises(ValueError, match=known):
        ax.set_fidelity(model, "calibrated", ranks=2)
    with pytest.raises(ValueError, match=r"Unknown options of fidelity 'gaussian'. Known: none.*\['rank'\]"):
        ax.set_fidelity(model, "gaussian", rank=2)
    for rank in (-1, 1.5, True, "2"):
        with pytest.raises(ValueError, match="`rank` must be an int >= 0.*Received: rank="):
            ax.set_fidelity(model, "calibrated", rank=rank)
    with pytest.raises(ValueError, match="`residual` must be one of.*Received: residual='uniform'"):
        ax.set_fidelity(model, "calibrated", residual="uniform")
    with pytest.raises(ValueError, match="`fidelity` must be one of.*'calibrate'"):
        ax.set_fidelity(model, "calibrate", rank=2)
    assert model.layers[0].playing == network()[0].layers[0].playing
    plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="head")])
    with pytest.raises(ValueError, match="calibrated fidelity is fitted.*layer 'head'"):
        ax.set_fidelity(ax.convert(plain, ax.Hardware()), "calibrated")
    with pytest.raises(ValueError, match="calibrated fidelity is fitted.*calibration=None"):
        ax.convert(plain, ax.Hardware(), fidelity="calibrated")
    with pytest.raises(ValueError, match="`rank` must be"):
        ax.convert(plain, ax.Hardware(), np.ones((2, 4), np.float32), fidelity="calibrated", rank=-2)


def test_the_summary_says_how_well(capsys):
    model, _ = network("calibrated", rank=1)
    found = ax.summary(model)
    assert "correlation" in capsys.readouterr().out
    assert [layer.fidelity for layer in found.layers] == ["calibrated"] * 3
    assert all(len(layer.fidelity_report) == 1 for layer in found.layers)
    assert ax.summary(network()[0]).layers[0].fidelity_report == ()


def test_evaluation_draws_a_stream_for_each_chip():
    model, x = network("calibrated")
    result = ax.evaluate(model, x, np.arange(128) % 3, chips=3, metric=lambda _, y: float(y.sum()), verbose=False)
    assert len(set(result.accuracies)) == 3
