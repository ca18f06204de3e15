"""The gather engine: any table, by looking up every product, fused by XLA.

One pass per contraction index k adds ``T[a[:, k], b[k, :]]`` to the int32 accumulator. XLA fuses the
index arithmetic, the look-up and the sum, so nothing of size M K N is ever stored. On TensorFlow the
products are compiled on their own; inside a model that is itself compiled they are inlined.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from axtrain.emulation.code_table import CodeTable


class GatherEngine:
    """Bit-exact products of any table by look-up.

    Args:
        table: the products over the codes in use.
    """

    name = "gather"

    def __init__(self, table: CodeTable) -> None:
        self.table = table
        self._flat = table.products.reshape(-1)
        self._compiled: dict[tuple, Callable] = {}

    def __repr__(self) -> str:
        return f"GatherEngine(table={self.table.products.shape[0]}x{self.table.products.shape[1]})"

    def matmul(self, activations, weights):
        """int32 ``sum_k T[a_mk, b_kn]`` for codes of shape (..., K) and (K, N)."""
        return self._run(self._matmul, activations, weights)

    def conv(self, activations, weights, strides, dilation_rate):
        """int32 VALID convolution of codes (B, *space, C) with (*kernel, C, N)."""
        return self._run(self._conv, activations, weights, tuple(strides), tuple(dilation_rate))

    def depthwise_conv(self, activations, weights, strides, dilation_rate):
        """int32 VALID depthwise convolution of codes (B, *space, C) with (*kernel, C, multiplier)."""
        return self._run(self._depthwise, activations, weights, tuple(strides), tuple(dilation_rate))

    def _run(self, function, activations, weights, *options):
        """Runs the compiled function of these shapes; only the batch size may then vary without compiling."""
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

    def _matmul(self, rows, columns):
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

    def _conv(self, rows, columns, strides, dilation_rate):
        *window, channels, filters = columns.shape
        patches = ops.concatenate(list(_windows(rows, window, strides, dilation_rate)), axis=-1)
        return self._matmul(patches, ops.reshape(columns, (int(np.prod(window)) * channels, filters)))

    def _depthwise(self, rows, columns, strides, dilation_rate):
        *window, channels, multiplier = columns.shape
        total = 0
        taps = list(np.ndindex(*window))
        for tap, patch in zip(taps, _windows(rows, window, strides, dilation_rate), strict=True):
            total = total + self._look_up(patch[..., None], columns[tap])
        return ops.reshape(total, (*ops.shape(total)[:-2], channels * multiplier))


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
