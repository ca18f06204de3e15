"""Approximate multipliers that look for the operand's leading one: logarithms, segments, powers of two.

As in `axtrain.noise_models.circuits`, every function maps two arrays of non-negative integers and the
operand widths to the int64 products the circuit computes. A zero operand gives zero in all of them.
"""

from __future__ import annotations

import numpy as np

from .circuits import LARGEST_WIDTH, check_parameter, operands


def leading_one(value: np.ndarray) -> np.ndarray:
    """Position of the most significant set bit, ``floor(log2(value))``; 0 for a value of 0.

    Integer arithmetic: a float32 logarithm would misplace values just below a power of two.

    >>> leading_one(np.array([0, 1, 2, 3, 255, 256])).tolist()
    [0, 0, 1, 1, 7, 8]
    """
    position = np.zeros(np.shape(value), np.int64)
    for bit in range(1, LARGEST_WIDTH):
        position += (value >> bit) > 0
    return position


def mitchell(a, b, bits) -> np.ndarray:
    """Mitchell's logarithmic multiplier: add binary logarithms that are linear between powers of two.

    With ``a = 2^p (1 + x)`` and ``b = 2^q (1 + y)``: ``M = 2^(p+q) (1 + x + y)`` if ``x + y < 1``, else
    ``M = 2^(p+q+1) (x + y)``. Both are integers, nothing is rounded. Never overestimates; the relative error
    lies between -1/9 and 0.

    Args:
        a: integers in ``0..2^a_bits - 1``, any shape.
        b: integers in ``0..2^b_bits - 1``, of a shape that broadcasts with `a`.
        bits: width of both operands, or the pair ``(a_bits, b_bits)``; each 2..16.

    Raises:
        ValueError: if an operand does not fit its width.

    Source: Mitchell 1962.

    >>> int(mitchell(3, 3, 8)), int(mitchell(4, 7, 8))
    (8, 28)
    """
    a, b, _, _ = operands(a, b, bits)
    p, q = leading_one(a), leading_one(b)
    one = np.int64(1) << (p + q)
    # 2^(p+q) (x + y), written without a division.
    fractions = ((a - (1 << p)) << q) + ((b - (1 << q)) << p)
    product = np.where(fractions < one, one + fractions, 2 * fractions)
    return np.where((a == 0) | (b == 0), 0, product)


def drum(a, b, bits, segment_bits: int) -> np.ndarray:
    """DRUM: each operand is cut to the `segment_bits` bits from its leading one on, the lowest set to 1.

    An operand ``>= 2^k`` keeps its k leading bits with the lowest of them set to 1, which makes the error
    nearly unbiased; a smaller one is exact. The two segments are multiplied exactly.

    Args:
        a: see `mitchell`.
        b: see `mitchell`.
        bits: see `mitchell`.
        segment_bits: ``k``, ``1..min(a_bits, b_bits)``.

    Raises:
        ValueError: if an operand does not fit its width or `segment_bits` is out of its range.

    Source: Hashemi, Bahar and Reda 2015.

    >>> int(drum(0b10010110, 1, 8, 4))  # 1001 at weight 16
    144
    """
    a, b, *widths = operands(a, b, bits)
    k = check_parameter("segment_bits", segment_bits, 1, min(widths), (widths[0], widths[1]))

    def segment(value: np.ndarray) -> np.ndarray:
        shift = np.maximum(leading_one(value) - (k - 1), 0)
        return np.where(shift > 0, (value >> shift) | 1, value) << shift

    return segment(a) * segment(b)


def roba(a, b, bits) -> np.ndarray:
    """RoBA: rounding-based multiplier, exact but for the product of the two rounding errors.

    With ``a_r`` and ``b_r`` the operands rounded to the nearest power of two,
    ``M = a_r b + b_r a - a_r b_r``, so ``E = -(a - a_r)(b - b_r)``. A tie ``3 * 2^p`` rounds up, except 3
    itself, which rounds to 2.

    Args:
        a: see `mitchell`.
        b: see `mitchell`.
        bits: see `mitchell`.

    Raises:
        ValueError: if an operand does not fit its width.

    Source: Zendegani et al. 2017.

    >>> int(roba(3, 5, 8))
    14
    """
    a, b, _, _ = operands(a, b, bits)

    def rounded(value: np.ndarray) -> np.ndarray:
        p = leading_one(value)
        up = (2 * value >= 3 << p) & (value > 3)
        return np.where(value == 0, 0, np.int64(1) << (p + up))

    a_rounded, b_rounded = rounded(a), rounded(b)
    return a_rounded * b + b_rounded * a - a_rounded * b_rounded


def ssm(a, b, bits, segment_bits: int) -> np.ndarray:
    """Static segment method: a large operand is cut to its top `segment_bits` bits, a small one is exact.

    An n-bit operand ``>= 2^m`` becomes ``(a >> (n-m)) << (n-m)``; the others stay. The segments are
    multiplied exactly.

    Args:
        a: see `mitchell`.
        b: see `mitchell`.
        bits: see `mitchell`.
        segment_bits: ``m``, ``1..min(a_bits, b_bits)``.

    Raises:
        ValueError: if an operand does not fit its width or `segment_bits` is out of its range.

    Source: Narayanamoorthy et al. 2015.

    >>> int(ssm(0b00010111, 1, 8, 4)), int(ssm(0b00001111, 1, 8, 4))
    (16, 15)
    """
    a, b, *widths = operands(a, b, bits)
    m = check_parameter("segment_bits", segment_bits, 1, min(widths), (widths[0], widths[1]))

    def segment(value: np.ndarray, width: int) -> np.ndarray:
        low = width - m
        return np.where(value >> m > 0, (value >> low) << low, value)

    return segment(a, widths[0]) * segment(b, widths[1])
