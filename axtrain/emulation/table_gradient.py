"""Gradients through a table: the slopes of the table itself, smoothed, as a few ordinary products.

With ``y = s_a s_w (sum_k T[a_k, w_k] - z sum_k w_k)`` and ``a = x / s_a + z``, ``w = v / s_w``:

    ``dy/dx = s_w dT/da``,  ``dy/dv = s_a (dT/dw - z)``,  0 where a quantiser clips,

    ``dT/da [a, w] ~ (T[a+h, w] - T[a-h, w]) / 2h``, and likewise along w (theory page, section 3; the
    difference of a smoothed table: AppMult-aware retraining, DATE 2025).

Smoothing along one operand is a matrix on that side of the table, so a slope's rank is at most the table's.
Its singular value decomposition, cut where `TOLERANCE` is reached, gives ``dT/da ~ sum_r u_r[a] v_r[w]``:
the backward pass is r ordinary products, as the forward pass is (derived).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import keras
import numpy as np
from keras import ops

from axtrain.emulation.code_table import CodeTable
from axtrain.quantisers import Codes, Quantiser

# Root mean square error of the factored slopes over that of the slopes. A hundredth is far below the noise of
# a batch's gradient (chosen here); at h = 16 Mitchell's table then takes 7 and 4 products instead of 128.
TOLERANCE = 1e-2
# Half window in codes. The published tables for 8 bits use 16 and 32 (AppMult-aware retraining, DATE 2025). Of 4, 16,
# 32 and 64, 16 gained most on two circuits of the three with a gain; one whose table is flat over wide stretches
# needed 64 (docs/results/gradients.md).
DEFAULT_WINDOW = 16


@dataclass(frozen=True, eq=False)
class Slopes:
    """The factored slope of a table along one operand: ``slope[a, w] ~ sum_r activation[a, r] weight[w, r]``.

    Attributes:
        activation: float32, shape (activation codes, r).
        weight: float32, shape (weight codes, r).
        other: float32, the slope of the other operand's factor along its own codes; it makes the mixed second
            derivative, and has that factor's shape.
        error: relative root mean square error that the cut leaves.
    """

    activation: np.ndarray
    weight: np.ndarray
    other: np.ndarray
    error: float

    @property
    def rank(self) -> int:
        """The number r of ordinary products."""
        return self.activation.shape[1]


def smoothed_slope(values: np.ndarray, window: int) -> np.ndarray:
    """``(f[i+h] - f[i-h]) / 2h`` along the first axis; beyond an edge its last value, over the distance left.

    Args:
        values: shape (codes, ...), in ascending order of the codes, at least two of them.
        window: the half window h >= 1.

    Returns:
        float64 of the same shape, per code.
    """
    index = np.arange(len(values))
    before, after = np.maximum(index - window, 0), np.minimum(index + window, len(values) - 1)
    distance = (after - before).reshape(-1, *[1] * (values.ndim - 1))
    return (values[after].astype(np.float64) - values[before]) / distance


@lru_cache(maxsize=128)
def slopes(table: CodeTable, window: int, operand: int, tolerance: float = TOLERANCE) -> Slopes:
    """The smallest factors that give the smoothed slope along one operand to `tolerance`.

    Args:
        table: the products over the codes in use.
        window: the half window in codes.
        operand: 0 for activations, 1 for weights.
        tolerance: relative root mean square error allowed.
    """
    along = smoothed_slope(table.products if operand == 0 else table.products.T, window)
    own, strength, other = np.linalg.svd(along, full_matrices=False)
    # left[r]: what stays of the squares when r terms are kept.
    left = np.append(np.cumsum(strength[::-1] ** 2)[::-1], 0.0)
    allowed = (tolerance**2) * left[0]
    rank = max(int(np.argmax(left <= allowed)), 1)  # a table without slopes still needs a factor: of zeros
    share = np.sqrt(strength[:rank])
    own, other = own[:, :rank] * share, other[:rank].T * share
    activation, weight = (own, other) if operand == 0 else (other, own)
    return Slopes(
        activation.astype(np.float32),
        weight.astype(np.float32),
        smoothed_slope(other, window).astype(np.float32),
        error=float(np.sqrt(left[rank] / left[0])) if left[0] > 0 else 0.0,
    )


def table_surrogates(table: CodeTable, geometry, window: int, quantiser: Quantiser, w: Codes, scale):
    """Two float functions whose gradients are the table's: the first along activations, the second along weights.

    Only the first's derivative in `inputs` and the second's in `weights` are slopes of the table; their values
    mean nothing. Of the second derivatives the mixed one is the table's, ``d2T / da dw`` smoothed along both;
    those in one operand alone are 0, as they are straight-through.

    Args:
        table: the products over the codes in use.
        geometry: a `Dense` or `Convolution`.
        window: the half window in codes.
        quantiser: of the activations.
        w: the weights as they were read.
        scale: real units per unit of the accumulator, broadcasting against the output.

    Returns:
        (function, function), each of (inputs, weights) as float32 tensors, for `surrogate_gradient`.
    """
    columns = ops.cast(w.codes, "int32") - table.weight_low

    def rows(codes):
        return ops.cast(codes, "int32") - table.activation_low

    def along_activations(inputs, weights):
        found = slopes(table, window, 0)
        codes = quantiser.real(inputs) / quantiser.scale
        left = _looked_up(found.activation, found.activation, rows(quantiser.codes(inputs)), codes)
        right = _looked_up(found.weight, found.other, columns, weights / w.scale)
        return scale * _product(geometry, left, right)

    def along_weights(inputs, weights):
        found = slopes(table, window, 1)
        codes = quantiser.real(inputs) / quantiser.scale
        left = _looked_up(found.activation, found.other, rows(quantiser.codes(inputs)), codes)
        right = _looked_up(found.weight, found.weight, columns, weights / w.scale)
        # The product pads with 0 and the layer with the zero-point code, so that code's factor is taken off first.
        zero = ops.take(ops.convert_to_tensor(found.activation), rows(quantiser.zero_point), axis=0)
        constant = ops.sum(right * zero, axis=-1) - quantiser.zero_point * (weights / w.scale)
        return scale * (_product(geometry, left - zero, right) + geometry.per_output(constant))

    return along_activations, along_weights


def _product(geometry, left, right):
    """The sum over r of the geometry's products of left (..., C, r) and right (..., C, N, r), as one product."""
    *lead, channels, rank = ops.shape(left)
    *window, _, units, _ = ops.shape(right)
    left = ops.reshape(left, (*lead, channels * rank))
    right = ops.reshape(ops.swapaxes(right, -1, -2), (*window, channels * rank, units))
    outputs = geometry.floats(left, right)
    if geometry.operation != "depthwise":
        return outputs  # the sum over r has joined that over the channels
    *lead, _ = ops.shape(outputs)
    outputs = ops.sum(ops.reshape(outputs, (*lead, channels, rank, units)), axis=-2)
    return ops.reshape(outputs, (*lead, channels * units))


def _looked_up(values: np.ndarray, derivatives: np.ndarray, index, operand):
    """``values[index]``, shape (..., r), whose derivative in `operand` (in codes) is ``derivatives[index]``."""

    def take(table):
        return ops.take(ops.convert_to_tensor(table), index, axis=0)

    if keras.backend.backend() != "tensorflow":
        return take(values) + take(derivatives) * (operand - ops.stop_gradient(operand))[..., None]
    import tensorflow as tf

    # One look-up forward and one backward instead of a first-order expansion: half the passes over memory.
    @tf.custom_gradient
    def function(operand):
        def gradient(upstream):
            return tf.reduce_sum(upstream * take(derivatives), axis=-1)

        return take(values), tf.autograph.experimental.do_not_convert(gradient)

    return function(operand)
