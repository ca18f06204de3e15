"""No code stands for NaN or infinity: each door to integers refuses them, or gives NaN where they enter."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import axtrain as ax
from axtrain.emulation.operations import conv2d, matmul
from axtrain.integers.network import IntegerNetwork, Tensor
from axtrain.noise_models.encodings import decode, encode
from axtrain.quantisers import calibrated_range

BAD = (np.nan, np.inf, -np.inf)
every_bad = pytest.mark.parametrize("value", BAD, ids=str)
X = np.random.default_rng(0).normal(size=(32, 6, 6, 2)).astype("float32")
EXACT = ax.multipliers.get("exact", bits=4)


@pytest.fixture(scope="module")
def network():
    """A small network on hardware, and its weights, which each test may spoil."""
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(3, 3, name="conv"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            keras.layers.Dense(4, name="dense"),
        ]
    )
    noisy = ax.convert(model, ax.Hardware(quantisation=ax.Quantisation.litert()), X)
    return noisy, noisy.get_weights()


def spoil(variable, value):
    array = np.array(variable)  # a copy
    array[(0,) * array.ndim] = value
    variable.assign(array)


# What is spoiled: (layer, variable of it).
PLACES = {
    "kernel": ("conv", lambda layer: layer.kernel),
    "bias": ("dense", lambda layer: layer.bias),
    "gamma": ("norm", lambda layer: layer.gamma),
    "variance": ("norm", lambda layer: layer.moving_variance),
    "lowest": ("dense", lambda layer: layer.hardware_state.low),
    "highest": ("conv", lambda layer: layer.hardware_state.high),
}
WRITERS = {
    "export": lambda model, folder: ax.export(model, folder),
    **{
        name: lambda model, folder, name=name: ax.export(model, folder, formats=[name], calibration=X)
        for name in ("c", "intel_hex", "litert", "memory", "onnx", "saved_model")
    },
    "integer_network": lambda model, folder: ax.integer_network(model, X),
    "write_memory": lambda model, folder: ax.write_memory(model, folder),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_what_is_made_of_a_model_refuses_it_by_the_layers_name(writer, network, tmp_path):
    model, clean = network
    for place, (name, variable) in PLACES.items():
        if writer == "write_memory" and place != "kernel":
            continue  # nothing else lies in a weight memory
        for value in BAD:
            model.set_weights(clean)
            spoil(variable(model.get_layer(name)), value)
            with pytest.raises(ValueError, match=rf"layer '{name}'.*must be finite.*Received: 1 of"):
                WRITERS[writer](model, tmp_path / "made")
            assert not list(tmp_path.iterdir())
    model.set_weights(clean)


def test_a_plain_model_is_refused_and_stripping_allowed(network):
    model, clean = network
    model.set_weights(clean)
    spoil(model.get_layer("dense").kernel, np.nan)
    plain = ax.strip(model)
    assert np.isnan(plain.get_layer("dense").kernel).sum() == 1
    with pytest.raises(ValueError, match="layer 'dense'.*must be finite"):
        ax.integer_network(plain, X)
    with pytest.raises(ValueError, match="'dense'.*not finite"):
        ax.convert(plain, ax.Hardware(), X)
    model.set_weights(clean)


@pytest.mark.parametrize("place", ["kernel", "gamma", "bias"])
def test_weights_beyond_all_fixed_point_have_no_integer_network(place, network):
    model, clean = network
    name, variable = PLACES[place]
    model.set_weights(clean)
    spoil(variable(model.get_layer(name)), 1e30)
    with pytest.raises(ValueError, match=r"'(conv|dense)'.*Received"):
        ax.integer_network(model, X)
    model.set_weights(clean)


def test_a_variance_below_0_has_no_square_root(network):
    """The range of what comes after it is known, so no data lead to it."""
    model, clean = network
    model.set_weights(clean)
    spoil(model.get_layer("norm").moving_variance, -1.0)
    with pytest.raises(ValueError, match="finite"), np.errstate(invalid="ignore"):
        ax.integer_network(model, X)
    model.set_weights(clean)


@pytest.mark.parametrize("accuracy", [np.nan, {"accuracy": [1.0, np.inf]}])
def test_an_accuracy_that_is_none_is_not_exported(accuracy, network, tmp_path):
    with pytest.raises(ValueError, match="`accuracy` must hold finite numbers"):
        ax.export(network[0], tmp_path / "made", accuracy=accuracy)
    assert not list(tmp_path.iterdir())


@every_bad
def test_an_integer_networks_inputs(value):
    tensor = Tensor(name="input", shape=(2,), scale=0.1, zero_point=3)
    network = IntegerNetwork(name="one", tensors={"input": tensor}, operations=(), input="input", output="input")
    with pytest.raises(ValueError, match="tensor 'input' must be finite.*Received: 1 of 4"):
        network.quantised([[0.1, value], [0.0, 1.0]])
    with pytest.raises(ValueError, match="must be int8"):
        network.run(np.array([[0.1, value]]))
    assert network.quantised([[0.1, 1e30]]).tolist() == [[4, 127]]


# Each takes codes with a bad value among them.
CODES = {
    "matmul": lambda codes: matmul([codes], [[1], [1]], EXACT),
    "matmul, weights": lambda codes: matmul([[1, 1]], [[code] for code in codes], EXACT),
    "conv2d": lambda codes: conv2d([[[codes]]], np.ones((1, 1, 2, 1), int), EXACT),
    "conv2d, zero point": lambda codes: conv2d(
        np.ones((1, 1, 2, 1), int), np.ones((3, 1, 1, 1), int), EXACT, padding="same", zero_point=codes[0]
    ),
    "memory": lambda codes: ax.memories.BitErrors(rate=0.1).read(codes, 8, 0),
    "memory without faults": lambda codes: ax.memories.BitErrors(rate=0.0).read(codes, 8, 0),
    "memory, tensor": lambda codes: ax.memories.BitErrors(rate=0.1).read(tf.constant(codes), 8, 0),
    "memory, expected": lambda codes: ax.memories.BitErrors(rate=0.1).expected(codes, 8),
    "memory, variance": lambda codes: ax.memories.BitErrors(rate=0.1).variance(codes, 8),
    "encode": lambda codes: encode(codes, 8, "offset"),
    "decode": lambda codes: decode(codes, 8, "offset"),
}


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
@pytest.mark.parametrize("door", CODES)
def test_codes(door):
    for value in (*BAD, 0.5, 1e30):
        with pytest.raises((ValueError, TypeError)):
            CODES[door]([value, 1.0])


@pytest.mark.parametrize("dtype, bad", [("float32", (*BAD, 0.5, 1e30)), ("int32", (16, -1)), ("int64", (1 << 33,))])
def test_codes_inside_a_graph(dtype, bad):
    @tf.function(input_signature=[tf.TensorSpec((1, 2), dtype)])
    def product(a):
        return matmul(a, [[1], [2]], EXACT)

    assert int(product(tf.constant([[3, 4]], dtype))[0, 0]) == 11
    for value in bad:
        with pytest.raises(tf.errors.InvalidArgumentError, match="must hold integer codes from 0 to 15"):
            product(tf.constant([[value, 1]], dtype))


def test_float_codes_of_a_memory_inside_a_graph():
    memory = ax.memories.BitErrors(rate=0.0)
    read = tf.function(lambda codes: memory.read(codes, 8, 0))
    assert read(tf.constant([3.0])).numpy().tolist() == [3]
    for value in BAD:
        with pytest.raises(tf.errors.InvalidArgumentError, match="must hold integer codes"):
            read(tf.constant([value]))


NUMBERS = {
    "memory's rate": lambda value: ax.memories.BitErrors(rate=value),
    "memory's strength": lambda value: ax.memories.BitErrors(rate=0.1).read([1], 8, 0, strength=value),
    "memory's strength, NumPy": lambda value: ax.memories.BitErrors(rate=0.1).read(
        [1], 8, 0, strength=np.float32(value)
    ),
    "datapath's rate": lambda value: ax.datapaths.DroppedMACs(rate=value, source="made here"),
    "datapath's strength, NumPy": lambda value: ax.datapaths.DroppedMACs(rate=0.1, source="made here").apply(
        [1], 0, strength=np.float32(value), squares=[1.0]
    ),
    "multiplier's power": lambda value: ax.Multiplier(EXACT.table, name="one", bits=4, signed=False, power=value),
    "energy": lambda value: ax.EnergyModel(weight_reads=value),
    "momentum": lambda value: ax.Quantisation(momentum=value),
    "percentile": lambda value: ax.Quantisation(percentile=value),
    "clipping": lambda value: ax.WeightRange(value),
}


@pytest.mark.parametrize("number", NUMBERS)
def test_numbers(number):
    for value in BAD:
        with pytest.raises(ValueError, match="Received"):
            NUMBERS[number](value)


def test_noise_strength_and_ranges(network):
    model = network[0]
    for value in BAD:
        with pytest.raises(ValueError, match="strength"):
            ax.set_noise_strength(model, value)
        with pytest.raises(ValueError, match="both finite"):
            ax.convert(ax.strip(model), ax.Hardware(), activation_ranges={"dense": (-1.0, value)})


@pytest.mark.parametrize("method", ["minmax", "percentile", "moving_average"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_calibration(method, symmetric):
    """1e30 among usual values would make 0 of them; where all are as large it is as good a range as any."""
    options = {"method": method, "percentile": 99.9, "symmetric": symmetric}
    values = X.reshape(-1)[:400].copy()
    for value in (*BAD, 1e30, -1e30):
        values[7] = value
        with pytest.raises(ValueError, match="finite" if not np.isfinite(value) else "make 0 of the usual ones"):
            calibrated_range(values, **options)
    values[7] = 0.0
    for scale in (1e-30, 1.0, 1e30):
        low, high = calibrated_range(values * np.float32(scale), **options)
        assert low < 0 < high
    assert calibrated_range(np.geomspace(1e-30, 1, 100), **options)[1] > 0.9  # probabilities


@every_bad
@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
@pytest.mark.parametrize("activations", ["affine", "symmetric"])
def test_a_moving_range_stays_where_it_was(activations, graph, value):
    """A batch that is not finite is NaN where it enters, and the next one as if it had not been."""
    layer = ax.layers.ApproxDense(3, hardware=ax.Hardware(quantisation=ax.Quantisation(activations=activations)))
    layer.build((None, 5))
    state, x = layer.hardware_state, np.random.default_rng(0).normal(size=(8, 5)).astype("float32")
    call = tf.function(lambda x: layer(x, training=True)) if graph else lambda x: layer(x, training=True)
    bad = x.copy()
    bad[3, 2] = value
    assert not np.isfinite(call(tf.constant(bad))).any()  # no range was known yet
    assert not float(state.seen)
    call(tf.constant(x))
    before = float(state.low), float(state.high)
    assert np.isfinite(before).all()
    found = np.asarray(call(tf.constant(bad)))
    assert np.isnan(found[3]).all() and np.isfinite(np.delete(found, 3, 0)).all()
    assert (float(state.low), float(state.high)) == before
    assert np.isfinite(call(tf.constant(2 * x))).all()
    assert float(state.high) > before[1]


@every_bad
def test_the_moving_ranges_of_attention(value):
    """Both operands follow their batches, a query's, a key's."""
    layer = ax.layers.ApproxMultiHeadAttention(1, 4, hardware=ax.Hardware())
    layer.build((None, 5, 8), (None, 5, 8))
    x = np.random.default_rng(0).normal(size=(3, 5, 8)).astype("float32")
    layer(x, x, training=True)
    bad = x.copy()
    bad[1, 2, 3] = value
    found = np.asarray(layer(bad, bad, training=True))
    assert np.isnan(found[1]).all() and np.isfinite(found[[0, 2]]).all()
    states = [product.state for product in layer.products]
    states += [state.second for state in states if hasattr(state, "second")]
    assert len(states) == 8
    assert np.isfinite([[float(state.low), float(state.high)] for state in states]).all()
    assert np.isfinite(layer(x, x, training=True)).all()


@every_bad
def test_a_bias_memory(value):
    layer = ax.layers.ApproxDense(3, hardware=ax.Hardware(bias_memory=ax.memories.BitErrors(rate=0.0)))
    layer.build((None, 2))
    layer.hardware_state.set_range(-1.0, 1.0)
    spoil(layer.bias, value)
    assert np.isnan(np.asarray(layer(np.ones((4, 2), "float32")))[:, 0]).all()


@every_bad
def test_figures_of_weights(value):
    penalty = ax.BitFlipEnergy(1.0, rate=0.01)
    with pytest.raises(ValueError, match="`weights`.*must be finite"):
        penalty.counts(np.array([[value, 1.0]], "float32"))


def test_a_report_of_fidelity(network):
    model = ax.convert(
        ax.strip(network[0]), ax.Hardware(multiplier=ax.multipliers.get("drum4")), X, fidelity="gaussian"
    )
    layer = model.get_layer("dense")
    assert layer.fidelity_report
    spoil(layer.kernel, np.nan)
    with pytest.raises(ValueError, match="must be finite"):
        str(layer.fidelity_report)


def test_a_manifest_is_json(network, tmp_path):
    """No NaN in it, which JSON does not have."""
    model, clean = network
    model.set_weights(clean)
    ax.export(model, tmp_path / "made", accuracy={"accuracy": 0.5})
    json.loads((tmp_path / "made" / "manifest.json").read_text(), parse_constant=pytest.fail)
