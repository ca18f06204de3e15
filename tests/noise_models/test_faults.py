"""Faulty cells: the distribution, what a chip keeps, rows and columns."""

import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import binom, chi2, norm

from axtrain.noise_models import faults
from axtrain.noise_models.faults import Clustering, faulty_cells, flip, stuck
from axtrain.noise_models.random_numbers import seed_words

TAIL = 2 * 2.87e-7  # two-sided probability beyond 5 standard errors


def mask_of(shape, width, rate, seed, **options):
    return np.asarray(faulty_cells(shape, width, seed_words(seed), rate, **options)[0])


def bits_of(words, bits):
    return np.asarray(words)[..., None] >> np.arange(bits) & 1


def chi_square_passes(counts, expected):
    counts, expected = np.asarray(counts, float), np.asarray(expected, float)
    assert expected.min() >= 5.0, expected
    return np.sum((counts - expected) ** 2 / expected) < chi2.isf(TAIL, counts.size - 1)


@pytest.mark.parametrize("width", [1, 5, 8])
@pytest.mark.parametrize("rate", [1e-4, 1e-2, 0.3, 1.0])
def test_rate_and_share_of_each_cell(rate, width):
    """n = 400,000 words."""
    words = 400_000
    n = words * width
    bit = bits_of(mask_of((400, 1000), width, rate, seed=11), width).reshape(-1, width)
    assert abs(bit.mean() - rate) <= 5 * math.sqrt(rate * (1 - rate) / n)
    assert np.all(np.abs(bit.mean(axis=0) - rate) <= 5 * math.sqrt(rate * (1 - rate) / words))


@pytest.mark.parametrize("rate", [1e-2, 0.3])
def test_faulty_cells_per_word_are_binomial(rate):
    n, width = 500_000, 8
    counts = np.bincount(bits_of(mask_of((n,), width, rate, seed=5), width).sum(axis=1), minlength=width + 1)
    expected = n * binom.pmf(np.arange(width + 1), width, rate)
    last = int(np.flatnonzero(expected >= 20.0)[-1])
    assert chi_square_passes([*counts[:last], counts[last:].sum()], [*expected[:last], expected[last:].sum()])


@pytest.mark.parametrize(("rate", "n"), [(1e-4, 3_000_000), (1e-2, 500_000), (0.3, 50_000)])
def test_gaps_are_geometric(rate, n):
    flat = bits_of(mask_of((n,), 8, rate, seed=21), 8).reshape(-1)
    gaps = np.diff(np.flatnonzero(flat), prepend=-1)
    edges = np.unique(np.ceil(np.log1p(-np.arange(20) / 20) / math.log1p(-rate))).astype(int)  # twentieths
    below = 1 - (1 - rate) ** edges  # P(gap <= edge)
    counts = np.histogram(gaps, bins=[0.5, *(edges[1:] + 0.5), np.inf])[0]
    expected = gaps.size * np.diff(np.append(below[:1] * 0, [*below[1:], 1.0]))
    assert chi_square_passes(counts, expected)


@pytest.mark.parametrize("rate", [1e-2, 0.3])
def test_count_varies_over_seeds_as_a_binomial(rate):
    seeds, n = 400, 500 * 8
    function = tf.function(lambda words: faulty_cells((500,), 8, words, rate)[0])
    counts = np.array([bits_of(function(seed_words(seed)), 8).sum() for seed in range(seeds)])
    deviation = math.sqrt(n * rate * (1 - rate))
    assert abs(counts.mean() - n * rate) <= 5 * deviation / math.sqrt(seeds)
    assert abs(counts.std(ddof=1) / deviation - 1) <= 5 / math.sqrt(2 * seeds)


@pytest.mark.parametrize("distance", [1, 2, 8, 64])
def test_neighbours_are_independent(distance):
    rate = 0.3
    flat = bits_of(mask_of((200_000,), 8, rate, seed=17), 8).reshape(-1)
    both = flat[distance:] * flat[:-distance]
    # Products of pairs that share a cell are correlated: their long-run variance is q (1 - q) + 2 (p^3 - q^2).
    spread = math.sqrt((rate**2 * (1 - rate**2) + 2 * (rate**3 - rate**4)) / both.size)
    assert abs(both.mean() - rate**2) <= 5 * spread


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("clustering", [None, Clustering(row_cells=64, rows=0.3, columns=0.1)])
@pytest.mark.parametrize("shape", [(33, 71), (4000,), (1,)])
def test_eager_graph_and_compiled_find_the_same_cells(shape, clustering, jit):
    def draw(rate, words):
        return faulty_cells(shape, 8, words, rate, share_of_ones=0.3, clustering=clustering)

    function = tf.function(draw, jit_compile=jit)
    for rate in (1e-3, 0.1):
        eager = [np.asarray(mask) for mask in draw(rate, seed_words(1234))]
        assert all(mask.shape == shape and mask.dtype == np.int32 for mask in eager)
        compiled = function(tf.constant(rate), tf.constant(seed_words(1234)))
        for mask, other in zip(eager, compiled, strict=True):
            np.testing.assert_array_equal(mask, other.numpy())


@pytest.mark.parametrize("jit", [False, True])
def test_a_batch_whose_size_the_graph_does_not_know(jit):
    function = tf.function(
        lambda x: faulty_cells(keras.ops.shape(x), 8, seed_words(9), 0.02)[0],
        jit_compile=jit,
        input_signature=[tf.TensorSpec((None, 37), "float32")],
    )
    for batch in (0, 1, 300):
        np.testing.assert_array_equal(function(tf.zeros((batch, 37))).numpy(), mask_of((batch, 37), 8, 0.02, 9))


def test_faults_at_one_rate_are_among_those_at_a_higher_one():
    n = 100_000 * 8
    rates = (0.0, 1e-5, 1e-4, 1e-3, 0.02, 0.3, 1.0)
    masks = [mask_of((100_000,), 8, rate, 6) for rate in rates]
    for mask, rate in zip(masks, rates, strict=True):
        assert abs(bits_of(mask, 8).mean() - rate) <= 5 * math.sqrt(rate * (1 - rate) / n)
    for lower, higher in itertools.pairwise(masks):
        np.testing.assert_array_equal(lower & higher, lower)


def test_a_chip_of_larger_memory_has_the_same_cells_where_both_have_some():
    whole = mask_of((5000,), 8, 0.1, seed=1)
    np.testing.assert_array_equal(mask_of((2000,), 8, 0.1, seed=1), whole[:2000])
    np.testing.assert_array_equal(mask_of((2000,), 8, 0.1, seed=1, address=3000), whole[3000:])
    assert np.any(whole != mask_of((5000,), 8, 0.1, seed=2))


def test_rates_of_single_cells_and_tiny_ones():
    rates = [0.0, 1.0, 0.25, 0.0]
    bit = bits_of(mask_of((100_000,), 4, rates, 3), 4)
    np.testing.assert_array_equal(bit[:, [0, 1, 3]], [[0, 1, 0]] * 100_000)
    assert abs(bit[:, 2].mean() - 0.25) <= 5 * math.sqrt(0.25 * 0.75 / 100_000)
    assert not np.any(mask_of((100_000,), 8, 1e-300, 3))
    with pytest.raises(ValueError, match="one rate for each of 8 cells. Received: 2 rates"):
        mask_of((3,), 8, [0.1, 0.2], 3)
    with pytest.raises(ValueError, match="1 to 32 cells. Received: width=33"):
        mask_of((3,), 33, 0.1, 3)


def test_flip_and_stuck():
    words = np.array([0b1100, 0b1010], "int32")
    assert np.asarray(flip(words, np.array([0b0110, 0], "int32"))).tolist() == [0b1010, 0b1010]
    faulty, ones = np.array([0b0101, 0b1100], "int32"), np.array([0b0011, 0b1000], "int32")
    assert np.asarray(stuck(words, faulty, ones)).tolist() == [0b1001, 0b1010]


@pytest.mark.parametrize("share", [0.0, 0.5, 0.2, 1.0])
@pytest.mark.parametrize("rate", [1e-2, 0.3, 1.0])
def test_stuck_values(rate, share):
    words, width = 200_000, 8
    faulty, ones = (np.asarray(m) for m in faulty_cells((words,), width, seed_words(8), rate, share_of_ones=share))
    np.testing.assert_array_equal(faulty, mask_of((words,), width, rate, 8))
    for mask, part in ((faulty & ~ones, rate * (1 - share)), (faulty & ones, rate * share)):
        assert np.all(np.abs(bits_of(mask, width).mean(axis=0) - part) <= 5 * math.sqrt(part * (1 - part) / words))
    # A cell's value has nothing to do with its distance from the last faulty cell, nor with that one's value.
    places = np.flatnonzero(bits_of(faulty, width).reshape(-1))
    value = bits_of(ones, width).reshape(-1)[places]
    m = places.size
    if rate < 1.0 and 0.0 < share < 1.0:
        assert m > rate * words * width / 2
        assert abs(np.corrcoef(np.diff(places), value[1:])[0, 1]) <= 5 / math.sqrt(m)
        assert abs(np.corrcoef(value[1:], value[:-1])[0, 1]) <= 5 / math.sqrt(m)


def test_clustered_cells_keep_their_rate_and_share_rows_and_columns():
    """n = 200 chips of 32 rows of 64 cells: the rate, and the correlation of two cells of a row and of a column."""
    clustering = Clustering(row_cells=64, rows=0.4, columns=0.2)
    rate, chips = 0.1, 200
    draw = tf.function(lambda words: faulty_cells((32, 8), 8, words, rate, clustering=clustering)[0], jit_compile=True)
    cells = np.stack([bits_of(draw(seed_words(c)).numpy(), 8).reshape(32, 64) for c in range(chips)]).astype(float)

    def passes(per_chip, expected):
        return abs(per_chip.mean() - expected) <= 5 * per_chip.std(ddof=1) / math.sqrt(chips)

    def both(correlation):
        """P(both of two cells fail) whose normals correlate so."""
        from scipy.stats import multivariate_normal

        level = norm.ppf(rate)
        return multivariate_normal([0, 0], [[1, correlation], [correlation, 1]]).cdf([level, level])

    assert passes(cells.mean(axis=(1, 2)), rate)
    in_row = (cells[:, :, ::2] * cells[:, :, 1::2]).mean(axis=(1, 2))
    in_column = (cells[:, ::2] * cells[:, 1::2]).mean(axis=(1, 2))
    apart = (cells[:, ::2, ::2] * cells[:, 1::2, 1::2]).mean(axis=(1, 2))
    assert passes(in_row, both(0.4)) and passes(in_column, both(0.2)) and passes(apart, both(0.0))
    assert not passes(in_row, rate**2)


def test_clustered_faults_are_nested_too():
    clustering = Clustering(row_cells=128, rows=0.5)
    masks = [mask_of((20_000,), 8, rate, 4, clustering=clustering) for rate in (0.0, 1e-4, 1e-2, 0.2)]
    assert not masks[0].any() and masks[1].any()
    for lower, higher in itertools.pairwise(masks):
        np.testing.assert_array_equal(lower & higher, lower)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"row_cells": 0}, "row_cells=0"),
        ({"row_cells": 8, "rows": 1.0}, r"rows=1\.0"),
        ({"row_cells": 8, "rows": 0.6, "columns": 0.5}, "sum below 1"),
    ],
)
def test_bad_clustering(arguments, message):
    with pytest.raises(ValueError, match=message):
        Clustering(**arguments)


def test_the_top_cell_of_the_widest_word():
    mask = mask_of((100,), 32, [0.0] * 31 + [1.0], 1)
    np.testing.assert_array_equal(mask, np.int32(-(2**31)))
    assert faults.MAX_WIDTH == 32
