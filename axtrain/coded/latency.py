"""How long a node takes for its part of a step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np


class Latency(ABC):
    """A distribution of times; nodes draw independently."""

    @abstractmethod
    def draw(self, generator: np.random.Generator, size: Any) -> np.ndarray:
        """Times, shape `size`."""

    @abstractmethod
    def share_within(self, deadline: float) -> float:
        """Probability that a node answers within `deadline`."""

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        given = {name: getattr(self, name) for name in self.__dataclass_fields__}  # type: ignore[attr-defined]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Latency:
        """`get_config` undone."""
        return cls(**config)


@dataclass(frozen=True)
class ShiftedExponential(Latency):
    """A fixed part and an exponential tail, the usual model of stragglers: ``P(T <= t) = 1 - exp(-rate (t - shift))``.

    Source: Lee, Lam, Pedarsani, Papailiopoulos, Ramchandran 2018.

    Args:
        shift: shortest time.
        rate: of the tail, whose mean is 1 / rate.

    Raises:
        ValueError: a negative shift, or a rate that is not positive.

    Examples:
        >>> round(ShiftedExponential(1.0, 2.0).share_within(2.0), 3)
        0.865
    """

    shift: float
    rate: float

    def __post_init__(self) -> None:
        if not self.shift >= 0 or not self.rate > 0:
            raise ValueError(f"A latency needs shift >= 0 and rate > 0. Received: {self.shift!r}, {self.rate!r}")

    def draw(self, generator: np.random.Generator, size: Any) -> np.ndarray:
        """Times, shape `size`."""
        return self.shift + generator.exponential(1.0 / self.rate, size)

    def share_within(self, deadline: float) -> float:
        """``1 - exp(-rate (deadline - shift))``, 0 before the shift."""
        return float(-np.expm1(-self.rate * max(deadline - self.shift, 0.0)))


@dataclass(frozen=True)
class MeasuredLatency(Latency):
    """Times that were measured, each as likely.

    Args:
        times: at least one.

    Raises:
        ValueError: no times, or times that are not positive and finite.

    Examples:
        >>> MeasuredLatency((1.0, 1.2, 5.0, 1.1)).share_within(2.0)
        0.75
    """

    times: tuple[float, ...]

    def __post_init__(self) -> None:
        times = tuple(float(time) for time in self.times)
        if not times or not all(np.isfinite(time) and time > 0 for time in times):
            raise ValueError(f"`times` must be positive and finite, at least one. Received: times={self.times!r}")
        object.__setattr__(self, "times", times)

    def draw(self, generator: np.random.Generator, size: Any) -> np.ndarray:
        """Times, shape `size`."""
        return generator.choice(np.array(self.times), size)

    def share_within(self, deadline: float) -> float:
        """Share of the measured times up to `deadline`."""
        return float(np.mean(np.array(self.times) <= deadline))
