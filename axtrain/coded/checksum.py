"""Huang and Abraham's checksums: every block keeps its row and column sums, through products and updates alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from axtrain.coded.checks import ElementCheck
from axtrain.coded.code import Stage
from axtrain.coded.layouts import Corrupt, ShardLayout, padded
from axtrain.coded.replication import CopiedBlocks
from axtrain.coded.stored import StoredSums


@dataclass(frozen=True)
class Checksum(CopiedBlocks):
    """Each block of the weights with the sum of its columns and of its rows, ``[W, W e; e' W, e' W e]``.

    One wrong element of a product is found by its row and column and corrected; more are detected. The checksum
    column is folded into the product, and updates keep it. Sources: Huang and Abraham 1984; theory page, section 8.

    Args:
        rows, columns: blocks of the outputs and inputs, each a node's.

    Raises:
        ValueError: what is not a whole number of at least 1.

    Examples:
        >>> Checksum().nodes, Checksum(rows=4, columns=5).nodes
        (1, 20)
    """

    rows: int = 1
    columns: int = 1

    @property
    def copies(self) -> int:  # type: ignore[override]
        """One: a block is checked by its sums."""
        return 1


_WHOLE = 16  # words of a vector: a product of one column more than a multiple takes far longer than its operations


class ChecksumLayout(ShardLayout):
    """The kernel, its blocks' row sums beside it and column sums below it: one matrix, one product for each stage.

    Zeros fill it to whole vectors.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """(n height + n, m width + m), each up to a multiple of 16."""
        return tuple(-(-used // _WHOLE) * _WHOLE for used in self._used)

    @property
    def _used(self) -> tuple[int, int]:
        m, n = self.code.grid
        return n * (self.height + 1), m * (self.width + 1)

    def _filled(self, matrix: Any) -> Any:
        return padded(matrix, *self.shape)

    def checks(self, adversarial: bool) -> dict[str, Any]:
        """By elements: nodes do not check each other."""
        return {
            "forward": ElementCheck(self.code.forward, self.outputs, self.inputs, name="forward"),
            "backward": ElementCheck(self.code.backward, self.inputs, self.outputs, name="backward"),
        }

    def stored(self, adversarial: bool) -> StoredSums:
        """By the blocks' sums."""
        return StoredSums(self)

    def encode(self, kernel: Any) -> Any:
        """The kernel with its sums."""
        m, n = self.code.grid
        kernel = padded(kernel, n * self.height, m * self.width)
        wide = _with_sums(kernel, m, self.width)
        return self._filled(ops.transpose(_with_sums(ops.transpose(wide), n, self.height)))

    def decode(self, coded: Any) -> Any:
        """The kernel without its sums."""
        return coded[: self.inputs, : self.outputs]

    def shards(self, coded: Any) -> Any:
        """Each node's block with its own sums: (shards, height + 1, width + 1)."""
        m, n = self.code.grid
        blocks = ops.take(ops.take(coded, self._order(n, self.height), axis=0), self._order(m, self.width), axis=1)
        blocks = ops.reshape(blocks, (n, self.height + 1, m, self.width + 1))
        return ops.reshape(ops.transpose(blocks, (2, 0, 1, 3)), (m * n, self.height + 1, self.width + 1))

    def from_shards(self, shards: Any) -> Any:
        """`shards` undone."""
        m, n = self.code.grid
        blocks = ops.reshape(shards, (m, n, self.height + 1, self.width + 1))
        matrix = ops.reshape(ops.transpose(blocks, (1, 2, 0, 3)), self._used)
        rows, columns = np.argsort(self._order(n, self.height)), np.argsort(self._order(m, self.width))
        return self._filled(ops.take(ops.take(matrix, rows, axis=0), columns, axis=1))

    @staticmethod
    def _order(blocks: int, width: int) -> np.ndarray:
        """Where each block's elements and then its sum lie in the matrix."""
        inside = np.arange(blocks * width).reshape(blocks, width)
        return np.concatenate([inside, blocks * width + np.arange(blocks)[:, None]], axis=1).ravel()

    def weights(self, coded: Any, name: str) -> Any:
        """What a stage multiplies with, without sums: (length, blocks * width)."""
        m, n = self.code.grid
        inner = coded[: n * self.height, : m * self.width]
        if name == "forward":
            return inner[: self.inputs]
        return ops.transpose(inner[:, : self.outputs])

    def forward(self, coded: Any, x: Any, corrupt: Corrupt | None = None) -> tuple[Any, Any]:
        """Products and the sums that they should have."""
        m, _ = self.code.grid
        if corrupt is not None:
            return self._corrupted(self.shards(coded)[:, :-1], x, self.code.forward, "forward", corrupt)
        products = ops.matmul(x, coded[: self.inputs])
        return products[:, : m * self.width], products[:, m * self.width : m * self.width + m]

    def backward(self, coded: Any, delta: Any, corrupt: Corrupt | None = None) -> tuple[Any, Any]:
        """Products and the sums that they should have."""
        _, n = self.code.grid
        if corrupt is not None:
            turned = ops.transpose(self.shards(coded)[:, :, :-1], (0, 2, 1))
            return self._corrupted(turned, delta, self.code.backward, "backward", corrupt)
        # Zeros beside the operand cost less than a copy of the kernel without its last columns.
        products = ops.matmul(padded(delta, None, self.shape[1]), ops.transpose(coded))
        return products[:, : n * self.height], products[:, n * self.height : n * self.height + n]

    def _corrupted(self, shards: Any, operand: Any, stage: Stage, name: str, corrupt: Corrupt) -> tuple[Any, Any]:
        results = self._results(shards, operand, stage, stage.operand.shape[1], name, corrupt)
        flat = ops.transpose(results[:, 0], (1, 0, 2))  # (batch, blocks, width + 1)
        width = flat.shape[2] - 1
        return ops.reshape(flat[:, :, :width], (-1, flat.shape[1] * width)), flat[:, :, width]

    def gradient(self, x: Any, delta: Any) -> Any:
        """Both operands with their blocks' sums, in one product."""
        m, n = self.code.grid
        right = _with_sums(padded(x, None, n * self.height), n, self.height)
        left = _with_sums(padded(delta, None, m * self.width), m, self.width)
        rows, columns = self.shape
        return ops.matmul(ops.transpose(padded(right, None, rows)), padded(left, None, columns))


def _with_sums(matrix: Any, blocks: int, width: int) -> Any:
    """A matrix with the sum of each block of columns beside it."""
    sums = ops.sum(ops.reshape(matrix, (-1, blocks, width)), axis=2)
    return ops.concatenate([matrix, sums], axis=1)
