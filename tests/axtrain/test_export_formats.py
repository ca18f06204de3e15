"""One export in every form: the same network in Keras, NumPy, LiteRT, C, ONNX and TensorFlow alone."""

import shutil
import subprocess

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

import axtrain as ax
from axtrain.integers.formats import FORMATS


@pytest.fixture(scope="module")
def trained():
    keras.utils.set_random_seed(0)
    x, y = load_digits(return_X_y=True)
    x = (x.astype("float32") / 16).reshape(-1, 8, 8, 1)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(8, 3, padding="same", use_bias=False, name="edges"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(10, "softmax", name="digit"),
        ],
        name="digits",
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x[:1200], y[:1200], epochs=12, verbose=0)
    return model, x, y


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    model, x, y = trained
    noisy = ax.convert(model, ax.Hardware(quantisation=ax.Quantisation.litert()), x[:512])
    folder = tmp_path_factory.mktemp("export") / "deploy"
    ax.export(
        noisy, folder, formats=tuple(FORMATS), calibration=x[:512], accuracy=ax.evaluate(noisy, x[1200:], y[1200:])
    )
    return noisy, ax.integer_network(noisy, x[:512]), ax.read_export(folder)


def test_every_form_is_there_and_checked(exported):
    _, _, export = exported
    names = set(export.manifest["files"])
    assert {"model.tflite", "model.onnx", "digits.c", "digits.h", "weights.hex", "saved_model/saved_model.pb"} <= names
    assert set(export.manifest["formats"]) == set(FORMATS)
    (export.folder / "digits.c").write_text("changed")
    with pytest.raises(ValueError, match=r"digits\.c"):
        ax.read_export(export.folder)


def test_the_integers_are_as_good_as_the_layers(trained, exported):
    _, x, y = trained
    noisy, network, _ = exported
    decided = network.run(network.quantised(x[1200:])).argmax(-1)
    # The integers also round between the layers. A decision differs where two classes are nearly equal: for 2 in 100
    # at most, and 5 standard errors of 597 images.
    differing = (decided != noisy.predict(x[1200:], verbose=0).argmax(-1)).mean()
    assert differing < 0.02 + 5 * np.sqrt(0.02 * 0.98 / len(decided))
    assert (decided == y[1200:]).mean() > 0.85


def test_c_and_litert_give_the_same_codes(trained, exported, tmp_path):
    _, x, _ = trained
    _, network, export = exported
    codes = network.quantised(x[1200:])
    expected = network.run(codes)
    assert ax.compare_litert(network, export.folder / "model.tflite", codes).equal
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    ax.write_c(network, tmp_path)
    built = ["gcc", "-std=c99", "-O2", "digits_test.c", "digits.c", "-o", "digits"]
    subprocess.run(built, cwd=tmp_path, check=True)
    codes.tofile(tmp_path / "in.bin")
    subprocess.run(["./digits", "in.bin", "out.bin"], cwd=tmp_path, check=True)
    found = np.fromfile(tmp_path / "out.bin", np.int8).reshape(expected.shape)
    assert (found != expected).sum() == 0
