"""Bit error rate of a memory as a function of its supply voltage.

A cell fails when the supply falls below its own minimum voltage, so the rate falls as the voltage rises. A
curve is a callable `curve(voltage) -> bit error rate`: `ProbitCurve` for cells whose minimum voltages are
Gaussian, `TabulatedCurve` for measurements. NumPy alone.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .description import Part
from .reading import csv_rows


def check_voltage(voltage: float) -> float:
    """The voltage as a float; raises ValueError unless it is a positive number of volts."""
    try:
        value = float(voltage)
    except (TypeError, ValueError):
        value = math.nan
    if not (math.isfinite(value) and value > 0.0):
        raise ValueError(f"A voltage must be a positive number of volts. Received: voltage={voltage!r}")
    return value


class Curve(Part):
    """Base of all curves; subclasses are frozen dataclasses and give the rate at a voltage."""

    _what = "curve"

    def __call__(self, voltage: float) -> float:
        """Bit error rate at `voltage` volts."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class ProbitCurve(Curve):
    """Cells whose minimum voltages are Gaussian: `BER(V) = Phi((mean_v - V) / deviation_v)`.

    Valid for every positive voltage; at `V = mean_v` half of the cells fail. Source: theory page, section 5.

    Args:
        mean_v: Mean of the cells' minimum voltages, in volts.
        deviation_v: Their standard deviation, in volts, positive.
        source: Where the numbers come from.

    Raises:
        ValueError: for numbers that are not positive and finite, or a voltage that is not positive.

    >>> f"{ProbitCurve(mean_v=0.35, deviation_v=0.065, source='example')(0.35)}"
    '0.5'
    """

    mean_v: float
    deviation_v: float
    source: str

    kind: ClassVar[str] = "probit"

    def __post_init__(self) -> None:
        for name in ("mean_v", "deviation_v"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not (math.isfinite(value) and value > 0.0):
                raise ValueError(f"`{name}` must be a positive number of volts. Received: {name}={value!r}")

    def __call__(self, voltage: float) -> float:
        """Bit error rate at `voltage` volts."""
        # erfc keeps its relative accuracy in the tail, where 1 - Phi would cancel.
        return 0.5 * math.erfc((check_voltage(voltage) - self.mean_v) / (self.deviation_v * math.sqrt(2.0)))


@dataclass(frozen=True, kw_only=True)
class TabulatedCurve(Curve):
    """Measured rates, interpolated linearly in `log10(rate)` over the voltage.

    Valid from the lowest to the highest voltage of the table; there is no extrapolation. Source: theory page,
    section 5.

    Args:
        voltages: Two or more different positive voltages, in volts, in any order.
        rates: As many bit error rates in (0, 1], none larger than the rate at a lower voltage.
        source: Where the numbers come from.

    Raises:
        ValueError: for a bad table (rates that rise with the voltage are named), or a voltage outside it.

    >>> curve = TabulatedCurve(voltages=(0.5, 0.7), rates=(1e-2, 1e-4), source="example")
    >>> f"{curve(0.6):.3g}"
    '0.001'
    """

    voltages: Sequence[float]
    rates: Sequence[float]
    source: str

    kind: ClassVar[str] = "tabulated"

    def __post_init__(self) -> None:
        if len(self.voltages) != len(self.rates) or len(self.voltages) < 2:
            raise ValueError(
                "A table needs two or more voltages and as many rates. "
                f"Received: {len(self.voltages)} voltages and {len(self.rates)} rates"
            )
        rows = sorted(zip(map(check_voltage, self.voltages), map(float, self.rates), strict=True))
        for voltage, rate in rows:
            if not 0.0 < rate <= 1.0:
                raise ValueError(
                    "Rates must be in (0, 1]; where no failure was seen, drop the row or give a bound. "
                    f"Received: rate={rate!r} at {voltage} V"
                )
        for (low, high_rate), (high, low_rate) in itertools.pairwise(rows):
            if low == high:
                raise ValueError(f"Each voltage may stand once; merge the rows. Received: {low} V twice")
            if low_rate > high_rate:
                raise ValueError(
                    "Rates must fall as the voltage rises; pool the two rows or measure longer. "
                    f"Received: rate={high_rate!r} at {low} V and rate={low_rate!r} at {high} V"
                )
        object.__setattr__(self, "voltages", tuple(voltage for voltage, _ in rows))
        object.__setattr__(self, "rates", tuple(rate for _, rate in rows))

    def __call__(self, voltage: float) -> float:
        """Bit error rate at `voltage` volts, within the table."""
        value = check_voltage(voltage)
        if not self.voltages[0] <= value <= self.voltages[-1]:
            raise ValueError(
                f"The table covers {self.voltages[0]} to {self.voltages[-1]} V and is not extrapolated; "
                f"choose a voltage within it or add measurements. Received: voltage={voltage!r}"
            )
        return float(10.0 ** np.interp(value, self.voltages, np.log10(self.rates)))

    @classmethod
    def from_csv(cls, path: str | os.PathLike[str], *, source: str | None = None) -> TabulatedCurve:
        """Reads a CSV file with a header line and the columns `voltage` (V) and `rate`.

        Args:
            path: The file.
            source: Where the numbers come from; the file's name by default.

        Raises:
            ValueError: for a missing column or an entry that is not a number, with its line; or a bad table.
        """
        with csv_rows(path, "a curve", "give a CSV with a header line and the columns voltage and rate") as reader:
            if not {"voltage", "rate"} <= set(reader.fieldnames or ()):
                raise ValueError(
                    f"{path} needs a header line with the columns voltage and rate. Received: {reader.fieldnames!r}"
                )
            rows = []
            for row in reader:
                try:
                    rows.append((float(row["voltage"]), float(row["rate"])))
                except (TypeError, ValueError):
                    raise ValueError(
                        f"{path}, line {reader.line_num}: voltage and rate must be numbers. Received: {row!r}"
                    ) from None
            return cls(
                voltages=tuple(voltage for voltage, _ in rows),
                rates=tuple(rate for _, rate in rows),
                source=os.path.basename(path) if source is None else source,
            )


ILLUSTRATIVE = ProbitCurve(mean_v=0.35, deviation_v=0.065, source="illustrative, chosen here")
"""Not measured; chosen here: 1.1e-2 at 0.5 V, 6.2e-4 at 0.56 V, 6.0e-5 at 0.6 V, 3.6e-8 at 0.7 V."""


def curve_from_dict(config: dict[str, Any]) -> Any:
    """`Curve.from_dict`: the curve that a `to_dict` described.

    Raises:
        ValueError: for an unknown `kind`, or a class that is not registered.
    """
    return Curve.from_dict(config)
