"""Codes to what a table column holds for them: factors in planes, or sums of whole numbers.

A TensorFlow graph spends about as long on gathering a convolution's activations as on convolving them. XLA
fuses the casts, the index and the gather and vectorises them. Measured on 2 CPU cores for (32, 32, 32, 64)
codes, as a float32 convolution to 64 channels takes 11 ms: one plane 9.5 ms by `ops.take`, 7.0 by `tf.gather`, 1.4
by XLA, which is what the arithmetic ``floor((code + o) / 2^t)`` takes too (1.5); so only a plane that is the code
itself is computed. Three planes: 6.6 ms with the plane as the fastest axis, 4.8 with the channels.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
from keras import ops

# Fewer look-ups than this take less time than starting, let alone compiling, an XLA program (chosen here).
MIN_COMPILED = 1 << 15


class LookUp:
    """``values[code - low]`` for each code.

    Codes outside the table are not checked for: they give some other entry, or an error.

    Args:
        values: shape (codes, r), of the dtype to look up; it must fit float32 or int32.
        low: the code of the first row.
    """

    def __init__(self, values: np.ndarray, low: int) -> None:
        self.values = values
        self.low = low
        self._compiled: dict[tuple, Callable] = {}

    def planes(self, codes, axis: int):
        """The r values of each code along a new axis before `axis`, which is then merged with it.

        Codes (..., C) with axis -1 give (..., r C); (..., K, N) with axis -2 give (..., r K, N).
        """
        rank = self.values.shape[1]
        axis += len(codes.shape)
        shape = ops.shape(codes)
        found = self._run("planes", codes, axis, lambda codes: self._found(codes, axis))
        return ops.reshape(found, (*shape[:axis], rank * shape[axis], *shape[axis + 1 :]))

    def sums(self, codes, axis: int):
        """int32 ``sum values[codes]`` over one axis, kept with length 1; there is one column of values."""
        return self._run("sums", codes, axis, lambda codes: ops.sum(self._found(codes, 0)[0], axis=axis, keepdims=True))

    def _found(self, codes, axis):
        """The r values along a new axis of that number."""
        rows, rank = self.values.shape
        starts = np.arange(rank, dtype=np.int32) * rows - self.low
        starts = starts.reshape(rank, *(1,) * (len(codes.shape) - axis))
        index = ops.expand_dims(ops.cast(codes, "int32"), axis) + starts
        return ops.take(ops.convert_to_tensor(self.values.T.reshape(-1)), index)

    def _run(self, name, codes, axis, function):
        if keras.backend.backend() != "tensorflow" or _few(codes.shape):
            return function(codes)
        key = (name, len(codes.shape), axis)
        if key not in self._compiled:
            import tensorflow as tf

            self._compiled[key] = tf.function(function, jit_compile=True, autograph=False, reduce_retracing=True)
        return self._compiled[key](codes)


def whole_numbers(values: np.ndarray, low: int) -> LookUp | None:
    """A look-up of one column of int32, wrapped as an accumulator wraps; `None` where all are zero."""
    return LookUp(values.astype(np.int32)[:, None], low) if values.any() else None


def _few(shape) -> bool:
    return None not in shape and int(np.prod(shape)) < MIN_COMPILED
