"""The carry chain of an accumulator: how often each bit misses the clock at a supply voltage. NumPy alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

NEGLIGIBLE = 2.0**-31
"""Rates below this are taken as 0, so that bits which never fail cost nothing; no lower rate could be drawn."""


def relative_delay(voltage: float, nominal_voltage: float, *, threshold: float, alpha: float) -> float:
    """How much slower logic is at a voltage: ``d(V) = (V / (V - V_t)^alpha) / (V_n / (V_n - V_t)^alpha)``.

    The alpha-power law (Sakurai and Newton 1990), for voltages above the threshold V_t; all in volts.
    """
    return (voltage / (voltage - threshold) ** alpha) / (nominal_voltage / (nominal_voltage - threshold) ** alpha)


def check_number(name: str, value: Any, low: float, high: float, expected: str, *, open_low: bool = False) -> None:
    """Raises the house's error unless `value` is a finite number in [low, high], or (low, high].

    Raises:
        ValueError: that says what was `expected`.
    """
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not number or not low <= value <= high or (open_low and value == low) or not math.isfinite(value):
        raise ValueError(f"`{name}` must be {expected}. Received: {name}={value!r}")


@dataclass(frozen=True, kw_only=True)
class CarryChain:
    """Delays of an accumulator's carry chain, and how often each bit misses the clock.

    ``p_j(V) = activity Phi((t_j(V) - T) / sigma(V))`` with the path to bit j (0 is the lowest)
    ``t_j(V) = (base_delay_ps + delay_per_bit_ps j) d(V)``, its deviation ``sigma(V) = deviation_ps d(V)``, the clock
    period T, and the delay relative to nominal ``d(V) = g(V) / g(nominal)``, ``g(V) = V / (V - V_t)^alpha``: the
    alpha-power law (Sakurai and Newton 1990), which holds above the threshold. The parametric form is derived here.

    Args:
        base_delay_ps: delay of the path to bit 0 at nominal voltage, in ps: register, multiplier, first adder cell.
        delay_per_bit_ps: what each further bit adds at nominal voltage, in ps.
        deviation_ps: standard deviation of path delays at nominal voltage, in ps; it grows as delays do.
        clock_period_ps: in ps, the same at every voltage.
        threshold_voltage: V_t, in volts.
        nominal_voltage: in volts, above the threshold.
        alpha: exponent of the law: 2 for long channels, 1.2 to 1.5 for short ones.
        activity: probability in (0, 1] that a read exercises the path; a flip needs both.
        source: where the numbers come from.

    Raises:
        ValueError: for numbers out of range.
    """

    base_delay_ps: float
    delay_per_bit_ps: float
    deviation_ps: float
    clock_period_ps: float
    threshold_voltage: float
    nominal_voltage: float
    alpha: float
    activity: float
    source: str

    def __post_init__(self) -> None:
        for field in fields(self)[:-2]:
            unit = "a positive number" + (" of ps" if field.name.endswith("_ps") else "")
            check_number(field.name, getattr(self, field.name), 0, math.inf, unit, open_low=True)
        check_number("activity", self.activity, 0, 1, "a number in (0, 1]", open_low=True)
        if self.nominal_voltage <= self.threshold_voltage:
            raise ValueError(
                f"`nominal_voltage` must lie above threshold_voltage={self.threshold_voltage}. "
                f"Received: nominal_voltage={self.nominal_voltage!r}"
            )

    def relative_delay(self, voltage: float) -> float:
        """How much slower a path is than at nominal voltage: d(V).

        Raises:
            ValueError: for a voltage that is not above the threshold and at most nominal.

        >>> ILLUSTRATIVE_CHAIN.relative_delay(1.0)
        1.0
        """
        low, high = self.threshold_voltage, self.nominal_voltage
        expected = f"above the threshold, {low} V, where the delay law ends, and at most nominal, {high} V"
        check_number("voltage", voltage, low, high, expected, open_low=True)
        return relative_delay(voltage, high, threshold=low, alpha=self.alpha)

    def miss_rates(self, voltage: float, bits: int) -> tuple[float, ...]:
        """Probability that each bit is read wrong, lowest bit first; below `NEGLIGIBLE` it is 0.

        Args:
            voltage: in volts.
            bits: width of the accumulator.

        Raises:
            ValueError: for a voltage outside of the law's range.
        """
        delay = self.relative_delay(voltage)
        rates = []
        for bit in range(bits):
            late = (self.base_delay_ps + self.delay_per_bit_ps * bit) * delay - self.clock_period_ps
            # erfc keeps its relative accuracy in the tail.
            rate = self.activity * 0.5 * math.erfc(-late / (self.deviation_ps * delay * math.sqrt(2.0)))
            rates.append(rate if rate >= NEGLIGIBLE else 0.0)
        return tuple(rates)


ILLUSTRATIVE_CHAIN = CarryChain(
    base_delay_ps=200.0,
    delay_per_bit_ps=20.0,
    deviation_ps=30.0,
    clock_period_ps=1000.0,
    threshold_voltage=0.35,
    nominal_voltage=1.0,
    alpha=1.3,
    activity=0.1,
    source="illustrative, chosen here",
)
"""Not measured; chosen here: bit 23 of 24 fails with 6.3e-6 at 0.8 V, 5.0e-3 at 0.75 V and 7.6e-2 at 0.7 V."""
