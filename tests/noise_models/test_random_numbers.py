"""The numbers behind every chip: the same however they are computed, and uniform and independent."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from axtrain.noise_models.random_numbers import uniform


def mix(x):
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def reference(count, first, second=0):
    """The formula of the docstring in NumPy alone."""
    with np.errstate(over="ignore"):
        first, second = np.array([first], np.uint32), np.array([second], np.uint32)
        other = mix(mix(second) + mix(first + np.uint32(1)))
        return (mix(mix(np.arange(count, dtype=np.uint32) + mix(first)) ^ other) >> np.uint32(9)) * np.float32(2**-23)


@pytest.mark.parametrize("seed", [0, 1, 12345, 2**31 - 1, 2**31, 2**32 - 1])
def test_the_formula(seed):
    np.testing.assert_array_equal(uniform((1000,), seed), reference(1000, seed))


@pytest.mark.parametrize("words", [(0, 0), (5, 7), (2**31 - 1, 1234567890)])
def test_a_generators_words_give_the_same_numbers_everywhere(words):
    """The seed is a variable here: with a constant the graph would be folded before XLA sees it."""
    generator = keras.random.SeedGenerator(0)

    def draw():
        generator.state.assign(words)
        return uniform((3, 400), generator)

    expected = reference(1200, *words).reshape(3, 400)
    for played in (draw, tf.function(draw), tf.function(draw, jit_compile=True)):
        np.testing.assert_array_equal(played(), expected)


def test_numbers_are_uniform():
    """n = 10^6 in 256 bins, the mean, and each of the 23 bits."""
    n = 1_000_000
    values = np.asarray(uniform((n,), 3))
    assert values.min() >= 0 and values.max() < 1
    counts = np.bincount((values * 256).astype(int), minlength=256)
    # A chi-square of k degrees has standard deviation sqrt(2 k); 5 of them, as everywhere.
    assert abs(((counts - n / 256) ** 2 / (n / 256)).sum() - 255) < 5 * np.sqrt(2 * 255)
    assert abs(values.mean() - 0.5) < 5 * np.sqrt(1 / 12 / n)
    bits = (values * 2**23).astype(np.int64)[:, None] >> np.arange(23) & 1
    assert (np.abs(bits.mean(0) - 0.5) < 5 * 0.5 / np.sqrt(n)).all()
    assert stats.kstest(values[:20_000], "uniform").pvalue > 1e-6


@pytest.mark.parametrize("other", [("lag", 1), ("lag", 2), ("lag", 64), ("seed", 4), ("seed", 3 + 2**16)])
def test_neighbours_and_neighbouring_seeds_are_independent(other):
    """n = 200,000: correlation, and a 16 x 16 table of pairs."""
    n = 200_000
    kind, value = other
    first = np.asarray(uniform((n + 64,), 3))
    second = first[value : value + n] if kind == "lag" else np.asarray(uniform((n,), value))
    first = first[:n]
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / np.sqrt(n)
    pairs = np.histogram2d(first, second, bins=16, range=[[0, 1], [0, 1]])[0]
    assert abs(((pairs - n / 256) ** 2 / (n / 256)).sum() - 255) < 5 * np.sqrt(2 * 255)


def test_a_shape_that_the_graph_does_not_know():
    played = tf.function(lambda x: uniform((2, tf.shape(x)[0]), 9), input_signature=[tf.TensorSpec((None,))])
    np.testing.assert_array_equal(played(tf.zeros(30)), reference(60, 9).reshape(2, 30))


@pytest.mark.parametrize("seed", [None, 1.5, True, "1"])
def test_bad_seeds(seed):
    with pytest.raises(ValueError, match="`seed` must be.*Received"):
        uniform((3,), seed)
