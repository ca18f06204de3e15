"""Several products of one geometry as a single one: their operands side by side along the axis that is summed."""

from __future__ import annotations

from collections.abc import Sequence

from keras import ops


def joined(geometry, kernels: Sequence):
    """The kernels side by side: the first one meets the first block of the joint activations, and so on.

    Args:
        geometry: of each product; what distinguishes it is `operation` and `summed_axes`.
        kernels: float32, all of one shape.
    """
    if len(kernels) == 1:
        return kernels[0]
    return ops.concatenate(list(kernels), axis=_joint_axis(geometry, len(kernels[0].shape)))


def joint_product(geometry, activations, kernel, rank: int):
    """``sum_r floats(a_r, w_r)`` over the first product and `rank` more, as one product.

    Args:
        geometry: of each product.
        activations: float32 (..., (1 + rank) C), one block of C channels for each product.
        kernel: as `joined` gives it.
        rank: how many products come beside the first.
    """
    sums = geometry.floats(activations, kernel)
    if geometry.operation != "depthwise" or rank == 0:
        return sums
    *lead, channels = ops.shape(sums)  # a depthwise product sums over no channels: the blocks come out one by one
    return ops.sum(ops.reshape(sums, (*lead, 1 + rank, channels // (1 + rank))), axis=-2)


def window_sums(geometry, values, kernel_shape):
    """Sums over each output's window of values that were summed over channels already: (..., 1) to (..., 1)."""
    if geometry.axes == 0:
        return values
    window = kernel_shape[:-2]
    return geometry.floats(values, ops.ones((*window, 1, 1)))


def _joint_axis(geometry, kernel_rank: int) -> int:
    """The kernel's axis of input channels, the activations' last one.

    A dense product may merge several summed axes into one, the first of them outermost; a convolution's last
    summed axis is the channels; a depthwise one sums its window alone and keeps the channels before the last axis.
    """
    if geometry.operation == "depthwise":
        return kernel_rank - 2
    summed = geometry.summed_axes(kernel_rank)
    return summed[0] if geometry.axes == 0 else summed[-1]
