"""The fidelity without hardware: the plain network, described hardware or not."""

import keras
import numpy as np
import pytest

import axtrain as ax

pytestmark = pytest.mark.eager

L = keras.layers
LAYERS = {
    "dense": ((6,), lambda: L.Dense(4, activation="relu")),
    "conv": ((8, 8, 3), lambda: L.Conv2D(4, 3, strides=2, padding="same")),
    "depthwise": ((8, 8, 3), lambda: L.DepthwiseConv2D(3)),
    "separable": ((8, 8, 3), lambda: L.SeparableConv2D(5, 3)),
    "transposed": ((5, 5, 3), lambda: L.Conv2DTranspose(4, 3, strides=2)),
    "einsum": ((7, 6), lambda: L.EinsumDense("abc,cd->abd", (None, 5), bias_axes="d")),
    "lstm": ((7, 6), lambda: L.LSTM(5)),
    "gru": ((7, 6), lambda: L.GRU(5)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_it_is_the_float_network(name):
    shape, make = LAYERS[name]
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input(shape), make()])
    x = np.random.default_rng(0).normal(size=(16, *shape)).astype("float32")
    faulty = ax.memories.BitErrors(rate=0.05)
    hardware = ax.Hardware(multiplier=ax.multipliers.get("drum3"), weight_memory=faulty, activation_memory=faulty)
    noisy = ax.convert(model, hardware, x)
    expected = model.predict(x, verbose=0)
    assert np.abs(noisy.predict(x, verbose=0) - expected).max() > 1e-3
    ax.set_fidelity(noisy, "float")
    np.testing.assert_allclose(noisy.predict(x, verbose=0), expected, rtol=1e-5, atol=1e-5)
    assert noisy.layers[0].fidelity_report == ()


def test_it_needs_no_calibration_and_leaves_nothing_to_chance():
    model = keras.Sequential([keras.Input((6,)), L.Dense(3, activation="softmax")])
    x, y = np.random.default_rng(0).normal(size=(16, 6)).astype("float32"), np.arange(16) % 3
    noisy = ax.convert(model, ax.Hardware(weight_memory=ax.memories.BitErrors(rate=0.05)), fidelity="float")
    asked = []
    result = ax.evaluate(noisy, x, y, chips=5, metric=lambda *both: asked.append(1) or 0.5, verbose=False)
    assert len(asked) == 1 and len(result.accuracies) == 5
    ax.set_fidelity(noisy, "exact")
    asked.clear()
    ax.evaluate(noisy, x, y, chips=5, metric=lambda *both: asked.append(1) or 0.5, verbose=False)
    assert len(asked) == 5


def test_active_search_alone_weighs_by_the_hardware_on_the_float_network():
    """The penalty knows the circuit; the forward pass does not."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), L.Dense(8, activation="tanh"), L.Dense(3, activation="softmax")])
    x, y = np.random.default_rng(0).normal(size=(64, 6)).astype("float32"), np.arange(64) % 3
    noisy = ax.convert(model, ax.Hardware(multiplier=ax.multipliers.get("drum3")), x, fidelity="float")
    active = ax.with_sensitivity(noisy, ax.OutputSensitivity(1.0, weighting="hardware"))
    active.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    first = active.fit(x, y, batch_size=64, epochs=1, verbose=0).history
    model.compile("sgd", "sparse_categorical_crossentropy")
    assert first["loss"][0] == pytest.approx(model.evaluate(x, y, verbose=0), rel=1e-4)
    assert first["sensitivity"][0] > 0
