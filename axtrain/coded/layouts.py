"""How the shards of a coded kernel lie in one variable, and the products computed from them.

Kernels have Keras's shape (inputs, outputs), so a block is (inputs / n, outputs / m), padded with zeros where the grid
does not divide. Results have the shape (groups, N, batch, width): N results of each codeword, a block wide.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from axtrain.coded.checks import NodeCheck, RowCheck
from axtrain.coded.code import Code, Stage
from axtrain.coded.stored import StoredShards

Corrupt = Callable[[Any, Stage, str], Any]
"""What faults do to the products of one stage: (products of shape (A, batch, width), stage, name) -> the same."""


class ShardLayout:
    """Shards one after another: shape (shards, inputs / n, outputs / m). Any code.

    Args:
        code: a code whose operands come in n and m blocks.
        inputs, outputs: of the kernel.
    """

    def __init__(self, code: Code, inputs: int, outputs: int) -> None:
        self.code, self.inputs, self.outputs = code, inputs, outputs
        m, n = code.grid
        self.height, self.width = -(-inputs // n), -(-outputs // m)
        weights = np.einsum("pn,pm->pnm", code.right, code.left).reshape(code.shards, n * m)
        self.generator = weights  # of the shards, from the blocks in the order of the kernel
        self._inverse = np.linalg.pinv(weights)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the coded kernel."""
        return self.code.shards, self.height, self.width

    def shards(self, coded: Any) -> Any:
        """The coded kernel as (shards, height, width)."""
        return coded

    def from_shards(self, shards: Any) -> Any:
        """The coded kernel that these shards make."""
        return shards

    def encode(self, kernel: Any) -> Any:
        """The coded kernel of a kernel of shape (inputs, outputs)."""
        return self.from_shards(_along_first(self.generator, self.blocks(kernel)))

    def decode(self, coded: Any) -> Any:
        """The kernel, from all shards by least squares."""
        return self.kernel(_along_first(self._inverse, self.shards(coded)))

    _check: type[NodeCheck] = NodeCheck

    def checks(self, adversarial: bool) -> dict[str, Any]:
        """How the results of both stages are checked."""
        code = self.code
        return {
            "forward": self._check(code.forward, self.outputs, self.inputs, adversarial=adversarial),
            "backward": self._check(code.backward, self.inputs, self.outputs, adversarial=adversarial),
        }

    def stored(self, adversarial: bool) -> Any:
        """How what is stored between steps is checked and mended."""
        return StoredShards(self, adversarial)

    def by_node(self, results: Any) -> Any:
        """Results as they come from this layout, in their usual order."""
        return results

    def blocks(self, kernel: Any) -> Any:
        """Shape (n m, height, width)."""
        m, n = self.code.grid
        whole = padded(kernel, n * self.height, m * self.width)
        split = ops.transpose(ops.reshape(whole, (n, self.height, m, self.width)), (0, 2, 1, 3))
        return ops.reshape(split, (n * m, self.height, self.width))

    def kernel(self, blocks: Any) -> Any:
        """`blocks` undone."""
        m, n = self.code.grid
        parts = ops.transpose(ops.reshape(blocks, (n, m, self.height, self.width)), (0, 2, 1, 3))
        return ops.reshape(parts, (n * self.height, m * self.width))[: self.inputs, : self.outputs]

    def forward(self, coded: Any, x: Any, corrupt: Corrupt | None = None) -> Any:
        """Results of ``x W``, x of shape (batch, inputs)."""
        return self._results(self.shards(coded), x, self.code.forward, self.code.grid[1], "forward", corrupt)

    def backward(self, coded: Any, delta: Any, corrupt: Corrupt | None = None) -> Any:
        """Results of ``delta W'``, delta of shape (batch, outputs)."""
        turned = ops.transpose(self.shards(coded), (0, 2, 1))
        return self._results(turned, delta, self.code.backward, self.code.grid[0], "backward", corrupt)

    def gradient(self, x: Any, delta: Any) -> Any:
        """The coded kernel of ``x' delta``, each shard from its own coded operands."""
        right = _coded(x, self.code.right, self.code.grid[1], self.height)
        left = _coded(delta, self.code.left, self.code.grid[0], self.width)
        return self.from_shards(ops.matmul(ops.transpose(right, (0, 2, 1)), left))

    def _results(self, shards: Any, operand: Any, stage: Stage, blocks: int, name: str, corrupt: Corrupt | None) -> Any:
        if len(stage.shards) < self.code.shards:
            shards = ops.take(shards, stage.shards, axis=0)
        products = ops.matmul(_coded(operand, stage.operand, blocks, shards.shape[1]), shards)
        if corrupt is not None:
            products = corrupt(products, stage, name)
        if stage.results == len(stage.sums):
            products = ops.take(products, np.argsort(stage.sums), axis=0) if stage.groups > 1 else products
        else:
            products = _added(products, stage)
        nodes = stage.results // stage.groups  # said, since a graph that does not know the batch knows no -1 either
        return ops.reshape(products, (stage.groups, nodes, *ops.shape(products)[1:]))


class MatrixLayout(ShardLayout):
    """One matrix of parity-extended rows and columns, so that a stage is a single product. Grid codes.

    The corner, where parity rows and columns would meet, belongs to no node; it is kept because one product that
    computes it along is faster than two that leave it out. Results have the shape (batch, N, width), as they come.
    """

    _check = RowCheck

    def by_node(self, results: Any) -> Any:
        """From (batch, N, width)."""
        return ops.transpose(results, (1, 0, 2))[None]

    @property
    def shape(self) -> tuple[int, ...]:
        """((n + parities) height, (m + parities) width)."""
        m, n = self.code.grid
        return (n + self._parities) * self.height, (m + self._parities) * self.width

    @property
    def _parities(self) -> int:
        return self.code.parities  # type: ignore[attr-defined]

    def shards(self, coded: Any) -> Any:
        """The blocks that nodes hold, in the code's order."""
        m, n = self.code.grid
        every = (n + self._parities, self.height, m + self._parities, self.width)
        blocks = ops.transpose(ops.reshape(coded, every), (2, 0, 1, 3))
        rows, columns = self.code.places.T  # type: ignore[attr-defined]
        blocks = ops.reshape(blocks, (-1, self.height, self.width))
        return ops.take(blocks, rows * (n + self._parities) + columns, axis=0)

    def from_shards(self, shards: Any) -> Any:
        """With zeros in the corner."""
        m, n = self.code.grid
        rows, columns = self.code.places.T  # type: ignore[attr-defined]
        place = np.full((m + self._parities) * (n + self._parities), len(rows))
        place[rows * (n + self._parities) + columns] = np.arange(len(rows))
        blocks = ops.take(ops.concatenate([shards, ops.zeros_like(shards[:1])]), place, axis=0)
        blocks = ops.reshape(blocks, (m + self._parities, n + self._parities, self.height, self.width))
        return ops.reshape(ops.transpose(blocks, (1, 2, 0, 3)), self.shape)

    def decode(self, coded: Any) -> Any:
        """The systematic part."""
        return coded[: self.inputs, : self.outputs]

    def forward(self, coded: Any, x: Any, corrupt: Corrupt | None = None) -> Any:
        """Results of ``x W``: each row's in one product, already added along its columns."""
        if corrupt is not None:
            return ops.transpose(super().forward(coded, x, corrupt)[0], (1, 0, 2))
        products = ops.matmul(x, coded[: self.inputs])
        return ops.reshape(products, (-1, self.code.grid[0] + self._parities, self.width))

    def backward(self, coded: Any, delta: Any, corrupt: Corrupt | None = None) -> Any:
        """Results of ``delta W'``."""
        if corrupt is not None:
            return ops.transpose(super().backward(coded, delta, corrupt)[0], (1, 0, 2))
        products = ops.matmul(delta, ops.transpose(coded[:, : self.outputs]))
        return ops.reshape(products, (-1, self.code.grid[1] + self._parities, self.height))

    def gradient(self, x: Any, delta: Any) -> Any:
        """One product of both operands with their parity blocks."""
        m, n = self.code.grid
        right = self._with_parities(x, self.code.column_generator, n, self.height)  # type: ignore[attr-defined]
        left = self._with_parities(delta, self.code.row_generator, m, self.width)  # type: ignore[attr-defined]
        return ops.matmul(ops.transpose(right), left)

    def _with_parities(self, operand: Any, generator: np.ndarray, blocks: int, width: int) -> Any:
        whole = padded(operand, None, blocks * width)
        if not self._parities:
            return whole
        split = ops.reshape(whole, (-1, blocks, width))
        parities = ops.matmul(ops.cast(generator[blocks:], split.dtype), split)
        return ops.concatenate([whole, ops.reshape(parities, (-1, self._parities * width))], axis=1)


def _coded(operand: Any, weights: np.ndarray, blocks: int, width: int) -> Any:
    """The operand of each shard: shape (A, batch, width), from (batch, blocks * width) or less."""
    split = ops.transpose(ops.reshape(padded(operand, None, blocks * width), (-1, blocks, width)), (1, 0, 2))
    ones = (weights == 1).sum(axis=1)
    if (ones == 1).all() and (np.abs(weights).sum(axis=1) == 1).all():  # each takes one block as it is
        return ops.take(split, weights.argmax(axis=1), axis=0)
    return _along_first(weights, split)


def _along_first(matrix: np.ndarray, values: Any) -> Any:
    """``sum_q matrix[p, q] values[q]``."""
    flat = ops.reshape(values, (values.shape[0], -1))
    return ops.reshape(ops.matmul(ops.cast(matrix, flat.dtype), flat), (len(matrix), *ops.shape(values)[1:]))


def _added(products: Any, stage: Stage) -> Any:
    """Products of one result added: shape (results, batch, width)."""
    order = np.argsort(stage.sums, kind="stable")
    sorted_ = ops.take(products, order, axis=0)
    return ops.sum(ops.reshape(sorted_, (stage.results, -1, *ops.shape(products)[1:])), axis=1)


def padded(values: Any, rows: int | None, columns: int) -> Any:
    """Zeros added below and beside a matrix."""
    below = 0 if rows is None else rows - values.shape[0]
    beside = columns - values.shape[1]
    return ops.pad(values, ((0, below), (0, beside))) if below or beside else values
