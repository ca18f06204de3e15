"""The rank-r engine: a table's exact integer factors turn it into ordinary float32 products.

Dense: one product with contraction length r K. Convolution: one convolution with r C input
channels; the factors are looked up before patches are cut, so each activation is looked up once.
A float32 sum of integers is exact while every partial sum stays within 2^24; longer contractions are
cut into parts that are added as int32 (theory page, section 2).
"""

from __future__ import annotations

import numpy as np
from keras import ops

from axtrain.emulation.code_table import CodeTable
from axtrain.emulation.factorisation import factorise


class LowRankEngine:
    """Bit-exact products through integer factors.

    Args:
        table: the products over the codes in use.
    """

    name = "low_rank"

    def __init__(self, table: CodeTable) -> None:
        self.table = table
        self.factors = factorise(table)
        self._line = _straight_line(self.factors.activation, table.activation_codes)

    def __repr__(self) -> str:
        return f"LowRankEngine(rank={self.factors.rank}, exact_terms={self.factors.exact_terms})"

    def matmul(self, activations, weights):
        """int32 ``sum_k T[a_mk, b_kn]`` for codes of shape (..., K) and (K, N)."""
        length, units = weights.shape
        left = self._activation_factors(activations)  # (..., K r)
        right = self._weight_factors(weights)  # (K, r, N)
        rank = self.factors.rank
        total = None
        for start, stop in _parts(length, self.factors.exact_terms):
            part = ops.matmul(
                left[..., start * rank : stop * rank],
                ops.reshape(right[start:stop], ((stop - start) * rank, units)),
            )
            total = _add(total, part)
        return total + self._shift(right, axes=(0, 1))

    def conv(self, activations, weights, strides, dilation_rate):
        """int32 VALID convolution of codes (B, *space, C) with (*kernel, C, N)."""
        *window, channels, filters = weights.shape
        rank, taps = self.factors.rank, int(np.prod(window))
        left = self._activation_factors(activations)  # (B, *space, C r)
        right = self._weight_factors(weights)  # (*kernel, C, r, N)
        total = None
        for box, tap_slices in _tap_boxes(activations.shape, weights.shape, dilation_rate, strides, self.factors):
            box_taps = int(np.prod([s.stop - s.start for s in tap_slices])) if tap_slices else taps
            for start, stop in _parts(channels, self.factors.exact_terms // box_taps):
                kernel = right[(*tap_slices, slice(start, stop))]
                kernel = ops.reshape(kernel, (*kernel.shape[: len(window)], (stop - start) * rank, filters))
                image = left[(slice(None), *box, slice(start * rank, stop * rank))]
                part = _strided(ops.conv, image, kernel, strides, dilation_rate)
                total = _add(total, part)
        return total + self._shift(right, axes=tuple(range(len(window) + 2)))

    def depthwise_conv(self, activations, weights, strides, dilation_rate):
        """int32 VALID depthwise convolution of codes (B, *space, C) with (*kernel, C, multiplier)."""
        total = None
        right = self._weight_factors(weights)  # (*kernel, C, r, multiplier)
        left = self._activation_factors(activations)  # (B, *space, C r)
        left = ops.reshape(left, (*ops.shape(activations), self.factors.rank))
        for box, taps in _tap_boxes(activations.shape, weights.shape, dilation_rate, strides, self.factors):
            image, kernel = left[(slice(None), *box)], right[taps]
            part = None
            for r in range(self.factors.rank):
                product = _strided(ops.depthwise_conv, image[..., r], kernel[..., r, :], strides, dilation_rate)
                part = product if part is None else part + product
            total = _add(total, part)
        shift = ops.reshape(self._shift(right, axes=(*range(len(weights.shape) - 2), -2)), (-1,))
        return total + shift

    def _activation_factors(self, codes):
        """(..., C) codes to (..., C r) looked-up factors, r fastest."""
        if self._line is not None:  # the factor is the code itself, scaled and shifted: no look-up
            slope, intercept = self._line
            codes = ops.cast(codes, "float32")
            return codes if (slope, intercept) == (1, 0) else codes * slope + intercept
        index = ops.cast(codes, "int32") - self.table.activation_low
        factors = self.factors.activation.astype(np.float32)
        if self.factors.rank == 1:
            return ops.take(ops.convert_to_tensor(factors[:, 0]), index)
        looked_up = ops.take(ops.convert_to_tensor(factors), index, axis=0)
        *lead, channels = ops.shape(codes)
        return ops.reshape(looked_up, (*lead, channels * self.factors.rank))

    def _weight_factors(self, codes):
        """(..., K, N) codes to (..., K, r, N) looked-up factors."""
        index = ops.cast(codes, "int32") - self.table.weight_low
        factors = ops.convert_to_tensor(self.factors.weight.T.astype(np.float32))
        return ops.swapaxes(ops.take(factors, index, axis=0), -1, -2)

    def _shift(self, weight_factors, axes):
        """What centring took off each output channel, exact in int32."""
        if not self.factors.shift.any():
            return 0
        shift = ops.convert_to_tensor(self.factors.shift.astype(np.int32))
        shifted = ops.cast(weight_factors, "int32") * shift[:, None]
        return ops.sum(shifted, axis=axes)


def _straight_line(factor: np.ndarray, codes: np.ndarray) -> tuple[int, int] | None:
    """(slope, intercept) where the one activation factor is ``slope * code + intercept``."""
    if factor.shape[1] != 1:
        return None
    slope = int(factor[1, 0] - factor[0, 0])
    intercept = int(factor[0, 0] - slope * codes[0])
    return (slope, intercept) if np.array_equal(factor[:, 0], slope * codes + intercept) else None


def _strided(convolution, image, kernel, strides, dilation_rate):
    """A VALID convolution, also with strides that the backend refuses to combine with dilation."""
    dilated, strided = max(dilation_rate) > 1, max(strides) > 1
    unequal = convolution is ops.depthwise_conv and len(set(strides)) > 1
    if not (strided and dilated) and not unequal:
        return convolution(image, kernel, strides=strides, padding="valid", dilation_rate=dilation_rate)
    every = convolution(image, kernel, strides=1, padding="valid", dilation_rate=dilation_rate)
    return every[(slice(None), *(slice(None, None, stride) for stride in strides))]


def _add(total, part):
    part = ops.cast(part, "int32")
    return part if total is None else total + part


def _parts(length: int, limit: int) -> list[tuple[int, int]]:
    """Cuts 0 .. length into the fewest nearly equal parts of at most `limit`."""
    count = -(-length // max(limit, 1))
    edges = np.linspace(0, length, count + 1).astype(int)
    return list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))


def _tap_boxes(image_shape, kernel_shape, dilation_rate, strides, factors):
    """Where one channel's window alone passes the exact range, the window is cut tap by tap."""
    *window, _, _ = kernel_shape
    everything = (slice(None),) * len(window)
    if int(np.prod(window)) <= factors.exact_terms:
        return [(everything, ())] if not window else [(everything, tuple(slice(0, k) for k in window))]
    boxes = []
    for tap in np.ndindex(*window):
        outputs = [
            (size - (k - 1) * d - 1) // s
            for size, k, d, s in zip(image_shape[1:-1], window, dilation_rate, strides, strict=True)
        ]
        image = tuple(
            slice(t * d, t * d + o * s + 1) for t, d, o, s in zip(tap, dilation_rate, outputs, strides, strict=True)
        )
        boxes.append((image, tuple(slice(t, t + 1) for t in tap)))
    return boxes
