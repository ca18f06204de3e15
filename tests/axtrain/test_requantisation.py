"""LiteRT's fixed-point arithmetic against plain integer loops written from gemmlowp's C++."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from axtrain.integers.fixed_point_softmax import softmax_codes
from axtrain.integers.requantisation import (
    clamp_codes,
    divided_by_power,
    doubling_high_product,
    multiplied,
    multiplied_once,
    quantised_multiplier,
)

LOWEST, HIGHEST = -(2**31), 2**31 - 1
words = st.integers(LOWEST, HIGHEST) | st.sampled_from([LOWEST, LOWEST + 1, -1, 0, 1, HIGHEST - 1, HIGHEST])
factors = st.integers(2**30, HIGHEST)


def truncated(numerator, denominator):
    """C's integer division."""
    return abs(numerator) // denominator * (1 if numerator >= 0 else -1)


def high_product(a, b):
    if a == b == LOWEST:
        return HIGHEST
    return truncated(a * b + (2**30 if a * b >= 0 else 1 - 2**30), 2**31)


def power_divided(x, exponent):
    mask = 2**exponent - 1
    threshold = (mask >> 1) + (1 if x < 0 else 0)
    return (x >> exponent) + (1 if (x & mask) > threshold else 0)


def wrapped(x):
    return (x - LOWEST) % 2**32 + LOWEST


@given(words, words)
def test_doubling_high_product(a, b):
    assert doubling_high_product(a, b) == high_product(a, b)


@given(words, st.integers(0, 31))
def test_division_by_a_power_of_two(x, exponent):
    assert divided_by_power(x, exponent) == power_divided(x, exponent)
    exact = abs(x) / 2**exponent
    assert divided_by_power(x, exponent) == math.copysign(math.floor(exact + 0.5), x)  # ties away from zero


def test_halves_go_away_from_zero():
    """Every tie of small quotients at every exponent, and every word about zero: drawn words seldom meet a tie."""
    for exponent in range(1, 32):
        odd = [k for k in range(-9, 10, 2) if LOWEST <= k << exponent <= HIGHEST]
        ties = np.array(odd) << (exponent - 1)
        away = [(k + 1) // 2 if k > 0 else k // 2 for k in odd]  # k / 2, so -3 / 2 becomes -2
        np.testing.assert_array_equal(divided_by_power(ties, exponent), away)
        np.testing.assert_array_equal(multiplied(2 * ties, 2**30, -exponent), away)  # a factor of 1/2 is exact
        near = np.arange(-130, 131)
        np.testing.assert_array_equal(divided_by_power(near, exponent), [power_divided(x, exponent) for x in near])
    # The high product alone has ties of its own: up where the product is positive, and truncation where it is not.
    assert doubling_high_product([1, -1, 3, -3], 2**30).tolist() == [high_product(x, 2**30) for x in (1, -1, 3, -3)]
    assert multiplied_once([1, -1, 3, -3], 2**30, 0).tolist() == [1, 0, 2, -1]  # a single rounding goes half up


@given(words, factors, st.integers(-31, 30))
def test_two_roundings(x, factor, shift):
    expected = power_divided(high_product(wrapped(x << max(shift, 0)), factor), max(-shift, 0))
    assert multiplied(x, factor, shift) == expected


@given(words, factors, st.integers(-31, 30))
def test_one_rounding(x, factor, shift):
    places = 31 - shift
    expected = (x * factor + 2 ** (places - 1)) >> places
    assert multiplied_once(x, factor, shift) == min(max(expected, LOWEST), HIGHEST)


@given(st.floats(2.0**-31, 2.0**30, allow_nan=False))
def test_a_multiplier_is_within_half_a_step(real):
    factor, shift = quantised_multiplier(real)
    assert 2**30 <= factor < 2**31
    assert abs(factor * 2.0 ** (shift - 31) - real) <= 2.0 ** (shift - 32)


def test_the_corners_of_multipliers():
    assert quantised_multiplier(0.0) == (0, 0)
    assert quantised_multiplier(1.0) == (2**30, 1)
    assert quantised_multiplier(1 - 2.0**-40) == (2**30, 1)  # rounds up to 1, whose factor would be 2^31
    assert quantised_multiplier(2.0**-32) == (2**30, -31)
    assert quantised_multiplier(2.0**-33) == (0, 0)
    for bad in (-1.0, math.nan, math.inf, 2.0**31):
        with pytest.raises(ValueError, match=r"from 0 to below 2\^31. Received"):
            quantised_multiplier(bad)


def test_arrays_broadcast_over_channels():
    sums = np.arange(-6, 6).reshape(4, 3) * 12345
    factor, shift = np.array([2**30, 2**30 + 7, HIGHEST]), np.array([-3, 0, 2])
    for rule, plain in ((multiplied, test_two_roundings), (multiplied_once, test_one_rounding)):
        found = rule(sums, factor, shift)
        for row, channel in np.ndindex(sums.shape):
            inner = plain.hypothesis.inner_test
            inner(int(sums[row, channel]), int(factor[channel]), int(shift[channel]))
            assert found[row, channel] == rule(int(sums[row, channel]), int(factor[channel]), int(shift[channel]))


@given(st.lists(st.integers(-128, 127), min_size=1, max_size=20), st.floats(1e-3, 30))
def test_softmax_is_within_a_step_of_the_real_one(codes, scale):
    codes = np.array(codes, np.int8)
    real = np.exp((codes.astype(float) - codes.max()) * scale)
    found = (softmax_codes(codes, scale).astype(float) + 128) / 256
    assert np.abs(found - real / real.sum()).max() <= 1.01 / 256


def test_clamps():
    assert clamp_codes(0, math.inf, 0.1, -128) == (-128, 127)
    assert clamp_codes(0, 6, 0.1, -10) == (-10, 50)
    assert clamp_codes(-1, 1, 0.4, 3) == (3 - 3, 3 + 3)  # 2.5 steps: away from zero
    assert clamp_codes(0, 6, 0.001, 0) == (0, 127)
