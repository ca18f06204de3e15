"""Datapaths: statistics of what accumulators read against closed forms and plain loops."""

import dataclasses
import itertools
import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from axtrain.noise_models.datapath import (
    ILLUSTRATIVE_CHAIN,
    CarryChain,
    DroppedMACs,
    MeasuredDatapath,
    TimingErrors,
    datapath_from_dict,
)
from axtrain.noise_models.residuals import LEVELS, levels_of

TAIL = 2 * 2.87e-7  # two-sided probability beyond 5 standard errors
SKEWED = tuple(levels_of(stats.gamma(2.0).ppf((np.arange(16 * LEVELS) + 0.5) / (16 * LEVELS))).tolist())


def rates_of(bits, rates):
    return [rates.get(bit, 0.0) for bit in range(bits)]


def read(datapath, accumulators, seed=1, **options):
    return np.asarray(datapath.apply(np.asarray(accumulators, np.int32), seed, **options))


def sums(n, bits=20, seed=0):
    return np.random.default_rng(seed).integers(-(2 ** (bits - 1)), 2 ** (bits - 1), n)


DATAPATHS = {
    "bits": TimingErrors(flip_rates=rates_of(24, {0: 0.2, 5: 1e-3, 22: 0.05, 23: 0.3})),
    "voltage": TimingErrors.at_voltage(0.78),
    "dropped": DroppedMACs(rate=0.1, voltage=0.7, nominal_voltage=1.0, source="here"),
    "measured": MeasuredDatapath(error_rate=0.2, bias=-40.0, std=300.0, levels=SKEWED, gain=0.97, voltage=0.6),
    "normal": MeasuredDatapath(error_rate=1.0, bias=3.0, std=50.0),
    "constant": MeasuredDatapath(error_rate=np.float32(0.3), bias=7.0),
}


@pytest.mark.parametrize("bits", [7, 24, 32])
def test_every_bit_flips_at_its_own_rate(bits):
    n = 200_000
    rates = np.linspace(0.01, 0.6, bits)
    rates[[0, bits // 2]] = 0.0
    x = sums(n, bits)
    y = read(TimingErrors(flip_rates=rates, accumulator_bits=bits), x)
    assert y.dtype == np.int32
    flips = (x ^ y) >> np.arange(bits)[:, None] & 1
    share = flips.mean(axis=1)
    assert np.all(np.abs(share - rates) <= 5 * np.sqrt(rates * (1 - rates) / n))
    assert not share[0] and not share[bits // 2]
    # Bits above the width are the sign's: a read stays within it.
    assert y.min() >= -(2 ** (bits - 1)) and y.max() < 2 ** (bits - 1)
    # Independent of each other: the products of neighbours' flips, at 5 standard errors.
    for a, b in itertools.pairwise(range(bits)):
        both = rates[a] * rates[b]
        assert abs((flips[a] & flips[b]).mean() - both) <= 5 * math.sqrt(both * (1 - both) / n)


def test_flips_per_word_are_binomial():
    n, bits, rate = 100_000, 24, 0.08
    x = sums(n, 24, seed=3)
    y = read(TimingErrors(flip_rates=[rate] * bits), x, seed=9)
    count = np.bincount([bin(word).count("1") for word in ((x ^ y) & (2**bits - 1)).tolist()], minlength=bits + 1)
    expected = n * stats.binom.pmf(np.arange(bits + 1), bits, rate)
    last = int(np.flatnonzero(expected >= 20)[-1])
    counts, expected = (np.append(x[:last], x[last:].sum()) for x in (count, expected))
    assert stats.chi2.sf(((counts - expected) ** 2 / expected).sum(), len(counts) - 1) > TAIL


def test_moments_of_timing_errors():
    """n = 200,000 reads of one accumulator, against enumeration and against the closed forms."""
    n, rates = 200_000, [0.3, 0.0, 0.1, 0.2]
    datapath = TimingErrors(flip_rates=rates, accumulator_bits=4)
    for value in (-8, -3, 0, 5):
        mean = square = 0.0
        for flips in itertools.product((0, 1), repeat=4):
            probability = math.prod(p if f else 1 - p for p, f in zip(rates, flips, strict=True))
            word = (value & 15) ^ sum(f << j for j, f in enumerate(flips))
            result = word - 16 if word >= 8 else word
            mean, square = mean + probability * result, square + probability * result**2
        assert datapath.expected(value) == pytest.approx(mean, abs=1e-12)
        assert datapath.variance(value) == pytest.approx(square - mean**2, rel=1e-12)
        y = read(datapath, np.full(n, value))
        assert abs(y.mean() - mean) <= 5 * math.sqrt((square - mean**2) / n)
        assert abs(y.std() / math.sqrt(square - mean**2) - 1) <= 5 / math.sqrt(2 * n) * 1.5  # kurtosis below 3 + 2.5
    assert datapath.error_rate == pytest.approx(1 - 0.7 * 0.9 * 0.8)
    assert datapath.expected([[1, 2]], strength=0.5).shape == datapath.variance([[1, 2]]).shape == (1, 2)
    assert TimingErrors(flip_rates=[1.0, 0.0], accumulator_bits=2).error_rate == 1


@pytest.mark.parametrize("name", DATAPATHS)
def test_reads_have_the_closed_forms_moments(name):
    """n = 200,000 reads at full and at half strength."""
    datapath, n, value = DATAPATHS[name], 200_000, -12_345
    for strength in (1.0, 0.5, tf.constant(0.5)):
        y = read(datapath, np.full(n, value), strength=strength, squares=np.float32(4e5))
        options = {"strength": float(strength)}
        mean = float(datapath.expected(value, **options))
        variance = float(datapath.variance(value, squares=4e5, **options))
        spread = y.astype(float) - mean
        fourth = max((spread**4).mean() - variance**2, 0.0)  # of the sample: the standard error of a variance
        assert abs(spread.mean()) <= 5 * math.sqrt(variance / n) + (0.1 if name == "dropped" else 1e-9)
        assert abs((spread**2).mean() - variance) <= 5 * math.sqrt(fourth / n) + (1 / 6 if name == "dropped" else 1e-6)


@pytest.mark.parametrize("name", DATAPATHS)
def test_no_strength_leaves_integers_alone(name):
    datapath, x = DATAPATHS[name], sums((50, 40))
    for strength in (0, 0.0, tf.constant(0.0), tf.constant(-1.0)):
        y = read(datapath, x, strength=strength, squares=np.full(x.shape, 1e6, np.float32))
        np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize(
    "datapath", [TimingErrors(flip_rates=[0.0] * 24), DroppedMACs(rate=0.0), MeasuredDatapath(error_rate=0.0)]
)
def test_no_faults_draw_nothing(datapath):
    generator, x = keras.random.SeedGenerator(1), sums(1000)
    before = np.asarray(generator.state)
    np.testing.assert_array_equal(read(datapath, x, generator), x)
    np.testing.assert_array_equal(np.asarray(generator.state), before)
    assert not datapath.needs_squares
    np.testing.assert_array_equal(datapath.expected(x), x)
    np.testing.assert_array_equal(datapath.variance(x), 0)


@pytest.mark.parametrize("shape", [(), (33, 5, 3)])
@pytest.mark.parametrize("name", ["bits", "dropped", "measured"])
def test_eager_graph_and_compiled_read_the_same(name, shape):
    datapath, x = DATAPATHS[name], sums(shape or 1, 24).reshape(shape).astype(np.int32)
    squares = np.full(shape, 1e8, np.float32)

    def play(x, squares, strength):
        return datapath.apply(x, 1234, strength=strength, squares=squares)

    eager = np.asarray(play(x, squares, 0.7))
    assert eager.shape == shape and eager.dtype == np.int32
    for jit in (False, True):
        compiled = tf.function(play, jit_compile=jit)(tf.constant(x), tf.constant(squares), tf.constant(0.7))
        np.testing.assert_array_equal(eager, compiled.numpy())


@pytest.mark.parametrize("name", ["bits", "dropped", "measured"])
def test_a_batch_whose_size_the_graph_does_not_know(name):
    datapath = DATAPATHS[name]
    function = tf.function(
        lambda x: datapath.apply(x, 5, squares=tf.cast(x, tf.float32) ** 2),
        input_signature=[tf.TensorSpec((None, 7), "int32")],
    )
    for batch in (1, 40):
        x = sums((batch, 7)).astype(np.int32)
        expected = read(datapath, x, 5, squares=x.astype(np.float32) ** 2)
        np.testing.assert_array_equal(function(tf.constant(x)).numpy(), expected)


def test_streams_and_seeds():
    datapath, x = DATAPATHS["bits"], sums(5000)
    stream = keras.random.SeedGenerator(1)
    first, second = read(datapath, x, stream), read(datapath, x, stream)
    assert np.any(first != second)
    np.testing.assert_array_equal(first, read(datapath, x, keras.random.SeedGenerator(1)))
    np.testing.assert_array_equal(read(datapath, x, 3), read(datapath, x, 3))
    assert np.any(read(datapath, x, 3) != read(datapath, x, 4))


def test_strength_thins_the_same_faults():
    x = sums(50_000)
    flips = [x ^ read(DATAPATHS["bits"], x, strength=s) for s in (0.2, 0.6, 1.0)]
    for lower, higher in itertools.pairwise(flips):
        np.testing.assert_array_equal(lower & higher, lower)
        assert np.count_nonzero(higher) > np.count_nonzero(lower)
    np.testing.assert_array_equal(
        read(DATAPATHS["bits"], x, strength=tf.constant(1.5)), read(DATAPATHS["bits"], x, strength=1.0)
    )


@pytest.mark.parametrize("strength", [0, 1.0, tf.constant(0.0)])
@pytest.mark.parametrize("rate", [0.0, 1e-9])  # of every second bit; a flip is seen once in 10^7 runs
def test_sums_beyond_the_width_wrap(strength, rate):
    """As an accumulator of that width does, at any strength; sums that fit stay."""
    datapath = TimingErrors(flip_rates=[rate, 0.0] * 4, accumulator_bits=8)
    x = np.array([127, 128, -128, -129, 255, 256, 1000, -(2**31), 2**31 - 1])
    np.testing.assert_array_equal(read(datapath, x, strength=strength), (x + 128) % 256 - 128)
    np.testing.assert_array_equal(datapath.expected(x, strength=0.0), (x + 128) % 256 - 128)
    wide = TimingErrors(flip_rates=rates_of(32, {31: rate}), accumulator_bits=32)
    np.testing.assert_array_equal(read(wide, x, strength=strength), x)


def test_the_top_bit_flips_the_sign():
    for bits in (8, 24, 32):
        datapath = TimingErrors(flip_rates=rates_of(bits, {bits - 1: 1.0}), accumulator_bits=bits)
        top = 2 ** (bits - 1)
        np.testing.assert_array_equal(read(datapath, [5, -1, 0, top - 1]), [5 - top, top - 1, -top, -1])


def test_dropped_macs_against_a_loop_that_drops_products():
    """n = 40,000 outputs of K = 300 products of which 5 % are dropped: moments and shape."""
    n, terms, rate = 40_000, 300, 0.05
    rng = np.random.default_rng(0)
    products = rng.integers(0, 256, terms) * rng.integers(-128, 128, terms)
    simulated = np.empty(n)
    for i in range(n):
        kept = rng.random(terms) >= rate
        simulated[i] = products[kept].sum()
    datapath, squares = DroppedMACs(rate=rate), np.float32((products.astype(float) ** 2).sum())
    assert datapath.needs_squares
    y = read(datapath, np.full(n, products.sum()), squares=squares).astype(float)
    variance = float(datapath.variance(products.sum(), squares=squares))
    assert variance == pytest.approx(rate * (1 - rate) * float(squares))
    for values in (simulated, y):
        assert abs(values.mean() - float(datapath.expected(products.sum()))) <= 5 * math.sqrt(variance / n)
        assert abs(values.std() / math.sqrt(variance) - 1) <= 5 / math.sqrt(2 * n)
    # Fifteen dropped products are normal to about 0.02; two samples of n differ by 1.95 sqrt(2 / n) = 0.014 at 0.1 %.
    assert stats.ks_2samp(simulated, y).statistic < 0.034


def test_dropped_macs_scale_with_each_outputs_squares():
    n = 100_000
    squares = np.repeat(np.float32([0.0, 1e4, 1e8]), n).reshape(3, n)
    y = read(DroppedMACs(rate=0.2), np.zeros((3, n), int), squares=squares)
    assert not y[0].any()
    for row, total in ((y[1], 1e4), (y[2], 1e8)):
        assert abs(row.std() / math.sqrt(0.16 * total) - 1) <= 5 / math.sqrt(2 * n)


def test_residuals_have_the_measured_shape():
    """n = 200,000: 0.2 of them wrong, by a shifted gamma of shape 2."""
    n = 200_000
    datapath = MeasuredDatapath(error_rate=0.2, bias=5000.0, std=1000.0, levels=SKEWED)
    y = read(datapath, np.zeros(n, int))
    wrong = y[y != 0]
    assert abs(len(wrong) / n - 0.2) <= 5 * math.sqrt(0.2 * 0.8 / n)
    standard = (wrong - 5000.0) / 1000.0
    # 1024 levels are within 1e-3 of the distribution; a sample of 40,000 is within 1.95 / 200 at 0.1 %.
    law = stats.gamma(2.0, loc=-math.sqrt(2.0), scale=math.sqrt(0.5))
    assert stats.kstest(standard, law.cdf).statistic < 1e-3 + 1.95 / math.sqrt(len(wrong))
    assert stats.kstest(standard, "norm").statistic > 0.05
    # Whether a result is wrong says nothing of its residual: no part of the shape is missing at a low strength.
    weak = read(datapath, np.zeros(n, int), strength=0.1)
    assert stats.kstest((weak[weak != 0] - 5000.0) / 1000.0, law.cdf).statistic < 1e-3 + 1.95 / math.sqrt(3500)


def test_gain():
    x = np.array([-1000, -50, 0, 49, 51, 8_000_000])
    datapath = MeasuredDatapath(error_rate=0.0, gain=0.99)
    np.testing.assert_array_equal(read(datapath, x), [-990, -50, 0, 49, 50, 7_920_000])
    np.testing.assert_array_equal(datapath.expected(x), read(datapath, x))
    np.testing.assert_array_equal(datapath.gained(x, strength=0.5), [-995, -50, 0, 49, 51, 7_960_000])
    np.testing.assert_array_equal(read(datapath, x, strength=0.5), datapath.gained(x, strength=0.5))


def test_a_carry_chain_fails_from_the_top_and_more_at_lower_voltage():
    voltages = np.linspace(0.4, 1.0, 25)
    rates = np.array([ILLUSTRATIVE_CHAIN.miss_rates(v, 24) for v in voltages])
    assert np.all(np.diff(rates, axis=0) <= 0) and np.all(np.diff(rates, axis=1) >= 0)
    moving = (rates[:-1] > 0) & (rates[:-1] < 0.0999)
    assert moving.sum() > 50 and np.all(np.diff(rates, axis=0)[moving] < 0)
    assert not rates[-1].any() and np.all(rates <= 0.1)
    delays = [ILLUSTRATIVE_CHAIN.relative_delay(v) for v in voltages]
    assert np.all(np.diff(delays) < 0) and delays[-1] == 1


def test_a_carry_chain_by_hand():
    chain = dataclasses.replace(ILLUSTRATIVE_CHAIN, alpha=2.0, threshold_voltage=0.5, activity=0.5)
    # d = (0.75 / 0.25^2) / (1 / 0.5^2) = 3: bit 10 takes 400 * 3 of 1000 ps, deviation 90 ps.
    assert chain.relative_delay(0.75) == pytest.approx(3.0)
    rates = chain.miss_rates(0.75, 12)
    assert rates[10] == pytest.approx(0.5 * stats.norm.cdf(200 / 90))
    datapath = TimingErrors.at_voltage(0.75, chain, 12)
    assert datapath.flip_rates == rates and datapath.voltage == 0.75 and datapath.nominal_voltage == 1.0
    assert datapath.source == "illustrative, chosen here"
    dropped = DroppedMACs.at_voltage(0.75, chain, 12)
    assert dropped.rate == rates[11] and dropped.voltage == 0.75 and dropped.nominal_voltage == 1.0


@pytest.mark.parametrize("name", DATAPATHS)
def test_json_round_trip(name):
    datapath = DATAPATHS[name]
    config = json.loads(json.dumps(datapath.to_dict()))
    assert config == datapath.to_dict()
    again = datapath_from_dict(config)
    assert again == datapath and hash(again) == hash(datapath) and type(again) is type(datapath)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TimingErrors(flip_rates=[0.1] * 23), "one rate for each of 24 bits.*Received: 23 rates"),
        (lambda: TimingErrors(flip_rates=[0.1, 1.1], accumulator_bits=2), r"flip_rates\[1\].*1\.1"),
        (lambda: TimingErrors(flip_rates=[0.1] * 33, accumulator_bits=33), "2 to 32.*33"),
        (lambda: TimingErrors(flip_rates=[0.1] * 2, accumulator_bits=2, voltage=-1.0), "voltage.*-1.0"),
        (lambda: DroppedMACs(rate=float("nan")), "rate.*nan"),
        (lambda: DroppedMACs(rate=0.1, voltage=1.0, nominal_voltage=0.8), "must not exceed"),
        (lambda: MeasuredDatapath(error_rate=1.5), "error_rate.*1.5"),
        (lambda: MeasuredDatapath(error_rate=0.5, std=-1.0), "std.*-1"),
        (lambda: MeasuredDatapath(error_rate=0.5, gain=0.0), "gain.*0"),
        (lambda: MeasuredDatapath(error_rate=0.5, bias=3e9), "fit in int32.*3e"),
        (lambda: MeasuredDatapath(error_rate=0.5, levels=(1.0, 2.0)), "1024 ascending.*Received: 2 levels"),
        (lambda: MeasuredDatapath(error_rate=0.5, levels=SKEWED[::-1]), "ascending"),
        (lambda: datapath_from_dict({"kind": "nonsense"}), "kind.*nonsense"),
        (lambda: datapath_from_dict({"kind": "dropped_macs", "rate": 0.1, "bits": 3}), "entries.*bits"),
        (lambda: TimingErrors.at_voltage(0.3), "above the threshold, 0.35 V.*0.3"),
        (lambda: TimingErrors.at_voltage(1.2), "at most nominal, 1.0 V.*1.2"),
        (lambda: dataclasses.replace(ILLUSTRATIVE_CHAIN, activity=0.0), "activity.*0"),
        (lambda: dataclasses.replace(ILLUSTRATIVE_CHAIN, clock_period_ps=-5.0), "clock_period_ps.*ps.*-5"),
        (lambda: dataclasses.replace(ILLUSTRATIVE_CHAIN, nominal_voltage=0.3), "above threshold_voltage=0.35.*0.3"),
        (lambda: DroppedMACs(rate=0.1).apply([1], 0), "needs `squares`.*None"),
        (lambda: DroppedMACs(rate=0.1).variance([1]), "needs `squares`.*None"),
        (lambda: DATAPATHS["bits"].apply([1], 0, strength=1.5), "strength.*1.5"),
        (lambda: DATAPATHS["bits"].expected([1], strength=-0.5), "strength.*-0.5"),
        (lambda: DATAPATHS["bits"].apply([1], "seed"), "seed.*SeedGenerator"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        make()


def test_a_chain_needs_every_number():
    with pytest.raises(TypeError, match="base_delay_ps"):
        CarryChain()
