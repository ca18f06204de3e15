"""The operands that single outputs sum over, cut from a product of any geometry, in NumPy.

A geometry hands an engine its operands padded, widened or merged as the hardware meets them. `WindowCutter`
stands in for an engine and keeps them, so no geometry is described twice.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from keras import ops

# What is kept of a product's windows goes into saved files: 64 KiB of codes (chosen here).
KEPT_ROWS = 1024
KEPT_VALUES = 1 << 16
MIN_ROWS = 32
_KEPT_PARTS = 32


class Windows(NamedTuple):
    """Operands of single outputs: output (m, g, n) sums ``T[rows[m, g, k], columns[g, k, n]]`` over k.

    Attributes:
        rows: activations (M, groups, K); a depthwise product has a group for each channel, others one.
        columns: weights (groups, K, N).
    """

    rows: np.ndarray
    columns: np.ndarray


class WindowCutter:
    """Takes the place of an engine and keeps the windows of some outputs.

    Args:
        count: how many rows to keep, drawn at random where there are more; in the order of the samples.
        seed: of the draw.
    """

    def __init__(self, count: int, seed: int = 0) -> None:
        self._count = count
        self._rng = np.random.default_rng(seed)
        self.rows = self.columns = np.empty((0, 1, 0))

    def matmul(self, activations, weights):
        """Keeps rows of (..., K) and the matrix (K, N)."""
        a, w = ops.convert_to_numpy(activations), ops.convert_to_numpy(weights)
        rows = a.reshape(-1, a.shape[-1])
        self.rows, self.columns = rows[self._drawn(len(rows))][:, None], w[None]
        return ops.zeros((*a.shape[:-1], w.shape[-1]), "int32")

    def conv(self, activations, weights, strides, dilation_rate):
        """Keeps windows of (B, *space, C) and the kernel (*window, C, N) as a matrix."""
        rows, sizes = self._cut(activations, weights, strides, dilation_rate)
        w = ops.convert_to_numpy(weights)
        self.rows, self.columns = rows.reshape(len(rows), 1, -1), w.reshape(1, -1, w.shape[-1])
        return ops.zeros((len(activations), *sizes, w.shape[-1]), "int32")

    def depthwise_conv(self, activations, weights, strides, dilation_rate):
        """Keeps windows of (B, *space, C), a group for each channel, and the kernel (*window, C, multiplier)."""
        rows, sizes = self._cut(activations, weights, strides, dilation_rate)
        taps, channels = rows.shape[1:]
        w = ops.convert_to_numpy(weights).reshape(taps, channels, -1)
        self.rows, self.columns = np.swapaxes(rows, 1, 2), np.moveaxis(w, 1, 0)
        return ops.zeros((len(activations), *sizes, channels * w.shape[-1]), "int32")

    def _cut(self, activations, weights, strides, dilation_rate) -> tuple[np.ndarray, list[int]]:
        """(rows, taps, channels) of random outputs, and the output's spatial sizes."""
        a = ops.convert_to_numpy(activations)
        window = tuple(weights.shape[:-2])
        sizes = [
            (size - (k - 1) * d - 1) // s + 1
            for size, k, d, s in zip(a.shape[1:-1], window, dilation_rate, strides, strict=True)
        ]
        sample, *place = np.unravel_index(self._drawn(len(a) * int(np.prod(sizes))), (len(a), *sizes))
        taps = []
        for tap in np.ndindex(*window):
            at = [p * s + t * d for p, s, t, d in zip(place, strides, tap, dilation_rate, strict=True)]
            taps.append(a[(sample, *at)])
        return np.stack(taps, axis=1), sizes

    def _drawn(self, available: int) -> np.ndarray:
        if available <= self._count:
            return np.arange(available)
        return np.sort(self._rng.choice(available, self._count, replace=False, shuffle=False))


def cut_windows(geometry, activations, weights, count: int, seed: int = 0) -> Windows:
    """The windows of at most `count` rows of a product's outputs; what is padded is 0.

    Args:
        geometry: of the product; both operands may be of any numeric dtype.
        activations, weights: as the layer has them.
        count: at most how many rows.
        seed: of the draw.
    """
    cutter = WindowCutter(count, seed)
    a, w = ops.convert_to_tensor(activations), ops.convert_to_tensor(weights)
    geometry.codes(cutter, a, w, ops.zeros((), a.dtype))
    return Windows(cutter.rows, cutter.columns)


class WindowSamples:
    """Windows of one product's input, gathered while calibration data runs through the float model."""

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = []
        self._seen = self._row_size = 0
        self._rng = np.random.default_rng(0)
        self.sample_shape: tuple[int, ...] = ()
        self.padded_share = 0.0

    def add(self, geometry, inputs, kernel) -> None:
        """Keeps the windows of some of one batch's outputs.

        Args:
            geometry: of the product.
            inputs: float32 activations.
            kernel: float32 weights.
        """
        inputs = ops.convert_to_numpy(inputs)
        if not self._parts:
            self.sample_shape = inputs.shape[1:]
            ones = cut_windows(geometry, np.ones((1, *self.sample_shape), np.float32), kernel, KEPT_ROWS)
            self.padded_share = float((ones.rows == 0).mean())
            self._row_size = ones.rows[0].size
        # Many rows of a batch are no more than a few rows of many batches, but there may be one batch only.
        count = max(MIN_ROWS, min(KEPT_ROWS, 4 * KEPT_VALUES // self._row_size))
        part = cut_windows(geometry, inputs, kernel, count, seed=self._seen).rows
        self._seen += 1
        if len(self._parts) < _KEPT_PARTS:
            self._parts.append(part)
        elif (place := int(self._rng.integers(self._seen))) < _KEPT_PARTS:  # each batch has the same chance to stay
            self._parts[place] = part

    @property
    def rows(self) -> np.ndarray:
        """float32 (M, groups, K), in the order of the samples: at most `KEPT_ROWS` and about `KEPT_VALUES`."""
        rows = np.concatenate(self._parts)
        count = min(len(rows), max(MIN_ROWS, min(KEPT_ROWS, KEPT_VALUES // rows[0].size)))
        kept = np.random.default_rng(0).choice(len(rows), count, replace=False)
        return rows[np.sort(kept)]
