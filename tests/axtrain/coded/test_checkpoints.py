"""Going back: to a checkpoint in memory, and to one on disk after a kill."""

import keras
import numpy as np
import pytest

import axtrain as ax
from axtrain.coded import CodeNet, Replication, SoftErrors, convert
from axtrain.coded.renewal import best_interval, success

pytestmark = pytest.mark.eager

layers = keras.layers


@pytest.fixture(scope="module")
def data():
    generator = np.random.default_rng(0)
    return generator.standard_normal((96, 6)).astype("float32"), generator.integers(0, 3, 96)


def network():
    keras.utils.set_random_seed(0)
    hidden, out = layers.Dense(5, "relu", name="hidden"), layers.Dense(3, "softmax", name="out")
    return keras.Sequential([keras.Input((6,)), hidden, out])


def compiled(code, faults=None, run_eagerly=False, **settings):
    coded = convert(network(), code, faults, **settings)
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    coded.compile(optimizer, "sparse_categorical_crossentropy", run_eagerly=run_eagerly)
    return coded


class Stop(keras.callbacks.Callback):
    """As a kill between two steps."""

    def __init__(self, step):
        super().__init__()
        self.step, self.done = step, 0

    def on_train_batch_end(self, batch, logs=None):
        self.done += 1
        if self.done == self.step:
            raise RuntimeError("killed")


def test_a_training_that_is_killed_goes_on_from_disk(data, tmp_path):
    faults = SoftErrors(rate=0.02, where=("forward", "update"), kind="random", seed=1)
    batches = ax.ResumableBatches(*data, batch_size=24, seed=3)
    fit = {"epochs": 2, "every": 2, "note": {"data": "mine"}, "verbose": 0}
    made = {"code": CodeNet(2, 2, 2), "faults": faults, "run_eagerly": True}  # 17 steps are faster than three tracings
    whole = compiled(**made)
    expected = ax.resumable_fit(whole, batches, path=tmp_path / "whole.npz", **fit)
    assert whole.events["rolled_back"] == 0 < whole.events["corrected"]
    with pytest.raises(RuntimeError, match="killed"):
        first = compiled(**made)
        ax.resumable_fit(first, batches, path=tmp_path / "state.npz", callbacks=[Stop(7)], **fit)
    resumed = compiled(**made)
    found = ax.resumable_fit(resumed, batches, path=tmp_path / "state.npz", **fit)
    assert resumed.events == whole.events
    for a, b in zip(resumed.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert found[-1]["loss"] == expected[-1]["loss"]


@pytest.mark.parametrize("between", ["set_weights", "callback"])
def test_weights_given_before_or_at_the_beginning_of_a_fit_are_its_first_checkpoint(data, between):
    """Every step fails, so weights stay as they were put: by hand, or by a callback as it reads a backup."""
    failing = compiled(Replication(2), SoftErrors(rate=1.0, where=("forward",), kind="random"), checkpoint_every=1000)
    failing.fit(*data, epochs=1, verbose=0)  # keeps a checkpoint of its own
    kernels = [0.5 * np.asarray(layer.coded_kernel) for layer in failing.coded_layers]

    def put(model):
        for layer, kernel in zip(model.coded_layers, kernels, strict=True):
            layer.coded_kernel.assign(kernel)

    class Backup(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            put(self.model)

    if between == "set_weights":
        put(failing)
    failing.fit(*data, epochs=1, verbose=0, callbacks=[Backup()] if between == "callback" else [])
    assert failing.events["rolled_back"] == 6  # of 2 times 3 steps
    for layer, kernel in zip(failing.coded_layers, kernels, strict=True):
        np.testing.assert_array_equal(layer.coded_kernel, kernel)


def test_the_interval_counts_what_updates_and_memories_spoil(data):
    code = CodeNet(2, 2)
    products = convert(network(), code, SoftErrors(rate=0.01, where=("forward", "backward"))).interval
    every = convert(network(), code, SoftErrors(rate=0.01)).interval
    assert products == best_interval(success(code, 0.01) ** 2)
    assert every == best_interval(success(code, 1 - 0.99**3) ** 2) < products
    assert convert(network(), code, checkpoint_every=None).interval is None


def test_strip_decodes_and_mixed_precision_leaves_coded_layers_in_float32(data):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = network()
    finally:
        keras.config.set_dtype_policy("float32")
    coded = convert(model, CodeNet(2, 2))
    assert {layer.compute_dtype for layer in coded.coded_layers} == {"float32"}
    coded.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    losses = coded.fit(*data, epochs=3, batch_size=96, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    plain = ax.strip(coded)
    assert [type(layer) for layer in plain.layers[-2:]] == [layers.Dense] * 2
    np.testing.assert_allclose(plain.predict(data[0], verbose=0), coded.predict(data[0], verbose=0), atol=1e-5)


@pytest.mark.graph
def test_coded_layers_train_under_xla(data):
    """As step by step; tests of what is stored train in traced functions that are not XLA's."""
    losses = {}
    for jit in (False, True):
        coded = convert(network(), CodeNet(2, 2), overrides={"hidden": None})  # it needs the gradient of `out`'s inputs
        coded.compile(
            keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", jit_compile=jit, run_eagerly=not jit
        )
        losses[jit] = coded.fit(*data, epochs=3, batch_size=32, shuffle=False, verbose=0).history["loss"]
    np.testing.assert_allclose(losses[True], losses[False], rtol=1e-5)
