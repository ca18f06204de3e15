"""LiteRT's fixed-point arithmetic, bit by bit, on NumPy arrays: how an int32 sum becomes an int8 code.

A real multiplier M is ``factor * 2^(shift - 31)`` with ``2^30 <= factor < 2^31``. Source: gemmlowp, fixedpoint.h, and
LiteRT's reference kernels (tflite/kernels/internal/common.h); Jacob et al. 2018, section 2.2. Which kernel rounds
twice and which once was found by running ai-edge-litert 2.3 (tests/axtrain/test_litert.py holds it to that).
Everything is computed in int64, where no product of two int32 overflows.
"""

from __future__ import annotations

import math

import numpy as np

LOWEST, HIGHEST = -(1 << 31), (1 << 31) - 1


def quantised_multiplier(real: float) -> tuple[int, int]:
    """(factor, shift) of a real multiplier, ``real ~ factor * 2^(shift - 31)``.

    Args:
        real: >= 0 and finite, below 2^31.

    Returns:
        factor 0 or from 2^30 to 2^31 - 1, and shift. A multiplier below 2^-32 becomes 0, as no sum would show it.

    Raises:
        ValueError: negative, not finite, or 2^31 and more.

    Examples:
        >>> quantised_multiplier(0.75)
        (1610612736, 0)
    """
    if not math.isfinite(real) or real < 0 or real >= 1 << 31:
        raise ValueError(f"A multiplier must be a number from 0 to below 2^31. Received: {real!r}")
    if real == 0:
        return 0, 0
    fraction, shift = math.frexp(real)
    factor = math.floor(fraction * (1 << 31) + 0.5)
    if factor == 1 << 31:  # rounded up to 1: the edge case
        factor, shift = factor // 2, shift + 1
    return (0, 0) if shift < -31 else (factor, shift)


def quantised_multipliers(reals) -> tuple[np.ndarray, np.ndarray]:
    """`quantised_multiplier` of each of an array's float64: two int32 arrays."""
    pairs = [quantised_multiplier(float(real)) for real in np.ravel(reals)]
    return tuple(np.array(column, np.int32) for column in zip(*pairs, strict=True))  # type: ignore[return-value]


def saturated(values) -> np.ndarray:
    """int64 values, those beyond int32 put to its ends."""
    return np.clip(np.asarray(values, np.int64), LOWEST, HIGHEST)


def doubling_high_product(a, b) -> np.ndarray:
    """int64 ``round(a b / 2^31)`` of int32 values, ties towards positive infinity for a positive product.

    gemmlowp's SaturatingRoundingDoublingHighMul: ``(a b + nudge) / 2^31`` truncated, nudge 2^30 or 1 - 2^30 by the
    sign of the product; -2^31 squared saturates.
    """
    product = np.asarray(a, np.int64) * np.asarray(b, np.int64)
    nudged = product + np.where(product >= 0, 1 << 30, 1 - (1 << 30))
    # Shifting rounds down; C's division truncates.
    return np.minimum(np.where(nudged >= 0, nudged >> 31, -(-nudged >> 31)), HIGHEST)


def divided_by_power(values, exponent) -> np.ndarray:
    """int64 ``values / 2^exponent``, ties away from zero: gemmlowp's RoundingDivideByPOT.

    Args:
        values: int32 range.
        exponent: 0 to 31, an int or an array.
    """
    values, exponent = np.asarray(values, np.int64), np.asarray(exponent, np.int64)
    mask = (np.int64(1) << exponent) - 1
    threshold = (mask >> 1) + (values < 0)
    return (values >> exponent) + ((values & mask) > threshold)


def multiplied(values, factor, shift) -> np.ndarray:
    """int64 ``values * factor * 2^(shift - 31)`` with LiteRT's two roundings.

    Args:
        values: int32 sums. Where `shift` is positive they are shifted left first, and wrap at 32 bits as C's do.
        factor, shift: ints, or arrays that broadcast against `values`.

    Examples:
        >>> multiplied([-5, 5], *quantised_multiplier(0.25)).tolist()
        [-1, 2]
    """
    values, shift = np.asarray(values, np.int64), np.asarray(shift, np.int64)
    shifted = (values << np.maximum(shift, 0)).astype(np.int32)
    return divided_by_power(doubling_high_product(shifted, factor), np.maximum(-shift, 0))


def multiplied_once(values, factor, shift) -> np.ndarray:
    """int64 ``values * factor * 2^(shift - 31)`` with one rounding, half up, saturated at 32 bits.

    What LiteRT's FULLY_CONNECTED does, where its convolutions keep the two roundings of `multiplied`.

    Args:
        values: int32 sums.
        factor, shift: ints, or arrays that broadcast against `values`.

    Examples:
        >>> multiplied_once([-5, 5], *quantised_multiplier(0.25)).tolist()
        [-1, 1]
    """
    places = 31 - np.asarray(shift, np.int64)
    product = np.asarray(values, np.int64) * np.asarray(factor, np.int64)
    half = np.where(places > 0, np.int64(1) << np.maximum(places - 1, 0), 0)
    return saturated((product + half) >> places)


def rounded_half_away(values) -> np.ndarray:
    """float64 values to whole numbers, ties away from zero, as C's `round`."""
    values = np.asarray(values, np.float64)
    return np.trunc(values + np.copysign(0.5, values))


def product_multipliers(input_scale: float, weight_scale, output_scale: float) -> tuple[np.ndarray, np.ndarray]:
    """(factor, shift) arrays of ``s_in s_w / s_out`` for each output channel, in float64 as LiteRT divides."""
    real = np.float64(np.float32(input_scale)) * np.asarray(weight_scale, np.float32).astype(np.float64)
    return quantised_multipliers(real / np.float64(np.float32(output_scale)))


def addition_multipliers(input_scales: tuple[float, float], output_scale: float) -> tuple[list, tuple[int, int]]:
    """[(factor, shift) of each input], (factor, shift) of the sum; see `axtrain.integers.network.Addition`."""
    scales = [float(np.float32(scale)) for scale in input_scales]
    common = 2 * max(scales)
    last = quantised_multiplier(common / ((1 << 20) * float(np.float32(output_scale))))
    return [quantised_multiplier(scale / common) for scale in scales], last


def rescaling_multiplier(input_scale: float, output_scale: float, *, clamped: bool) -> tuple[int, int]:
    """(factor, shift) of ``s_in / s_out``: in float64 as LiteRT's QUANTIZE divides, in float32 as its RELU does."""
    single = np.float32(input_scale), np.float32(output_scale)
    return quantised_multiplier(float(single[0] / single[1]) if clamped else float(single[0]) / float(single[1]))


def clamp_codes(lowest: float, highest: float, scale: float, zero_point: int) -> tuple[int, int]:
    """The codes between which an activation function holds its output: a ReLU's are (0, infinity).

    ``z + round(bound / s)`` within -128 to 127, the division in float32, ties away from zero.
    """
    ends = []
    for bound, code in ((lowest, -128), (highest, 127)):
        if math.isfinite(bound):
            steps = rounded_half_away(np.float32(bound) / np.float32(scale))
            code = int(np.clip(steps + zero_point, -128, 127))
        ends.append(code)
    return ends[0], ends[1]
