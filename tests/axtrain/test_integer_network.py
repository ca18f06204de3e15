"""Keras models in integers alone: sums as the Keras layers', outputs as LiteRT's, values near the float network's."""

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

import axtrain as ax
from axtrain.integers.network import Pad, Pooling, Product, Rescale, Softmax
from axtrain.integers.running import accumulators

L = keras.layers
LITERT = ax.Quantisation.litert()


def samples(shape, count=60, seed=0):
    return np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)


def randomise(model, seed=0):
    """Statistics and factors of normalisation, biases: none is what it was at the start."""
    rng = np.random.default_rng(seed)
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, L.BatchNormalization):
            size = layer.moving_mean.shape
            layer.gamma.assign(rng.uniform(0.3, 2, size) * rng.choice([-1, 1], size))
            layer.beta.assign(rng.normal(size=size))
            layer.moving_mean.assign(rng.normal(size=size) / 3)
            layer.moving_variance.assign(rng.uniform(0.2, 3, size))
        elif getattr(layer, "use_bias", False):
            layer.bias.assign(rng.normal(size=layer.bias.shape) / 2)
    return model


def random_signed(odd):
    """A signed circuit with errors everywhere; without symmetry if not odd."""
    rng = np.random.default_rng(3)
    values = np.r_[0:128, -128:0]
    error = rng.integers(-200, 200, (256, 256))
    if odd:
        error = np.sign(values)[None] * error[:, np.abs(values) % 256]
    return ax.Multiplier(np.outer(values, values) + error, name="random", bits=8, signed=True)


CIRCUITS = {
    "litert": ax.Hardware(quantisation=LITERT),
    "litert through a signed circuit": ax.Hardware(multiplier=random_signed(True), quantisation=LITERT),
    "litert through an unsigned circuit": ax.Hardware(multiplier=ax.multipliers.get("drum4"), quantisation=LITERT),
    "affine": ax.Hardware(multiplier=ax.multipliers.get("mitchell")),
    "symmetric": ax.Hardware(multiplier=ax.multipliers.get("drum4", signed=True)),
    "sign-magnitude": ax.Hardware(
        multiplier=ax.multipliers.get("kulkarni"), quantisation=ax.Quantisation(activations="symmetric")
    ),
    "offset weights": ax.Hardware(
        multiplier=ax.multipliers.get("drum4"), quantisation=ax.Quantisation(weight_encoding="offset")
    ),
    "4-bit weights": ax.Hardware(quantisation=ax.Quantisation(weight_bits=4)),
}


@pytest.fixture(scope="module")
def small():
    """A convolution of each kind, no normalisation, so that every Keras layer can be asked for its sums."""
    keras.utils.set_random_seed(0)
    return randomise(
        keras.Sequential(
            [
                keras.Input((9, 8, 3)),
                L.Conv2D(4, (3, 2), strides=(2, 1), padding="same", activation="relu", name="conv"),
                L.DepthwiseConv2D(3, padding="same", depth_multiplier=2, activation="relu6", name="depthwise"),
                L.Conv2D(5, 2, dilation_rate=2, name="dilated"),
                L.Flatten(),
                L.Dense(6, name="head"),
            ]
        )
    )


@pytest.mark.parametrize("name", CIRCUITS)
def test_accumulators_are_those_of_the_keras_layers(small, name):
    """The same codes in, zero differences, through every kind of table and encoding."""
    hardware = CIRCUITS[name]
    model = ax.convert(small, hardware, samples((9, 8, 3)))
    network = ax.integer_network(model, samples((9, 8, 3)))
    x = samples((9, 8, 3), count=5, seed=1)
    codes = network.run(network.quantised(x), keep=True)
    products = [operation for operation in network.operations if isinstance(operation, Product)]
    assert [product.name for product in products] == ["conv", "depthwise", "dilated", "head"]
    for product in products:
        tensor = network.tensors[product.inputs[0]]
        given = codes[product.inputs[0]]
        # What the layer gets in real units; it finds the same codes again.
        real = (given.astype(np.float32) - tensor.zero_point) * np.float32(tensor.scale)
        found = accumulators(product, given, tensor.zero_point)
        low = hardware.activation_codes[0]
        kept = given > -128 if low == -127 else np.ones(given.shape, bool)  # a symmetric layer has no code -128
        assert kept.all()
        np.testing.assert_array_equal(found, model.get_layer(product.name).accumulator(real))
        assert (product.table is None) == (not hardware.code_table.error.any())
        assert (product.multiplier is None) == (product.table is None)


def branching():
    """Nearly everything that there is a rule for."""
    inputs = keras.Input((11, 10, 3))
    x = L.BatchNormalization(name="first")(inputs)
    x = L.ZeroPadding2D(((1, 0), (0, 2)), name="pad")(x)
    x = L.Conv2D(6, 3, strides=2, name="conv")(x)
    x = L.BatchNormalization(name="folded")(x)
    x = L.ReLU(max_value=6.0, name="relu6")(x)
    block = keras.Input(x.shape[1:])
    y = L.Conv2D(6, 3, padding="same", use_bias=False, name="inner")(block)
    y = L.BatchNormalization(scale=True, name="inner_norm")(y)
    z = L.DepthwiseConv2D(3, padding="same", activation="relu", name="inner_depthwise")(block)
    z = L.BatchNormalization(name="after_relu")(z)
    nested = keras.Model(block, L.Add(name="inner_add")([y, z, block]), name="block")
    x = L.Dropout(0.5)(nested(x))
    x = L.Activation("relu", name="relu")(x)
    pooled = L.MaxPooling2D(3, strides=2, padding="same", name="max")(x)
    mean = L.AveragePooling2D(3, strides=2, padding="same", name="mean")(x)
    shared = L.Conv2D(8, 1, name="shared")
    x = L.Add(name="sum")([shared(pooled), shared(mean)])
    x = L.Add(name="skip")([L.ReLU(name="alone")(x), x])  # x is read twice: the ReLU stands alone
    x = L.Add(name="means")(
        [L.GlobalAveragePooling2D(name="global_mean")(x), L.GlobalMaxPooling2D(name="global_max")(x)]
    )
    x = L.Dense(12, activation="hard_tanh", name="hidden")(x)
    x = L.Reshape((3, 4), name="rows")(x)
    x = L.Dense(5, name="per_row")(x)
    x = L.Dense(7, name="head")(L.Flatten()(x))
    return keras.Model(inputs, L.Softmax(name="classes")(x), name="branching")


@pytest.fixture(scope="module")
def branches():
    keras.utils.set_random_seed(1)
    return randomise(branching())


@pytest.mark.parametrize("name", ["litert", "symmetric", "4-bit weights"])
def test_a_branching_model_equals_litert_and_is_near_the_float_one(branches, name, tmp_path):
    pytest.importorskip("ai_edge_litert")
    x = samples((11, 10, 3), count=200)
    hardware = CIRCUITS[name]
    if name == "symmetric":
        hardware = ax.Hardware(quantisation=ax.Quantisation(activations="symmetric"))
    model = ax.convert(branches, hardware, x)
    network = ax.integer_network(model, x)
    ax.write_litert(network, tmp_path / "a.tflite")
    found = ax.compare_litert(network, tmp_path / "a.tflite", network.quantised(samples((11, 10, 3), seed=5)))
    assert found.equal, str(found)
    assert len(found.tensors) == len(network.operations) > 25
    if name == "4-bit weights":
        return
    kinds = [type(operation) for operation in network.operations]
    assert {Pad, Pooling, Rescale, Softmax} <= set(kinds)
    # Each row's softmax within a tenth: 8-bit tensors through twelve layers; a wrong scale anywhere is far more.
    difference = np.abs(network.real(network.run(network.quantised(x))) - branches.predict(x, verbose=0))
    assert difference.mean() < 0.02
    assert np.percentile(difference, 99) < 0.15


def test_normalisation_is_folded_and_its_range_is_that_after_it(branches):
    x = samples((11, 10, 3), count=200)
    network = ax.integer_network(branches, x)
    by_name = {operation.output: operation for operation in network.operations}
    assert "folded" not in by_name
    conv = by_name["relu6"]
    assert conv.name == "conv"
    gain = np.asarray(branches.get_layer("folded").gamma)
    assert (gain < 0).any()
    # The codes are the layer's own, but for the sign.
    kernel = np.asarray(branches.get_layer("conv").kernel)
    expected = np.round(kernel / (np.abs(kernel).max((0, 1, 2)) / 127)) * np.sign(gain)
    assert np.abs(conv.codes - expected).max() <= 1  # float32 against float64 division at halves
    assert np.mean(conv.codes != expected) < 0.01
    out = network.tensors["relu6"]
    assert out.zero_point == -128
    assert out.scale * 255 <= 6.0 + 1e-6
    real = keras.Model(branches.input, branches.get_layer("relu6").output).predict(x, verbose=0)
    codes = network.run(network.quantised(x), keep=True)["relu6"]
    error = np.abs((codes.astype(float) + 128) * out.scale - real)
    assert error.mean() < 1.5 * out.scale


def test_normalisation_that_leaves_next_to_nothing_of_a_channel(tmp_path):
    """Factors of 0 and 1e-9, and a bias far beyond int32 at such a scale."""
    pytest.importorskip("ai_edge_litert")
    keras.utils.set_random_seed(0)
    layers = [L.Conv2D(4, 3), L.BatchNormalization(name="norm"), L.Flatten(), L.Dense(3)]
    model = keras.Sequential([keras.Input((5, 5, 2)), *layers])
    model.layers[1].gamma.assign([0.0, 1e-9, 1.0, -1e-30])
    model.layers[1].beta.assign([0.7, -3.0, 0.1, 2.0])
    x = samples((5, 5, 2))
    network = ax.integer_network(model, x)
    tensor, codes = network.tensors["norm"], network.run(network.quantised(x), keep=True)
    real = (codes["norm"].astype(float) - tensor.zero_point) * tensor.scale
    for channel, beta in ((0, 0.7), (1, -3.0), (3, 2.0)):
        assert np.abs(real[..., channel] - beta).max() <= tensor.scale
    ax.write_litert(network, tmp_path / "a.tflite")
    assert ax.compare_litert(network, tmp_path / "a.tflite", network.quantised(x)).equal


def test_a_circuit_without_symmetry_and_a_negative_factor():
    model = keras.Sequential([keras.Input((4,)), L.Dense(3, name="sums"), L.BatchNormalization(name="norm")])
    model.layers[1].gamma.assign([1.0, -1.0, 1.0])
    x = samples((4,))
    circuit = random_signed(False)
    converted = ax.convert(model, ax.Hardware(multiplier=circuit, quantisation=LITERT), x)
    with pytest.raises(ValueError, match=r"'sums' has negative factors in channels \[1\].*NonNeg"):
        ax.integer_network(converted, x)
    converted.layers[1].gamma.assign([1.0, 0.5, 1.0])
    assert ax.integer_network(converted, x).operations[0].multiplier == circuit


def test_trained_on_the_scheme_and_its_range_moves():
    """`fit` works with it, and the ranges that training left are the network's."""
    keras.utils.set_random_seed(0)
    plain = keras.Sequential([keras.Input((6,)), L.Dense(8, activation="relu", name="first"), L.Dense(2, name="last")])
    scheme = ax.Quantisation.litert(activation_range="moving_average")
    for multiplier in (None, ax.multipliers.get("drum6"), ax.multipliers.get("drum6", signed=True)):
        model = ax.convert(plain, ax.Hardware(multiplier=multiplier, quantisation=scheme))
        with pytest.raises(ValueError, match="'first' has seen neither"):
            ax.integer_network(model, samples((6,)))
        model.compile("sgd", "mse")
        x = samples((6,), count=256)
        losses = model.fit(x, x[:, :2], epochs=2, verbose=0).history["loss"]
        assert losses[-1] < losses[0]
        network = ax.integer_network(model, x)
        state = model.get_layer("first").hardware_state
        low, high = min(0, float(state.low)), max(0, float(state.high))
        assert network.tensors["input"].scale == pytest.approx((high - low) / 255, rel=1e-6)
        difference = np.abs(network.real(network.run(network.quantised(x))) - model.predict(x, verbose=0))
        assert difference.max() < 2 * network.tensors["last"].scale + np.abs(x).max() / 100


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([L.Dense(3, activation="tanh", name="bad")], "activation of layer 'bad'.*Received: tanh"),
        ([L.Dense(3), L.LayerNormalization(name="bad")], "Layer 'bad' has no integer counterpart.*LayerNormalization"),
        ([L.Dense(3), L.ReLU(negative_slope=0.1, name="bad")], "slope.*'bad'"),
        ([L.Reshape((2, 2)), L.Softmax(axis=1, name="bad")], "last axis.*axis=1.*'bad'"),
        ([L.Dense(3, activation="relu"), L.BatchNormalization(name="bad"), L.Dense(2)], "'bad' follows no product"),
    ],
)
def test_what_has_no_integer_counterpart_is_named(layers, message):
    model = keras.Sequential([keras.Input((4,)), *layers])
    with pytest.raises(ValueError, match=f"(?s){message}"):
        ax.integer_network(model, samples((4,)))


def test_what_is_asked_for():
    model = keras.Sequential([keras.Input((4,)), L.Dense(3, name="a"), L.ReLU(), L.Dense(3, name="b")])
    x = samples((4,))
    with pytest.raises(ValueError, match=r"plain model needs calibration"):
        ax.integer_network(model)
    converted = ax.convert(model, ax.Hardware(), x)
    with pytest.raises(ValueError, match=r"calibration=x_train.*tensors \['b'\]"):
        ax.integer_network(converted)
    with pytest.raises(ValueError, match=r"samples of shape \(4,\).*\(60, 5\)"):
        ax.integer_network(converted, samples((5,)))
    partly = ax.convert(model, ax.Hardware(), x, overrides={"b": None})
    with pytest.raises(ValueError, match="must run on hardware.*'b', kept in float"):
        ax.integer_network(partly, x)
    narrow = ax.convert(model, ax.Hardware(quantisation=ax.Quantisation(activation_bits=6)), x)
    with pytest.raises(ValueError, match="8 bits.*'a' with 6 bits"):
        ax.integer_network(narrow, x)
    with pytest.raises(TypeError, match="Received: str"):
        ax.integer_network("model")
    inputs = keras.Input((4,))
    two = keras.Model(inputs, [L.Dense(2)(inputs), L.Dense(3)(inputs)])
    with pytest.raises(ValueError, match="1 inputs and 2 outputs"):
        ax.integer_network(two, x)
    network = ax.integer_network(model, x)
    for bad in (x, np.zeros((2, 5), np.int8)):
        with pytest.raises(ValueError, match="must be int8 of shape"):
            network.run(bad)


def test_the_model_is_not_changed(small):
    before = small.get_layer("conv").activation, [w.copy() for w in small.get_weights()]
    ax.integer_network(small, samples((9, 8, 3)))
    assert small.get_layer("conv").activation is before[0]
    for old, new in zip(before[1], small.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.fixture(scope="module")
def digits():
    """A small convolutional network trained on scikit-learn's digits, and test samples."""
    images, labels = load_digits(return_X_y=True)
    x, y = (images.reshape(-1, 8, 8, 1) / 16).astype("float32"), labels
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            L.Conv2D(8, 3, padding="same"),
            L.BatchNormalization(momentum=0.9),
            L.ReLU(),
            L.MaxPooling2D(2),
            L.Conv2D(16, 3, padding="same"),
            L.BatchNormalization(momentum=0.9),
            L.ReLU(),
            L.Flatten(),
            L.Dense(10, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    model.fit(x[360:], y[360:], epochs=7, batch_size=64, verbose=0)
    return model, x[360:872], (x[:360], y[:360])


def test_digits_code_for_code_and_as_accurate(digits, tmp_path):
    pytest.importorskip("ai_edge_litert")
    model, calibration, (x, y) = digits
    network = ax.integer_network(model, calibration)
    ax.write_litert(network, tmp_path / "a.tflite")
    codes = network.quantised(x)
    found = ax.compare_litert(network, tmp_path / "a.tflite", codes)
    assert found.equal, str(found)
    assert (found.samples, len(found.tensors)) == (360, len(network.operations))
    floating = (model.predict(x, verbose=0).argmax(-1) == y).mean()
    integer = (network.run(codes).argmax(-1) == y).mean()
    assert floating > 0.9
    # The same 360 samples: 8 bits may flip a few of them, n = 360, five standard errors of a flip rate of 1 %: 2.6 %.
    assert abs(floating - integer) <= 0.026


def test_digits_on_an_approximate_circuit_are_those_of_the_keras_model(digits):
    """Its table makes the outputs what they are: they are the Keras model's, and not the exact circuit's."""
    model, calibration, (x, _) = digits
    approximate = ax.convert(model, ax.Hardware(multiplier=ax.multipliers.get("broken_array_4_8")), calibration)
    network, exact = (ax.integer_network(kind, calibration) for kind in (approximate, model))
    expected = approximate.predict(x, verbose=0)
    own, other = (np.abs(kind.real(kind.run(kind.quantised(x))) - expected).mean() for kind in (network, exact))
    assert own < 0.01
    assert other > 5 * own
