"""Error metrics of an approximate multiplier, over every pair of operands."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class ErrorMetrics:
    """The error metrics of the approximate-circuit literature for one multiplier table.

    With ``E = M - a*b`` over all operand pairs, each pair equally likely (theory page, section 1). Fields
    ending in ``_percent`` are percentages; ``ep``, ``mre``, ``wcre`` and ``nmed`` are fractions; the rest
    is in units of the product's least significant bit.
    """

    mae: float
    """Mean absolute error, ``mean |E|``, in product LSBs."""
    wce: int
    """Worst-case error, ``max |E|``, in product LSBs."""
    bias: float
    """Mean error, ``mean E``, in product LSBs: negative where the circuit underestimates."""
    std: float
    """Standard deviation of ``E`` over all pairs (population, not sample), in product LSBs."""
    mse: float
    """Mean squared error, ``mean E^2``, in squared product LSBs."""
    ep: float
    """Error probability: the fraction (0..1) of all pairs with ``E != 0``."""
    mre: float
    """Mean relative error (MRED), ``mean |E / (a*b)|`` over pairs with ``a*b != 0``, a fraction."""
    wcre: float
    """Worst-case relative error, ``max |E / (a*b)|`` over pairs with ``a*b != 0``, a fraction."""
    mae_percent: float
    """``mae`` in percent of ``2^(activation_bits + weight_bits)``."""
    wce_percent: float
    """``wce`` in percent of ``2^(activation_bits + weight_bits)``."""
    nmed: float
    """Normalised mean error distance, a fraction: ``mae`` over the largest product, that is
    ``(2^na - 1)(2^nb - 1)`` for unsigned and ``2^(na + nb - 2)`` for signed operands."""


def error_metrics(table: np.ndarray, a_values: np.ndarray, b_values: np.ndarray, signed: bool) -> ErrorMetrics:
    """Compute the error metrics of a multiplier table exhaustively.

    Sums are exact (int64); only the final divisions and the relative errors are float64.

    Args:
        table: integers of shape ``(2^na, 2^nb)``, the product of each pair of raw operand codes.
        a_values: integers of shape ``(2^na,)``, the number each first (activation) code stands for.
        b_values: integers of shape ``(2^nb,)``, the number each second (weight) code stands for.
        signed: whether the operands are signed; decides only what ``nmed`` is relative to.

    Returns:
        An `ErrorMetrics`.

    Raises:
        ValueError: if the shapes do not belong together, an array is not of integers, or no pair has a
            product other than zero.

    Source: the definitions of the EvoApprox8b library (Mrazek et al. 2017) and, for NMED, Liang, Han and
    Lombardi 2013; the project's theory page, section 1.

    >>> values = np.arange(4)
    >>> table = np.outer(values, values)
    >>> table[3, 3] = 7  # the underdesigned 2x2 block
    >>> metrics = error_metrics(table, values, values, signed=False)
    >>> metrics.mae, metrics.wce, metrics.ep
    (0.125, 2, 0.0625)
    """
    table, a_values, b_values = np.asarray(table), np.asarray(a_values), np.asarray(b_values)
    if table.ndim != 2 or a_values.shape != table.shape[:1] or b_values.shape != table.shape[1:]:
        raise ValueError(
            "`table` must have one row per entry of `a_values` and one column per entry of `b_values`. "
            f"Received: table.shape={table.shape}, a_values.shape={a_values.shape}, "
            f"b_values.shape={b_values.shape}"
        )
    for argument, array in (("table", table), ("a_values", a_values), ("b_values", b_values)):
        if array.dtype.kind not in "iu":
            raise ValueError(
                f"`{argument}` must hold integers; convert it with `.astype(np.int64)` if its values are "
                f"whole. Received: {argument}.dtype={array.dtype}"
            )
    product = np.multiply.outer(a_values.astype(np.int64), b_values.astype(np.int64))
    error = table.astype(np.int64) - product
    distance = np.abs(error)
    nonzero = product != 0
    if not nonzero.any():
        raise ValueError(
            "Relative errors need at least one pair with a*b != 0; give the values of all codes. "
            f"Received: a_values={a_values}, b_values={b_values}"
        )
    relative = distance[nonzero] / np.abs(product[nonzero])
    mae = float(distance.sum() / table.size)
    wce = int(distance.max())
    rows, columns = table.shape
    largest = table.size / 4 if signed else (rows - 1) * (columns - 1)
    return ErrorMetrics(
        mae=mae,
        wce=wce,
        bias=float(error.sum() / table.size),
        std=float(error.std()),
        mse=float((error * error).sum() / table.size),
        ep=float(np.count_nonzero(error) / table.size),
        mre=float(relative.mean()),
        wcre=float(relative.max()),
        mae_percent=100.0 * mae / table.size,
        wce_percent=100.0 * wce / table.size,
        nmed=mae / largest,
    )
