"""A chip is a seed: the same faulty cells at every read, and a clean kernel behind them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import axtrain as ax
from axtrain.controls import hardware_layers

pytestmark = pytest.mark.eager


def network(memory, units=40):
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((30,)), keras.layers.Dense(units, name="a"), keras.layers.Dense(2, name="b")])
    x = np.random.default_rng(0).uniform(0, 1, (16, 30)).astype(np.float32)
    return ax.convert(model, ax.Hardware(weight_memory=memory), x), x


def codes_read(layer):
    """The weight codes that an inference multiplies."""
    return np.asarray(layer.hardware_state.read_weights(tf.convert_to_tensor(layer.kernel), (0,), False).codes)


@pytest.mark.parametrize("fault", ["persistent", "stuck"])
def test_a_chip_keeps_its_cells(fault):
    model, x = network(ax.memories.BitErrors(rate=0.02, fault=fault))
    ax.set_chip(model, 7)
    first = model.predict(x, verbose=0)
    np.testing.assert_array_equal(model.predict(x, verbose=0), first)
    ax.set_chip(model, 8)
    assert not np.array_equal(model.predict(x, verbose=0), first)
    ax.set_chip(model, 7)
    np.testing.assert_array_equal(model.predict(x, verbose=0), first)


def test_a_chip_is_the_same_eagerly_and_compiled():
    model, x = network(ax.memories.BitErrors(rate=0.02, fault="persistent"))
    ax.set_chip(model, 5)
    eager = np.asarray(model(x, training=False))
    for compiled in (False, True):
        played = tf.function(lambda t: model(t, training=False), jit_compile=compiled)
        np.testing.assert_allclose(played(tf.constant(x)), eager, rtol=1e-5, atol=1e-5)


def test_random_faults_differ_at_every_read_and_follow_the_chips_stream():
    model, x = network(ax.memories.BitErrors(rate=0.02, fault="random"))
    ax.set_chip(model, 1)
    first, second = model.predict(x, verbose=0), model.predict(x, verbose=0)
    assert not np.array_equal(first, second)
    ax.set_chip(model, 1)
    np.testing.assert_array_equal(model.predict(x, verbose=0), first)


def test_the_share_of_flipped_bits_over_chips():
    """n = 50 chips x 1200 words x 8 bits = 480,000 bits at rate 0.01; layers of one chip differ."""
    rate, chips = 0.01, 50
    model, _ = network(ax.memories.BitErrors(rate=rate, fault="persistent"))
    layer = model.get_layer("a")
    clean = np.round(np.asarray(layer.kernel) / (np.abs(layer.kernel).max(0) / 127)).astype(np.int64)
    flips = []
    for chip in range(chips):
        ax.set_chip(model, chip)
        changed = (codes_read(layer).astype(np.int64) ^ clean) & 0xFF
        flips.append(np.unpackbits(changed.astype(np.uint8)).sum())
    n = chips * clean.size * 8
    assert abs(np.sum(flips) - n * rate) < 5 * np.sqrt(n * rate * (1 - rate))
    # Chips are independent: the counts spread like binomials. The variance's relative standard error is sqrt(2/49).
    expected = clean.size * 8 * rate * (1 - rate)
    assert abs(np.var(flips, ddof=1) / expected - 1) < 5 * np.sqrt(2 / (chips - 1))


def test_layers_of_one_chip_have_faults_of_their_own():
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((20,)), *(keras.layers.Dense(20, name=name) for name in "pq")])
    model.layers[1].set_weights(model.layers[0].get_weights())
    memory = ax.memories.BitErrors(rate=0.05, fault="persistent")
    noisy = ax.convert(model, ax.Hardware(weight_memory=memory), np.ones((4, 20), np.float32))
    ax.set_chip(noisy, 3)
    assert not np.array_equal(*(codes_read(noisy.get_layer(name)) for name in "pq"))


def test_the_stored_kernel_stays_clean_and_training_meets_new_chips():
    model, x = network(ax.memories.BitErrors(rate=0.05, fault="persistent"))
    layer = model.get_layer("a")
    before = np.asarray(layer.kernel).copy()
    ax.set_chip(model, 2)
    outputs = [np.asarray(model(x, training=True)) for _ in range(2)]
    assert not np.array_equal(*outputs)
    np.testing.assert_array_equal(layer.kernel, before)


def test_no_noise_strength_is_no_memory():
    model, x = network(ax.memories.BitErrors(rate=0.1, fault="persistent"))
    clean, _ = network(None)
    noisy = model.predict(x, verbose=0)
    ax.set_noise_strength(model, 0.0)
    np.testing.assert_array_equal(model.predict(x, verbose=0), clean.predict(x, verbose=0))
    ax.set_noise_strength(model, 1.0)
    np.testing.assert_array_equal(model.predict(x, verbose=0), noisy)


def test_noise_strength_of_single_layers():
    """Of one layer alone: the same as hardware with that layer's memory alone."""
    model, x = network(ax.memories.BitErrors(rate=0.1, fault="persistent"))
    ax.set_chip(model, 3)
    whole = model.predict(x, verbose=0)
    ax.set_noise_strength(model, 0.0, layers=["[!a]*"])
    of_a = model.predict(x, verbose=0)
    strengths = {layer.name: float(layer.hardware_state.noise_strength) for layer in hardware_layers(model)}
    assert strengths == {name: float(name == "a") for name in strengths} and len(strengths) > 1
    ax.set_noise_strength(model, 0.0, layers=["a"])
    clean = model.predict(x, verbose=0)
    assert not np.array_equal(of_a, whole) and not np.array_equal(of_a, clean)
    with pytest.raises(ValueError, match="names no layer.*'zz'"):
        ax.set_noise_strength(model, 0.0, layers=["zz"])


def test_the_streams_go_on_after_loading(tmp_path):
    model, x = network(ax.memories.BitErrors(rate=0.05, fault="random"))
    ax.set_chip(model, 11)
    model.predict(x, verbose=0)
    model.save(tmp_path / "model.keras")
    expected = model.predict(x, verbose=0)
    again = ax.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(x, verbose=0), expected)


@pytest.mark.parametrize("chip", [-1, 1.5, True, 2**31, "7"])
def test_bad_chips(chip):
    model, _ = network(ax.memories.BitErrors(rate=0.1))
    with pytest.raises(ValueError, match="`chip` must be.*Received"):
        ax.set_chip(model, chip)


def test_dials_of_a_plain_model_and_bad_strengths():
    plain = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    with pytest.raises(ValueError, match=r"axtrain\.convert"):
        ax.set_chip(plain, 1)
    model, _ = network(ax.memories.BitErrors(rate=0.1))
    with pytest.raises(ValueError, match="`strength` must lie in"):
        ax.set_noise_strength(model, 1.5)
