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


def test_a_fit_that_raises_gives_the_terminal_its_cursor_back(network, data):
    class Broken(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise ArithmeticError("stop")

    terminal = Console(file=io.StringIO(), width=100, force_terminal=True)
    network.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(ArithmeticError), FitProgress("train it", terminal) as shown:
        network.fit(*data, verbose=0, callbacks=[shown, Broken()])
    text = terminal.file.getvalue()
    hidden, shown_again = text.rfind("\x1b[?25l"), text.rfind("\x1b[?25h")
    assert -1 < hidden < shown_again


def test_with_it_or_without_a_good_fit_looks_the_same(network, data, console):
    fit(network, data, console)
    alone, inside = console.file.getvalue(), Console(file=io.StringIO(), width=100)
    with FitProgress("train it", inside) as shown:
        network.fit(*data, epochs=2, verbose=0, callbacks=[shown])
    assert inside.file.getvalue().count("\n") == alone.count("\n")
