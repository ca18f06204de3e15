"""Flips in stored words: rate and shape of the distribution on both paths, with Numba and without."""

import math

import numpy as np
import pytest
from scipy.stats import binom, chi2

from axtrain.noise_models import injection
from axtrain.noise_models.injection import flip_bits

TAIL = 2 * 2.87e-7  # two-sided probability beyond 5 standard errors


@pytest.fixture(params=["numba", "numpy"])
def engine(request, monkeypatch):
    if request.param == "numba":
        pytest.importorskip("numba")
    else:
        monkeypatch.setattr(injection.importlib.util, "find_spec", lambda name: None)
    return request.param


@pytest.mark.parametrize("rate", [1e-5, 1e-3, 2.9e-3, 3.1e-3, 0.1, 0.25, 0.3333, 0.5])
def test_rate_and_flips_per_word(engine, rate):
    """n = 2,000,000 words: the rate of each of eight cells, and the number of flips in a word against the binomial."""
    n = 2_000_000
    words = np.random.default_rng(0).integers(0, 256, n).astype(np.uint8)
    flips = flip_bits(words, rate, seed=5) ^ words
    each = np.array([(flips >> bit & 1).mean() for bit in range(8)])
    assert np.all(np.abs(each - rate) <= 5 * math.sqrt(rate * (1 - rate) / n))
    assert abs(each.mean() - rate) <= 5 * math.sqrt(rate * (1 - rate) / (8 * n))
    counts = np.bincount(np.unpackbits(flips[:, None], axis=1).sum(axis=1, dtype=int), minlength=9)
    expected = n * binom.pmf(np.arange(9), 8, rate)
    often = expected >= 20
    seen, hoped = [*counts[often], counts[~often].sum()], [*expected[often], expected[~often].sum()]
    parts = [(a, b) for a, b in zip(seen, hoped, strict=True) if b >= 5]
    assert sum((a - b) ** 2 / b for a, b in parts) < chi2.isf(TAIL, max(1, len(parts) - 1))


@pytest.mark.parametrize("rate", [2e-3, 0.1])
@pytest.mark.parametrize("distance", [1, 7, 8, 64, 2048])
def test_cells_are_independent(engine, rate, distance):
    """n = 8,000,000 cells."""
    flips = flip_bits(np.zeros(1_000_000, np.uint8), rate, seed=2)
    cells = np.unpackbits(flips, bitorder="little").astype(float) - rate
    products = cells[distance:] * cells[:-distance]
    assert abs(products.mean()) <= 5 * rate * (1 - rate) / math.sqrt(products.size)


def test_the_last_cells_of_a_part_are_independent(engine):
    """Parts of 7 bytes, shorter than a machine word; n = 8 parts x 1,500 seeds, every two of the 56 cells."""
    rate, n = 0.25, 8 * 1500
    flips = np.stack([flip_bits(np.zeros(8 * 7, np.uint8), rate, seed=seed) for seed in range(1500)])
    cells = np.unpackbits(flips.reshape(n, 7), axis=1, bitorder="little").astype(float) - rate
    correlation = cells.T @ cells / (n * rate * (1 - rate))
    assert np.abs(correlation - np.diag(np.diag(correlation))).max() <= 5 / math.sqrt(n)


@pytest.mark.parametrize("rate", [1e-3, 0.1])
def test_faults_are_spread_over_the_whole_array(engine, rate):
    """n = 1,000,003 words in 20 parts; the last, odd ones too."""
    flips = np.unpackbits(flip_bits(np.zeros(1_000_003, np.uint8), rate, seed=8)[:, None], axis=1).sum(axis=1)
    parts = np.array([part.sum() for part in np.array_split(flips, 20)])
    expected = 8 * rate * np.array([len(part) for part in np.array_split(flips, 20)])
    assert np.sum((parts - expected) ** 2 / (expected * (1 - rate))) < chi2.isf(TAIL, 20)
    tail = [flip_bits(np.zeros(1_000_003, np.uint8), 0.5, seed=seed)[-3:] for seed in range(40)]
    assert np.all(np.bitwise_or.reduce(tail) == 255)


def test_seeds_shapes_and_types(engine):
    words = np.arange(60_000, dtype=np.uint16).reshape(100, 600)
    kept = words.copy()
    first = flip_bits(words, 0.01, seed=1)
    np.testing.assert_array_equal(words, kept)
    assert first.shape == words.shape and first.dtype == np.uint16
    np.testing.assert_array_equal(first, flip_bits(words, 0.01, seed=1))
    assert np.any(first != flip_bits(words, 0.01, seed=2))
    np.testing.assert_array_equal(flip_bits(words, 0.0), words)
    np.testing.assert_array_equal(flip_bits(words, 1e-300), words)
    transposed = flip_bits(words.T, 0.3, seed=4)
    assert transposed.shape == (600, 100) and np.any(transposed != words.T)
    for size in (0, 1, 3):
        assert flip_bits(np.zeros(size, np.uint8), 0.5).shape == (size,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros(3, np.int8), 0.1), "Received: dtype int8"),
        ((np.zeros(3), 0.1), "Received: dtype float64"),
        ((np.zeros(3, np.uint8), 0.6), r"rate=0\.6"),
        ((np.zeros(3, np.uint8), math.nan), "rate=nan"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        flip_bits(*arguments)
    with pytest.raises(ValueError, match="seed=-1"):
        flip_bits(np.zeros(3, np.uint8), 0.1, seed=-1)
