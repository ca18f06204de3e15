"""Ways to spread the gradient of a batch over workers of whom some answer late or never."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from axtrain.coded.berrut import Berrut
from axtrain.coded.code import at_least


class GradientCode(ABC):
    """What each worker computes, and how the mean gradient follows from those who answered."""

    groups: int
    """Parts that a batch is cut into."""

    @property
    @abstractmethod
    def workers(self) -> int:
        """How many there are."""

    @abstractmethod
    def encode(self, parts: np.ndarray) -> np.ndarray:
        """For each worker its samples, shape (workers, ...), from the parts, shape (groups, ...)."""

    @abstractmethod
    def weights(self, received: np.ndarray) -> np.ndarray:
        """Of each received result in the mean over the groups: shape (received,)."""


@dataclass(frozen=True)
class BerrutGradients(GradientCode):
    """Berrut approximated: any number of answers will do, more are more exact.

    Args:
        code: points and decoder.
    """

    code: Berrut

    @property
    def groups(self) -> int:  # type: ignore[override]
        """K."""
        return self.code.groups

    @property
    def workers(self) -> int:
        """As the code has."""
        return self.code.workers

    def encode(self, parts: np.ndarray) -> np.ndarray:
        """Berrut's interpolant at the workers' points."""
        return self.code.encode(parts)

    def weights(self, received: np.ndarray) -> np.ndarray:
        """The mean of the decoding weights over the groups: one weighted sum decodes what is wanted."""
        return self.code.decoding(received).mean(axis=0)


@dataclass(frozen=True)
class Repetition(GradientCode):
    """Each part at several workers; a part that nobody answered for is left out.

    Args:
        groups: parts.
        copies: workers for each.
    """

    groups: int
    copies: int = 1

    def __post_init__(self) -> None:
        at_least(self.groups, 1, "groups")
        at_least(self.copies, 1, "copies")

    @property
    def workers(self) -> int:
        """groups x copies."""
        return self.groups * self.copies

    def encode(self, parts: np.ndarray) -> np.ndarray:
        """The parts again and again: worker j has part j modulo groups."""
        return np.concatenate([parts] * self.copies)

    def weights(self, received: np.ndarray) -> np.ndarray:
        """Equal for all parts that came, and for all copies of a part."""
        part = np.asarray(received) % self.groups
        _, place, counts = np.unique(part, return_inverse=True, return_counts=True)
        return 1.0 / (counts[place] * len(counts))
