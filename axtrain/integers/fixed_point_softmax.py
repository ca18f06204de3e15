"""Softmax of int8 codes in gemmlowp's fixed-point arithmetic, as LiteRT's reference kernel computes it.

A code's difference d from the row's largest is rescaled to 26 fraction bits, exp(d) is a polynomial on [-1/4, 0)
times constants for the bits above, and 1 / sum is three Newton-Raphson steps. Source: tflite
kernels/internal/reference/softmax.h and gemmlowp fixedpoint.h. ``Qm`` below is an int32 of m integer bits.
"""

from __future__ import annotations

import math

import numpy as np

from axtrain.integers.requantisation import (
    HIGHEST,
    divided_by_power,
    doubling_high_product,
    multiplied,
    quantised_multiplier,
    saturated,
)

_DIFFERENCE_BITS = 5  # integer bits of the rescaled difference: exp(-32) is nothing
_SUM_BITS = 12  # integer bits of the sum: up to 4,096 classes of equal codes
_EXPONENTIALS = {  # power of two p: exp(-2^p) in Q0
    -2: 1672461947,
    -1: 1302514674,
    0: 790015084,
    1: 290630308,
    2: 39332535,
    3: 720401,
    4: 242,
}


def input_multiplier(scale: float) -> tuple[int, int]:
    """(factor, shift) that takes a difference of codes to Q5, for an input of that scale."""
    return quantised_multiplier(min(scale * (1 << (31 - _DIFFERENCE_BITS)), HIGHEST))


def softmax_codes(codes: np.ndarray, scale: float) -> np.ndarray:
    """int8 codes of the softmax over the last axis: scale 1/256, zero point -128.

    Args:
        codes: int8, any shape.
        scale: of the codes, real value of one step.

    Examples:
        >>> softmax_codes(np.array([[0, 0]], np.int8), 0.1).tolist()
        [[0, 0]]
    """
    factor, shift = input_multiplier(scale)
    values = codes.astype(np.int64)
    difference = values - values.max(-1, keepdims=True)
    largest = ((1 << _DIFFERENCE_BITS) - 1) * (1 << (31 - _DIFFERENCE_BITS)) / 2.0**shift
    seen = difference >= -math.floor(largest)
    exponential = exp_of_negative(multiplied(np.where(seen, difference, 0), factor, shift))
    total = np.where(seen, divided_by_power(exponential, _SUM_BITS), 0).sum(-1, keepdims=True)
    headroom = 32 - np.frexp(total.astype(np.float64))[1]  # leading zeros of 32 bits
    reciprocal = _reciprocal_of_one_plus((total << headroom) - (1 << 31))
    bits_over_unit = _SUM_BITS - headroom
    found = divided_by_power(doubling_high_product(reciprocal, exponential), bits_over_unit + 31 - 8) - 128
    return np.where(seen, np.clip(found, -128, 127), -128).astype(np.int8)


def exp_of_negative(values: np.ndarray) -> np.ndarray:
    """exp of Q5 values <= 0, in Q0."""
    quarter = 1 << (31 - _DIFFERENCE_BITS - 2)
    within = (values & (quarter - 1)) - quarter
    result = _exp_near_zero(saturated(within << _DIFFERENCE_BITS))
    remainder = within - values
    for power, constant in _EXPONENTIALS.items():
        bit = 1 << (31 - _DIFFERENCE_BITS + power)
        result = np.where(remainder & bit, doubling_high_product(result, constant), result)
    return np.where(values == 0, HIGHEST, result)


def _exp_near_zero(values: np.ndarray) -> np.ndarray:
    """exp on [-1/4, 0) in Q0: the Taylor polynomial of degree 4 about -1/8."""
    at_minus_eighth, third = 1895147668, 715827883
    x = values + (1 << 28)
    x2 = doubling_high_product(x, x)
    x3, x4 = doubling_high_product(x2, x), doubling_high_product(x2, x2)
    rest = divided_by_power(doubling_high_product(divided_by_power(x4, 2) + x3, third) + x2, 1)
    return at_minus_eighth + doubling_high_product(at_minus_eighth, x + rest)


def _reciprocal_of_one_plus(values: np.ndarray) -> np.ndarray:
    """1 / (1 + a) of Q0 values in [0, 1), in Q0: Newton-Raphson for the reciprocal of half of it, in Q2."""
    half = (values + HIGHEST + 1) // 2  # both are >= 0
    x = 1515870810 + doubling_high_product(half, -1010580540)  # 48/17 - 32/17 half
    for _ in range(3):
        missing = (1 << 29) - doubling_high_product(half, x)
        x = x + saturated(doubling_high_product(x, missing) << 2)
    return saturated(x << 1)
