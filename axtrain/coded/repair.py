"""Shards regenerated from the others: the code's own redundancy is the backup."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from axtrain.coded.code import Code
from axtrain.coded.layouts import ShardLayout

_DIFFERENT = 1e-5  # of the shard's size: more than rounding between a shard and its regenerated self


def suspected(code: Code, wrong: dict[str, Any]) -> Any:
    """Shards whose results were wrong: boolean, shape (shards,).

    Args:
        code: of the layer.
        wrong: for `forward` and `backward`, which coded results were: shape (results,), 1 or 0.
    """
    found = np.zeros((code.shards,), "float32")
    for name, stage in (("forward", code.forward), ("backward", code.backward)):
        share = np.zeros((code.shards, stage.results), "float32")
        share[stage.shards, stage.sums] = 1.0
        found = found + ops.matmul(share, ops.reshape(wrong[name], (-1, 1)))[:, 0]
    return found > 0.5


def recipe(code: Code, shard: int, available: np.ndarray) -> dict[int, float]:
    """From which other shards, with what weights, a shard is made anew; from as few as the code's structure allows.

    Args:
        code: of the layer.
        shard: the one wanted.
        available: boolean, shape (shards,): which others may be asked.

    Returns:
        for each shard to ask its weight; nothing where the others do not suffice.

    Example:
        >>> import numpy as np
        >>> from axtrain.coded import Replication
        >>> recipe(Replication(3), 0, np.array([False, False, True]))
        {2: 1.0}
    """
    generator = np.einsum("pn,pm->pnm", code.right, code.left).reshape(code.shards, -1)
    others = np.array(available, bool)
    others[shard] = False
    same_inputs = (code.right == code.right[shard]).all(axis=1)
    same_outputs = (code.left == code.left[shard]).all(axis=1)
    for among in (same_inputs & same_outputs, same_inputs, same_outputs, np.ones_like(others)):
        asked = np.flatnonzero(among & others)
        if not len(asked):
            continue
        weights = np.linalg.lstsq(generator[asked].T, generator[shard], rcond=1e-9)[0]
        if np.allclose(weights @ generator[asked], generator[shard], atol=1e-8):
            return {int(q): float(w) for q, w in zip(asked, weights, strict=True) if abs(w) > 1e-12}
    return {}


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
