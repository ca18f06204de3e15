"""Shards regenerated from the others: the code's own redundancy is the backup."""

from __future__ import annotations

from typing import Any

from keras import ops

from axtrain.coded.layouts import ShardLayout

_DIFFERENT = 1e-5  # of the shard's size: more than rounding between a shard and its regenerated self


def repaired(layout: ShardLayout, shards: Any, suspects: Any) -> tuple[Any, Any, Any]:
    """The shards with the suspects computed anew from the others, by least squares in float64.

    Args:
        layout: of the coded kernel.
        shards: shape (shards, height, width).
        suspects: boolean, shape (shards,).

    Returns:
        `(shards, regenerated, possible)`: the new shards, how many of them had been wrong, and whether the others
        suffice.
    """
    generator = ops.convert_to_tensor(layout.generator, "float64")
    kept = ops.cast(ops.logical_not(suspects), "float64")[:, None]
    left, values, right = ops.svd(generator * kept, full_matrices=False)
    possible = values[-1] > 1e-9 * values[0]
    inverse = ops.where(values > 1e-12 * values[0], 1.0 / ops.maximum(values, 1e-300), 0.0)
    flat = ops.reshape(ops.cast(shards, "float64"), (layout.code.shards, -1))
    seen = ops.matmul(ops.transpose(left), ops.where(kept > 0, flat, 0.0))
    anew = ops.matmul(generator, ops.matmul(ops.transpose(right), inverse[:, None] * seen))
    apart = ops.max(ops.where(ops.isfinite(flat), ops.abs(anew - flat), float("inf")), axis=1)
    was_wrong = ops.logical_and(suspects, apart > _DIFFERENT * ops.max(ops.abs(anew), axis=1))
    new = ops.reshape(ops.cast(anew, shards.dtype), ops.shape(shards))
    taken = ops.where(was_wrong[:, None, None], new, shards)
    return taken, ops.sum(ops.cast(was_wrong, "float32")), possible
