"""`EnergyModel`: what one operation costs."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, kw_only=True)
class EnergyModel:
    """Energy per operation in picojoules, 45 nm (Horowitz 2014; fits as in QKeras' energy model).

    Dynamic energy follows the square of the supply voltage; leakage is not in this model.
    """

    multiply_quadratic_pj: float = 0.002994791667
    """pJ per bit^2 of an exact integer multiplication."""
    multiply_linear_pj: float = 0.001041666667
    """pJ per bit of an exact integer multiplication."""
    add_pj_per_bit: float = 0.003125
    """pJ per bit of an integer addition."""
    accumulator_bits: int = 32
    """Width of the accumulators."""
    weight_read_pj_per_bit: float = 10 / 64
    """pJ per bit read from an 8 KB on-chip SRAM at nominal voltage (Horowitz 2014: 10 pJ for 64 bits)."""
    weight_reads: int = 1
    """How often one inference reads each weight (1: weight-stationary; chosen here)."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not value >= 0:
                raise ValueError(f"`{item.name}` must be a number >= 0. Received: {item.name}={value!r}")

    def multiplication_pj(self, activation_bits: int, weight_bits: int) -> float:
        """An exact a-bit by b-bit multiplication; for a = b = n: 0.002994791667 n^2 + 0.001041666667 n."""
        return (
            self.multiply_quadratic_pj * activation_bits * weight_bits
            + self.multiply_linear_pj * (activation_bits + weight_bits) / 2
        )

    def addition_pj(self) -> float:
        """One addition in the accumulator."""
        return self.add_pj_per_bit * self.accumulator_bits
