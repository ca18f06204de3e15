"""The shape of a product: which operands meet, in floats and in codes.

A layer describes its product once, as a `Dense` or a `Convolution`; the float layer, every engine and the
gradient then agree on strides, padding and the axes that are summed over.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from keras import ops


@dataclass(frozen=True)
class Dense:
    """``y[..., n] = sum_k a[..., k] w[k, n]``; with batch axes in w too, one product for each of them.

    Args:
        batched: whether `w` has the batch axes of `a`: a (..., M, K), w (..., K, N).
    """

    batched: bool = False

    @property
    def operation(self) -> str:
        """What it is to the choice of an engine."""
        return "batched" if self.batched else "dense"

    @property
    def axes(self) -> int:
        """Spatial axes."""
        return 0

    def summed_axes(self, kernel_rank: int) -> tuple[int, ...]:
        """The kernel's axes that one output sums over."""
        return (kernel_rank - 2,)

    def floats(self, a, w):
        """The product of float32 tensors."""
        return ops.matmul(a, w)

    def codes(self, engine, a_codes, w_codes, zero_point):
        """The engine's int32 sums of products of codes."""
        return engine.batched_matmul(a_codes, w_codes) if self.batched else engine.matmul(a_codes, w_codes)

    def entered_by(self, marks, kernel_shape):
        """A number above zero at each output that a mark of 1 among the activations enters, else 0."""
        return ops.sum(marks, axis=-1, keepdims=True)

    def per_output(self, kernel_values):
        """Sums over the summed axes, shaped to broadcast against the output."""
        return ops.sum(kernel_values, axis=-2, keepdims=self.batched)


@dataclass(frozen=True)
class Convolution:
    """A convolution of (B, *space, C) with (*window, C, N), or depthwise with (*window, C, multiplier).

    Padding is with the code of real zero, which a circuit need not multiply to 0.

    Args:
        strides, dilation_rate: one int per spatial axis.
        padding: `"valid"`, `"same"` (TensorFlow's rule: the odd row or column goes to the end) or `"causal"`.
        depthwise: whether channel c meets only the kernel's channel c.
    """

    strides: tuple[int, ...]
    padding: str
    dilation_rate: tuple[int, ...]
    depthwise: bool = False

    @property
    def operation(self) -> str:
        """What it is to the choice of an engine."""
        return "depthwise" if self.depthwise else "conv"

    @property
    def axes(self) -> int:
        """Spatial axes."""
        return len(self.strides)

    def summed_axes(self, kernel_rank: int) -> tuple[int, ...]:
        """The kernel's axes that one output sums over."""
        return tuple(range(kernel_rank - (2 if self.depthwise else 1)))

    def pads(self, sizes, window) -> list[tuple]:
        """(before, after) of each spatial axis, ints where the sizes are ints.

        Args:
            sizes: the image's spatial sizes, ints or scalar tensors.
            window: the kernel's.
        """
        if self.padding == "valid":
            return [(0, 0)] * len(window)
        if self.padding == "causal":
            return [((k - 1) * d, 0) for k, d in zip(window, self.dilation_rate, strict=True)]
        return same_pads(sizes, window, self.strides, self.dilation_rate)

    def floats(self, a, w):
        """The product of float32 tensors, padded with 0."""
        padding = self.padding
        if padding == "causal":
            a, padding = padded(a, self.pads(ops.shape(a)[1:-1], w.shape[:-2]), 0.0), "valid"
        # Keras wants one stride for both axes of a depthwise convolution.
        strides = self.strides if not self.depthwise or len(set(self.strides)) > 1 else self.strides[0]
        convolution = ops.depthwise_conv if self.depthwise else ops.conv
        return convolution(
            a, w, strides=strides, padding=padding, dilation_rate=self.dilation_rate, data_format="channels_last"
        )

    def codes(self, engine, a_codes, w_codes, zero_point):
        """The engine's int32 sums of products of codes, padded with the zero-point code."""
        a_codes = padded(a_codes, self.pads(ops.shape(a_codes)[1:-1], w_codes.shape[:-2]), zero_point)
        product = engine.depthwise_conv if self.depthwise else engine.conv
        return product(a_codes, w_codes, self.strides, self.dilation_rate)

    def entered_by(self, marks, kernel_shape):
        """A number above zero at each output that a mark of 1 among the activations enters, else 0."""
        if self.depthwise:
            return self.floats(marks, ops.ones(kernel_shape))
        return self.floats(ops.sum(marks, axis=-1, keepdims=True), ops.ones((*kernel_shape[:-2], 1, 1)))

    def per_output(self, kernel_values):
        """Sums over the summed axes, shaped to broadcast against the output."""
        return ops.reshape(ops.sum(kernel_values, axis=self.summed_axes(len(kernel_values.shape))), (-1,))


def same_pads(sizes, window, strides, dilation_rate) -> list[tuple]:
    """(before, after) along each spatial axis, by TensorFlow's rule for SAME."""
    pads = []
    for size, k, s, d in zip(sizes, window, strides, dilation_rate, strict=True):
        wanted = (-(-size // s) - 1) * s + (k - 1) * d + 1 - size
        wanted = max(wanted, 0) if isinstance(wanted, int) else ops.maximum(wanted, 0)
        pads.append((wanted // 2, wanted - wanted // 2))
    return pads


def padded(codes, pads, zero_point):
    """Codes (B, *space, C) with the zero-point code around them.

    Args:
        codes: any numeric dtype.
        pads: (before, after) of each spatial axis.
        zero_point: the code of real zero, a number or a scalar tensor of the codes' dtype.
    """
    if all(isinstance(pad, int) and pad == 0 for pair in pads for pad in pair):
        return codes
    # Shifted to put real zero at 0: a zero point held in a variable is then padded the same way.
    return ops.pad(codes - zero_point, [(0, 0), *pads, (0, 0)]) + zero_point


def terms(geometry, kernel_shape) -> int | None:
    """How many products one output element sums; `None` where an axis is open, as a sequence's may be."""
    sizes = [kernel_shape[axis] for axis in geometry.summed_axes(len(kernel_shape))]
    return None if None in sizes else int(np.prod(sizes))
