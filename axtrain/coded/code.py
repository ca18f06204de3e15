"""What every code is: how a layer's weights and operands are spread over nodes, and what their products give back.

Weights W (outputs x inputs) are cut into an m x n grid of blocks W_ij. Node p stores one shard,
``W~_p = sum_ij left[p, i] right[p, j] W_ij``, so that the update of a shard is an outer product of coded operands,
``W~_p += (sum_i left[p, i] delta_i) (sum_j right[p, j] x_j)'``, and weights stay encoded from update to update.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from axtrain.coded.generators import condition


@dataclass(frozen=True, eq=False, kw_only=True)
class Stage:
    """One coded product: which nodes take part, with what operand, and how their results are decoded.

    Results that are added before the check (`sums`) make R = groups x N values, decoded in groups of N.

    Attributes:
        shards: the shards that take part: shape (A,).
        operand: how each makes its operand from the operand's blocks: (A, blocks).
        sums: which of the R results each product is added to: (A,).
        generator: of the code of each group's N results for K messages: (N, K).
        wanted: the blocks wanted of each group, from its messages: (blocks, K).
    """

    shards: np.ndarray
    operand: np.ndarray
    sums: np.ndarray
    generator: np.ndarray
    wanted: np.ndarray

    @property
    def results(self) -> int:
        """R, over all groups."""
        return int(self.sums.max()) + 1

    @property
    def groups(self) -> int:
        """Codewords that are decoded one by one."""
        return self.results // self.generator.shape[0]

    @property
    def threshold(self) -> int:
        """Results of a group that suffice to decode it."""
        return self.generator.shape[1]

    @property
    def redundancy(self) -> int:
        """Results of a group beyond the threshold."""
        return self.generator.shape[0] - self.generator.shape[1]


class Code(ABC):
    """A code for the products and the update of a layer.

    Subclasses are frozen dataclasses of their parameters. Figures are for one stage (forward or backward); where
    the two differ, the smaller.
    """

    @property
    @abstractmethod
    def grid(self) -> tuple[int, int]:
        """(m, n): blocks of the outputs and of the inputs."""

    @property
    @abstractmethod
    def left(self) -> np.ndarray:
        """Shape (shards, m): of the outputs' blocks."""

    @property
    @abstractmethod
    def right(self) -> np.ndarray:
        """Shape (shards, n): of the inputs' blocks."""

    @property
    @abstractmethod
    def forward(self) -> Stage:
        """``s = W x``: operand x in n blocks, wanted s in m blocks."""

    @property
    @abstractmethod
    def backward(self) -> Stage:
        """``c = W' delta``: operand delta in m blocks, wanted c in n blocks."""

    @property
    def shards(self) -> int:
        """Stored blocks over all nodes."""
        return len(self.left)

    @property
    def nodes(self) -> int:
        """P, nodes that can fail on their own."""
        return int(self.owner("update").max()) + 1

    def owner(self, stage: str) -> np.ndarray:
        """The node that works on each shard in a stage, `forward`, `backward` or `update`: shape (shards,)."""
        return np.arange(self.shards)

    @property
    def codewords(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """What the stored shards are coded by: generators (N, K), each with its codewords' shards (codewords, N)."""
        generator = np.einsum("pn,pm->pnm", self.right, self.left).reshape(self.shards, -1)
        return [(generator, np.arange(self.shards)[None])]

    @property
    def independent_errors(self) -> int:
        """Wrong results of a codeword that are corrected where their errors are independent: N - K - 1."""
        return min(max(s.redundancy - 1, s.redundancy // 2) for s in (self.forward, self.backward))

    @property
    def adversarial_errors(self) -> int:
        """Wrong results of a codeword that are corrected whatever the errors are: floor((N - K) / 2)."""
        return min(s.redundancy // 2 for s in (self.forward, self.backward))

    @property
    def recovery_threshold(self) -> int:
        """Results of a codeword that suffice, forward or backward, whichever needs more."""
        return max(s.threshold for s in (self.forward, self.backward))

    @property
    def storage(self) -> float:
        """Weights stored at each node, as a share of the layer's."""
        m, n = self.grid
        return self.shards / (m * n) / self.nodes

    @property
    def work(self) -> float:
        """Multiplications of a training step, as a multiple of the uncoded step's: near P / (m n)."""
        m, n = self.grid
        return (len(self.forward.shards) + len(self.backward.shards) + self.shards) / (3 * m * n)

    @cached_property
    def condition(self) -> float:
        """Median condition number of the decoder over sets of surviving results, the worse of the two stages."""
        return max(condition(s.generator) for s in (self.forward, self.backward))

    @property
    def most_messages(self) -> dict[str, int]:
        """For each dtype, the largest threshold that it can decode; nothing where it always can."""
        return {}

    def communication(self, inputs: int, outputs: int, batch: int) -> dict[str, float]:
        """Values that one node sends in a step: its products, forward and backward, to the nodes that decode."""
        m, n = self.grid
        forward, backward = -(-outputs // m) * batch, -(-inputs // n) * batch
        return {
            "forward": forward * len(self.forward.shards) / self.nodes,
            "backward": backward * len(self.backward.shards) / self.nodes,
        }

    def check_dtype(self, dtype: str) -> None:
        """Refuse a dtype that cannot decode this code.

        Raises:
            ValueError: the code is too ill-conditioned for the dtype.
        """
        if dtype not in ("float32", "float64"):
            raise ValueError(
                f"Coded products need float32 or float64, to tell errors from rounding. Received: {dtype!r}"
            )
        most = self.most_messages.get(dtype)
        if most is not None and self.recovery_threshold > most:
            raise ValueError(
                f"{self!r} needs {self.recovery_threshold} results, and {dtype} decodes at most {most} of this code "
                f"(median condition of its decoder {self.condition:.1g}). Use a coarser grid, CodeNet, or float64. "
                f"Received: dtype={dtype!r}"
            )

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}  # type: ignore[attr-defined]

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Code:
        """`get_config` undone."""
        return cls(**config)


class BlockCode(Code):
    """A code of `rows` x `columns` blocks, all of whose parameters are whole numbers of at least 1."""

    rows: int
    columns: int

    def __post_init__(self) -> None:
        for name in self.get_config():
            at_least(getattr(self, name), 1, name)

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.rows, self.columns


def at_least(value: Any, smallest: int, name: str) -> None:
    """Refuse what is not a whole number of at least `smallest`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < smallest:
        raise ValueError(f"`{name}` must be an int of at least {smallest}. Received: {name}={value!r}")
