"""Memories, as descriptions: a bare error rate, a supply voltage, a refresh interval, a measured chip."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from .curves import ILLUSTRATIVE, Curve
from .faults import Clustering
from .measured import FaultMap, MeasuredMemory
from .memory import FAULTS, Memory, in_range
from .protections import SECDED, Parity, Protection, RobustBits, SignMasking, Triplication
from .retention import ILLUSTRATIVE_RETENTION, Retention

__all__ = [
    "FAULTS",
    "SECDED",
    "ApproximateDRAM",
    "BitErrors",
    "Clustering",
    "FaultMap",
    "MeasuredMemory",
    "Memory",
    "NearThresholdSRAM",
    "Parity",
    "Protection",
    "Retention",
    "RobustBits",
    "SignMasking",
    "Triplication",
    "memory_from_dict",
]


@dataclass(frozen=True, kw_only=True)
class BitErrors(Memory):
    """Independent bit faults at a given rate.

    Args:
        rate: Probability that a bit is faulty: 0 to 0.5 for flips, 0 to 1 for stuck cells.
        fault: `"random"`: fresh flips at every read. `"persistent"`: flipped cells are the chip's own.
            `"stuck"`: cells stuck at zero or one, also the chip's own; a stuck cell shows only where the
            stored bit differs, half of the time on random data.
        share_of_ones: Share of the stuck cells that are stuck at one (half by default, chosen here).
        encoding, protection, clustering: as for `Memory`.

    Raises:
        ValueError: for arguments out of range.
    """

    rate: float
    fault: str = "random"
    share_of_ones: float = 0.5

    kind: ClassVar[str] = "bit_errors"

    def scaled_by_strength(self, rate: float) -> BitErrors | None:
        """The same memory at another rate."""
        # A class derived from this one may read otherwise; it can have this method of its own.
        return replace(self, rate=rate) if type(self) is BitErrors else None


@dataclass(frozen=True, kw_only=True)
class NearThresholdSRAM(Memory):
    """A static memory whose supply is lowered towards the threshold, where cells begin to fail.

    The faults of one chip at a voltage are among those at any lower one.

    Args:
        voltage: Supply, in volts.
        curve: Bit error rate of a voltage: a `ProbitCurve`, a `TabulatedCurve` or another `Curve`; illustrative by
            default.
        fault: As for `BitErrors`; persistent by default, since weak cells are a chip's own.
        nominal_voltage: Supply at which the memory is free of faults, for energy comparisons, in volts; at
            least `voltage`. 1.0 V is chosen here.
        share_of_ones: As for `BitErrors`.
        encoding, protection, clustering: as for `Memory`.

    Raises:
        ValueError: for arguments out of range, a voltage outside the curve's table, or one at which more
            than half of the bits flip.

    >>> f"{NearThresholdSRAM(voltage=0.56).rate:.1e}"
    '6.2e-04'
    """

    voltage: float = field()
    curve: Curve = ILLUSTRATIVE
    fault: str = "persistent"
    nominal_voltage: float = 1.0
    share_of_ones: float = 0.5

    kind: ClassVar[str] = "near_threshold_sram"

    def __post_init__(self) -> None:
        if not isinstance(self.curve, Curve):
            raise ValueError(
                "`curve` must be a ProbitCurve, a TabulatedCurve (measurements: TabulatedCurve.from_csv) or a Curve of "
                "your own. "
                f"Received: curve={self.curve!r}"
            )
        for name in ("voltage", "nominal_voltage"):
            value = getattr(self, name)
            if not in_range(value, 0.0, math.inf) or not 0.0 < value < math.inf:
                raise ValueError(f"`{name}` must be a positive number of volts. Received: {name}={value!r}")
        if self.voltage > self.nominal_voltage:
            raise ValueError(
                f"`voltage` must not exceed nominal_voltage={self.nominal_voltage}; give the memory's own "
                f"nominal voltage. Received: voltage={self.voltage!r}"
            )
        self._check()

    @property
    def rate(self) -> float:
        """Probability that a cell is faulty at this voltage."""
        return self.curve(self.voltage)

    def scaled_by_strength(self, rate: float) -> BitErrors | None:
        """Bit errors at that rate: they fail in the same cells."""
        if type(self) is not NearThresholdSRAM:
            return None
        same = ("fault", "share_of_ones", "encoding", "protection", "clustering")
        return BitErrors(rate=rate, **{name: getattr(self, name) for name in same})


@dataclass(frozen=True, kw_only=True)
class ApproximateDRAM(Memory):
    """A dynamic memory that is refreshed too rarely: leaky cells decay to the value they discharge to.

    A cell whose retention time is shorter than the interval is read as its discharged value: 0 in true cells, 1
    in anti-cells, which store the inverse. So a fault shows only where the cell was charged, and goes one way.
    The weak cells are a chip's own, and those of a shorter interval are among those of a longer one.

    Args:
        refresh_interval_s: seconds between two refreshes, positive.
        retention: distribution of the cells' retention times, a `Retention`; illustrative by default.
        share_of_anti_cells: share of the cells that discharge to 1 (half by default, chosen here).
        nominal_interval_s: the standard interval, for energy comparisons; 64 ms (JEDEC) by default.
        encoding, protection, clustering: as for `Memory`.

    Raises:
        ValueError: for arguments out of range.

    >>> ApproximateDRAM(refresh_interval_s=1.0).fault
    'stuck'
    """

    refresh_interval_s: float
    retention: Retention = ILLUSTRATIVE_RETENTION
    share_of_anti_cells: float = 0.5
    nominal_interval_s: float = 0.064

    kind: ClassVar[str] = "approximate_dram"

    def __post_init__(self) -> None:
        for name in ("refresh_interval_s", "nominal_interval_s"):
            value = getattr(self, name)
            if not in_range(value, 0.0, math.inf) or not 0.0 < value < math.inf:
                raise ValueError(f"`{name}` must be a positive number of seconds. Received: {name}={value!r}")
        if isinstance(self.retention, dict):
            object.__setattr__(self, "retention", Retention.from_dict(self.retention))
        if not isinstance(self.retention, Retention):
            raise ValueError(f"`retention` must be a Retention. Received: retention={self.retention!r}")
        if not in_range(self.share_of_anti_cells, 0.0, 1.0):
            raise ValueError(
                "`share_of_anti_cells` must be a number in [0, 1]. "
                f"Received: share_of_anti_cells={self.share_of_anti_cells!r}"
            )
        self._check()

    @property
    def rate(self) -> float:
        """Probability that a cell's retention time is shorter than the interval."""
        return self.retention(self.refresh_interval_s)

    @property
    def fault(self) -> str:
        """`"stuck"`: a weak cell holds its discharged value at every read."""
        return "stuck"

    @property
    def share_of_ones(self) -> float:
        """The share of anti-cells."""
        return self.share_of_anti_cells

    @property
    def refresh_intervals_s(self) -> tuple[float, float]:
        """The refresh interval and the standard one, in seconds."""
        return self.refresh_interval_s, self.nominal_interval_s

    @property
    def unfailing(self) -> ApproximateDRAM:
        """A dynamic memory refreshed at the standard interval."""
        return ApproximateDRAM(refresh_interval_s=self.nominal_interval_s, nominal_interval_s=self.nominal_interval_s)


def memory_from_dict(config: dict[str, Any]) -> Any:
    """`Memory.from_dict`: the memory that a `to_dict` described.

    Raises:
        ValueError: for an unknown `kind`, or a class that is not registered.
    """
    return Memory.from_dict(config)
