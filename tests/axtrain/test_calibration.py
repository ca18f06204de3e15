"""Calibration data and models as people hold them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import axtrain as ax
from axtrain.calibrating import calibration_samples

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 6)).astype("float32")
Y = (X[:, 0] > 0).astype("int32")


def dense(**options):
    return keras.Sequential([keras.Input((6,)), layers.Dense(3, name="out", **options)])


def two_inputs():
    inputs = [keras.Input((6,), name=name) for name in "ab"]
    return keras.Model(inputs, layers.Dense(2, name="out")(layers.Concatenate()(inputs)))


def batches(*parts):
    return (tuple(part[start : start + 8] for part in parts) for start in range(0, 50, 8))


class Pieces(keras.utils.PyDataset):
    def __len__(self):
        return 5

    def __getitem__(self, index):
        return X[10 * index : 10 * (index + 1)], Y[10 * index : 10 * (index + 1)]


@pytest.mark.parametrize(
    "made",
    [
        lambda: X,
        lambda: tf.constant(X),
        lambda: (X, Y),
        lambda: (X, Y, np.ones(50)),
        lambda: tf.data.Dataset.from_tensor_slices(X).batch(7),
        lambda: tf.data.Dataset.from_tensor_slices((X, Y)).batch(7).repeat(),
        lambda: (X[start : start + 9] for start in range(0, 50, 9)),
        lambda: batches(X, Y),
        lambda: ([row[None]] for row in X),
        Pieces,
    ],
)
def test_samples_of_one_input(made):
    samples = calibration_samples(dense(), made())
    [array] = keras.tree.flatten(samples)
    np.testing.assert_array_equal(array[:50], X)
    assert len(array) in (50, 4096)  # what repeats without an end is taken so far


def test_samples_of_two_inputs():
    pair, named = [X, 2 * X], {"a": X, "b": 2 * X}
    for given in (pair, tuple(pair), (pair, Y), (tuple(pair), Y), named, (named, Y), batches(X, 2 * X)):
        for array, wanted in zip(keras.tree.flatten(calibration_samples(two_inputs(), given)), pair, strict=True):
            np.testing.assert_array_equal(array, wanted)
    dataset = tf.data.Dataset.from_tensor_slices((named, Y)).batch(16)
    np.testing.assert_array_equal(calibration_samples(two_inputs(), dataset)["b"], 2 * X)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "one array for each of 1 inputs"),
        (iter([]), "at least one sample"),
        ([X, X], "one array for each of 1 inputs"),
        (X[:0], "at least one sample"),
        (np.where(X > 2, np.nan, X), "must be finite"),
        (iter([1.0, 2.0]), "must be samples.*Received: float"),
    ],
)
def test_what_is_no_calibration_data(given, message):
    with pytest.raises((ValueError, TypeError), match=message):
        ax.convert(dense(), ax.Hardware(), given)


def test_ranges_are_those_of_the_arrays_whatever_holds_them():
    found = []
    for given in (X, ([row[None]] for row in X), tf.data.Dataset.from_tensor_slices((X, Y)).batch(7)):
        state = ax.convert(dense(), ax.Hardware(), given).layers[0].products[0].state
        found.append((float(state.low), float(state.high)))
    assert found[0] == found[1] == found[2]
    network = ax.integer_network(dense(), (batch for batch in [X]))
    assert network.run(network.quantised(X)).shape == (50, 3)


def test_a_batch_size_of_the_models_own():
    """Every sample is seen, and the last batch is whole: 20 samples in batches of 8."""
    plain = keras.Sequential(
        [keras.Input(batch_shape=(8, 5, 3)), layers.LSTM(2, stateful=True), layers.Dense(2, name="out")]
    )
    x = RNG.normal(size=(20, 5, 3)).astype("float32")
    x[19] *= 10
    noisy = ax.convert(plain, ax.Hardware(quantisation=ax.Quantisation(activation_range="minmax")), x)
    highest = max(-float(product.state.low) for product in noisy.layers[0].products)
    assert highest == pytest.approx(-x[19].min())
    with pytest.raises(ValueError, match="takes batches of 8.*Received: 5"):
        ax.convert(plain, ax.Hardware(), x[:5])


def test_functions_that_no_file_could_hold():
    """A Lambda, and an activation of one's own, in a model that is in memory."""
    scale = 3.0
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(5, activation=lambda t: t * scale),
            layers.Lambda(lambda t: t + scale, output_shape=(5,)),
            layers.Dense(2, name="out"),
        ]
    )
    noisy = ax.convert(model, ax.Hardware(), X)
    np.testing.assert_allclose(noisy(X), model(X), atol=0.6)
    np.testing.assert_array_equal(ax.strip(noisy)(X), model(X))
    assert ax.evaluate(noisy, X, Y, chips=2, verbose=False).samples == 50


def test_layers_in_float64_are_refused_where_they_are():
    wide = keras.Sequential([keras.Input((6,)), layers.Dense(4, dtype="float64", name="wide"), layers.Dense(2)])
    with pytest.raises(ValueError, match=r"strict=True.*wide \(Dense\): dtype float64"):
        ax.convert(wide, ax.Hardware(), X, strict=True)
    noisy = ax.convert(wide, ax.Hardware(), X)
    assert [layer.name for layer in noisy.conversion_report.skipped] == ["wide"]
    with pytest.raises(ValueError, match=r"No layer of this model can run on the hardware.*float64"):
        ax.convert(dense(dtype="float64"), ax.Hardware(), X)
    with pytest.raises(ValueError, match="compute in float32.*float64"):
        ax.layers.ApproxDense(2, hardware=ax.Hardware(), dtype="float64")


@pytest.mark.parametrize("engine", ["numba", "low_rank", "gather"])
def test_no_samples_give_no_outputs(engine):
    hardware = ax.Hardware(multiplier=ax.multipliers.get("drum4"))
    assert ax.convert(dense(), hardware, X, engine=engine)(X[:0]).shape == (0, 3)
    convolutions = [layers.Conv2D(4, 3), layers.DepthwiseConv2D(3), layers.SeparableConv2D(3, 2)]
    small = keras.Sequential([keras.Input((8, 8, 2)), *convolutions, layers.Conv2DTranspose(2, 3), layers.Flatten()])
    pictures = RNG.normal(size=(4, 8, 8, 2)).astype("float32")
    noisy = ax.convert(small, hardware, pictures, engine=engine)
    assert noisy(pictures[:0]).shape == (0, *noisy(pictures).shape[1:])
