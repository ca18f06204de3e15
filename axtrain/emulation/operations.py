"""The public products on raw operand codes: validated, padded, int32."""

from __future__ import annotations

import numpy as np
from keras import ops

from axtrain.emulation.code_table import CodeTable
from axtrain.emulation.geometry import padded, same_pads
from axtrain.emulation.selection import engine_for
from axtrain.noise_models.encodings import whole_codes
from axtrain.noise_models.multiplier import Multiplier


def matmul(a_codes, b_codes, multiplier: Multiplier, engine: str | None = None):
    """Matrix product through a multiplier: ``acc[m, n] = sum_k M[a_mk, b_kn]``.

    Args:
        a_codes: integer activation codes, shape (..., K). For a signed multiplier either the values
            -2^(n-1) .. 2^(n-1) - 1 or the raw bytes 0 .. 2^n - 1 (two's complement).
        b_codes: integer weight codes, shape (K, N), likewise.
        multiplier: the circuit.
        engine: `None` chooses the cheapest; a name (`"numba"`, `"low_rank"`, `"gather"`) forces one.

    Returns:
        int32 tensor of shape (..., N). Sums wrap at 32 bits, as a 32-bit accumulator does.

    Raises:
        ValueError: shapes that do not match, codes outside the operand's range, an unknown engine.

    Examples:
        >>> import axtrain as ax
        >>> kulkarni = ax.multipliers.get("kulkarni")
        >>> int(ax.emulation.matmul([[3]], [[3]], kulkarni)[0, 0])
        7
    """
    table = CodeTable.plain(multiplier)
    a_codes = _checked("a_codes", a_codes, multiplier, multiplier.activation_bits)
    b_codes = _checked("b_codes", b_codes, multiplier, multiplier.weight_bits)
    if len(b_codes.shape) != 2 or len(a_codes.shape) < 1 or a_codes.shape[-1] != b_codes.shape[0]:
        raise ValueError(
            "matmul needs codes of shapes (..., K) and (K, N) with the same K. "
            f"Received: {tuple(a_codes.shape)} and {tuple(b_codes.shape)}"
        )
    chosen = engine_for(table, engine, operation="dense", terms=b_codes.shape[0])
    return chosen.matmul(a_codes, b_codes)


def conv2d(
    a_codes, b_codes, multiplier: Multiplier, *, strides=1, padding="valid", dilation_rate=1, zero_point=0, engine=None
):
    """2D convolution through a multiplier, each product looked up in its table.

    ``acc[b, y, x, n] = sum_{i,j,c} M[a[b, y s + i d, x s + j d, c], w[i, j, c, n]]``. Padding contributes
    ``M[zero_point, w]``, which is not 0 for every circuit. Zero-point corrections are left to the caller.

    Args:
        a_codes: integer activation codes, shape (B, H, W, C).
        b_codes: integer weight codes, shape (kh, kw, C, N).
        multiplier: the circuit.
        strides: int or (int, int).
        padding: `"valid"` or `"same"` (TensorFlow's rule: the odd row or column goes to the end).
        dilation_rate: int or (int, int).
        zero_point: the activation code of real zero, which `"same"` pads with.
        engine: `None` chooses the cheapest; a name (`"numba"`, `"low_rank"`, `"gather"`) forces one.

    Returns:
        int32 tensor of shape (B, H', W', N).

    Raises:
        ValueError: shapes that do not match, codes outside the operand's range, an unknown option.
    """
    a_codes, b_codes, options = _conv_arguments(
        a_codes, b_codes, multiplier, strides, padding, dilation_rate, zero_point
    )
    if a_codes.shape[-1] != b_codes.shape[2]:
        raise ValueError(
            "conv2d needs codes of shapes (B, H, W, C) and (kh, kw, C, N) with the same C. "
            f"Received: {tuple(a_codes.shape)} and {tuple(b_codes.shape)}"
        )
    terms = int(np.prod(b_codes.shape[:-1]))
    chosen = engine_for(CodeTable.plain(multiplier), engine, operation="conv", terms=terms)
    return chosen.conv(a_codes, b_codes, *options)


def depthwise_conv2d(
    a_codes, b_codes, multiplier: Multiplier, *, strides=1, padding="valid", dilation_rate=1, zero_point=0, engine=None
):
    """Depthwise 2D convolution through a multiplier: channel c meets only the kernel's channel c.

    Args:
        a_codes: integer activation codes, shape (B, H, W, C).
        b_codes: integer weight codes, shape (kh, kw, C, depth multiplier).
        multiplier, strides, padding, dilation_rate, zero_point, engine: as in `conv2d`.

    Returns:
        int32 tensor of shape (B, H', W', C * depth multiplier).

    Raises:
        ValueError: shapes that do not match, codes outside the operand's range, an unknown option.
    """
    a_codes, b_codes, options = _conv_arguments(
        a_codes, b_codes, multiplier, strides, padding, dilation_rate, zero_point
    )
    if a_codes.shape[-1] != b_codes.shape[2]:
        raise ValueError(
            "depthwise_conv2d needs codes of shapes (B, H, W, C) and (kh, kw, C, multiplier) with the same C. "
            f"Received: {tuple(a_codes.shape)} and {tuple(b_codes.shape)}"
        )
    terms = int(np.prod(b_codes.shape[:2]))
    chosen = engine_for(CodeTable.plain(multiplier), engine, operation="depthwise", terms=terms)
    return chosen.depthwise_conv(a_codes, b_codes, *options)


def per_axis(name: str, value, axes: int) -> tuple[int, ...]:
    """An int or one int per axis, as a tuple of positive ints."""
    values = (value,) * axes if isinstance(value, (int, np.integer)) else tuple(value)
    if len(values) != axes or any(v < 1 for v in values):
        raise ValueError(f"`{name}` must be a positive int or {axes} of them. Received: {name}={value!r}")
    return tuple(int(v) for v in values)


def _conv_arguments(a_codes, b_codes, multiplier, strides, padding, dilation_rate, zero_point):
    a_codes = _checked("a_codes", a_codes, multiplier, multiplier.activation_bits)
    b_codes = _checked("b_codes", b_codes, multiplier, multiplier.weight_bits)
    if len(a_codes.shape) != 4 or len(b_codes.shape) != 4:
        raise ValueError(
            "A 2D convolution needs codes of shapes (B, H, W, C) and (kh, kw, C, N). "
            f"Received: {tuple(a_codes.shape)} and {tuple(b_codes.shape)}"
        )
    strides, dilation_rate = per_axis("strides", strides, 2), per_axis("dilation_rate", dilation_rate, 2)
    padding = str(padding).lower()
    if padding not in ("valid", "same"):
        raise ValueError(f"`padding` must be 'valid' or 'same'. Received: padding={padding!r}")
    if padding == "same":
        zero_point = _checked("zero_point", zero_point, multiplier, multiplier.activation_bits)
        pads = same_pads(ops.shape(a_codes)[1:-1], b_codes.shape[:2], strides, dilation_rate)
        a_codes = padded(a_codes, pads, zero_point)
    return a_codes, b_codes, (strides, dilation_rate)


def _checked(name, codes, multiplier, bits):
    """int32 codes by value, inside the operand's range."""
    low = -(1 << (bits - 1)) if multiplier.signed else 0
    codes = whole_codes(name, codes, low, (1 << bits) - 1, f", the {bits}-bit operand of {multiplier.name!r}")
    if multiplier.signed:  # raw bytes of the upper half are the negative values
        codes = codes - ops.where(codes >= 1 << (bits - 1), 1 << bits, 0)
    return codes
