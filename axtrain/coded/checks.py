"""How the results of a coded product are checked and decoded, and what the check says.

A check is fast: every column of the syndrome against a tolerance that follows the rounding of the products. Only where
it fails are the results looked at closely, with a tolerance from the operands, which no wrong result can raise.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from axtrain.coded.code import Stage
from axtrain.coded.decoder import CLEAN, UNCORRECTABLE, Decoder

MARGIN = 8.0
"""Tolerances in units of the rounding expected: eps sqrt(contraction length) |operands|."""

SHORTEST = 256
"""What updates put between shards of one code is not less where the contraction is short: a last layer of 10 outputs
came to twice the tolerance of its length alone within 300 steps."""


class Found(NamedTuple):
    """What the check of a product said.

    Attributes:
        wrong: shape (results,), boolean: coded results that were wrong or missing.
        detected, uncorrectable: float32 scalars, 1 or 0.
    """

    wrong: Any
    detected: Any
    uncorrectable: Any


def nothing_found(stage: Stage) -> Found:
    """Of a product that was clean."""
    return Found(ops.zeros((stage.results,), "bool"), ops.zeros(()), ops.zeros(()))


def rounding(dtype: Any, length: int, terms: float = 1.0) -> float:
    """What a sum of `length` products may be off by, for each unit of their usual sum; of `terms` such sums.

    However short, no less than for `SHORTEST`.
    """
    eps = float(np.finfo(keras.backend.standardize_dtype(dtype)).eps)
    return MARGIN * eps * (max(length, SHORTEST) * terms) ** 0.5


def size_of_operands(shards: Any, operand: Any, results: Any) -> Any:
    """For each sample, the size of its results: from its own length, the shards' usual size and the results'.

    Medians over shards and results, so that a few wrong ones, however large, do not raise it.

    Args:
        shards: shape (shards, height, width).
        operand: shape (batch, length).
        results: shape (groups, N, batch, width).
    """
    weights = ops.abs(shards)
    usual = ops.median(ops.mean(ops.where(ops.isfinite(weights), weights, 0.0), axis=(1, 2)))
    norm = ops.sqrt(ops.sum(ops.square(operand), axis=-1))
    sizes = ops.mean(ops.where(ops.isfinite(results), ops.abs(results), 0.0), axis=3)
    return norm * usual + ops.median(ops.reshape(sizes, (-1, ops.shape(sizes)[2])), axis=0)


class NodeCheck:
    """Results of N nodes in each codeword, checked and decoded by the joint decoder.

    Results have the shape (groups, N, batch, width).

    Args:
        stage: of the code.
        width: of the product, without padding.
        length: of the contraction.
        adversarial: as for `Decoder`.
    """

    def __init__(self, stage: Stage, width: int, length: int, *, adversarial: bool) -> None:
        self.stage, self.width, self.length = stage, width, length
        self.decoder = Decoder(stage.generator, adversarial=adversarial)
        self.sees = self.decoder.redundancy > 0
        self._is_plain = self.decoder.is_systematic and bool((stage.wanted == np.eye(self.decoder.messages)).all())
        # Syndrome and wanted blocks in one product, so that results are read once.
        self._look = np.concatenate([self.decoder.checks, stage.wanted @ np.linalg.pinv(stage.generator)])

    def value(self, results: Any) -> Any:
        """The product, of results that are clean: shape (batch, width)."""
        return self.quick(results)[1]

    def quick(self, results: Any) -> tuple[Any, Any]:
        """Whether no column of the syndrome is larger than the results' own size allows, and the product if so."""
        groups, nodes, batch, width = ops.shape(results)
        look = self.decoder.checks if self._is_plain else self._look
        seen = ops.matmul(ops.cast(look, results.dtype), ops.reshape(results, (groups, nodes, -1)))
        seen = ops.reshape(seen, (groups, len(look), batch, width))
        blocks = results[:, : self.decoder.messages] if self._is_plain else seen[:, self.decoder.redundancy :]
        value = self._joined(blocks)
        if not self.sees:
            return ops.ones((), "bool"), value
        # The last axis by itself: reductions over several that do not lie together are slow.
        size = ops.mean(ops.mean(ops.abs(results), axis=3), axis=(0, 1))
        largest = ops.max(ops.max(ops.abs(seen[:, : self.decoder.redundancy]), axis=3), axis=(0, 1))
        return self._all_within(largest, size, results.dtype), value

    def _all_within(self, largest: Any, size: Any, dtype: Any) -> Any:
        tolerance = rounding(dtype, self.length, self.decoder.redundancy) * size
        # Not the other way round: comparisons with NaN are false, and an infinite tolerance allows all.
        return ops.all(ops.logical_and(largest <= tolerance, ops.isfinite(tolerance)))

    def corrected(self, results: Any, layout: Any, coded: Any, operand: Any) -> tuple[Any, Found]:
        """The product with what is wrong corrected, and what was."""
        size = size_of_operands(layout.shards(coded), operand, results)
        tolerance = rounding(results.dtype, self.length, self.stage.threshold) * size
        groups, nodes, batch, block = ops.shape(results)
        limits = ops.broadcast_to(ops.repeat(tolerance, block)[None], (groups, batch * block))
        found = self.decoder.decode(ops.reshape(results, (groups, nodes, batch * block)), limits)
        wanted = ops.matmul(ops.cast(self.stage.wanted, found.messages.dtype), found.messages)
        blocks = ops.reshape(ops.cast(wanted, results.dtype), (groups, len(self.stage.wanted), batch, block))
        wrong = ops.reshape(found.wrong, (self.stage.results,))
        detected = ops.cast(ops.any(found.status != CLEAN), "float32")
        hopeless = ops.cast(ops.any(found.status == UNCORRECTABLE), "float32")
        return self._joined(blocks), Found(wrong, detected, hopeless)

    def _joined(self, blocks: Any) -> Any:
        """The wanted blocks side by side, from the shape (groups, blocks, batch, block)."""
        groups, count, _, block = blocks.shape
        joined = ops.reshape(ops.transpose(blocks, (2, 0, 1, 3)), (-1, groups * count * block))
        return joined[:, : self.width]


class RowCheck(NodeCheck):
    """Results of N nodes that came as the rows of one product, shape (batch, N, width), of a systematic code."""

    def value(self, results: Any) -> Any:
        """The first K results."""
        whole = ops.reshape(results[:, : self.decoder.messages], (-1, self.decoder.messages * results.shape[2]))
        return whole[:, : self.width]

    def quick(self, results: Any) -> tuple[Any, Any]:
        """As for results in their usual order, without changing it."""
        syndrome = ops.matmul(ops.cast(self.decoder.checks, results.dtype), results)
        size, largest = ops.mean(ops.abs(results), axis=(1, 2)), ops.max(ops.abs(syndrome), axis=(1, 2))
        return self._all_within(largest, size, results.dtype), self.value(results)

    def corrected(self, results: Any, layout: Any, coded: Any, operand: Any) -> tuple[Any, Found]:
        """In the usual order."""
        return super().corrected(layout.by_node(results), layout, coded, operand)


class ElementCheck:
    """Sums over each block's outputs against its checksum column; one wrong element is found by row and column.

    Source: Huang and Abraham 1984; theory page, section 8.

    Args:
        stage: of the code: one block's products with their checksum in each result.
        width: of the product, without padding.
        length: of the contraction.
        name: of the stage.
    """

    sees = True

    def __init__(self, stage: Stage, width: int, length: int, *, name: str) -> None:
        self.stage, self.width, self.length, self.name = stage, width, length, name

    def value(self, results: Any) -> Any:
        """The product: blocks without their checksums."""
        blocks, _ = results
        return blocks[:, : self.width]

    def quick(self, results: Any) -> tuple[Any, Any]:
        """Whether every block's sum is its checksum, and the product."""
        blocks, sums = results
        size = ops.mean(ops.abs(blocks), axis=1)
        tolerance = self._tolerance(blocks, sums) * size
        largest = ops.max(ops.abs(self._residual(blocks, sums)), axis=1)
        clean = ops.all(ops.logical_and(largest <= tolerance, ops.isfinite(tolerance)))
        return clean, self.value(results)

    def _tolerance(self, blocks: Any, sums: Any) -> float:
        return rounding(blocks.dtype, self.length, blocks.shape[1] / sums.shape[1])

    def _residual(self, blocks: Any, sums: Any) -> Any:
        split = ops.reshape(blocks, (-1, sums.shape[1], blocks.shape[1] // sums.shape[1]))
        return ops.sum(split, axis=2) - sums

    def corrected(self, results: Any, layout: Any, coded: Any, operand: Any) -> tuple[Any, Found]:
        """The product with one wrong element put right; more are detected."""
        blocks, sums = results
        finite = ops.isfinite(blocks)
        blocks = ops.where(finite, blocks, 0.0)
        weights = layout.weights(coded, self.name)
        usual = ops.median(ops.mean(ops.abs(ops.where(ops.isfinite(weights), weights, 0.0)), axis=0))
        norm = ops.sqrt(ops.sum(ops.square(operand), axis=1))
        size = norm * usual + ops.median(ops.abs(blocks), axis=1)
        residual = self._residual(blocks, ops.where(ops.isfinite(sums), sums, 0.0))
        bad_rows = ops.logical_or(
            ops.abs(residual) > self._tolerance(blocks, sums) * size[:, None], ops.logical_not(ops.isfinite(sums))
        )
        # Sums over the batch, from one product of the summed operand: they say which output is wrong.
        of_columns = ops.sum(blocks, axis=0) - ops.matmul(ops.sum(operand, axis=0, keepdims=True), weights)[0]
        batch = ops.cast(ops.shape(blocks)[0], blocks.dtype)
        limit = rounding(blocks.dtype, self.length) * ops.sqrt(batch) * ops.sqrt(ops.mean(ops.square(size))) * 2.0
        bad_columns = ops.logical_or(ops.abs(of_columns) > limit, ops.any(ops.logical_not(finite), axis=0))
        rows = ops.sum(ops.cast(bad_rows, "float32"))
        columns = ops.sum(ops.cast(bad_columns, "float32"))
        row, block = (
            ops.max(ops.cast(bad_rows, blocks.dtype), axis=1),
            ops.max(ops.cast(bad_rows, blocks.dtype), axis=0),
        )
        width = blocks.shape[1] // sums.shape[1]
        here = row[:, None] * ops.cast(bad_columns, blocks.dtype)[None] * ops.repeat(block, width)[None]
        error = ops.sum(ops.where(bad_rows, residual, 0.0))
        mended = blocks - here * error
        one = ops.logical_and(rows == 1.0, ops.logical_and(columns == 1.0, ops.sum(here) == 1.0))
        only_sum = ops.logical_and(rows == 1.0, columns == 0.0)  # the checksum itself was wrong
        detected = ops.cast(ops.logical_or(rows > 0, columns > 0), "float32")
        right = ops.logical_or(ops.logical_or(one, only_sum), detected < 0.5)
        value = ops.where(one, mended, blocks)[:, : self.width]
        return value, Found(nothing_found(self.stage).wrong, detected, 1.0 - ops.cast(right, "float32"))
