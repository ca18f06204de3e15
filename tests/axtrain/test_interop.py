"""Keras 3 models through TensorFlow Model Optimization and back; `tf.keras` stays what it was."""

import os
import subprocess
import sys

import fresh
import keras
import numpy as np
import pytest

import axtrain as ax
from axtrain.interop.keras2 import to_keras2
from axtrain.interop.keras3 import to_keras3
from axtrain.interop.library import returned

layers = keras.layers


def convolutional():
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(4, 3, activation="relu", kernel_regularizer="l2", padding="same"),
            layers.BatchNormalization(),
            layers.DepthwiseConv2D(3),
            layers.LeakyReLU(0.1),
            layers.MaxPooling2D(),
            layers.Dropout(0.2, seed=3),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )


def branched():
    inputs = keras.Input((8, 8, 2), name="image")
    x = shared = layers.Conv2D(4, 3, padding="same", use_bias=False)(inputs)
    x = layers.Add()([layers.SeparableConv2D(4, 3, padding="same")(x), shared])
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, [layers.Dense(2, name="a")(x), layers.Concatenate()([x, x])])


def recurrent():
    inputs = keras.Input((5, 6))
    x = layers.GRU(3)(layers.LSTM(4, return_sequences=True)(inputs))
    return keras.Model(inputs, layers.LayerNormalization()(x))


def attentive():
    inputs = keras.Input((5, 6))
    x = layers.Add()([inputs, layers.MultiHeadAttention(2, 3)(inputs, inputs)])
    return keras.Model(inputs, layers.GlobalAveragePooling1D()(x))


def nested():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="inside")], name="inner")
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(1)(inner(inputs)))


def embedded():
    inputs = keras.Input((5,), dtype="int32")
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(layers.Embedding(2, 3)(inputs))))


@pytest.mark.parametrize("made", [convolutional, branched, recurrent, attentive, nested, embedded])
def test_keras_2_computes_the_same(made):
    keras.utils.set_random_seed(1)
    model = made()
    for weight in model.weights:  # moving averages and offsets too
        weight.assign(weight + np.random.default_rng(0).uniform(0, 0.3, weight.shape).astype("float32"))
    translated = to_keras2(model)
    assert type(translated).__module__.startswith("tf_keras")
    x = np.random.default_rng(1).normal(size=(7, *model.input_shape[1:])).astype("float32")
    x = (x > 0).astype("int32") if made is embedded else x
    pairs = zip(keras.tree.flatten(model(x)), keras.tree.flatten(translated(x)), strict=True)
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=3e-6 * float(np.abs(ours).max()))
    assert [layer.name for layer in model.layers if layer.weights] == [
        layer.name for layer in translated.layers if layer.weights
    ]


def test_the_padding_of_an_output_goes_both_ways(monkeypatch):
    """Keras 3.10 leaves it out of a layer's configuration, so it does here; nested and in 1D too."""
    for kind in (layers.Conv1DTranspose, layers.Conv2DTranspose):
        described = kind.get_config
        monkeypatch.setattr(
            kind, "get_config", lambda self, d=described: {k: v for k, v in d(self).items() if k != "output_padding"}
        )
    up = layers.Conv2DTranspose(2, 3, strides=3, output_padding=2, name="up")
    inputs = keras.Input((6,))
    x = layers.Reshape((2, 3, 1))(inputs)
    x = keras.Sequential([keras.Input((2, 3, 1)), up], name="inner")(x)
    x = layers.Conv1DTranspose(1, 2, strides=2, output_padding=1, name="line")(layers.Reshape((-1, 2))(x))
    model = keras.Model(inputs, x)
    assert "output_padding" not in up.get_config()
    translated = to_keras2(model)
    back = to_keras3(translated)
    samples = np.random.default_rng(0).normal(size=(3, 6)).astype("float32")
    assert model.output_shape == back.output_shape == (None, 2 * 8 * 11 + 1, 1)
    for other in (translated, back, returned(model, translated)):
        np.testing.assert_allclose(model(samples), other(samples), rtol=1e-5, atol=1e-6)


def test_what_keras_2_cannot_take_is_an_error():
    inputs = keras.Input((4,))
    with pytest.raises(ValueError, match="use a layer such as"):
        to_keras2(keras.Model(inputs, inputs * 2.0))
    dense = keras.Sequential([inputs, layers.Dense(3)])
    with pytest.raises(ValueError, match="axtrain.strip"):
        to_keras2(ax.convert(dense, ax.Hardware()))
    with pytest.raises(ValueError, match="no setting 'zero_output_for_mask'"):
        to_keras2(keras.Sequential([keras.Input((5, 4)), layers.LSTM(3, zero_output_for_mask=True)]))
    with pytest.raises(ValueError, match="no such layer"):
        to_keras2(keras.Sequential([inputs, layers.RMSNormalization()]))


def kernels(model):
    return {layer.name: np.asarray(layer.kernel) for layer in model.layers if hasattr(layer, "kernel")}


def zeros(model):
    return {name: float((kernel == 0).mean()) for name, kernel in kernels(model).items()}


def test_pruned_models_have_the_zeros_and_keep_them_on_hardware(digits):
    model, x, y = digits
    before = [weights.copy() for weights in model.get_weights()]
    pruned = ax.interop.tfmot.prune(model, x, y, sparsity=0.75)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    for share in zeros(pruned).values():
        assert share == pytest.approx(0.75, abs=0.02)
    assert ax.evaluate(pruned, x, y, verbose=False).mean > ax.evaluate(model, x, y, verbose=False).mean - 0.05
    assert isinstance(pruned, keras.Model) and not pruned.compiled
    noisy = ax.convert(pruned, ax.Hardware(multiplier=ax.multipliers.get("drum4")), x[:256])
    noisy.compile("adam", "sparse_categorical_crossentropy")
    noisy.fit(x[:320], y[:320], epochs=1, verbose=0, callbacks=[ax.callbacks.KeepZeros()])
    for name, kernel in kernels(noisy).items():
        np.testing.assert_array_equal(kernel == 0, kernels(pruned)[name] == 0)
    assert any((kernels(noisy)[name] != kernel).any() for name, kernel in kernels(pruned).items())
    noisy.fit(x[:320], y[:320], epochs=1, verbose=0)
    assert max(zeros(noisy).values()) < 0.5  # that is what the callback is for


def test_only_the_named_layers_are_pruned(digits):
    model, x, y = digits
    found = zeros(ax.interop.tfmot.prune(model, x[:640], y[:640], sparsity=0.5, layers=["hid*"]))
    assert found["hidden"] == pytest.approx(0.5, abs=0.01)
    assert found["conv"] < 0.05 and found["classes"] < 0.05


@pytest.mark.parametrize("keep_zeros", [False, True])
def test_clustered_kernels_have_few_values(digits, keep_zeros):
    model, x, y = digits
    started = ax.interop.tfmot.prune(model, x, y, sparsity=0.6) if keep_zeros else model
    loss = "sparse_categorical_crossentropy"
    found = ax.interop.tfmot.cluster(started, x, y, clusters=8, keep_zeros=keep_zeros, loss=loss)
    for kernel in kernels(found).values():
        assert 2 <= len(np.unique(kernel)) <= 8
    if keep_zeros:
        for name, kernel in kernels(found).items():
            assert (kernel[kernels(started)[name] == 0] == 0).all()
    accuracy = [ax.evaluate(one, x, y, verbose=False).mean for one in (started, found)]
    assert accuracy[1] > accuracy[0] - 0.05


def test_bad_arguments(digits):
    model, x, y = digits
    for mistake, said in (
        (lambda: ax.interop.tfmot.prune(model, x, y, sparsity=1.0), "sparsity=1.0"),
        (lambda: ax.interop.tfmot.prune(model, x, y, layers=["z"]), "names no layer"),
        (lambda: ax.interop.tfmot.cluster(model, x, y, clusters=1), "clusters=1"),
        (lambda: ax.interop.tfmot.prune(recurrent(), x, y, loss="mse"), "no dense layer"),
        (lambda: ax.interop.tfmot.prune(nested(), x, y, loss="mse"), "Models inside models"),
        (lambda: ax.interop.tfmot.prune(convolutional(), x, y), "loss="),
    ):
        with pytest.raises(ValueError, match=said):
            mistake()


# What a user may import in which order before and after ours; `use` goes through tfmot, `touch` only loads it.
ORDERS = {
    "ours first": "import axtrain as ax, keras\nax.interop.tfmot.prune\nuse()\n",
    "tf first": "import tensorflow as tf\nimport axtrain as ax\ntouch()\n",
    "keras first": "import keras\nimport axtrain as ax\ntouch()\n",
    "tf_keras first": "import tf_keras\nimport axtrain as ax\ntouch()\n",
    "every module first": (
        "import pkgutil, axtrain.interop as folder\n"
        "for found in pkgutil.iter_modules(folder.__path__, 'axtrain.interop.'): __import__(found.name)\ntouch()\n"
    ),
}
# A user's own choice of Keras 2 stays, and ours works beside it.
FLIPPED = {
    "tfmot first": "import tensorflow_model_optimization\nuse()\n",
    "the variable set": "import os\nos.environ['TF_USE_LEGACY_KERAS'] = '1'\nimport axtrain\ntouch()\n",
}
USE = """
import os
def use():
    import keras, numpy as np, axtrain as ax
    before = os.environ.get("TF_USE_LEGACY_KERAS")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    found = ax.interop.tfmot.prune(model, np.ones((8, 4), "float32"), np.ones((8, 3), "float32"), loss="mse")
    assert (np.asarray(found.layers[0].kernel) == 0).sum() == 6
    assert os.environ.get("TF_USE_LEGACY_KERAS") == before
    touch()
def touch():
    before = os.environ.get("TF_USE_LEGACY_KERAS")
    import keras, tf_keras, axtrain as ax
    config = ax.interop.tfmot.ApproximateQuantizeConfig(ax.Hardware())
    assert os.environ.get("TF_USE_LEGACY_KERAS") == before
    noisy = ax.convert(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]), config.hardware)
    assert isinstance(noisy, keras.Model) and not isinstance(noisy, tf_keras.Model)
    import tensorflow as tf
    print("Keras", tf.keras.__name__.split(".")[0], tf.keras.layers.Dense.__module__.split(".")[0],
          keras.__version__.split(".")[0])
"""


def said(code):
    """What a new process prints of both Keras; where TensorFlow comes first, a fork of one that has it."""
    kept = {key: value for key, value in os.environ.items() if key != "TF_USE_LEGACY_KERAS"}
    if code.startswith(("import tensorflow as tf", "import keras", "import tf_keras")):
        done = fresh.run(USE + code, env=kept)
    else:
        done = subprocess.run([sys.executable, "-c", USE + code], env=kept, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("Keras")[-1].split()


SLOW = ("every module first", "the variable set")


@pytest.mark.parametrize(
    "code", [pytest.param(code, id=name, marks=[pytest.mark.slow] * (name in SLOW)) for name, code in ORDERS.items()]
)
def test_tf_keras_never_flips_because_of_us(code):
    assert said(code) == ["keras", "keras", "3"]


@pytest.mark.parametrize(
    "code", [pytest.param(code, id=name, marks=[pytest.mark.slow] * (name in SLOW)) for name, code in FLIPPED.items()]
)
def test_it_works_where_the_user_flipped_it(code):
    """`tf.keras` is Keras 2 by the user's own doing; ours is `keras`, and works."""
    assert said(code) == ["tf_keras", "tf_keras", "3"]
