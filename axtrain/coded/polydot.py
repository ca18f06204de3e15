"""Generalized PolyDot codes: blocks as coefficients of polynomials, products as their values at the nodes' points."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from axtrain.coded.code import Code, Stage, at_least
from axtrain.coded.generators import chebyshev_basis, chebyshev_points, monomials

BASES = ("auto", "monomial", "chebyshev")


@dataclass(frozen=True)
class GeneralizedPolyDot(Code):
    """A in m x n blocks times B in n x d blocks, from any ``m n d + n - 1`` of P products of one block each.

    Node p holds ``A~(v) = sum A_ij v^(i n + j)`` and ``B~(v) = sum B_jl v^((n - 1 - j) + l m n)`` at its point v; the
    block ``C_il`` is the coefficient of ``v^(i n + n - 1 + l m n)`` of their product. A layer's weights are A, stored
    once; backward, ``delta~ = sum delta_i v^(n (m - 1 - i))`` gives the wanted blocks at ``v^(n (m - 1) + j)`` from
    ``2 m n - n`` products. Where m = d = 1 or n = d = 1 both operands can be written in orthonormal Chebyshev
    polynomials, which keeps the decoder well conditioned; a sum over blocks is then the coefficient of the constant.
    Sources: Dutta, Bai, Jeong, Low, Grover 2018; Fahim and Cadambe 2019; theory page, section 8.

    Args:
        m, n: blocks of the outputs and of the inputs.
        d: blocks of the other operand's columns. Layers take 1.
        workers: P; by default two more than the larger recovery threshold, so that one error is corrected.
        basis: `auto` takes Chebyshev polynomials where it can.

    Raises:
        ValueError: fewer nodes than suffice, a basis that the construction does not allow.

    Examples:
        >>> GeneralizedPolyDot(4, 1, 4).product_threshold, GeneralizedPolyDot(2, 2, 1).product_threshold
        (16, 5)
    """

    m: int
    n: int
    d: int = 1
    workers: int | None = None
    basis: str = "auto"

    def __post_init__(self) -> None:
        for name in ("m", "n", "d"):
            at_least(getattr(self, name), 1, name)
        if self.basis not in BASES:
            raise ValueError(f"`basis` must be one of {', '.join(BASES)}. Received: basis={self.basis!r}")
        if self.basis == "chebyshev" and not self._has_corner:
            raise ValueError(
                "Chebyshev polynomials serve where d = 1 and m or n is 1, in Polynomial and MatDot codes of a layer; "
                f"products of others do not separate the blocks. Received: m={self.m}, n={self.n}, d={self.d}"
            )
        if self.workers is not None:
            at_least(self.workers, self._largest_threshold, "workers")

    @property
    def grid(self) -> tuple[int, int]:
        """(m, n)."""
        return self.m, self.n

    @property
    def product_threshold(self) -> int:
        """Products that suffice for A B: ``m n d + n - 1``."""
        return self.m * self.n * self.d + self.n - 1

    @property
    def points(self) -> np.ndarray:
        """Where the nodes evaluate: Chebyshev points."""
        return chebyshev_points(self.workers or self._largest_threshold + 2)

    @property
    def most_messages(self) -> dict[str, int]:
        """Monomials at Chebyshev points: median condition 1.7e5 at 14, 3e11 at 30 (theory page, section 8)."""
        return {} if self._chebyshev else {"float32": 14, "float64": 30}

    @cached_property
    def left(self) -> np.ndarray:
        """``v^(i n)``, or orthonormal polynomials of degree i."""
        if self._chebyshev:
            return chebyshev_basis(self.points, self.m)
        return self.points[:, None] ** (self.n * np.arange(self.m))

    @cached_property
    def right(self) -> np.ndarray:
        """``v^j``, or orthonormal polynomials of degree j."""
        return chebyshev_basis(self.points, self.n) if self._chebyshev else monomials(self.points, self.n)

    @cached_property
    def forward(self) -> Stage:
        """A B; in a layer ``s = W x``."""
        if self._chebyshev:
            return self._orthonormal_stage(self.right, self.m)
        size = self.m * self.n
        powers = (self.n - 1 - np.arange(self.n))[:, None] + size * np.arange(self.d)
        block = (self.n * np.arange(self.m))[:, None] + self.n - 1 + size * np.arange(self.d)
        return self._stage(powers, self.product_threshold, block)

    @cached_property
    def backward(self) -> Stage:
        """``c = W' delta``."""
        if self._chebyshev:
            return self._orthonormal_stage(self.left, self.n)
        powers = self.n * (self.m - 1 - np.arange(self.m))
        block = self.n * (self.m - 1) + np.arange(self.n)
        return self._stage(powers, 2 * self.m * self.n - self.n, block)

    def _stage(self, powers: np.ndarray, threshold: int, block: np.ndarray) -> Stage:
        points = self.points
        return Stage(
            shards=np.arange(len(points)),
            operand=points[:, None] ** powers.reshape(-1),
            sums=np.arange(len(points)),
            generator=monomials(points, threshold),
            wanted=np.eye(threshold)[block.reshape(-1)],
        )

    def _orthonormal_stage(self, operand: np.ndarray, blocks: int) -> Stage:
        """Sums over the operand's blocks are an inner product: the coefficient of the constant 1."""
        threshold = blocks if blocks > 1 else 2 * operand.shape[1] - 1
        wanted = np.eye(threshold)[: blocks if blocks > 1 else 1]
        nodes = np.arange(len(self.points))
        generator = chebyshev_basis(self.points, threshold)
        return Stage(shards=nodes, operand=operand, sums=nodes, generator=generator, wanted=wanted)

    @property
    def _has_corner(self) -> bool:
        return self.d == 1 and 1 in (self.m, self.n)

    @property
    def _chebyshev(self) -> bool:
        return self._has_corner and self.basis != "monomial"

    @property
    def _largest_threshold(self) -> int:
        backward = 2 * self.m * self.n - self.n if self.d == 1 else 0
        return max(self.product_threshold, backward)


def Polynomial(m: int, d: int = 1, workers: int | None = None) -> GeneralizedPolyDot:
    """Polynomial codes, the corner n = 1: any ``m d`` products suffice. Source: Yu, Maddah-Ali, Avestimehr 2017."""
    return GeneralizedPolyDot(m, 1, d, workers)


def MatDot(n: int, workers: int | None = None) -> GeneralizedPolyDot:
    """MatDot codes, the corner m = d = 1: any ``2 n - 1`` products suffice. Source: Dutta and others 2018."""
    return GeneralizedPolyDot(1, n, 1, workers)
