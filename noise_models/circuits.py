"""Array-type approximate multipliers: some cells of the partial-product array are dropped or simplified.

Every function maps two arrays of non-negative integers (broadcast against each other) and the operand
widths to the int64 products the circuit computes. Signed operands are the caller's business, see
`axtrain.noise_models.multipliers.sign_magnitude`.
"""

from __future__ import annotations

import operator

import numpy as np

LARGEST_WIDTH = 16
"""Widest operand the families are computed for: products of 16 by 16 bits are exact in int64 throughout."""


def operand_widths(bits: int | tuple[int, int], *, smallest: int = 2, largest: int = LARGEST_WIDTH) -> tuple[int, int]:
    """Return ``(activation_bits, weight_bits)`` from one width for both operands or a pair of widths.

    Raises:
        ValueError: if `bits` is neither an integer nor a pair of integers in ``smallest..largest``.

    >>> operand_widths(8), operand_widths((4, 8))
    ((8, 8), (4, 8))
    """
    pair = tuple(bits) if isinstance(bits, (tuple, list)) else (bits, bits)
    try:
        # `True` is an integer to Python, but nobody means one bit by it.
        widths = tuple(operator.index(b) for b in pair if not isinstance(b, (bool, np.bool_)))
    except TypeError:
        widths = ()
    if len(pair) != 2 or len(widths) != 2 or not all(smallest <= w <= largest for w in widths):
        raise ValueError(
            f"`bits` must be an integer in {smallest}..{largest}, or a pair (activation_bits, weight_bits) "
            f"of such integers. Received: bits={bits!r}"
        )
    return widths[0], widths[1]


def operands(a, b, bits: int | tuple[int, int]) -> tuple[np.ndarray, np.ndarray, int, int]:
    """Check two operands against their widths; return them as int64 with ``(a_bits, b_bits)``.

    Raises:
        ValueError: if an operand is not of integers in ``0..2^bits - 1``.
    """
    a_bits, b_bits = operand_widths(bits)
    checked = []
    for argument, value, width in (("a", a, a_bits), ("b", b, b_bits)):
        array = np.asarray(value)
        if array.dtype.kind not in "iu" or (array.size and (array.min() < 0 or array.max() >> width)):
            raise ValueError(
                f"`{argument}` must hold integers in 0..{2**width - 1} ({width} bits); pass the magnitude of "
                f"signed operands. Received: {argument}={value!r}"
            )
        checked.append(array.astype(np.int64))
    return checked[0], checked[1], a_bits, b_bits


def check_parameter(name: str, value: int, smallest: int, largest: int, bits: tuple[int, int]) -> int:
    """Return a circuit's parameter as `int`, or raise ValueError where the circuit would not exist."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise ValueError(f"`{name}` must be an integer. Received: {name}={value!r}")
    if not smallest <= value <= largest:
        raise ValueError(
            f"`{name}` must lie in {smallest}..{largest} for operands of {bits[0]} and {bits[1]} bits. "
            f"Received: {name}={value}"
        )
    return int(value)


def exact(a, b, bits) -> np.ndarray:
    """The exact product ``a * b``.

    Args:
        a: integers in ``0..2^a_bits - 1``, any shape.
        b: integers in ``0..2^b_bits - 1``, of a shape that broadcasts with `a`.
        bits: width of both operands, or the pair ``(a_bits, b_bits)``; each 2..16.

    Raises:
        ValueError: if an operand does not fit its width.
    """
    a, b, _, _ = operands(a, b, bits)
    return a * b


def truncated(a, b, bits, columns: int) -> np.ndarray:
    """Fixed-width truncation: the partial-product cells of the `columns` lowest columns are left out.

    ``M = sum over i + j >= columns of a_i b_j 2^(i+j)``. For ``columns <= n`` on n-bit operands the mean
    error is ``-(1/4) sum_{c < columns} (c+1) 2^c``.

    Args:
        a: see `exact`.
        b: see `exact`.
        bits: see `exact`.
        columns: number of dropped columns, ``0..a_bits + b_bits - 2`` (at least one cell remains).

    Raises:
        ValueError: if an operand does not fit its width or `columns` is out of its range.

    Source: truncated multipliers, e.g. Schulte and Swartzlander 1993, here without correction constant.

    >>> int(truncated(255, 255, 8, 4))  # 65025 less the 49 of the ten dropped cells
    64976
    """
    widths = operand_widths(bits)
    columns = check_parameter("columns", columns, 0, sum(widths) - 2, widths)
    return broken_array(a, b, bits, 0, columns)


def operand_truncated(a, b, bits, dropped_bits: int) -> np.ndarray:
    """Operand truncation: the `dropped_bits` least significant bits of both operands read as zero.

    ``M = 2^(2k) floor(a / 2^k) floor(b / 2^k)`` with ``k = dropped_bits``.

    Args:
        a: see `exact`.
        b: see `exact`.
        bits: see `exact`.
        dropped_bits: ``0..min(a_bits, b_bits) - 1``.

    Raises:
        ValueError: if an operand does not fit its width or `dropped_bits` is out of its range.
    """
    a, b, *widths = operands(a, b, bits)
    k = check_parameter("dropped_bits", dropped_bits, 0, min(widths) - 1, (widths[0], widths[1]))
    return ((a >> k) * (b >> k)) << (2 * k)


def broken_array(a, b, bits, horizontal: int, vertical: int) -> np.ndarray:
    """Broken-array multiplier: carry-save cells beyond a horizontal and a vertical break are left out.

    The partial product of bit i of `a` and bit j of `b` is dropped if ``i < horizontal`` (a whole row) or
    ``i + j < vertical`` (a column). Not symmetric in its operands where ``horizontal > 0``.

    Args:
        a: see `exact`.
        b: see `exact`.
        bits: see `exact`.
        horizontal: horizontal break level (HBL), ``0..a_bits - 1``.
        vertical: vertical break level (VBL), ``0..a_bits + b_bits - 2``.

    Raises:
        ValueError: if an operand does not fit its width or a break level is out of its range.

    Source: Mahdiani, Ahmadi, Fakhraie and Lucas 2010 (bio-inspired imprecise computational blocks).
    """
    a, b, a_bits, b_bits = operands(a, b, bits)
    horizontal = check_parameter("horizontal", horizontal, 0, a_bits - 1, (a_bits, b_bits))
    vertical = check_parameter("vertical", vertical, 0, a_bits + b_bits - 2, (a_bits, b_bits))
    product = np.zeros(np.broadcast_shapes(a.shape, b.shape), np.int64)
    for i in range(horizontal, a_bits):
        # In the row of a's bit i, the cells of b's bits below `cut` stand right of the vertical break.
        cut = max(0, vertical - i)
        product += ((a >> i) & 1) * ((b >> cut) << (cut + i))
    return product


def kept_cells(bits, horizontal: int = 0, vertical: int = 0) -> int:
    """Count the partial-product cells that a broken array keeps, out of ``a_bits * b_bits``.

    >>> kept_cells(8), kept_cells(8, vertical=4), kept_cells(8, horizontal=2)
    (64, 54, 48)
    """
    a_bits, b_bits = operand_widths(bits)
    return sum(i + j >= vertical for i in range(horizontal, a_bits) for j in range(b_bits))


def kulkarni(a, b, bits) -> np.ndarray:
    """The underdesigned multiplier: built from 2x2 blocks that are right but for ``3 * 3 = 7``.

    The blocks' outputs are added exactly, so only block pairs of two 3s err, each by -2 at its weight:
    ``M = a*b - 2 T(a) T(b)`` with ``T(x) = sum over base-4 digits d_i = 3 of 4^i``. Odd widths are padded
    with a leading zero, which no block notices.

    Args:
        a: see `exact`.
        b: see `exact`.
        bits: see `exact`.

    Raises:
        ValueError: if an operand does not fit its width.

    Source: Kulkarni, Gupta and Ercegovac 2011. The closed form is derived.

    >>> int(kulkarni(3, 3, 2)), int(kulkarni(2, 3, 2))
    (7, 6)
    """
    a, b, _, _ = operands(a, b, bits)
    even_bits = 0x5555  # bits 0, 2, ..., 14: one per base-4 digit of a 16-bit operand
    return a * b - 2 * (a & (a >> 1) & even_bits) * (b & (b >> 1) & even_bits)
