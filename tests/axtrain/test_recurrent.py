"""LSTM and GRU play two products at every time step; all else is as in Keras."""

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from keras import ops

import axtrain as ax
from axtrain.noise_models.memories import BitErrors

pytestmark = pytest.mark.eager

SHAPE = (3, 5, 4)  # batch, time steps, features
UNITS = 3
LAYERS = {
    "lstm": (ax.layers.ApproxLSTM, keras.layers.LSTM, {}),
    "gru": (ax.layers.ApproxGRU, keras.layers.GRU, {}),
    "gru_reset_before": (ax.layers.ApproxGRU, keras.layers.GRU, {"reset_after": False}),
}
every_layer = pytest.mark.parametrize("case", LAYERS)
TEN_BITS = ax.Hardware(quantisation=ax.Quantisation(activation_bits=10, weight_bits=10))


def make(case, hardware=None, **kwargs):
    """A layer with random weights, and a sequence within its range; Keras's own layer without hardware."""
    kind, plain, arguments = LAYERS[case]
    if hardware is not None:
        kwargs["hardware"] = hardware
    layer = (plain if hardware is None else kind)(UNITS, name=case, **arguments, **kwargs)
    layer.build(SHAPE)
    rng = np.random.default_rng(0)
    for weight in layer.trainable_weights:
        weight.assign(rng.normal(size=weight.shape))
    if hardware is not None:
        layer.hardware_state.set_range(-2.2, 2.4)
        layer.recurrent_state.set_range(-1.0, 1.0)
    return layer, np.clip(rng.normal(0.3, 1, SHAPE), -2.2, 2.4).astype(np.float32)


def float_step(layer, sums, hidden, cell, product):
    """One step of the layer; `product` gives the recurrent sums. Gates by Keras's own functions, in float32."""
    sigmoid, tanh, bias = ops.sigmoid, ops.tanh, np.asarray(layer.cell.bias)
    units = layer.units
    if isinstance(layer, keras.layers.LSTM):
        i, f, g, o = np.split(sums + product(hidden), 4, axis=-1)
        cell = np.asarray(sigmoid(f)) * cell + np.asarray(sigmoid(i)) * np.asarray(tanh(g))
        return np.asarray(sigmoid(o)) * np.asarray(tanh(cell)), cell
    first = product(hidden, slice(None) if layer.reset_after else slice(0, 2 * units))
    first = first + bias[1] if layer.reset_after else first
    z = np.asarray(sigmoid(sums[:, :units] + first[:, :units]))
    r = np.asarray(sigmoid(sums[:, units : 2 * units] + first[:, units : 2 * units]))
    last = r * first[:, 2 * units :] if layer.reset_after else product(r * hidden, slice(2 * units, None))
    g = np.asarray(tanh(sums[:, 2 * units :] + last))
    return z * hidden + (1 - z) * g, cell


def time_loop(layer, x):
    """Accumulators in the order in which they are played, and the last hidden state; plain NumPy."""
    kernel, recurrent = np.asarray(layer.cell.kernel), np.asarray(layer.cell.recurrent_kernel)
    played, sums = reference.dense_product(layer.hardware_state, x.reshape(-1, SHAPE[2]), kernel)
    played = [played.reshape(*SHAPE[:2], -1)]
    bias = np.asarray(layer.cell.bias)
    sums = sums.reshape(*SHAPE[:2], -1) + (bias[0] if bias.ndim == 2 else bias)

    def product(values, columns=slice(None)):
        accumulators, real = reference.dense_product(layer.recurrent_state, values, recurrent[:, columns])
        played.append(accumulators)
        return real

    hidden = cell = np.zeros((SHAPE[0], UNITS), np.float32)
    for t in range(SHAPE[1]):
        hidden, cell = float_step(layer, sums[:, t], hidden, cell, product)
    return played, hidden


@pytest.mark.parametrize("case", LAYERS)
@pytest.mark.parametrize(("circuit", "engine"), reference.CIRCUITS_AND_ENGINES)
def test_accumulators_of_every_time_step(case, circuit, engine, monkeypatch):
    layer, x = make(case, ax.Hardware(multiplier=reference.circuit(circuit)), engine=engine, unroll=True)
    seen = reference.recorded(monkeypatch)
    outputs = layer(x)
    expected, hidden = time_loop(layer, x)
    per_step = 2 if case == "gru_reset_before" else 1
    assert [name for name, _ in seen] == [f"{case}_input_hardware"] + [f"{case}_recurrent_hardware"] * 5 * per_step
    for (_, found), sums in zip(seen, expected, strict=True):
        reference.same(found, sums)
    np.testing.assert_allclose(outputs, hidden, rtol=1e-5, atol=1e-5)
    assert np.abs(expected[-1]).max() > 0


@every_layer
@pytest.mark.graph
@pytest.mark.cases("lstm", "gru_reset_before")
def test_the_loop_and_the_unrolled_steps_and_compiled_functions_are_one(case):
    hardware = ax.Hardware(multiplier=ax.multipliers.get("drum4"))
    (unrolled, x), (looped, _) = make(case, hardware, unroll=True), make(case, hardware)
    np.testing.assert_array_equal(looped(x), unrolled(x))
    for jit_compile in (False, True):
        compiled = tf.function(looped, jit_compile=jit_compile)(tf.constant(x))
        np.testing.assert_allclose(compiled, unrolled(x), rtol=1e-4, atol=1e-4)


OPTIONS = {
    "plain": {},
    "states": {"return_sequences": True, "return_state": True, "use_bias": False},
    "backwards": {"go_backwards": True, "return_sequences": True},
    "zero_output": {"zero_output_for_mask": True, "return_sequences": True, "activation": "relu"},
    "stateful": {"stateful": True},
}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("options", OPTIONS)
@every_layer
def test_every_option_is_kerass(case, options, masked):
    mask = np.random.default_rng(1).uniform(size=SHAPE[:2]) > 0.4 if masked else None
    (layer, x), (plain, _) = make(case, TEN_BITS, **OPTIONS[options]), make(case, **OPTIONS[options])
    if options == "zero_output":  # unbounded hidden states
        layer.recurrent_state.set_range(0.0, 8.0)
    for _ in range(2):  # a stateful layer goes on from where it was
        found, expected = keras.tree.flatten(layer(x, mask=mask)), keras.tree.flatten(plain(x, mask=mask))
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=0.02)


def test_an_initial_state_is_taken():
    (layer, x), (plain, _) = make("lstm", TEN_BITS), make("lstm")
    states = [np.full((SHAPE[0], UNITS), value, np.float32) for value in (0.7, -0.4)]
    np.testing.assert_allclose(layer(x, initial_state=states), plain(x, initial_state=states), atol=0.01)
    assert np.abs(np.asarray(layer(x, initial_state=states)) - np.asarray(layer(x))).max() > 0.03


@pytest.mark.parametrize(
    "dropout",
    [{"dropout": 0.3}, {"recurrent_dropout": 0.3}, {"dropout": 0.3, "recurrent_dropout": 0.2}],
)
@every_layer
def test_dropout_is_kerass_own(case, dropout):
    (layer, x), (plain, _) = make(case, TEN_BITS, seed=3, **dropout), make(case, seed=3, use_cudnn=False, **dropout)
    layer.hardware_state.set_range(-4.0, 4.0)
    layer.recurrent_state.set_range(-1.5, 1.5)
    expected = np.asarray(plain(x, training=True))
    np.testing.assert_allclose(layer(x, training=True), expected, atol=0.03)
    assert np.abs(np.asarray(plain(x)) - expected).max() > 0.05
    np.testing.assert_allclose(layer(x), plain(x), atol=0.03)


@every_layer
def test_calibration_observes_the_hidden_states_inside_the_loop(case):
    model = keras.Sequential([keras.Input(SHAPE[1:]), make(case)[0]])
    x = np.random.default_rng(0).normal(size=(40, *SHAPE[1:])).astype(np.float32)
    minmax = ax.Hardware(quantisation=ax.Quantisation(activation_range="minmax"))
    layer = ax.convert(model, minmax, x).layers[-1]
    every = make(case, return_sequences=True)[0](x)
    hidden = np.append(np.asarray(every)[:, :-1], 0)  # what enters a step: the initial zeros, never the last output
    for state, values in ((layer.hardware_state, x), (layer.recurrent_state, hidden)):
        assert (float(state.low), float(state.high)) == pytest.approx((values.min(), values.max()), rel=1e-4)
        assert state.calibrated and not state.follows_batches


@every_layer
@pytest.mark.graph
def test_a_moving_range_takes_the_hidden_states_in_after_the_loop(case):
    layer, x = make(case, ax.Hardware(quantisation=ax.Quantisation(activation_range="moving_average")))
    for state in (layer.hardware_state, layer.recurrent_state):
        state.seen.assign(0.0)
    every = make(case, return_sequences=True)[0](x)
    hidden = np.append(np.asarray(every)[:, :-1], 0)
    untouched = float(layer.recurrent_state.high)
    layer(x)
    assert float(layer.recurrent_state.seen) == 0 and float(layer.recurrent_state.high) == untouched
    tf.function(layer)(tf.constant(x), training=True)
    state = layer.recurrent_state
    assert float(state.seen) == 1
    # Eight bits in each step, so the ranges are Keras's to about a hundredth.
    assert (float(state.low), float(state.high)) == pytest.approx((hidden.min(), hidden.max()), abs=0.03)
    assert (float(layer.hardware_state.low), float(layer.hardware_state.high)) == (x.min(), x.max())


@pytest.mark.parametrize("training", [False, True])
def test_the_memory_is_read_once_for_all_time_steps(training, monkeypatch):
    """So a chip that a training step draws has the same faulty cells at every time step."""
    reads, read = [], BitErrors.read

    def counting(self, codes, *arguments, **options):
        reads.append(codes.shape)
        return read(self, codes, *arguments, **options)

    monkeypatch.setattr(BitErrors, "read", counting)
    layer, x = make("lstm", ax.Hardware(weight_memory=BitErrors(rate=0.05, fault="persistent")))
    layer(x, training=training)
    assert reads == [(SHAPE[2], 4 * UNITS), (UNITS, 4 * UNITS)]


@every_layer
def test_mixed_precision_keeps_the_accumulators(case, monkeypatch):
    hardware = ax.Hardware(multiplier=ax.multipliers.get("drum4"))
    layer, x = make(case, hardware)
    mixed, _ = make(case, hardware, dtype="mixed_bfloat16", return_sequences=True)
    x = np.asarray(ops.cast(ops.cast(x, "bfloat16"), "float32"))  # what Keras hands to the mixed layer
    seen = reference.recorded(monkeypatch)
    expected = layer(x)
    first, seen[:] = list(seen), []
    outputs = mixed(x)
    assert outputs.dtype == tf.bfloat16
    for (_, found), (_, wanted) in zip(seen, first, strict=True):
        np.testing.assert_array_equal(found, wanted)
    last = ops.cast(outputs[:, -1], "float32")
    np.testing.assert_array_equal(last, ops.cast(ops.cast(expected, "bfloat16"), "float32"))


@every_layer
def test_the_gradient_is_that_of_the_float_layer_but_for_rounding(case):
    (layer, x), (plain, _) = make(case, TEN_BITS), make(case)
    gradients = []
    for made in (layer, plain):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.sin(3 * made(x)))
        gradients.append(tape.gradient(loss, [w.value for w in made.trainable_weights]))
    for ours, theirs in zip(*gradients, strict=True):
        assert np.abs(theirs).max() > 0.1
        np.testing.assert_allclose(ours, theirs, atol=0.03 * np.abs(theirs).max())


def test_the_statistical_fidelities_play_both_products():
    model = keras.Sequential([keras.Input(SHAPE[1:]), make("gru")[0]])
    x = np.random.default_rng(0).normal(size=(64, *SHAPE[1:])).astype(np.float32)
    noisy = ax.convert(model, ax.Hardware(multiplier=ax.multipliers.get("mitchell")), x, engine="gather")
    expected, plain = np.asarray(noisy(x)), np.asarray(model(x))
    ax.set_fidelity(noisy, "gaussian")
    found, again = np.asarray(noisy(x)), np.asarray(noisy(x))
    assert np.abs(found - again).max() > 0
    # The circuit's mean error is in it: nearer to the exact circuit than the float layer is.
    assert np.abs((found - expected).mean()) < 0.5 * np.abs((plain - expected).mean())


@every_layer
def test_the_integers_and_the_multiplications(case, tmp_path):
    model = keras.Sequential([keras.Input(SHAPE[1:]), make(case)[0]])
    noisy = ax.convert(model, ax.Hardware(), np.ones((4, *SHAPE[1:]), np.float32))
    layer, written = noisy.layers[-1], ax.export(noisy, tmp_path / "out").integers[case]
    gates = 4 if case == "lstm" else 3
    assert written["input/codes"].shape == (SHAPE[2], gates * UNITS)
    assert written["recurrent/codes"].shape == (UNITS, gates * UNITS)
    rebuilt = written["recurrent/codes"] * written["recurrent/scale"]
    assert np.abs(rebuilt - np.asarray(layer.cell.recurrent_kernel)).max() <= 0.501 * written["recurrent/scale"].max()
    bias = np.asarray(layer.cell.bias)
    if case == "gru":
        np.testing.assert_array_equal(written["recurrent/bias"], bias[1])
    assert ("recurrent/bias" in written) == (case == "gru")
    np.testing.assert_array_equal(written["input/bias"], bias[0] if case == "gru" else bias)
    for plain_or_noisy in (noisy, model):
        (part,) = ax.energy(plain_or_noisy, ax.Hardware()).layers
        assert part.multiplications == SHAPE[1] * gates * UNITS * (SHAPE[2] + UNITS)
    open_length = keras.Sequential([keras.Input((None, 4)), keras.layers.LSTM(2)])
    with pytest.raises(ValueError, match="fixed input shape"):
        ax.energy(open_length, ax.Hardware())


@every_layer
@pytest.mark.graph
def test_sequences_of_any_length(case):
    layer, _ = make(case, ax.Hardware())
    compiled = tf.function(layer, input_signature=[tf.TensorSpec((None, None, 4))])
    for length in (2, 7):
        x = np.random.default_rng(0).normal(size=(2, length, 4)).astype(np.float32)
        np.testing.assert_allclose(compiled(x), layer(x), rtol=1e-5, atol=1e-5)
