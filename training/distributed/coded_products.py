"""A node's part of a coded product, and the whole product from all nodes' parts, some of them wrong or missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from axtrain.coded.checks import rounding
from axtrain.coded.code import Code
from axtrain.coded.layouts import ShardLayout


class CodedProducts:
    """Products of one node, for each layer's layout.

    Args:
        number: of its shard.
        code: how kernels are spread.
        layouts: of each layer's kernel.
        adversarial: trust only corrections that are right whatever the errors are.
    """

    def __init__(self, number: int, code: Code, layouts: Sequence[ShardLayout], adversarial: bool) -> None:
        self.number, self.code, self.layouts = number, code, layouts
        self.checks = [layout.checks(adversarial) for layout in layouts]

    def own(self, stage: str, layer: int, operand: np.ndarray, shard: np.ndarray) -> np.ndarray | None:
        """A node's own part, `None` where it has none.

        Args:
            stage: `forward` or `backward`.
            layer: which.
            operand: not coded, shape (batch, rows or columns of the kernel).
            shard: the node's.
        """
        weights = getattr(self.code, stage)
        place = np.flatnonzero(weights.shards == self.number)
        if not len(place):
            return None
        layout = self.layouts[layer]
        width = layout.height if stage == "forward" else layout.width
        return blocks_summed(operand, weights.operand[place[0]], width) @ (shard if stage == "forward" else shard.T)

    def decoded(
        self, stage: str, layer: int, operand: np.ndarray, shard: np.ndarray, products: Sequence[np.ndarray | None]
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """A product from all nodes' parts, and a note: which results are `wrong`, and whether it is `hopeless`.

        Args:
            stage, layer, operand, shard: as for `own`.
            products: of every node, `None` where there is none.
        """
        weights, layout, check = getattr(self.code, stage), self.layouts[layer], self.checks[layer][stage]
        width = layout.width if stage == "forward" else layout.height
        results = np.zeros((weights.results, len(operand), width), np.float32)
        for sender, result in zip(weights.shards, weights.sums, strict=True):
            product = products[sender]
            results[result] += np.nan if product is None or product.shape != results[result].shape else product
        results = results.reshape(weights.groups, -1, *results.shape[1:])
        missing = np.asarray(~np.isfinite(results).all(axis=(2, 3)))
        if missing.any():
            results = filled(results, missing, weights.generator, layout.inputs)
        clean, value = check.quick(results)  # where the check sees nothing, all is clean
        if bool(clean):
            value = np.asarray(value)
            return value, {"wrong": np.flatnonzero(missing), "hopeless": not np.isfinite(value).all()}
        own = shard if stage == "forward" else shard.T
        value, found = check.corrected(results, layout, own[None], operand)
        return np.asarray(value), {"wrong": np.flatnonzero(found.wrong), "hopeless": bool(found.uncorrectable > 0)}


def filled(results: np.ndarray, missing: np.ndarray, generator: np.ndarray, length: int) -> np.ndarray:
    """Missing results from those that are there, where these agree: most often nodes are gone and none is wrong.

    The joint decoder would find the same in a hundred times the time.

    Args:
        results: shape (groups, N, batch, width).
        missing: shape (groups, N).
        generator: shape (N, K).
        length: of the contraction.

    Returns:
        the results without gaps, or as they were where too few are there or they contradict each other.
    """
    found = results.copy()
    for group, gone in enumerate(missing):
        there = generator[~gone]
        if gone.any() and len(there) >= generator.shape[1]:
            seen = results[group][~gone].reshape(len(there), -1)
            messages = np.linalg.pinv(there) @ seen
            limit = rounding(results.dtype, length, len(there)) * np.abs(seen).mean()
            if np.abs(there @ messages - seen).max(initial=0.0) <= limit:
                found[group] = (generator @ messages).reshape(results.shape[1:])
    return found


def blocks_summed(operand: np.ndarray, weights: np.ndarray, width: int) -> np.ndarray:
    """A coded operand: blocks of columns, `width` wide, summed with weights."""
    total = np.zeros((len(operand), width), np.float32)
    for number, weight in enumerate(weights):
        block = operand[:, number * width : (number + 1) * width]
        if weight and block.shape[1]:
            total[:, : block.shape[1]] += np.float32(weight) * block
    return total
