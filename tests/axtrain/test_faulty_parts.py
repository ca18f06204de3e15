"""Activations and biases in memories that fail, accumulators that miss the clock, words at their addresses."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import axtrain as ax
from axtrain.layers.state import _ACTIVATIONS, _BIASES
from axtrain.noise_models.datapath import DroppedMACs, MeasuredDatapath, TimingErrors
from axtrain.noise_models.memories import BitErrors, FaultMap, MeasuredMemory, NearThresholdSRAM, Parity

pytestmark = pytest.mark.eager

FLIPS = BitErrors(rate=0.05, fault="persistent")


def dense(hardware, units=5, inputs=12, **options):
    keras.utils.set_random_seed(2)
    model = keras.Sequential([keras.Input((inputs,)), keras.layers.Dense(units, name="a", bias_initializer="normal")])
    x = np.random.default_rng(3).uniform(0, 1, (9, inputs)).astype(np.float32)
    return ax.convert(model, hardware, x, **options), x


def words(state, part):
    """The seed of one part of the chip that is set."""
    return np.asarray(state.chip_seed.state).astype(np.uint32) + np.array([0, part], np.uint32)


def activations_read(layer, x):
    """Codes and zero point, computed without the layer's own read."""
    state, hardware = layer.hardware_state, layer.hardware
    quantiser = state.activation_quantiser(tf.constant(x), training=False)
    codes = np.asarray(quantiser.codes(tf.constant(x))).astype("int32")
    memory, seed = hardware.activation_store, words(state, _ACTIVATIONS)
    read = [np.asarray(memory.read(row, hardware.activation_bits, tf.constant(seed))) for row in codes]
    return np.stack(read), float(quantiser.zero_point), float(quantiser.scale), codes


@pytest.mark.parametrize("engine", [None, "low_rank", "gather"])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("encoding", ["twos_complement", "sign_magnitude"])
@pytest.mark.graph
def test_activations_are_multiplied_as_they_are_read(signed, engine, encoding):
    """Zero differences to an integer loop over the faulty codes; every sample meets the same cells."""
    memory = NearThresholdSRAM(voltage=0.47, encoding=encoding)
    circuit = ax.multipliers.get("exact", signed=signed)
    noisy, x = dense(ax.Hardware(multiplier=circuit, activation_memory=memory), engine=engine)
    ax.set_chip(noisy, 6)
    layer = noisy.get_layer("a")
    read, zero, scale, codes = activations_read(layer, x)
    assert 0.005 < (read != codes).mean() < 0.9
    weights = layer.hardware_state.read_weights(tf.convert_to_tensor(layer.kernel), (0,), False)
    sums = np.zeros((9, 5), np.int64)
    w = np.asarray(weights.codes).astype(np.int64)
    for i in range(9):
        for j in range(5):
            for k in range(12):
                sums[i, j] += (int(read[i, k]) - int(zero)) * w[k, j]
    expected = sums * (scale * np.asarray(weights.scale).reshape(-1)) + np.asarray(layer.bias)
    # How a memory of each encoding is read when compiled, tests/noise_models has.
    compiled = (tf.function(noisy), tf.function(noisy, jit_compile=True)) if encoding == "twos_complement" else ()
    for run in (noisy, *compiled):
        np.testing.assert_allclose(np.asarray(run(tf.constant(x))), expected, rtol=2e-6, atol=2e-6)


def test_the_most_negative_word_reaches_the_multiplier():
    """A flipped sign bit of code 0 is -128 in two's complement, a code that no activation has of itself."""
    top = FaultMap(words=12, word_bits=8, addresses=(0,), bits=(7,))
    noisy, x = dense(
        ax.Hardware(multiplier=ax.multipliers.get("exact", signed=True), activation_memory=MeasuredMemory(maps=(top,))),
        engine="gather",
    )
    layer = noisy.get_layer("a")
    x = np.zeros_like(x)
    scale = float(layer.hardware_state.activation_quantiser(tf.constant(x), training=False).scale)
    w = layer.hardware_state.read_weights(tf.convert_to_tensor(layer.kernel), (0,), False)
    expected = -128 * scale * np.asarray(w.real)[0] + np.asarray(layer.bias)
    np.testing.assert_allclose(np.asarray(noisy(x))[0], expected, rtol=1e-5)


def test_the_gradient_passes_the_memory():
    noisy, x = dense(ax.Hardware(activation_memory=FLIPS))
    ax.set_chip(noisy, 6)
    layer = noisy.get_layer("a")
    read, zero, scale, _ = activations_read(layer, x)
    variable = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(variable)
        value = tf.reduce_sum(noisy(variable))
    kernel = layer.kernel.value
    along_x = tape.gradient(value, variable)
    w = layer.hardware_state.read_weights(tf.convert_to_tensor(layer.kernel), (0,), False)
    low, high = layer.hardware_state.activation_quantiser(variable, training=False).range
    inside = (x >= float(low)) & (x <= float(high))
    assert 0 < (~inside).sum() < 5
    expected = np.where(inside, np.tile(np.asarray(w.real).sum(axis=1), (9, 1)), 0.0)
    np.testing.assert_allclose(along_x, expected, rtol=1e-5)
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(noisy(variable))
    expected = np.tile(((read - zero) * scale).sum(axis=0)[:, None], (1, 5))
    np.testing.assert_allclose(tape.gradient(value, kernel), expected, rtol=1e-4)


def test_biases_are_read_from_their_memory():
    quantisation = ax.Quantisation(bias_bits=8)
    noisy, x = dense(ax.Hardware(bias_memory=BitErrors(rate=0.2, fault="persistent"), quantisation=quantisation))
    layer = noisy.get_layer("a")
    clean = ax.convert(noisy, ax.Hardware())
    ax.set_chip(noisy, 4)
    bias = np.asarray(layer.bias)
    scale = np.abs(bias).max() / 127
    codes = np.round(bias / scale).astype("int32")
    read = np.asarray(layer.hardware.bias_memory.read(codes, 8, tf.constant(words(layer.hardware_state, _BIASES))))
    assert np.any(read != codes)
    difference = np.asarray(noisy(x)) - np.asarray(clean(x))
    np.testing.assert_allclose(difference, np.tile(read * scale - bias, (9, 1)), rtol=1e-4, atol=1e-6)
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(noisy(tf.constant(x)))
    np.testing.assert_array_equal(tape.gradient(value, layer.bias.value), np.full(5, 9.0))
    ax.set_noise_strength(noisy, 0.0)
    difference = np.asarray(noisy(x)) - np.asarray(clean(x))
    np.testing.assert_allclose(difference, np.tile(codes * scale - bias, (9, 1)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("fidelity", ["exact", "gaussian"])
def test_accumulators_pass_the_datapath(fidelity):
    """Bit 6 is read wrong every time: each output moves by 64 units of its accumulator, up or down."""
    rates = tuple(float(bit == 6) for bit in range(24))
    noisy, x = dense(ax.Hardware(datapath=TimingErrors(flip_rates=rates)), fidelity=fidelity)
    clean, _ = dense(ax.Hardware(), fidelity=fidelity)
    layer = noisy.get_layer("a")
    a = layer.hardware_state.quantise_activations(tf.constant(x), training=False)
    w = layer.hardware_state.read_weights(tf.convert_to_tensor(layer.kernel), (0,), False)
    unit = float(a.scale) * np.asarray(w.scale).reshape(-1)
    moved = (np.asarray(noisy(x)) - np.asarray(clean(x))) / unit
    np.testing.assert_allclose(np.abs(moved), 64.0, rtol=1e-3)
    sums = np.asarray(layer.accumulator(tf.constant(x)))
    np.testing.assert_array_equal(np.sign(moved), np.where(sums >> 6 & 1, -1, 1))
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(noisy(tf.constant(x)))
    np.testing.assert_allclose(tape.gradient(value, layer.bias.value), np.full(5, 9.0))


def test_dropped_products():
    """n = 4000 reads: mean and variance of each output against the moments of skipped products."""
    rate, n = 0.1, 4000
    noisy, x = dense(ax.Hardware(datapath=DroppedMACs(rate=rate)))
    layer = noisy.get_layer("a")
    a = layer.hardware_state.quantise_activations(tf.constant(x[:1]), training=False)
    w = layer.hardware_state.read_weights(tf.convert_to_tensor(layer.kernel), (0,), False)
    products = np.asarray(a.real)[0][:, None] * np.asarray(w.real)
    outputs = np.asarray(noisy(np.tile(x[:1], (n, 1)))) - np.asarray(layer.bias)
    mean, variance = (1 - rate) * products.sum(axis=0), rate * (1 - rate) * (products**2).sum(axis=0)
    assert np.all(np.abs(outputs.mean(axis=0) - mean) <= 5 * np.sqrt(variance / n))
    assert np.all(np.abs(outputs.var(axis=0) / variance - 1) <= 5 * np.sqrt(2 / n))


EVERYTHING = ax.Hardware(
    multiplier=ax.multipliers.get("drum4"),
    weight_memory=FLIPS,
    activation_memory=BitErrors(rate=0.01, protection=Parity()),
    bias_memory=BitErrors(rate=0.01, fault="stuck", encoding="sign_magnitude"),
    datapath=TimingErrors(flip_rates=tuple(0.01 * (bit in (7, 12)) for bit in range(24))),
)
LAYERS = {
    "conv": ((8, 8, 3), lambda: keras.layers.Conv2D(4, 3, padding="same", name="p")),
    "conv1d": ((9, 3), lambda: keras.layers.Conv1D(4, 3, padding="causal", name="p")),
    "depthwise": ((8, 8, 3), lambda: keras.layers.DepthwiseConv2D(3, name="p")),
    "separable": ((8, 8, 3), lambda: keras.layers.SeparableConv2D(4, 3, name="p")),
    "transposed": ((4, 4, 3), lambda: keras.layers.Conv2DTranspose(4, 3, strides=2, name="p")),
    "einsum": ((6, 5), lambda: keras.layers.EinsumDense("bij,jk->bik", (6, 4), bias_axes="k", name="p")),
    "lstm": ((4, 5), lambda: keras.layers.LSTM(4, name="p")),
    "gru": ((4, 5), lambda: keras.layers.GRU(4, name="p")),
}


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.cases("conv", "separable", "transposed", "einsum", "gru")  # a separable one has a depthwise product
def test_every_layer_plays_everything(kind, tmp_path):
    """Faults change the outputs, the same chip gives the same ones where nothing is random, training runs."""
    shape, make = LAYERS[kind]
    keras.utils.set_random_seed(1)
    plain = keras.Sequential([keras.Input(shape), make(), keras.layers.Flatten(), keras.layers.Dense(1, name="q")])
    x = np.random.default_rng(0).normal(size=(8, *shape)).astype(np.float32)
    noisy = ax.convert(plain, EVERYTHING, x)
    clean = np.asarray(ax.convert(plain, ax.Hardware(multiplier=EVERYTHING.multiplier), x)(x))
    assert not np.allclose(np.asarray(noisy(x)), clean)
    noisy.compile("sgd", "mse")
    history = noisy.fit(x, np.zeros((8, 1)), verbose=0).history
    assert np.isfinite(history["loss"]).all()
    chips_own = ax.Hardware(
        weight_memory=FLIPS, activation_memory=FLIPS, bias_memory=BitErrors(rate=0.1, fault="persistent")
    )
    model = ax.convert(plain, chips_own, x)
    ax.set_chip(model, 3)
    first, once = model.predict(x, verbose=0), np.asarray(model(x))
    np.testing.assert_array_equal(model.predict(x, verbose=0), first)
    np.testing.assert_array_equal(model(x), once)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(ax.load_model(tmp_path / "model.keras")(x), once)
    ax.set_chip(model, 4)
    assert not np.array_equal(model.predict(x, verbose=0), first)
    ax.set_noise_strength(model, 0.0)
    quiet = ax.convert(plain, ax.Hardware(bias_memory=BitErrors(rate=0.0)), x)
    np.testing.assert_allclose(model.predict(x, verbose=0), quiet(x), rtol=1e-4, atol=1e-5)


def test_attention_plays_everything():
    inputs = keras.Input((5, 8))
    attention = keras.layers.MultiHeadAttention(2, 4, name="p")(inputs, inputs)
    plain = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Flatten()(attention)))
    x = np.random.default_rng(0).normal(size=(8, 5, 8)).astype(np.float32)
    noisy = ax.convert(plain, EVERYTHING, x)
    noisy.compile("sgd", "mse")
    assert np.isfinite(noisy.fit(x, np.zeros((8, 1)), epochs=2, verbose=0).history["loss"]).all()


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.graph
def test_mixed_precision_and_xla(jit):
    keras.utils.set_random_seed(1)
    policy = keras.mixed_precision.DTypePolicy("mixed_bfloat16")
    layers = [keras.layers.Conv2D(4, 3, dtype=policy), keras.layers.Flatten(), keras.layers.Dense(3, dtype=policy)]
    noisy = ax.convert(keras.Sequential([keras.Input((6, 6, 2)), *layers]), EVERYTHING)
    noisy.compile("sgd", "mse", jit_compile=jit)
    x = np.random.default_rng(0).normal(size=(8, 6, 6, 2)).astype(np.float32)
    assert np.isfinite(noisy.fit(x, np.zeros((8, 3)), epochs=2, verbose=0).history["loss"]).all()


def test_random_activation_faults_are_each_samples_own():
    noisy, x = dense(ax.Hardware(activation_memory=BitErrors(rate=0.05)))
    same = np.tile(x[:1], (32, 1))
    outputs = np.asarray(noisy(same))
    assert len({row.tobytes() for row in outputs}) > 16
    assert not np.array_equal(outputs, np.asarray(noisy(same)))


def test_layers_lie_one_after_another_in_a_measured_memory(tmp_path):
    """Words 0 .. 59 are layer a's, 60 .. 74 layer b's: a failing cell of word 62 hits b alone."""
    layers = [keras.layers.Dense(5, name="a"), keras.layers.Dense(3, name="b")]
    plain = keras.Sequential([keras.Input((12,)), *layers])
    found = FaultMap(words=100, word_bits=8, addresses=(62,), bits=(6,))
    noisy = ax.convert(plain, ax.Hardware(weight_memory=MeasuredMemory(maps=(found,))), np.ones((4, 12), np.float32))
    noisy.save(tmp_path / "model.keras")
    for model in (noisy, ax.load_model(tmp_path / "model.keras")):
        changed = {}
        for layer in model.layers:
            state = layer.hardware_state
            read = np.asarray(state.read_weights(tf.convert_to_tensor(layer.kernel), (0,), False).codes).astype(int)
            scale = np.abs(layer.kernel).max(axis=0) / 127
            clean = np.round(np.asarray(layer.kernel) / scale).astype(int)
            changed[layer.name] = [
                (tuple(place), read[tuple(place)] ^ clean[tuple(place)]) for place in np.argwhere(read != clean)
            ]
        assert changed == {"a": [], "b": [((0, 2), 64)]} or changed == {"a": [], "b": [((0, 2), -64)]}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ax.Hardware(activation_memory=0.1), "`activation_memory` must be one of axtrain.memories"),
        (
            lambda: ax.Hardware(bias_memory=BitErrors(rate=0.1, encoding="unsigned")),
            "codes in `bias_memory` are signed",
        ),
        (
            lambda: ax.Hardware(
                multiplier=ax.multipliers.get("exact", signed=True),
                activation_memory=BitErrors(rate=0.1, encoding="unsigned"),
            ),
            "codes in `activation_memory` are signed",
        ),
        (lambda: ax.Hardware(datapath=FLIPS), "`datapath` must be one of axtrain.datapaths"),
        (
            lambda: ax.Hardware(activation_memory=BitErrors(rate=0.1, protection=ax.memories.SignMasking())),
            "SignMasking needs.*'unsigned'",
        ),
        (lambda: ax.Quantisation(bias_bits=17), "bias_bits=17"),
    ],
)
def test_bad_parts(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_round_trip_through_json(tmp_path):
    measured = MeasuredDatapath(error_rate=0.1, std=3.0)
    for hardware in (EVERYTHING, ax.Hardware(datapath=measured), ax.Hardware(datapath=DroppedMACs(rate=0.1))):
        hardware.to_json(tmp_path / "h.json")
        again = ax.Hardware.from_json(tmp_path / "h.json")
        assert again == hardware and again.has_faults
    assert not ax.Hardware(weight_memory=BitErrors(rate=0.0)).has_faults
