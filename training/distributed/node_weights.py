"""Kernels from what nodes hold of them."""

from __future__ import annotations

import numpy as np

from axtrain.coded.code import Code
from axtrain.coded.layouts import ShardLayout
from axtrain.training.distributed.dense_stack import DenseStack


def decoded(stack: DenseStack, code: Code, states: dict[int, list]) -> tuple[list, list] | None:
    """Kernels and their velocities, each with its bias as last row.

    Args:
        stack: the network.
        code: one shard for each node.
        states: for each node that answered its shards of all kernels, then of all velocities.

    Returns:
        both, or `None` where more shards are wrong or missing than the code corrects.
    """
    layouts = [ShardLayout(code, layer.rows, layer.outputs) for layer in stack.layers]
    kernels = []
    for number in range(2 * len(layouts)):
        layout = layouts[number % len(layouts)]
        shards = np.full(layout.shape, np.nan, np.float32)
        for node, state in states.items():
            shards[node] = state[number]
        found, _, possible = layout.stored(adversarial=True).mended([shards])
        if not bool(possible):
            return None
        kernels.append(np.asarray(layout.decode(found[0])).astype(np.float32))
    return kernels[: len(layouts)], kernels[len(layouts) :]
