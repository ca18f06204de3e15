"""Approximate hardware in tfmot's own pipeline: annotate, apply, train, save, and take to Keras 3."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import axtrain as ax
from axtrain.interop.library import library
from axtrain.interop.tfmot import ApproximateQuantizeConfig, ApproximateQuantizeScheme, to_keras3

layers = tf_keras.layers
theirs = library().quantization.keras
ERRORS = ax.memories.BitErrors(rate=0.002)
ROUGH = ax.Hardware(multiplier=ax.multipliers.get("broken_array_4_9"), weight_memory=ERRORS)


def network():
    return tf_keras.Sequential(
        [
            tf_keras.Input((8, 8, 1)),
            layers.Conv2D(6, 3, use_bias=False, padding="same", name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(name="relu"),
            layers.DepthwiseConv2D(3, activation="relu", name="depthwise"),
            layers.MaxPooling2D(name="pool"),
            layers.Reshape((3, 18), name="rows"),
            layers.Conv1D(12, 2, activation="relu", name="sequence"),
            layers.Flatten(name="flat"),
            layers.Dense(24, activation="relu", name="hidden"),
            layers.Dropout(0.1, name="drop"),
            layers.Dense(10, activation="softmax", name="classes"),
        ]
    )


def applied(model, hardware, **options):
    scheme = ApproximateQuantizeScheme(hardware, **options)
    return theirs.quantize_apply(theirs.quantize_annotate_model(model), scheme=scheme)


def accuracy(model, x, y):
    """Of samples that no training saw, on two chips."""
    return ax.evaluate(model, x[1200:], y[1200:], chips=2, verbose=False).mean


@pytest.fixture(scope="module")
def trained(digits):
    """A float network, and what tfmot's pipeline made of it on rough hardware."""
    _, x, y = digits
    tf_keras.utils.set_random_seed(0)
    model = network()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x[:1200], y[:1200], epochs=8, verbose=0)
    found = applied(model, ROUGH)
    found.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    found.fit(x[:1200], y[:1200], epochs=3, verbose=0)
    return model, found, x, y


@pytest.mark.slow  # the other tests train for some steps
def test_training_on_the_hardware_improves_the_network_on_it(trained):
    model, found, x, y = trained
    untrained = ax.convert(to_keras3(model), ROUGH, x[:512])
    returned = to_keras3(found)
    assert not any(layer.hardware_state.follows_batches for layer in returned.layers if hasattr(layer, "hardware"))
    assert [type(layer).__name__ for layer in returned.layers if layer.weights] == [
        "ApproxConv2D", "BatchNormalization", "ApproxDepthwiseConv2D", "ApproxConv1D", "ApproxDense", "ApproxDense",
    ]  # fmt: skip
    assert returned.get_layer("hidden").hardware == ROUGH
    assert accuracy(returned, x, y) > accuracy(untrained, x, y) + 0.05
    on_hardware = [layer for layer in found.layers if hasattr(layer, "hardware_stream")]
    assert len({int(layer.hardware_stream[1]) for layer in on_hardware}) == 5  # cells that fail differ by layer
    clean = ax.strip(returned)
    assert all(type(layer).__module__.startswith("keras.") for layer in clean.layers)
    for name in ("conv", "hidden"):
        kernel = np.asarray(clean.get_layer(name).kernel)
        np.testing.assert_array_equal(kernel, np.asarray(found.get_layer(f"quant_{name}").layer.kernel))
        assert (kernel != np.asarray(model.get_layer(name).kernel)).any()  # and the first model is as it was


def test_both_keras_compute_the_same_on_hardware_without_faults(trained):
    _, found, x, _ = trained
    steady = applied(network(), ax.Hardware(multiplier=ROUGH.multiplier))
    steady.set_weights(found.get_weights())
    outputs = steady.predict(x[:200], verbose=0)
    np.testing.assert_allclose(to_keras3(steady).predict(x[:200], verbose=0), outputs, rtol=0, atol=1e-6)


def test_without_errors_it_is_plain_quantisation():
    """A Dense layer with the exact multiplier: TensorFlow's own fake quantisation of inputs and weights."""
    hardware = ax.Hardware(quantisation=ax.Quantisation(weight_scale="per_tensor"))
    model = applied(tf_keras.Sequential([tf_keras.Input((20,)), layers.Dense(7, name="dense")]), hardware)
    rng = np.random.default_rng(0)
    x = rng.normal(0.2, 1, (100, 20)).astype("float32")
    model(x, training=True)
    wrapper = model.layers[0]
    low, high = float(wrapper.hardware_low), float(wrapper.hardware_high)
    assert (low, high) == (x.min(), x.max())  # the first batch's own
    kernel, bias = (np.asarray(weight) for weight in model.trainable_weights)
    largest = np.abs(kernel).max()
    inputs = tf.quantization.fake_quant_with_min_max_vars(x, low, high)
    weights = tf.quantization.fake_quant_with_min_max_vars(kernel, -largest, largest, narrow_range=True)
    np.testing.assert_allclose(model(x), inputs @ weights + bias, rtol=0, atol=1e-5)


def test_the_range_follows_the_batches_and_the_gradient_passes_straight():
    hardware = ax.Hardware(quantisation=ax.Quantisation(momentum=0.75))
    model = applied(tf_keras.Sequential([tf_keras.Input((4,)), layers.Dense(3, name="dense")]), hardware)
    for high in (1.0, 5.0):
        model(np.linspace(0, high, 12, dtype="float32").reshape(3, 4), training=True)
    assert float(model.layers[0].hardware_high) == 0.75 * 1 + 0.25 * 5
    x = tf.constant([[0.5, 1.0, 1.5, 2.0]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(model(x))
    kernel, bias = model.trainable_weights
    gradients = tape.gradient(loss, [x, kernel, bias])
    np.testing.assert_allclose(gradients[0], np.asarray(kernel).sum(1)[None], atol=0.05)
    np.testing.assert_allclose(gradients[1], np.tile(np.asarray(x).T, (1, 3)), atol=0.01)
    np.testing.assert_array_equal(gradients[2], np.ones(3))


def test_stored_weights_fail_as_the_memory_says():
    """The identity reads the weights: n = 64 x 64 words, 40 reads; 5 standard errors."""
    rate, size, reads = 0.01, 64, 40
    hardware = ax.Hardware(weight_memory=ax.memories.BitErrors(rate=rate))
    model = applied(tf_keras.Sequential([tf_keras.Input((size,)), layers.Dense(size, use_bias=False)]), hardware)
    kernel = np.random.default_rng(1).integers(-127, 128, (size, size)).astype("float32")
    kernel[0] = 127  # each channel's step is 1
    model.set_weights([kernel, *model.get_weights()[1:]])
    identity = np.eye(size, dtype="float32")
    model(identity, training=True)
    moved = np.stack([np.asarray(model(identity, training=True)) for _ in range(reads)]) - kernel
    n = moved.size
    np.testing.assert_allclose(moved, np.round(moved), atol=1e-3)
    changed, expected = (np.round(moved) != 0).mean(), 1 - (1 - rate) ** 8
    assert abs(changed - expected) < 5 * np.sqrt(expected * (1 - expected) / n)
    memory, codes = hardware.weight_memory, kernel.astype(int)
    variance = memory.variance(codes, 8) + (memory.expected(codes, 8) - codes) ** 2
    squares = moved.astype(np.float64) ** 2
    assert abs(squares.mean() - variance.mean()) < 5 * squares.std() / np.sqrt(n)
    bias = (memory.expected(codes, 8) - codes).mean()
    assert abs(moved.mean() - bias) < 5 * moved.std() / np.sqrt(n)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_saved_and_loaded_in_keras_2(trained, tmp_path):
    _, found, x, _y = trained
    steady = applied(network(), ax.Hardware(multiplier=ROUGH.multiplier), gradient="table", gradient_window=3)
    steady.set_weights(found.get_weights())
    steady.save(tmp_path / "model.h5")
    with theirs.quantize_scope():
        loaded = tf_keras.models.load_model(tmp_path / "model.h5")
    np.testing.assert_array_equal(loaded.predict(x[:50], verbose=0), steady.predict(x[:50], verbose=0))
    config = loaded.get_layer("quant_hidden").quantize_config
    assert isinstance(config, ApproximateQuantizeConfig) and config.hardware.multiplier == ROUGH.multiplier
    assert config.get_config() == steady.get_layer("quant_hidden").quantize_config.get_config()
    assert (config.playing.gradient, config.playing.gradient_window) == ("table", 3)


def test_single_layers_beside_the_default_scheme(digits):
    """One layer on rough hardware by annotation, the others by tfmot's 8 bits; together back in Keras 3."""
    _, x, y = digits
    model = tf_keras.Sequential(
        [
            tf_keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, activation="relu", name="conv"),
            layers.Flatten(name="flat"),
            theirs.quantize_annotate_layer(
                layers.Dense(16, activation="relu", name="hidden"), ApproximateQuantizeConfig(ROUGH)
            ),
            layers.Dense(10, activation="softmax", name="classes"),
        ]
    )
    found = theirs.quantize_apply(theirs.quantize_annotate_model(model))
    found.compile("adam", "sparse_categorical_crossentropy")
    found.fit(x[:320], y[:320], epochs=1, verbose=0)
    returned = to_keras3(found, x[:64])
    multipliers = [returned.get_layer(name).hardware.circuit.name for name in ("conv", "hidden", "classes")]
    assert multipliers == ["exact", "broken_array_4_9", "exact"]
    assert not any(layer.hardware_state.follows_batches for layer in returned.layers if hasattr(layer, "hardware"))


def test_bad_arguments():
    with pytest.raises(TypeError, match="Received: hardware='drum4'"):
        ApproximateQuantizeConfig("drum4")
    with pytest.raises(ValueError, match="Received: fidelity='gaussian'"):
        ApproximateQuantizeScheme(ax.Hardware(), fidelity="gaussian")
    with pytest.raises(ValueError, match="engine='fast'"):
        ApproximateQuantizeConfig(ax.Hardware(), engine="fast")
    recurrent = tf_keras.Sequential([tf_keras.Input((5, 4)), layers.LSTM(3, name="memory")])
    with pytest.raises(RuntimeError, match="memory"):
        applied(recurrent, ax.Hardware())
    annotated = theirs.quantize_annotate_layer(layers.ReLU(name="relu"), ApproximateQuantizeConfig(ax.Hardware()))
    with pytest.raises(ValueError, match="Received: 'relu' of class ReLU"):
        theirs.quantize_apply(tf_keras.Sequential([tf_keras.Input((4,)), annotated]))
    grouped = tf_keras.Sequential([tf_keras.Input((8, 8, 2)), layers.Conv2D(4, 3, groups=2)])
    with pytest.raises(ValueError, match="groups=2"):
        applied(grouped, ax.Hardware())
