"""Gradients through a table, against loops over every product of every output."""

from functools import lru_cache, partial

import keras
import numpy as np
import pytest
import tensorflow as tf
from reference import contribution_table

import axtrain as ax
from axtrain.emulation import table_gradient
from axtrain.emulation.code_table import CodeTable
from axtrain.emulation.factorisation import exact_rank
from axtrain.emulation.geometry import Dense
from axtrain.emulation.surrogate import surrogate_gradient
from axtrain.emulation.table_gradient import DEFAULT_WINDOW, TOLERANCE, slopes, smoothed_slope, table_surrogates
from axtrain.quantisers import Codes, Quantiser

pytestmark = pytest.mark.eager

LAYERS = {
    "dense": (lambda **k: ax.layers.ApproxDense(3, **k), (4, 6)),
    "conv1d_causal": (lambda **k: ax.layers.ApproxConv1D(3, 3, padding="causal", **k), (2, 6, 2)),
    "conv2d_same": (lambda **k: ax.layers.ApproxConv2D(3, 3, padding="same", strides=2, **k), (2, 5, 6, 2)),
    "depthwise": (
        lambda **k: ax.layers.ApproxDepthwiseConv2D(3, padding="same", depth_multiplier=2, **k),
        (2, 5, 4, 2),
    ),
}
every_layer = pytest.mark.parametrize("case", LAYERS)


def rough(seed, signed=False):
    """A circuit of full rank with large products of zero."""
    table = np.outer(np.arange(256), np.arange(256)) // 2 + np.random.default_rng(seed).integers(-900, 2900, (256, 256))
    return ax.Multiplier(table - 8000 * signed, name=f"rough {seed} {signed}", bits=8, signed=signed)


HARDWARE = {
    "affine, rank 1": ax.Hardware(multiplier=ax.multipliers.get("drum2")),
    "affine, full rank": ax.Hardware(multiplier=rough(0)),
    "affine, offset weights": ax.Hardware(
        multiplier=ax.multipliers.get("mitchell"), quantisation=ax.Quantisation(weight_encoding="offset")
    ),
    "symmetric, full rank": ax.Hardware(multiplier=rough(1, signed=True)),
    "affine, 5 and 4 bits": ax.Hardware(
        multiplier=ax.multipliers.get("kulkarni"), quantisation=ax.Quantisation(activation_bits=5, weight_bits=4)
    ),
}


def plain_slope(table, h):
    """The formula, one row at a time, along the first axis."""
    found = np.zeros(table.shape)
    for i in range(table.shape[0]):
        low, high = max(i - h, 0), min(i + h, table.shape[0] - 1)
        found[i] = (table[high].astype(np.int64) - table[low]) / (high - low)
    return found


def occurring_codes(hardware):
    """The codes that activations and weights can have; a faulty memory may return the one below the smallest."""
    first, last = hardware.activation_codes
    limit = (1 << (hardware.weight_bits - 1)) - 1
    return range(first, last + 1), range(-limit - (hardware.weight_memory is not None), limit + 1)


@lru_cache(maxsize=16)
def plain_slopes(hardware, h):
    """(dT/da, dT/dw) over the activation and weight codes, the table rebuilt from the circuit's raw words."""
    codes = list(occurring_codes(hardware))
    table = contribution_table(hardware.circuit, *codes, hardware.operand_encodings)
    return plain_slope(table, h), plain_slope(table.T, h).T, [along[0] for along in codes]


def make(case, hardware, **kwargs):
    """A built layer, its input with values beyond the range, and weights for its output."""
    build, shape = LAYERS[case]
    layer = build(hardware=hardware, use_bias=False, **kwargs)
    layer.build(shape)
    rng = np.random.default_rng(0)
    layer.kernel.assign(rng.normal(size=layer.kernel.shape))
    layer.hardware_state.set_range(-1.0, 1.5)
    x = tf.constant(rng.normal(0.2, 1, shape), tf.float32)
    return layer, x, tf.constant(rng.normal(size=layer(x).shape), tf.float32)


def gradients(layer, x, upstream, how=lambda function: function):
    def function():
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(layer(x) * upstream)
        return tape.gradient(loss, [x, layer.kernel.value])

    return [np.asarray(g) for g in how(function)()]


def quantised(layer, x):
    """Codes of the operands, their scales and the zero point, in NumPy."""
    hardware = layer.hardware
    first, last = hardware.activation_codes
    low, high = -1.0, 1.5
    a_scale = max(-low, high) / last if hardware.activations == "symmetric" else (high - low) / (last - first)
    zero = 0 if hardware.activations == "symmetric" else round(first - low / a_scale)
    a = np.round(np.asarray(x) / np.float32(a_scale)) + zero
    kernel = np.asarray(layer.kernel)
    limit = np.float32((1 << (hardware.weight_bits - 1)) - 1)
    w_scale = np.abs(kernel).max(axis=layer._summed_axes, keepdims=True) / limit
    real = [np.float32(a_scale) * (code - zero) for code in (first, last)]
    inside = (np.asarray(x) >= real[0]) & (np.asarray(x) <= real[1])
    return np.clip(a, first, last).astype(int), np.round(kernel / w_scale).astype(int), a_scale, w_scale, zero, inside


def expected_gradients(layer, x, upstream, h):
    """sum over every product of upstream s_w dT/da and upstream s_a (dT/dw - z), looked up pair by pair."""
    a, w, a_scale, w_scale, zero, inside = quantised(layer, x)
    # The largest weight of a channel may lie a rounding error beyond its own range, where it counts as clipped.
    limit = np.float32((1 << (layer.hardware.weight_bits - 1)) - 1)
    w_inside = np.abs(np.asarray(layer.kernel)) <= limit * w_scale
    along_a, along_w, lowest = plain_slopes(layer.hardware, h)
    g = np.asarray(upstream, np.float64)
    dx, dw = np.zeros(a.shape), np.zeros(w.shape)
    for out, position, tap in products(layer, a.shape, w.shape, g.shape):
        code = zero if position is None else a[position]
        if position is not None:
            dx[position] += g[out] * w_scale.reshape(-1)[out[-1]] * along_a[code - lowest[0], w[tap] - lowest[1]]
        dw[tap] += g[out] * a_scale * (along_w[code - lowest[0], w[tap] - lowest[1]] - zero)
    return dx * inside, dw * w_inside


def products(layer, a_shape, w_shape, out_shape):
    """(output index, input index or None in the padding, kernel index) of every product of the layer."""
    if isinstance(layer, keras.layers.Dense):
        for out in np.ndindex(*out_shape):
            for k in range(w_shape[0]):
                yield out, (*out[:-1], k), (k, out[-1])
        return
    *window, channels, last = w_shape
    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    before = []
    for size, k, s in zip(a_shape[1:-1], window, layer.strides, strict=True):
        total = max((-(-size // s) - 1) * s + k - size, 0)
        before.append(k - 1 if layer.padding == "causal" else total // 2)
    for out in np.ndindex(*out_shape):
        for tap in np.ndindex(*window):
            place = tuple(o * s + t - b for o, s, t, b in zip(out[1:-1], layer.strides, tap, before, strict=True))
            valid = all(0 <= p < size for p, size in zip(place, a_shape[1:-1], strict=True))
            for c in [out[-1] // last] if depthwise else range(channels):
                unit = out[-1] % last if depthwise else out[-1]
                yield out, ((out[0], *place, c) if valid else None), (*tap, c, unit)


@pytest.fixture
def uncut(monkeypatch):
    """Factors that rebuild the slopes to float32 rounding."""
    monkeypatch.setattr(table_gradient, "slopes", partial(slopes, tolerance=1e-7))


def assert_close(found, expected, tolerance):
    """Root mean square difference over root mean square, and every element within ten times that."""
    size = np.sqrt(np.mean(expected**2))
    assert size > 0
    assert np.sqrt(np.mean((found - expected) ** 2)) <= tolerance * size
    np.testing.assert_allclose(found, expected, atol=10 * tolerance * size)


@pytest.mark.parametrize("h", [1, 3, 16, 400])
def test_the_smoothed_slope_is_the_formula(h):
    table = np.random.default_rng(h).integers(-(1 << 15), 1 << 15, (37, 5))
    np.testing.assert_allclose(smoothed_slope(table, h), plain_slope(table, h), rtol=1e-12)
    np.testing.assert_allclose(smoothed_slope(table[:, 0], h), plain_slope(table, h)[:, 0], rtol=1e-12)


@pytest.mark.parametrize("h", [1, 4, 16])
def test_it_is_the_slope_of_the_moving_average_of_the_interpolated_table(h):
    """``F(x) = 1/2h int_(x-h)^(x+h) f``, f linear between codes; its finite differences."""
    values = np.random.default_rng(0).integers(0, 1000, 64).astype(float)
    integral = np.concatenate([[0], np.cumsum((values[1:] + values[:-1]) / 2)])

    def integrated(x):
        below = np.minimum(np.floor(x).astype(int), len(values) - 2)
        rest, steps = x - below, np.diff(values)
        return integral[below] + rest * values[below] + rest**2 / 2 * steps[below]

    inside, step = np.arange(h + 1, len(values) - h - 1), 1e-4
    average = [(integrated(x + h) - integrated(x - h)) / (2 * h) for x in (inside + step, inside - step)]
    # The second differences of the values, times the step, bound the error.
    np.testing.assert_allclose((average[0] - average[1]) / (2 * step), smoothed_slope(values, h)[inside], atol=0.1)


CIRCUITS = ["exact", "drum3", "kulkarni", "truncated8", "mitchell"]


@pytest.mark.parametrize("window", [2, 16])
@pytest.mark.parametrize("name", CIRCUITS)
def test_the_factors_rebuild_the_slopes(name, window):
    table = ax.Hardware(multiplier=ax.multipliers.get(name)).code_table
    for operand in (0, 1):
        found = slopes(table, window, operand)
        products = table.products if operand == 0 else table.products.T
        expected = plain_slope(products, window)
        rebuilt = found.activation.astype(float) @ found.weight.T.astype(float)
        rebuilt = rebuilt if operand == 0 else rebuilt.T
        error = np.linalg.norm(rebuilt - expected) / np.linalg.norm(expected)
        assert error == pytest.approx(found.error, abs=1e-6)
        assert error <= TOLERANCE
        assert found.rank <= exact_rank(table)
        own, other = (found.activation, found.weight) if operand == 0 else (found.weight, found.activation)
        np.testing.assert_allclose(found.other, plain_slope_of_floats(other, window), rtol=1e-4, atol=1e-4)
        assert own.shape[1] == other.shape[1] == found.rank
        # One term fewer would break the tolerance.
        if found.rank > 1:
            strength = np.linalg.svd(expected, compute_uv=False)
            assert np.sqrt((strength[found.rank - 1 :] ** 2).sum() / (strength**2).sum()) > TOLERANCE


def plain_slope_of_floats(factor, h):
    last = len(factor) - 1
    edges = [(max(i - h, 0), min(i + h, last)) for i in range(len(factor))]
    return np.array([(factor[high] - factor[low]) / (high - low) for low, high in edges])


def test_the_exact_table_has_the_slopes_of_the_product():
    table = ax.Hardware().code_table
    shape = table.products.shape
    np.testing.assert_array_equal(smoothed_slope(table.products, 7), np.broadcast_to(table.weight_codes, shape))
    expected = np.broadcast_to(table.activation_codes, shape[::-1])
    np.testing.assert_array_equal(smoothed_slope(table.products.T, 7), expected)


def test_a_table_without_slopes_has_zeros():
    found = slopes(CodeTable(np.full((8, 8), 5), 0, -4), 2, 0)
    assert (found.rank, found.error) == (1, 0.0)
    assert not (found.activation @ found.weight.T).any()


@pytest.mark.parametrize(
    ("kind", "compiled"), [*((kind, None) for kind in HARDWARE), ("affine, full rank", False), ("affine, rank 1", True)]
)
@every_layer
@pytest.mark.graph
def test_the_gradient_of_a_layer_is_the_tables(case, kind, compiled, uncut):
    layer, x, upstream = make(case, HARDWARE[kind], gradient="table", gradient_window=5)
    how = (lambda f: f) if compiled is None else partial(tf.function, jit_compile=compiled)
    found = gradients(layer, x, upstream, how)
    expected = expected_gradients(layer, x, upstream, 5)
    for ours, theirs in zip(found, expected, strict=True):
        assert_close(ours, theirs, 1e-4)
    outside = ~quantised(layer, x)[-1]
    assert outside.any()
    assert not found[0][outside].any()
    straight, _, _ = make(case, HARDWARE[kind])
    np.testing.assert_array_equal(straight(x), layer(x))
    assert np.abs(gradients(straight, x, upstream)[0] - found[0]).max() > 0.1


@every_layer
def test_the_cut_factors_give_the_gradient_to_their_tolerance(case):
    hardware = ax.Hardware(multiplier=ax.multipliers.get("mitchell"))
    layer, x, upstream = make(case, hardware, gradient="table")
    for operand, (ours, theirs) in enumerate(
        zip(gradients(layer, x, upstream), expected_gradients(layer, x, upstream, DEFAULT_WINDOW), strict=True)
    ):
        assert 1 < slopes(hardware.code_table, DEFAULT_WINDOW, operand).rank < 16
        assert_close(ours, theirs, 4 * TOLERANCE)  # the tolerance is that of the slopes; dT/dw - z is smaller
        assert np.abs(ours - theirs).max() > 0


@pytest.mark.parametrize("activations", ["affine", "symmetric"])
@every_layer
def test_the_exact_multiplier_has_the_straight_through_gradient(case, activations):
    hardware = ax.Hardware(quantisation=ax.Quantisation(activations=activations))
    found, expected = (
        gradients(*make(case, hardware, gradient=gradient)) for gradient in ("table", "straight_through")
    )
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * np.abs(theirs).max())


OTHERS = {
    "transposed": (ax.layers.ApproxConv2DTranspose, (3, 3), {"strides": 2, "padding": "same"}, (2, 4, 3, 2)),
    "separable": (ax.layers.ApproxSeparableConv2D, (3, 3), {"depth_multiplier": 2}, (2, 5, 4, 2)),
    "einsum": (ax.layers.ApproxEinsumDense, ("abc,cd->abd", (3, 4)), {}, (2, 3, 5)),
    "lstm": (ax.layers.ApproxLSTM, (3,), {}, (2, 4, 5)),
    "attention": (ax.layers.ApproxMultiHeadAttention, (2, 3), {}, (2, 4, 5)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_layers_of_other_geometries_and_several_products(name):
    """The exact multiplier's table has the straight-through gradient, a coarse one's another."""
    kind, arguments, options, shape = OTHERS[name]
    x = tf.constant(np.random.default_rng(0).uniform(-1, 1, shape), tf.float32)

    def found(circuit, gradient):
        keras.utils.set_random_seed(0)
        layer = kind(*arguments, **options, hardware=ax.Hardware(multiplier=circuit), gradient=gradient)
        call = (lambda: layer(x, x)) if name == "attention" else (lambda: layer(x))
        call()
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(tf.sin(call()))
        return [np.asarray(g) for g in tape.gradient(loss, [x, *(v.value for v in layer.trainable_variables)])]

    for ours, theirs in zip(found(None, "table"), found(None, "straight_through"), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4 * np.abs(theirs).max() + 1e-6)
    coarse = ax.multipliers.get("drum2")
    assert np.abs(found(coarse, "table")[0] - found(coarse, "straight_through")[0]).max() > 1e-3


def test_a_product_for_each_of_a_batch(uncut):
    """Dense(batched=True): both operands have batch axes, and each of its own a scale."""
    rng = np.random.default_rng(0)
    table = ax.Hardware(multiplier=ax.multipliers.get("drum2")).code_table
    quantiser = Quantiser(tf.constant(0.02), tf.constant(40.0), 0, 255)
    x = tf.constant(rng.uniform(-0.5, 3.5, (3, 4, 5)), tf.float32)
    w_codes = tf.constant(rng.integers(-127, 128, (3, 5, 2)), tf.float32)
    w = Codes(w_codes, 0.01 * w_codes, tf.constant(0.01), tf.constant(0.0))
    upstream = rng.normal(size=(3, 4, 2))
    along = table_surrogates(table, Dense(batched=True), 3, quantiser, w, tf.constant(2e-4))
    with tf.GradientTape() as tape:
        tape.watch([x, w.real])
        loss = tf.reduce_sum(surrogate_gradient(lambda: tf.zeros((3, 4, 2)), along, x, w.real) * upstream)
    found = tape.gradient(loss, [x, w.real])
    rows, columns = np.asarray(quantiser.codes(x)).astype(int), np.asarray(w_codes).astype(int) - table.weight_low
    dx, dw = np.zeros(x.shape), np.zeros(w_codes.shape)
    along_a, along_w = plain_slope(table.products, 3), plain_slope(table.products.T, 3).T
    for b, m, k, n in np.ndindex(3, 4, 5, 2):
        dx[b, m, k] += upstream[b, m, n] * 0.01 * along_a[rows[b, m, k], columns[b, k, n]]
        dw[b, k, n] += upstream[b, m, n] * 0.02 * (along_w[rows[b, m, k], columns[b, k, n]] - 40)
    low, high = (np.asarray(bound) for bound in quantiser.range)
    assert_close(np.asarray(found[0]), dx * ((x.numpy() >= low) & (x.numpy() <= high)), 1e-4)
    assert_close(np.asarray(found[1]), dw, 1e-4)


def test_the_mixed_second_derivative_is_that_of_the_table(uncut):
    """d/dx of a weighted sum of dL/dw: each product adds its slope along both operands."""
    layer, x, upstream = make("dense", HARDWARE["affine, full rank"], gradient="table", gradient_window=5)
    weights = np.random.default_rng(1).normal(size=layer.kernel.shape).astype(np.float32)
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            loss = tf.reduce_sum(layer(x) * upstream)
        weighted = tf.reduce_sum(inner.gradient(loss, layer.kernel.value) * weights)
    found = np.asarray(outer.gradient(weighted, x))
    a, w, _, _, _, inside = quantised(layer, x)
    along_a, _, lowest = plain_slopes(layer.hardware, 5)
    mixed = plain_slope_of_floats(along_a.T, 5).T
    expected = np.zeros(a.shape)
    for m, k, n in np.ndindex(*a.shape, w.shape[1]):
        expected[m, k] += upstream[m, n] * weights[k, n] * mixed[a[m, k] - lowest[0], w[k, n] - lowest[1]]
    assert_close(found, expected * inside, 1e-3)


def test_faults_in_the_memory_move_the_slopes_to_the_codes_that_were_read(uncut):
    memory = ax.memories.BitErrors(rate=0.3, fault="persistent")
    hardware = ax.Hardware(multiplier=ax.multipliers.get("drum2"), weight_memory=memory)
    layer, x, upstream = make("dense", hardware, gradient="table", gradient_window=5)
    read = np.asarray(layer.hardware_state.read_weights(layer.kernel.value, (0,), training=False).codes).astype(int)
    a, clean, _, w_scale, _, inside = quantised(layer, x)
    assert (read != clean).any()
    along_a, _, lowest = plain_slopes(layer.hardware, 5)
    expected = np.zeros(a.shape)
    for m, k, n in np.ndindex(*a.shape, clean.shape[1]):
        expected[m, k] += upstream[m, n] * w_scale[0, n] * along_a[a[m, k] - lowest[0], read[k, n] - lowest[1]]
    assert_close(gradients(layer, x, upstream)[0], expected * inside, 1e-4)


def network():
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(4, 3, padding="same", activation="tanh"),
            keras.layers.DepthwiseConv2D(3),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )


@pytest.mark.parametrize(
    ("compile_arguments", "policy"),
    [({"jit_compile": True}, "mixed_bfloat16"), ({"run_eagerly": True}, "float32")],
)
@pytest.mark.graph
def test_training_moves_every_weight(compile_arguments, policy, float_policy):
    keras.config.set_dtype_policy(policy)
    x = np.random.default_rng(0).normal(size=(8, 6, 6, 2)).astype(np.float32)
    hardware = ax.Hardware(multiplier=ax.multipliers.get("truncated8"))
    model = ax.convert(network(), hardware, x, gradient="table", gradient_window=8)
    model.compile(keras.optimizers.SGD(0.1), "mse", **compile_arguments)
    before = [np.asarray(w) for w in model.trainable_weights]
    history = model.fit(x, np.ones((8, 3)), batch_size=8, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    for weight, old in zip(model.trainable_weights, before, strict=True):
        assert np.abs(np.asarray(weight) - old).max() > 0, weight.path


def test_the_options_are_passed_on_saved_and_stripped(tmp_path):
    x = np.random.default_rng(0).normal(size=(4, 6, 6, 2)).astype(np.float32)
    hardware = ax.Hardware(multiplier=ax.multipliers.get("drum3"))
    model = ax.convert(network(), hardware, x, gradient="table", gradient_window=9)
    model.save(tmp_path / "model.keras")
    loaded = ax.load_model(tmp_path / "model.keras")
    for found in (model, loaded):
        options = [(layer.gradient, layer.gradient_window) for layer in found.layers if hasattr(layer, "hardware")]
        assert options == [("table", 9)] * 3
    again = ax.convert(loaded, hardware)
    assert {layer.gradient for layer in again.layers if hasattr(layer, "hardware")} == {"straight_through"}
    assert [type(layer) for layer in ax.strip(model).layers] == [type(layer) for layer in network().layers]
    layer = model.layers[0]
    layer.gradient, layer.gradient_window = "straight_through", 3
    assert {"gradient": "straight_through", "gradient_window": 3}.items() <= layer.get_config().items()


def test_unknown_options_raise():
    with pytest.raises(ValueError, match="`gradient` must be one of.*Received: gradient='steep'"):
        ax.layers.ApproxDense(2, gradient="steep")
    for window in (0, -1, 2.0, True, None):
        with pytest.raises(ValueError, match="`gradient_window` must be an int >= 1. Received"):
            ax.layers.ApproxDense(2, gradient_window=window)
    with pytest.raises(ValueError, match="`gradient` must be one of.*Received: gradient='straight'"):
        ax.convert(network(), ax.Hardware(), gradient="straight")
