"""Codes on a grid of blocks whose systematic part is the weights themselves: CodeNet and its relatives."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from axtrain.coded.code import BlockCode, Code, Stage, at_least
from axtrain.coded.generators import systematic


class GridCode(Code):
    """An m x n grid of systematic blocks, parity rows below it and parity columns beside it.

    Shards are numbered row by row: the m rows of n, then the parity rows of n, then the parity columns of m.
    Forward products are added along the n columns, giving one coded result for each row; backward along the rows.
    Subclasses give `grid` and `parities`.
    """

    @property
    @abstractmethod
    def parities(self) -> int:
        """Parity rows, and parity columns."""

    @cached_property
    def row_generator(self) -> np.ndarray:
        """Of the code along the rows: (m + parities, m)."""
        return systematic(self.grid[0] + self.parities, self.grid[0])

    @cached_property
    def column_generator(self) -> np.ndarray:
        """Of the code along the columns: (n + parities, n)."""
        return systematic(self.grid[1] + self.parities, self.grid[1])

    @cached_property
    def places(self) -> np.ndarray:
        """Row and column of each shard in the extended grid: (shards, 2)."""
        (m, n), extra = self.grid, self.parities
        first = [(a, b) for a in range(m + extra) for b in range(n)]
        return np.array(first + [(a, n + c) for c in range(extra) for a in range(m)])

    @property
    def codewords(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Each column of the grid by the rows' code, and each row by the columns'."""
        (m, n), extra = self.grid, self.parities
        shard = {(a, b): number for number, (a, b) in enumerate(self.places.tolist())}
        columns = np.array([[shard[a, b] for a in range(m + extra)] for b in range(n)])
        rows = np.array([[shard[a, b] for b in range(n + extra)] for a in range(m)])
        return [(self.row_generator, columns), (self.column_generator, rows)]

    @cached_property
    def left(self) -> np.ndarray:
        """A row of the row generator for each shard."""
        return self.row_generator[self.places[:, 0]]

    @cached_property
    def right(self) -> np.ndarray:
        """A row of the column generator for each shard."""
        return self.column_generator[self.places[:, 1]]

    @cached_property
    def forward(self) -> Stage:
        """Shards of the first n columns, results added along the rows."""
        m, n = self.grid
        shards = np.flatnonzero(self.places[:, 1] < n)
        a, b = self.places[shards].T
        return Stage(shards=shards, operand=np.eye(n)[b], sums=a, generator=self.row_generator, wanted=np.eye(m))

    @cached_property
    def backward(self) -> Stage:
        """Shards of the first m rows, results added along the columns."""
        m, n = self.grid
        shards = np.flatnonzero(self.places[:, 0] < m)
        a, b = self.places[shards].T
        return Stage(shards=shards, operand=np.eye(m)[a], sums=b, generator=self.column_generator, wanted=np.eye(n))


@dataclass(frozen=True)
class CodeNet(BlockCode, GridCode):
    """The two-dimensional code of CodeNet (Dutta, Bai, Low, Grover 2018).

    P = m n + 2 t (m + n) nodes; each stage corrects t wrong results whatever their errors, 2 t - 1 where they are
    independent, and detects 2 t.

    Args:
        rows: m, blocks of the outputs.
        columns: n, blocks of the inputs.
        errors: t.

    Raises:
        ValueError: what is not a whole number of at least 1.

    Examples:
        >>> code = CodeNet(rows=4, columns=5, errors=1)
        >>> code.nodes, code.adversarial_errors, code.recovery_threshold
        (38, 1, 5)
    """

    rows: int
    columns: int
    errors: int = 1

    @property
    def parities(self) -> int:
        """2 t."""
        return 2 * self.errors


@dataclass(frozen=True)
class SystematicMDS(GridCode):
    """A maximum-distance-separable code over P nodes: node p holds row p and column p of the coded weights.

    The outputs are coded for the forward products and the inputs for the backward ones, Q blocks each, so a node
    stores two Qths of the weights. Any Q nodes suffice.

    Args:
        total: P, nodes.
        needed: Q, nodes that suffice.

    Raises:
        ValueError: fewer nodes than suffice, or numbers that are not whole.

    Examples:
        >>> code = SystematicMDS(8, 5)
        >>> code.nodes, code.independent_errors, code.adversarial_errors
        (8, 2, 1)
    """

    total: int
    needed: int

    def __post_init__(self) -> None:
        at_least(self.needed, 1, "needed")
        at_least(self.total, self.needed, "total")

    @property
    def grid(self) -> tuple[int, int]:
        """(Q, Q)."""
        return self.needed, self.needed

    @property
    def parities(self) -> int:
        """P - Q."""
        return self.total - self.needed

    @property
    def storage(self) -> float:
        """A row and a column: the systematic blocks are kept twice."""
        return 2 / self.needed

    def owner(self, stage: str) -> np.ndarray:
        """Rows forward, columns backward."""
        return self.places[:, 1 if stage == "backward" else 0]


@dataclass(frozen=True)
class Uncoded(BlockCode, GridCode):
    """The layer cut into blocks with nothing to check them by.

    Args:
        rows: blocks of the outputs.
        columns: blocks of the inputs.
    """

    rows: int = 1
    columns: int = 1

    @property
    def parities(self) -> int:
        """None."""
        return 0
