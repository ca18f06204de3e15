"""Recognises a multiplier's table that is written in another convention than the one it is read by.

A circuit's products lie near ``a*b``, however coarse it is. A table that lies far from them as it is given, and many
times nearer when its codes or words are read in another way, is taken to be meant in that way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

LARGE = 0.05
"""Mean absolute error, as a share of the largest product, below which no other convention is looked for."""
NEARER = 4
"""How many times nearer to the product another convention must bring a table."""
FEWEST = 64
"""Products of a table that are enough to tell; fewer may lie near those of another convention by chance."""


class Reading(NamedTuple):
    """One way to read a table.

    Attributes:
        words: what it would mean.
        expression: in NumPy, of `table`, what makes it one in this library's convention.
        table: that one.
        signed: whether its operands are signed.
    """

    words: str
    expression: str
    table: np.ndarray
    signed: bool


def check_convention(table: np.ndarray, widths: tuple[int, int], signed: bool) -> None:
    """Refuses a table that another convention brings far nearer to the product.

    Seen are: products as raw words of two's complement, or as signed words of an unsigned circuit; either operand or
    both in the order of their values, -128 to 127, or as sign and magnitude; the other signedness; operands of two
    widths with the weight first; and what these make together. Exchanged operands of one width cannot be seen:
    ``M[b, a]`` is as far from ``a*b`` as ``M[a, b]``. Nor can anything about
    circuits so coarse that no convention fits them, and those of fewer than `FEWEST` products.

    16 circuits of EvoApproxLib and every circuit of `axtrain.multipliers` of 2 to 10 bits pass: beyond an error of
    `LARGE`, no other convention brings one more than 2 times nearer. Measured.

    Args:
        table: int32, ``(2^activation_bits, 2^weight_bits)``.
        widths: ``(activation_bits, weight_bits)``.
        signed: whether operands are signed.

    Raises:
        ValueError: such a table.
    """
    if table.size < FEWEST:
        return
    products = {sign: np.multiply.outer(*(_values(width, sign) for width in widths)) for sign in (True, False)}
    given, largest = _distance(table, products[signed]), np.abs(products[signed]).max()
    if given <= LARGE * largest:
        return
    readings = list(_readings(table, widths, signed))
    errors = [_distance(reading.table, products[reading.signed]) for reading in readings]
    nearest = int(np.argmin(errors))
    found = readings[nearest]
    # A table of zeros, too, is nearer to the smaller products of another signedness.
    if errors[nearest] * NEARER > given or 2 * errors[nearest] > np.abs(products[found.signed]).mean():
        return
    changes = [] if found.expression == "table" else [f"`{found.expression}`"]
    changes += [] if found.signed == signed else [f"signed={found.signed}"]
    raise ValueError(
        "`table` must be indexed by raw codes, activation first, and hold products that are signed where operands are. "
        f"This one looks like {found.words}: give {' and '.join(changes)}, or check=False to keep it as it is. "
        f"Received: signed={signed}, mean absolute error {given:.5g}, in that other convention {errors[nearest]:.5g}"
    )


def _values(bits: int, signed: bool) -> np.ndarray:
    codes = np.arange(1 << bits, dtype=np.int64)
    return np.where(codes >> (bits - 1), codes - (1 << bits), codes) if signed else codes


def _distance(table: np.ndarray, product: np.ndarray) -> float:
    return float(np.abs(table - product).mean())


def _readings(table: np.ndarray, widths: tuple[int, int], signed: bool) -> Iterator[Reading]:
    """Every other way to read the table, simpler ones first."""
    for sign in (signed, not signed):
        about = [] if sign == signed else ["operands that are signed" if sign else "operands that are unsigned"]
        for word_words, word, words in _words(table, sum(widths), sign):
            for order_words, order, ordered in _orders(word, words, widths):
                for code_words, expression, found in _codes(order, ordered, widths, sign):
                    told = [*about, *word_words, *order_words, *code_words]
                    if told:
                        yield Reading(" and ".join(told), expression, found, sign)


def _words(table: np.ndarray, width: int, signed: bool) -> Iterator[tuple[list[str], str, np.ndarray]]:
    yield [], "table", table
    for bits in dict.fromkeys((width, 16)):
        half = 1 << (bits - 1)
        if signed and table.min() >= 0 and half <= table.max() < 2 * half:
            expression = f"np.where(table < {half}, table, table.astype(int) - {2 * half})"
            read = np.where(table < half, table, table - 2 * half)
            words = f"raw {bits}-bit words of two's complement"
            yield [words], "table.astype(np.int16)" if bits == 16 else expression, read
        if not signed and -half <= table.min() < 0 and table.max() < half:
            words = f"signed {bits}-bit words of unsigned products"
            yield [words], f"(table.astype(int) % {2 * half})", table % (2 * half)


def _orders(expression: str, table: np.ndarray, widths: tuple[int, int]) -> Iterator[tuple[list[str], str, np.ndarray]]:
    yield [], expression, table
    if widths[0] != widths[1]:
        shape = table.shape[::-1]
        yield ["the weight's codes first"], f"{expression}.reshape{shape}.T", table.reshape(shape).T


def _codes(
    expression: str, table: np.ndarray, widths: tuple[int, int], signed: bool
) -> Iterator[tuple[list[str], str, np.ndarray]]:
    yield [], expression, table
    if not signed:
        return
    half = tuple(1 << (width - 1) for width in widths)
    for axes, who in (((0, 1), "operands"), ((0,), "activations"), ((1,), "weights")):
        shift = tuple(half[axis] for axis in axes)
        ends = " and ".join(dict.fromkeys(f"{-size} to {size - 1}" for size in shift))
        yield [f"{who} in the order {ends}"], f"np.roll({expression}, {shift}, {axes})", np.roll(table, shift, axes)
    first, second = (np.r_[0 : size + 1, 2 * size - 1 : size : -1] for size in half)
    indices = ", ".join(f"np.r_[0:{size + 1}, {2 * size - 1}:{size}:-1]" for size in half)
    yield (
        ["operands of sign and magnitude (which have no code for the lowest value)"],
        f"{expression}[np.ix_({indices})]",
        table[np.ix_(first, second)],
    )
