"""A NaN or an infinity makes NaN of exactly the sums that it enters, and changes no bit of any other."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import axtrain as ax
from axtrain.emulation.code_table import CodeTable
from axtrain.emulation.geometry import Convolution, Dense
from axtrain.quantisers import Quantiser, quantise_weights

BAD = (np.nan, np.inf, -np.inf)
# (engine, circuit): rows and factors of the native engine, and both others.
ENGINES = [("numba", "mitchell"), ("numba", "drum4"), ("gather", "mitchell"), ("low_rank", "drum4")]
every_engine = pytest.mark.parametrize("engine, circuit", ENGINES)
# Name: (class, Keras's, arguments, input shape); the last input of each batch stays finite.
KINDS = {
    "dense": (ax.layers.ApproxDense, keras.layers.Dense, {"units": 5}, (4, 3, 6)),
    "conv": (
        ax.layers.ApproxConv2D,
        keras.layers.Conv2D,
        {"filters": 5, "kernel_size": (3, 2), "padding": "same"},
        (4, 7, 6, 3),
    ),
    "strided conv": (
        ax.layers.ApproxConv2D,
        keras.layers.Conv2D,
        {"filters": 5, "kernel_size": 3, "strides": 2, "padding": "same"},
        (4, 7, 6, 3),
    ),
    "dilated conv": (
        ax.layers.ApproxConv2D,
        keras.layers.Conv2D,
        {"filters": 5, "kernel_size": 2, "dilation_rate": (2, 1)},
        (4, 7, 6, 3),
    ),
    "depthwise": (
        ax.layers.ApproxDepthwiseConv2D,
        keras.layers.DepthwiseConv2D,
        {"kernel_size": 3, "padding": "same", "depth_multiplier": 2},
        (4, 7, 6, 3),
    ),
    "causal conv": (
        ax.layers.ApproxConv1D,
        keras.layers.Conv1D,
        {"filters": 5, "kernel_size": 3, "dilation_rate": 2, "padding": "causal"},
        (4, 9, 3),
    ),
    "einsum": (
        ax.layers.ApproxEinsumDense,
        keras.layers.EinsumDense,
        {"equation": "abc,cde->abde", "output_shape": (3, 2, 5), "bias_axes": "de"},
        (4, 3, 6),
    ),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def make(kind, circuit="mitchell", engine=None, **parts):
    """(layer on hardware, Keras's own with the same weights), their seeds those of any other made like it."""
    approximate, plain, arguments, shape = KINDS[kind]
    hardware = ax.Hardware(multiplier=ax.multipliers.get(circuit), **parts)
    layer, float_layer = approximate(**arguments, hardware=hardware, engine=engine), plain(**arguments)
    layer.build((None, *shape[1:])), float_layer.build((None, *shape[1:]))
    rng = np.random.default_rng(0)
    for weight, other in zip(layer.trainable_weights, float_layer.trainable_weights, strict=True):
        weight.assign(rng.normal(size=weight.shape))
        other.assign(weight)
    layer.hardware_state.set_range(-2.2, 2.4)
    return layer, float_layer


def data(shape):
    """(clean inputs, the same with NaN and both infinities in all of the batch but the last)."""
    clean = np.random.default_rng(1).normal(size=shape).astype("float32")
    bad = clean.copy()
    for i, value in enumerate(BAD):
        bad[(i, *(size // (2 + i) for size in shape[1:]))] = value
    return tf.constant(clean), tf.constant(bad)


def spoiled(clean, bad, entered):
    """NaN where `entered`, and every other bit as in the clean run."""
    clean, bad, entered = (np.asarray(x) for x in (clean, bad, entered))
    assert entered.any() and not entered.all()
    np.testing.assert_array_equal(np.isnan(bad), entered)
    np.testing.assert_array_equal(bad[~entered].view(np.uint32), clean[~entered].view(np.uint32))


def entered(float_layer, x):
    return ~np.isfinite(np.asarray(float_layer(x)))


@every_engine
@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
@every_kind
def test_activations(kind, graph, engine, circuit):
    layer, float_layer = make(kind, circuit, engine)
    clean, bad = data(KINDS[kind][3])
    call = tf.function(layer) if graph else layer
    spoiled(call(clean), call(bad), entered(float_layer, bad))


@pytest.mark.parametrize(
    "kind, circuit", [("dense", "mitchell"), ("dense", "drum4"), ("conv", "drum4"), ("depthwise", "mitchell")]
)
def test_activations_under_xla(kind, circuit, caplog):
    """Where native kernels cannot run another engine does, and says NaN at the same places."""
    layer, float_layer = make(kind, circuit, "numba")
    clean, bad = data(KINDS[kind][3])
    call = tf.function(layer, jit_compile=True)
    with caplog.at_level("WARNING", logger="axtrain"):
        found = call(bad)
    assert "compiled by XLA" in caplog.text
    spoiled(call(clean), found, entered(float_layer, bad))


def bad_weight(layer, value, where=0):
    """Sets one weight of each layer's kernel; the others' largest stays the largest."""
    kernel = np.array(layer.kernel)
    small = np.argwhere(np.abs(kernel) < 1)[where]
    kernel[tuple(small)] = value
    layer.kernel.assign(kernel)
    return kernel


@every_engine
@every_kind
def test_weights(kind, engine, circuit):
    """The scale of a channel with a weight that is not finite is none; others have their own."""
    x = data(KINDS[kind][3])[0]
    layer, float_layer = make(kind, circuit, engine)
    clean, kernel = layer(x), layer.kernel.numpy()
    axes = tuple(range(clean.ndim - (2 if kind == "einsum" else 1)))
    for i, value in enumerate(BAD):
        call = tf.function(layer) if i == 0 and circuit == "drum4" else layer
        layer.kernel.assign(kernel)
        expected = call(x) if i == 0 else clean
        float_layer.kernel.assign(bad_weight(layer, value, i))
        channel = entered(float_layer, x).any(axis=axes, keepdims=True)
        spoiled(expected, call(x), np.broadcast_to(channel, clean.shape))


def test_weights_under_xla():
    (layer, _), x = make("conv", "drum4"), data(KINDS["conv"][3])[0]
    call = tf.function(layer, jit_compile=True)
    clean = call(x)
    bad_weight(layer, np.inf)
    found = np.asarray(call(x))
    spoiled(clean, found, np.broadcast_to(np.isnan(found).any(axis=(0, 1, 2)), found.shape))
    assert np.isnan(found[0, 0, 0]).sum() == 1


@every_engine
@pytest.mark.parametrize("kind", ["dense", "depthwise", "einsum"])
def test_weights_of_one_scale_for_all(kind, engine, circuit):
    """It is that of the finite ones: the channel's other sums are those of a kernel with 0 in its place."""
    one_scale = {"quantisation": ax.Quantisation(weight_scale="per_tensor")}
    (layer, _), (zeros, _) = make(kind, circuit, engine, **one_scale), make(kind, circuit, engine, **one_scale)
    x = data(KINDS[kind][3])[0]
    kernel = np.array(layer.kernel)
    largest = np.unravel_index(np.abs(kernel).argmax(), kernel.shape)
    for one, value in ((layer, np.nan), (zeros, 0.0)):
        kernel[largest] = value
        one.kernel.assign(kernel)
    found, expected = np.asarray(layer(x)), np.asarray(zeros(x))
    axes = tuple(range(found.ndim - (2 if kind == "einsum" else 1)))
    channel = np.broadcast_to(np.isnan(found).any(axis=axes, keepdims=True), found.shape)
    spoiled(expected, found, channel)
    assert np.isnan(found[0]).sum() == found[0].size // channel[(0,) * len(axes)].size


MEMORIES = {
    "no faults": {"weight_memory": ax.memories.BitErrors(rate=0.0)},
    "faults": {"weight_memory": ax.memories.BitErrors(rate=0.02, fault="persistent")},
    "activations": {"activation_memory": ax.memories.BitErrors(rate=0.02, fault="persistent")},
    "biases": {"bias_memory": ax.memories.BitErrors(rate=0.02, fault="persistent")},
    "datapath": {"datapath": ax.datapaths.DroppedMACs(rate=0.1, source="made here")},
}


@every_engine
@pytest.mark.parametrize("parts", MEMORIES)
@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_hardware_that_fails(kind, parts, engine, circuit):
    """The seeds are put back before each pass, so that all draw the same faults."""
    clean, bad = data(KINDS[kind][3])
    layer, float_layer = make(kind, circuit, engine, **MEMORIES[parts])
    seeds = [generator.state for generator in layer.hardware_state.generators.values()]
    states = [seed.numpy() for seed in seeds]

    def call(x):
        for seed, state in zip(seeds, states, strict=True):
            seed.assign(state)
        return layer(x)

    expected = call(clean)
    spoiled(expected, call(bad), entered(float_layer, bad))
    float_layer.kernel.assign(bad_weight(layer, np.nan))
    axes = tuple(range(expected.ndim - 1))
    channel = np.broadcast_to(entered(float_layer, clean).any(axis=axes, keepdims=True), expected.shape)
    spoiled(expected, call(clean), channel)


WAYS = {
    "dense": (Dense(), (40, 30), (30, 19)),
    "conv": (Convolution((1, 1), "same", (1, 1)), (3, 9, 8, 6), (3, 3, 6, 19)),
    "strided": (Convolution((2, 1), "same", (1, 1)), (3, 9, 8, 6), (2, 3, 6, 19)),
    "pointwise": (Convolution((2, 3), "valid", (1, 1)), (3, 9, 8, 6), (1, 1, 6, 19)),
    "depthwise": (Convolution((1, 1), "same", (1, 1), True), (3, 9, 8, 18), (3, 3, 18, 1)),
}


@pytest.mark.parametrize("circuit", ["exact", "mitchell"])
@pytest.mark.parametrize("name", WAYS)
def test_every_way_of_the_native_engine(name, circuit):
    """Weights quantised on the way, many not finite; values beyond every code that are finite stay so."""
    pytest.importorskip("numba")
    import native_loops

    geometry, first, second = WAYS[name]
    table = ax.Hardware(multiplier=ax.multipliers.get(circuit)).code_table
    made, rng = native_loops.engine(table), np.random.default_rng(2)
    x, kernel = (rng.normal(size=shape).astype("float32") for shape in (first, second))
    x.flat[:4] = [3e38, -3e38, 1e-42, -0.0]
    bad_x, bad_kernel = x.copy(), kernel.copy()
    bad_x.reshape(len(x), -1)[::2, ::37] = BAD[0]
    bad_x.flat[50 % x.size], bad_x.flat[x.size - 1] = BAD[1:]
    flat = bad_kernel.reshape(-1, kernel.shape[-2] if name == "depthwise" else kernel.shape[-1])
    flat[0, 1], flat[-1, 4], flat[1, 15:17] = BAD[1], BAD[2], BAD[0]
    channels = np.zeros(flat.shape[1], bool)
    channels[[1, 4, 15, 16]] = True
    quantiser = Quantiser(tf.constant(0.02), tf.constant(100.0), *ax.Hardware().activation_codes)
    summed = geometry.summed_axes(kernel.ndim)
    marks = tf.constant(~np.isfinite(bad_x), tf.float32)
    pixels = np.asarray(geometry.entered_by(marks, kernel.shape)) > 0
    for way in native_loops.WAYS:
        with native_loops.forced(made, way, split=True):

            def run(x, kernel):
                weights = quantise_weights(tf.constant(kernel), 8, summed)
                return made.layer(geometry, tf.constant(x), quantiser, weights, None)

            expected = run(x, kernel)
            assert np.isfinite(expected).all()
            spoiled(expected, run(bad_x, kernel), np.broadcast_to(pixels, expected.shape))
            spoiled(expected, run(x, bad_kernel), np.broadcast_to(channels, expected.shape))
            spoiled(expected, run(bad_x, bad_kernel), pixels | channels)


@pytest.mark.parametrize("way", ["factors", "weights stay", "pixels stay"])
def test_weights_beyond_all_codes_read_no_memory_but_the_tables(way):
    """As codes they mean nothing: their channels' sums are anything, the others' are right, and the process goes on."""
    pytest.importorskip("numba")
    import native_loops

    made = native_loops.engine(CodeTable(np.outer(np.arange(-8, 8), np.arange(-8, 8)), -8, -8))
    weights = np.full((40, 33), 3, "float32")
    weights[::3, ::2], weights[1::3, ::4], weights[2::3, 6], weights[0, 8], weights[1, 10] = (
        np.nan,
        np.inf,
        -3e38,
        8,
        -9,
    )
    with native_loops.forced(made, way):
        found = made.matmul(tf.ones((50, 40)), tf.constant(weights))
    assert (np.asarray(found)[:, 1::2] == 40 * 3).all()


def attention(engine=None, plain=False):
    hardware = {} if plain else {"hardware": ax.Hardware(multiplier=ax.multipliers.get("mitchell")), "engine": engine}
    layer = (keras.layers.MultiHeadAttention if plain else ax.layers.ApproxMultiHeadAttention)(2, 4, **hardware)
    layer.build((None, 5, 8), (None, 6, 8))
    rng = np.random.default_rng(0)
    for weight in layer.trainable_weights:
        weight.assign(rng.normal(size=weight.shape))
    if not plain:
        for product in layer.products:
            product.state.set_range(-3.0, 3.0)
            if hasattr(product.state, "second"):
                product.state.second.set_range(-3.0, 3.0)
    return layer


@pytest.mark.parametrize("engine", ["numba", "gather"])
@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
def test_attention(graph, engine):
    """A query spoils its row, a key the rows that look at it, a value all rows; of its sequence alone."""
    layer, plain = attention(engine), attention(plain=True)
    call = tf.function(layer) if graph else layer
    rng = np.random.default_rng(1)
    clean = [rng.normal(size=shape).astype("float32") for shape in ((3, 5, 8), (3, 6, 8), (3, 6, 8))]
    expected = call(clean[0], clean[1], key=clean[2])
    for operand in range(3):
        bad = [x.copy() for x in clean]
        bad[operand][1, 2, 3] = np.nan
        where = np.isnan(plain(bad[0], bad[1], key=bad[2]))
        spoiled(expected, call(bad[0], bad[1], key=bad[2]), where)
        assert not where[[0, 2]].any()


RECURRENT = {"lstm": (ax.layers.ApproxLSTM, keras.layers.LSTM), "gru": (ax.layers.ApproxGRU, keras.layers.GRU)}


@every_engine
@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_layers(name, engine, circuit):
    """NaN from the step on at which it enters, in its own sequence."""
    hardware = ax.Hardware(multiplier=ax.multipliers.get(circuit))
    layer, plain = RECURRENT[name][0](3, return_sequences=True, hardware=hardware, engine=engine), None
    layer.build((None, 6, 4))
    layer.hardware_state.set_range(-2.0, 2.0)
    layer.recurrent_state.set_range(-1.0, 1.0)
    plain = RECURRENT[name][1](3, return_sequences=True)
    plain.build((None, 6, 4))
    for weight, other in zip(layer.trainable_weights, plain.trainable_weights, strict=True):
        other.assign(weight)
    x = np.random.default_rng(0).normal(size=(3, 6, 4)).astype("float32")
    bad = x.copy()
    bad[1, 2, 1] = np.nan
    where = np.zeros((3, 6, 3), bool)
    where[1, 2:] = True
    expected = layer(x)
    spoiled(expected, layer(bad), where)
    kernel = np.array(layer.cell.kernel)
    kernel[0, 1] = np.nan
    layer.cell.kernel.assign(kernel), plain.cell.kernel.assign(kernel)
    spoiled(expected, layer(x), np.isnan(plain(x)))


@pytest.mark.parametrize("fidelity", ["calibrated", "gaussian"])
@pytest.mark.parametrize("kind, graph", [("dense", False), ("conv", True), ("depthwise", False)])
def test_statistical_fidelities(kind, graph, fidelity):
    """NaN where the float layer has it, among values or weights."""
    _, kind_of, arguments, shape = KINDS[kind]
    model = keras.Sequential([keras.Input(shape[1:]), kind_of(**arguments, name="one")])
    clean, bad = data(shape)
    noisy = ax.convert(model, ax.Hardware(multiplier=ax.multipliers.get("mitchell")), clean, fidelity=fidelity)
    call = tf.function(noisy) if graph else noisy
    assert np.isfinite(call(clean)).all()
    np.testing.assert_array_equal(np.isnan(call(bad)), ~np.isfinite(model(bad)))
    layer = noisy.get_layer("one")
    bad_weight(layer, np.nan)
    model.get_layer("one").kernel.assign(layer.kernel)
    axes = tuple(range(len(shape) - 1))
    channel = np.isnan(model(clean)).any(axis=axes)
    np.testing.assert_array_equal(np.isnan(call(clean)), np.broadcast_to(channel, model(clean).shape))


@pytest.mark.parametrize("fidelity, engine", [("exact", "numba"), ("exact", "low_rank"), ("calibrated", None)])
@pytest.mark.eager
def test_training_stops_at_a_row_that_is_not_a_number(fidelity, engine):
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(2)])
    x = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
    noisy = ax.convert(model, ax.Hardware(multiplier=ax.multipliers.get("drum4")), x, fidelity=fidelity, engine=engine)
    noisy.compile("sgd", "mse", jit_compile=False)
    x[20, 3] = np.nan
    stops = keras.callbacks.TerminateOnNaN()
    history = noisy.fit(x, np.zeros((32, 2)), batch_size=8, epochs=3, shuffle=False, verbose=0, callbacks=[stops])
    assert len(history.epoch) == 1 and noisy.stop_training
    assert all(np.isnan(weight).any() for weight in noisy.trainable_weights[-2:])
    assert np.isnan(noisy.predict(np.zeros((4, 6)), verbose=0)).all()  # and goes on, whatever it computes with


@every_engine
@pytest.mark.parametrize("activations", ["affine", "symmetric"])
@pytest.mark.parametrize("kind", ["dense", "depthwise"])
def test_a_range_that_follows_its_values_into_a_nan(kind, activations, engine, circuit):
    """No value has a code then: all is NaN or infinite, and the process goes on."""
    layer, _ = make(kind, circuit, engine, quantisation=ax.Quantisation(activations=activations))
    for value in BAD:
        layer.hardware_state.set_range(-2.2, 2.4)
        layer.hardware_state.calibrated = False
        x = np.ones(KINDS[kind][3], "float32")
        x.flat[0] = value
        layer.hardware_state.seen.assign(0)
        assert not np.isfinite(layer(x, training=True)).any()
