import io

import keras
import pytest
from rich.console import Console

from axtrain.training.progress import FitProgress


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=100)


def fit(network, data, console, *callbacks, epochs=2):
    network.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    shown = [FitProgress("train it", console), *callbacks]
    return network.fit(*data, epochs=epochs, verbose=0, callbacks=shown).history


def test_it_says_what_is_trained_and_how_it_went(network, data, console):
    history = fit(network, data, console)
    text = console.file.getvalue()
    assert "train it" in text
    assert "2/2" in text
    assert f"accuracy {history['accuracy'][-1]:.4f}" in text
    assert f"loss {history['loss'][-1]:.4f}" in text


def test_two_fits_one_after_another(network, data, console):
    fit(network, data, console)
    fit(network, data, console, epochs=3)
    assert "3/3" in console.file.getvalue()


def test_a_fit_that_raises_leaves_the_terminal_usable(network, data, console):
    """A display left alive would refuse the next one and keep the cursor hidden."""

    class Broken(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise ArithmeticError("stop")

    with pytest.raises(ArithmeticError):
        fit(network, data, console, Broken())
    fit(network, data, console, epochs=4)
    assert "4/4" in console.file.getvalue()
