"""Sparse Bernoulli masks: the distribution, the static layout, and what they cost."""

import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import binom, chi2

from axtrain.noise_models import faults
from axtrain.noise_models.faults import bernoulli_mask, flip, stuck, stuck_masks

TAIL = 2 * 2.87e-7  # two-sided probability beyond 5 standard errors


def mask_of(shape, bits, rate, seed, **options):
    return np.asarray(bernoulli_mask(shape, bits, rate, seed, **{"max_rate": rate, **options}))


def bits_of(words, bits):
    return np.asarray(words)[..., None] >> np.arange(bits) & 1


def chi_square_passes(counts, expected):
    counts, expected = np.asarray(counts, float), np.asarray(expected, float)
    assert expected.min() >= 5.0, expected
    return np.sum((counts - expected) ** 2 / expected) < chi2.isf(TAIL, counts.size - 1)


class FixedSeed(keras.random.SeedGenerator):
    """A chip: its state does not advance."""

    def next(self, ordered=True):
        return keras.ops.convert_to_tensor(self.state)


@pytest.mark.parametrize("bits", [1, 5, 8])
@pytest.mark.parametrize("rate", [1e-4, 1e-2, 0.3, 1.0])
def test_rate_and_share_of_each_bit(rate, bits):
    words = 400_000
    n = words * bits
    bit = bits_of(mask_of((400, 1000), bits, rate, seed=11), bits).reshape(-1, bits)
    assert abs(bit.mean() - rate) <= 5 * math.sqrt(rate * (1 - rate) / n)
    assert np.all(np.abs(bit.mean(axis=0) - rate) <= 5 * math.sqrt(rate * (1 - rate) / words))


@pytest.mark.parametrize("rate", [1e-2, 0.3])
def test_set_bits_per_word_are_binomial(rate):
    n, bits = 500_000, 8
    counts = np.bincount(bits_of(mask_of((n,), bits, rate, seed=5), bits).sum(axis=1), minlength=bits + 1)
    expected = n * binom.pmf(np.arange(bits + 1), bits, rate)
    last = int(np.flatnonzero(expected >= 20.0)[-1])
    merged = [*counts[:last], counts[last:].sum()], [*expected[:last], expected[last:].sum()]
    assert chi_square_passes(*merged)


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
    function = tf.function(lambda state: bernoulli_mask((500,), 8, rate, state, max_rate=rate))
    generator = keras.random.SeedGenerator(3)
    counts = np.array([bits_of(function(generator), 8).sum() for _ in range(seeds)])
    deviation = math.sqrt(n * rate * (1 - rate))
    assert abs(counts.mean() - n * rate) <= 5 * deviation / math.sqrt(seeds)
    assert abs(counts.std(ddof=1) / deviation - 1) <= 5 / math.sqrt(2 * seeds)


@pytest.mark.parametrize("distance", [1, 2, 8, 64])
def test_neighbours_are_independent(distance):
    rate = 0.3
    flat = bits_of(mask_of((200_000,), 8, rate, seed=17), 8).reshape(-1)
    both = flat[distance:] * flat[:-distance]
    n = both.size
    # Products of pairs that share a bit are correlated: their long-run variance is q (1 - q) + 2 (p^3 - q^2).
    spread = math.sqrt((rate**2 * (1 - rate**2) + 2 * (rate**3 - rate**4)) / n)
    assert abs(both.mean() - rate**2) <= 5 * spread


@pytest.mark.parametrize("rate", [1e-2, 0.3, 1.0])
@pytest.mark.parametrize("words", [1, 7, 1000, 1001, 50_003])
def test_several_blocks(words, rate):
    bits, block = 7, 1500  # 214 words to a block
    mask = mask_of((words,), bits, rate, seed=2, block_bits=block)
    bit = bits_of(mask, bits)
    if rate == 1.0:
        np.testing.assert_array_equal(mask, 2**bits - 1)
    else:
        assert abs(bit.mean() - rate) <= 5 * math.sqrt(rate * (1 - rate) / bit.size) + (words < 100)
    if words == 50_003 and rate < 1.0:  # each place in a block sees the rate, the last ones too
        per_row = -(-words // -(-words // (block // bits)))
        whole = words // per_row
        rows = bit[: whole * per_row].reshape(whole, per_row, bits).mean(axis=2)
        thirds = [part.mean() for part in np.array_split(rows, 3, axis=1)]
        assert np.allclose(thirds, rate, rtol=0, atol=5 * math.sqrt(rate * (1 - rate) * 3 / bit.size))
        assert not np.array_equal(mask[:per_row], mask[per_row : 2 * per_row])


def test_full_size_blocks_beyond_one():
    words, rate = 5_000_000, 1e-4  # 40 million bits: three blocks
    mask = mask_of((words,), 8, rate, seed=4)
    hit = np.flatnonzero(mask)
    n = words * 8
    assert abs(bits_of(mask[hit], 8).sum() - n * rate) <= 5 * math.sqrt(n * rate)
    assert chi_square_passes(np.histogram(hit, bins=20, range=(0, words))[0], np.full(20, hit.size / 20))


def test_a_rate_far_below_max_rate_leaves_no_wrapped_positions():
    # 2.5 million slots whose gaps are clipped at 16.7 million: an int32 sum of them would wrap 10^4 times.
    mask = np.asarray(bernoulli_mask((2_000_000,), 8, tf.constant(1e-6), 3, max_rate=0.15))
    assert bits_of(mask[mask > 0], 8).sum() <= 16 + 5 * 4


@pytest.mark.parametrize("max_rate", [1e-4, 1e-2, 0.3, 1.0])
@pytest.mark.parametrize("shape", [(33, 71), (40_000,), ()])
def test_eager_graph_and_compiled_draw_the_same_cells(shape, max_rate):
    def draw(rate):
        return bernoulli_mask(shape, 8, rate, 1234, max_rate=max_rate, block_bits=60_000)

    for rate in (max_rate, max_rate / 3):
        eager = np.asarray(draw(rate))
        assert eager.shape == shape and eager.dtype == np.int32
        np.testing.assert_array_equal(eager, np.asarray(draw(tf.constant(rate))))
        for jit in (False, True):
            compiled = tf.function(draw, jit_compile=jit)
            np.testing.assert_array_equal(eager, compiled(tf.constant(rate)).numpy())


@pytest.mark.parametrize("jit", [False, True])
def test_a_batch_whose_size_the_graph_does_not_know(jit):
    function = tf.function(
        lambda x: bernoulli_mask(keras.ops.shape(x), 8, 0.02, 9, max_rate=0.02, block_bits=4096),
        jit_compile=jit,
        input_signature=[tf.TensorSpec((None, 37), "float32")],
    )
    for batch in (0, 1, 300):
        expected = mask_of((batch, 37), 8, 0.02, 9, block_bits=4096)
        np.testing.assert_array_equal(function(tf.zeros((batch, 37))).numpy(), expected)


def test_seeds():
    first, other = mask_of((5000,), 8, 0.01, seed=1), mask_of((5000,), 8, 0.01, seed=2)
    np.testing.assert_array_equal(first, mask_of((5000,), 8, 0.01, seed=1))
    np.testing.assert_array_equal(first, mask_of((5000,), 8, 0.01, seed=np.int64(1)))
    assert np.any(first != other)
    moving, fixed = keras.random.SeedGenerator(1), FixedSeed(1)
    reads = [mask_of((5000,), 8, 0.01, seed=moving) for _ in range(3)]
    assert np.any(reads[0] != reads[1]) and np.any(reads[1] != reads[2])
    chip = [mask_of((5000,), 8, 0.01, seed=fixed) for _ in range(2)]
    np.testing.assert_array_equal(chip[0], chip[1])
    np.testing.assert_array_equal(reads[0], chip[0])


def test_dynamic_rate_has_its_rate_and_nested_faults():
    n = 200_000 * 8
    function = tf.function(lambda rate: bernoulli_mask((200_000,), 8, rate, 6, max_rate=0.05))
    masks = [function(tf.constant(rate)).numpy() for rate in (0.0, 1e-3, 0.02, 0.05, 0.9)]
    for mask, rate in zip(masks, (0.0, 1e-3, 0.02, 0.05, 0.05), strict=True):  # the last is clipped
        assert abs(bits_of(mask, 8).mean() - rate) <= 5 * math.sqrt(rate * (1 - rate) / n)
    for lower, higher in itertools.pairwise(masks):
        np.testing.assert_array_equal(lower & higher, lower)


def test_no_faults_at_rate_zero(monkeypatch):
    np.testing.assert_array_equal(mask_of((100,), 8, 0.0, 3, max_rate=0.3), 0)
    np.testing.assert_array_equal(mask_of((100,), 8, tf.constant(0.0), 3, max_rate=1.0), 0)
    monkeypatch.setattr(faults.random_numbers, "uniform", None)  # a call would fail
    np.testing.assert_array_equal(mask_of((3, 4), 8, 0.0, 3, max_rate=0.0), np.zeros((3, 4)))
    assert all(not np.any(mask) for mask in stuck_masks((5,), 8, 0.0, 0.5, 3, max_rate=0.0))


def test_tiny_rates_draw_no_phantom_faults():
    # 2^-23-spaced uniforms that include 1 would give about 1.2e-7 per slot whatever the rate.
    assert not np.any(mask_of((100_000,), 8, 1e-300, 3))
    assert not np.any(mask_of((100_000,), 8, 5e-324, 3))


@pytest.mark.parametrize("rate", [1e-4, 1e-3, 1e-2])
def test_cost_is_in_faults_not_in_bits(monkeypatch, rate):
    drawn, original = [], faults.random_numbers.uniform

    def counting(shape, seed):
        drawn.append(math.prod(shape))
        return original(shape, seed)

    monkeypatch.setattr(faults.random_numbers, "uniform", counting)
    words, bits = 1_000_000, 8
    mean = words * bits * rate
    mask_of((words,), bits, rate, 1)
    assert drawn == [math.ceil(mean + 7 * math.sqrt(mean) + 20)]
    assert drawn[0] < words * bits * rate * 1.3
    stuck_masks((words,), bits, rate, 0.5, 1, max_rate=rate)
    assert drawn[1] == 2 * drawn[0]


def test_slots_never_run_out_in_practice():
    # Bernstein's bound, checked exactly: P(N > slots) for blocks of many means.
    for block, rate in [(100, 1e-3), (10**4, 1e-4), (10**6, 1e-5), (10**6, 1e-3), (2**24 - 1, 0.3)]:
        slots = faults._layout((block,), 1, rate, 2**24 - 1)[3]
        assert slots == block or binom.sf(slots, block, rate) < 2.3e-11


def test_flip_and_stuck():
    words = np.array([0b1100, 0b1010], "int32")
    assert np.asarray(flip(words, np.array([0b0110, 0], "int32"))).tolist() == [0b1010, 0b1010]
    zeros, ones = np.array([0b0100, 0b0100], "int32"), np.array([0b0001, 0b1000], "int32")
    assert np.asarray(stuck(words, zeros, ones)).tolist() == [0b1001, 0b1010]


@pytest.mark.parametrize("share", [0.0, 0.5, 0.2, 1.0])
@pytest.mark.parametrize("rate", [1e-2, 0.3, 1.0])
def test_stuck_masks(rate, share):
    words, bits = 200_000, 8
    n = words * bits
    zeros, ones = (np.asarray(m) for m in stuck_masks((words,), bits, rate, share, 8, max_rate=rate))
    assert not np.any(zeros & ones)
    np.testing.assert_array_equal(zeros | ones, mask_of((words,), bits, rate, 8))
    for mask, part in ((zeros, rate * (1 - share)), (ones, rate * share)):
        assert np.all(np.abs(bits_of(mask, bits).mean(axis=0) - part) <= 5 * math.sqrt(part * (1 - part) / words))
    # The stuck value has nothing to do with the distance from the last faulty cell, nor with its value.
    faulty = np.flatnonzero(bits_of(zeros | ones, bits).reshape(-1))
    value = bits_of(ones, bits).reshape(-1)[faulty]
    m = faulty.size
    if rate < 1.0 and 0.0 < share < 1.0:
        gaps = np.diff(faulty)
        assert m > rate * n / 2
        assert abs(np.corrcoef(gaps, value[1:])[0, 1]) <= 5 / math.sqrt(m)
        assert abs(np.corrcoef(value[1:], value[:-1])[0, 1]) <= 5 / math.sqrt(m)


def test_stuck_masks_nest_and_compile():
    def draw(rate):
        return stuck_masks((5000,), 8, rate, 0.3, 77, max_rate=0.1)

    whole = [np.asarray(mask) for mask in draw(0.1)]
    for jit in (False, True):
        compiled = tf.function(draw, jit_compile=jit)
        for mask, full in zip(compiled(tf.constant(0.1)), whole, strict=True):
            np.testing.assert_array_equal(mask.numpy(), full)
        for mask, full in zip(compiled(tf.constant(0.04)), whole, strict=True):
            np.testing.assert_array_equal(mask.numpy() & full, mask.numpy())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 0}, "`bits` must be an integer from 1 to 16. Received: bits=0"),
        ({"bits": 8.0}, "Received: bits=8.0"),
        ({"max_rate": 1.5, "rate": 1.0}, r"`max_rate` must be .*\[0, 1\].*Received: max_rate=1\.5"),
        ({"max_rate": math.nan}, "Received: max_rate=nan"),
        ({"max_rate": None}, "Received: max_rate=None"),
        ({"rate": 0.2}, r"`rate` must be in \[0, 0\.1\].*Received: rate=0\.2"),
        ({"rate": -0.1}, r"Received: rate=-0\.1"),
        ({"rate": math.nan}, "Received: rate=nan"),
        ({"block_bits": 4}, r"`block_bits` must be .*Received: block_bits=4"),
        ({"block_bits": 2**24}, "Received: block_bits=16777216"),
        ({"seed": "chip"}, "`seed` must be an integer or a SeedGenerator. Received: seed='chip'"),
    ],
)
def test_bad_arguments(options, message):
    arguments = {"shape": (4,), "bits": 8, "rate": 0.1, "seed": 1, "max_rate": 0.1, **options}
    with pytest.raises(ValueError, match=message):
        bernoulli_mask(**arguments)
    with pytest.raises(ValueError, match=message):
        stuck_masks(**arguments, share_of_ones=0.5)


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_bad_share(share):
    with pytest.raises(ValueError, match=r"`share_of_ones` must be in .* Received: share_of_ones="):
        stuck_masks((4,), 8, 0.1, share, 1, max_rate=0.1)
