"""The gather engine: any table, by looking up every product, fused by XLA.

One pass per contraction index k adds ``T[a[:, k], b[k, :]]`` to the int32 accumulator. XLA fuses the
index arithmetic, the look-up and the sum, so nothing of size M K N is ever stored. On TensorFlow the
products are compiled on their own; inside a model that is itself compiled they are inlined.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from axtrain.emulation.code_table import CodeTable
from axtrain.emulation.engine import Engine, register_engine

# Cycles of a core for one product; measured on 2 cores: 8.5 to 11.7 times the float32 operation for dense products, 19
# to 24 times for convolutions. Accelerators multiply relatively faster; their figure is chosen here.
_CYCLES = {"dense": 0.75, "batched": 0.75, "conv": 1.25, "depthwise": 1.25}
_ON_ACCELERATORS = 3.0
# So many products are looked up sooner than a program for their shapes is compiled (0.27 s).
_FEW_PRODUCTS = 1 << 21


@register_engine
class GatherEngine(Engine):
    """Bit-exact products of any table by look-up.

    Args:
        table: the products over the codes in use.
    """

    name = "gather"

    def __init__(self, table: CodeTable) -> None:
        super().__init__(table)
        self._flat = table.products.reshape(-1)
        self._compiled: dict[tuple, Callable] = {}

    @classmethod
    def cost(cls, operation: str, table: CodeTable, device: str, *, terms: int | None = None) -> float:
        """One look-up for each product, whatever the table."""
        return _CYCLES[operation] if device == "cpu" else _ON_ACCELERATORS

    def matmul(self, activations, weights):
        """int32 ``sum_k T[a_mk, b_kn]`` for codes of shape (..., K) and (K, N)."""
        return self._run(self._matmul, activations, weights)

    def batched_matmul(self, activations, weights):
        """int32 ``sum_k T[a_..mk, w_..kn]`` for codes of shape (..., M, K) and (..., K, N), the same batch axes."""
        return self._run(self._batched, activations, weights)

    def conv(self, activations, weights, strides, dilation_rate):
        """int32 VALID convolution of codes (B, *space, C) with (*kernel, C, N)."""
        return self._run(self._conv, activations, weights, tuple(strides), tuple(dilation_rate))

    def depthwise_conv(self, activations, weights, strides, dilation_rate):
        """int32 VALID depthwise convolution of codes (B, *space, C) with (*kernel, C, multiplier)."""
        return self._run(self._depthwise, activations, weights, tuple(strides), tuple(dilation_rate))

    def _run(self, function, activations, weights, *options):
        """Runs the compiled function of these shapes; only the batch size may then vary without compiling.

        Few products are looked up all at once, by the backend's own operations.
        """
        if _few(activations.shape, weights.shape, weights.shape[:-2] if options else ()):
            return function(self._rows(activations), self._columns(weights), *options, at_once=True)
        key = (function.__name__, tuple(activations.shape[1:]), tuple(weights.shape), options)
        if key not in self._compiled:
            self._compiled[key] = _xla(lambda rows, columns: function(rows, columns, *options))
        return self._compiled[key](self._rows(activations), self._columns(weights))

    def _rows(self, codes):
        """Where each activation's row of the table begins in the flat table."""
        return (ops.cast(codes, "int32") - self.table.activation_low) * self.table.products.shape[1]

    def _columns(self, codes):
        return ops.cast(codes, "int32") - self.table.weight_low

    def _look_up(self, rows, columns):
        return ops.take(ops.convert_to_tensor(self._flat), rows + columns)

    def _matmul(self, rows, columns, at_once=False):
        if at_once:
            return ops.sum(self._look_up(rows[..., None], columns), axis=-2)
        length, units = columns.shape
        lead = ops.shape(rows)[:-1]
        rows = ops.transpose(ops.reshape(rows, (-1, length)))  # (K, M): one index k is one contiguous row
        zeros = ops.zeros_like(rows[0], dtype="int32")[:, None] + ops.zeros((1, units), dtype="int32")

        def add_products(k, total):
            row = ops.take(rows, k, axis=0)
            column = ops.take(columns, k, axis=0)
            return total + self._look_up(row[:, None], column[None, :])

        total = ops.fori_loop(0, length, add_products, zeros)
        return ops.reshape(total, (*lead, units))

    def _batched(self, rows, columns, at_once=False):
        if at_once:
            return ops.sum(self._look_up(rows[..., None], columns[..., None, :, :]), axis=-2)
        rows = ops.moveaxis(rows, -1, 0)  # (K, ..., M): one index k is one contiguous block
        columns = ops.moveaxis(columns, -2, 0)  # (K, ..., N)
        zeros = ops.zeros_like(rows[0])[..., None] + ops.zeros_like(columns[0])[..., None, :]

        def add_products(k, total):
            row, column = ops.take(rows, k, axis=0), ops.take(columns, k, axis=0)
            return total + self._look_up(row[..., None], column[..., None, :])

        return ops.fori_loop(0, ops.shape(rows)[0], add_products, zeros)

    def _conv(self, rows, columns, strides, dilation_rate, at_once=False):
        *window, channels, filters = columns.shape
        patches = ops.concatenate(list(_windows(rows, window, strides, dilation_rate)), axis=-1)
        return self._matmul(patches, ops.reshape(columns, (int(np.prod(window)) * channels, filters)), at_once)

    def _depthwise(self, rows, columns, strides, dilation_rate, at_once=False):
        *window, channels, multiplier = columns.shape
        total = 0
        taps = list(np.ndindex(*window))
        for tap, patch in zip(taps, _windows(rows, window, strides, dilation_rate), strict=True):
            total = total + self._look_up(patch[..., None], columns[tap])
        return ops.reshape(total, (*ops.shape(total)[:-2], channels * multiplier))


def _few(activations, weights, taps) -> bool:
    """Whether at most `_FEW_PRODUCTS` are summed: each activation meets every tap and output channel once."""
    sizes = (*activations, weights[-1], *taps)
    return None not in sizes and math.prod(sizes) <= _FEW_PRODUCTS


def _windows(image, window, strides, dilation_rate):
    """For each tap of the window, the strided view of the image that it meets."""
    sizes = ops.shape(image)[1:-1]
    outputs = [
        (size - (k - 1) * d - 1) // s + 1 for size, k, d, s in zip(sizes, window, dilation_rate, strides, strict=True)
    ]
    for tap in np.ndindex(*window):
        view = tuple(
            slice(t * d, t * d + (o - 1) * s + 1, s)
            for t, d, o, s in zip(tap, dilation_rate, outputs, strides, strict=True)
        )
        yield image[(slice(None), *view)]


def _xla(function):
    """Compiles with XLA where the backend does not do so by itself."""
    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    return tf.function(function, jit_compile=True, autograph=False, reduce_retracing=True)
