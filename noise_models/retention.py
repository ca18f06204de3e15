"""How long the cells of a dynamic memory hold their charge. NumPy alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .description import Part


@dataclass(frozen=True, kw_only=True)
class Retention(Part):
    """Log-normal retention times: a cell is lost after t seconds with probability ``Phi(ln(t / median) / spread)``.

    A log-normal tail is the usual model of the leaky cells (Hamamoto 1998); which numbers hold is a matter of
    the part and its temperature: retention halves about every 10 degrees (Liu 2013), so measure.

    Args:
        median_s: median retention time in seconds, positive.
        spread: standard deviation of its natural logarithm, positive.
        source: where the numbers come from.

    Raises:
        ValueError: for numbers that are not positive and finite.

    >>> Retention(median_s=100.0, spread=1.25, source="example")(100.0)
    0.5
    """

    median_s: float
    spread: float
    source: str

    _what = "retention"

    def __post_init__(self) -> None:
        for name in ("median_s", "spread"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not (math.isfinite(value) and value > 0.0):
                raise ValueError(f"`{name}` must be a positive number. Received: {name}={value!r}")

    def __call__(self, interval_s: float) -> float:
        """Probability that a cell does not hold for `interval_s` seconds."""
        # erfc keeps its relative accuracy in the tail.
        return 0.5 * math.erfc(-math.log(interval_s / self.median_s) / (self.spread * math.sqrt(2.0)))


ILLUSTRATIVE_RETENTION = Retention(median_s=100.0, spread=1.25, source="illustrative, chosen here")
"""Not measured; chosen here: 2e-9 of the cells are lost after 64 ms, 1.2e-4 after 1 s, 3.3e-2 after 10 s."""
