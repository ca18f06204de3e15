"""Copies of an uncoded grid, compared: what codes are measured against."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from axtrain.coded.code import BlockCode, Stage, at_least


class CopiedBlocks(BlockCode):
    """Each block of the weights as it is, at `copies` nodes; a codeword is what copies say of one row or column."""

    copies: int

    @cached_property
    def places(self) -> np.ndarray:
        """Copy, row and column of each shard."""
        return np.indices((self.copies, self.rows, self.columns)).reshape(3, -1).T

    @property
    def codewords(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The copies of each block."""
        return [(np.ones((self.copies, 1)), np.arange(self.shards).reshape(self.copies, -1).T)]

    @cached_property
    def left(self) -> np.ndarray:
        """1 at the shard's row."""
        return np.eye(self.rows)[self.places[:, 1]]

    @cached_property
    def right(self) -> np.ndarray:
        """1 at the shard's column."""
        return np.eye(self.columns)[self.places[:, 2]]

    @cached_property
    def forward(self) -> Stage:
        """A codeword for each row: its copies, each added along the columns."""
        return self._stage(self.right, self.places[:, 1])

    @cached_property
    def backward(self) -> Stage:
        """A codeword for each column."""
        return self._stage(self.left, self.places[:, 2])

    def _stage(self, operand: np.ndarray, group: np.ndarray) -> Stage:
        return Stage(
            shards=np.arange(self.shards),
            operand=operand,
            sums=group * self.copies + self.places[:, 0],
            generator=np.ones((self.copies, 1)),
            wanted=np.ones((1, 1)),
        )


@dataclass(frozen=True)
class Replication(CopiedBlocks):
    """Every block at `copies` nodes, whose results are compared.

    Two copies detect an error; 2 t + 1 correct t. Copies of one operation round alike.

    Args:
        copies: nodes that hold each block.
        rows, columns: blocks of the outputs and inputs, so P = copies rows columns.

    Raises:
        ValueError: numbers that are not whole, or a single copy.

    Examples:
        >>> Replication(3, rows=4, columns=5).nodes, Replication(3).adversarial_errors
        (60, 1)
    """

    copies: int
    rows: int = 1
    columns: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self.copies, 2, "copies")
