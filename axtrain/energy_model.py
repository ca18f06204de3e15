"""`EnergyModel`: what one operation, one word of traffic and leakage cost, and how a supply voltage changes it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from axtrain.noise_models.carry_chain import relative_delay
from axtrain.noise_models.description import Part


class Supply(NamedTuple):
    """What a part spends at its own supply, relative to its dynamic energy at nominal voltage."""

    dynamic: float
    leakage: float


@dataclass(frozen=True, kw_only=True)
class EnergyModel(Part):
    """Energies in picojoules at nominal voltage, 45 nm (Horowitz 2014; fits as in QKeras' energy model).

    At a supply V of its own, each part of the hardware spends, from the energy E of its operations at nominal
    voltage (theory page, section 6):

    - dynamic energy ``E (V / V_nominal)^2``, the charge moved times the swing;
    - leakage ``leakage_share E (V / V_nominal) d(V)``: a constant current from the supply V, for as long as the
      operation takes, ``d(V) = g(V) / g(V_nominal)`` with ``g(V) = V / (V - threshold_voltage)^alpha``, the
      alpha-power law (Sakurai and Newton 1990), which holds above the threshold. That the current is the same at
      every voltage is a simplification made here.

    So dynamic energy falls with the voltage and leakage grows below ``2 threshold_voltage / (2 - alpha)``: their
    sum has a minimum. Every constant can be replaced; those called illustrative fit no measured part.

    Raises:
        ValueError: a constant that is not a finite number >= 0, or out of its own range.

    Examples:
        >>> round(EnergyModel().multiplication_pj(8, 8), 6)
        0.2
    """

    multiply_quadratic_pj: float = 0.002994791667
    """pJ per bit^2 of an exact integer multiplication."""
    multiply_linear_pj: float = 0.001041666667
    """pJ per bit of an exact integer multiplication."""
    sign_pj_per_bit: float = 0.001041666667
    """pJ per bit of a product whose sign is handled beside an unsigned circuit, in sign and magnitude: an exclusive or
    of each bit with the sign, which the accumulator takes as its carry. Illustrative: a third of an addition, since a
    full adder is two exclusive ors and a carry; 8.3 % of an exact product of 8 bits, where EvoApproxLib's exact signed
    circuit takes 8.7 % more power than its unsigned one. The operands' own conversion is not counted."""
    add_pj_per_bit: float = 0.003125
    """pJ per bit of an integer addition."""
    accumulator_bits: int = 32
    """Width of the accumulators, in bits."""
    weight_read_pj_per_bit: float = 10 / 64
    """pJ per bit read from an 8 KB on-chip SRAM at nominal voltage (Horowitz 2014: 10 pJ for 64 bits)."""
    weight_reads: float = 1
    """How often one inference reads each weight from its memory (1: weight-stationary; chosen here)."""
    activation_read_pj_per_bit: float = 10 / 64
    """pJ per bit of a layer's input read from an 8 KB on-chip SRAM at nominal voltage (Horowitz 2014)."""
    activation_write_pj_per_bit: float = 10 / 64
    """pJ per bit of a layer's output written to the same memory: as much as a read (chosen here)."""
    activation_reads: float = 1
    """How often a layer reads each of its inputs (1: every use of it is served by one read; chosen here). An array
    that computes k output channels at a time and keeps no inputs reads them once for every k channels."""
    bias_read_pj_per_bit: float = 10 / 64
    """pJ per bit of a bias, each read once per inference, from an 8 KB on-chip SRAM (Horowitz 2014)."""
    decoder_pj_per_word: float = 0.0
    """pJ per word read or written, for the circuit that encodes, checks or corrects it, at the memory's nominal
    voltage. No figure at hand, so 0; give that of your decoder. The cells that hold check bits are paid for."""
    dram_pj_per_bit: float = 20.3
    """pJ per bit read or written in a dynamic memory, in place of the on-chip memory's (Horowitz 2014: 1.3 nJ
    for 64 bits), refresh at the standard interval included."""
    dram_refresh_share: float = 0.2
    """Share of `dram_pj_per_bit` that is refresh at the standard interval, 0 to 1; it falls as one over the
    interval. Illustrative: it depends on the part's size and on how busy it is."""
    leakage_share: float = 0.1
    """Leakage of an operation as a share of its dynamic energy, both at nominal voltage. Illustrative."""
    threshold_voltage: float = 0.35
    """Threshold of the transistors in volts, the same in all parts. Illustrative."""
    alpha: float = 1.3
    """Exponent of the delay law: 2 for long channels, 1.2 to 1.5 for short ones. Illustrative within that."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not 0 <= value < math.inf:
                raise ValueError(f"`{item.name}` must be a number >= 0. Received: {item.name}={value!r}")
        if self.accumulator_bits != int(self.accumulator_bits):
            raise ValueError(
                f"`accumulator_bits` must be a whole number. Received: accumulator_bits={self.accumulator_bits!r}"
            )
        if self.dram_refresh_share > 1:
            raise ValueError(
                "`dram_refresh_share` is a share of the access energy, 0 to 1. "
                f"Received: dram_refresh_share={self.dram_refresh_share!r}"
            )

    def is_default(self, *names: str) -> bool:
        """Whether any of these fields still has the value that it has here by default."""
        return any(item.default == getattr(self, item.name) for item in fields(self) if item.name in names)

    def multiplication_pj(self, activation_bits: int, weight_bits: int) -> float:
        """An exact a-bit by b-bit multiplication; for a = b = n: 0.002994791667 n^2 + 0.001041666667 n."""
        return (
            self.multiply_quadratic_pj * activation_bits * weight_bits
            + self.multiply_linear_pj * (activation_bits + weight_bits) / 2
        )

    def sign_pj(self, activation_bits: int, weight_bits: int) -> float:
        """The sign of one product of an unsigned a-bit by b-bit circuit: ``sign_pj_per_bit (a + b)``.

        >>> round(EnergyModel().sign_pj(8, 8), 5)
        0.01667
        """
        return self.sign_pj_per_bit * (activation_bits + weight_bits)

    def addition_pj(self) -> float:
        """One addition in the accumulator."""
        return self.add_pj_per_bit * self.accumulator_bits

    def word_pj(self, memory: Any, bits: int, on_chip_pj_per_bit: float) -> float:
        """One word read or written at nominal voltage: its cells, those of its protection, and the decoder.

        A bit of a dynamic memory, refreshed every T of standard T_0 seconds with the refresh share s:
        ``dram_pj_per_bit (1 - s + s T_0 / T)``.

        Args:
            memory: where the word lives; `None` is on chip, without protection.
            bits: of the word.
            on_chip_pj_per_bit: what a bit costs in a memory that is not dynamic.
        """
        cells, bit_pj = float(bits), on_chip_pj_per_bit
        if memory is not None:
            cells = memory.cells_per_word(bits)
        if is_dynamic(memory):
            interval, nominal = memory.refresh_intervals_s
            bit_pj = self.dram_pj_per_bit * (1 - self.dram_refresh_share + self.dram_refresh_share * nominal / interval)
        return cells * bit_pj + (self.decoder_pj_per_word if has_decoder(memory) else 0.0)

    def supply(self, part: Any) -> Supply:
        """The factors of a memory or datapath, `None` for one at nominal voltage; see the class for the formulas.

        A part without a voltage is at nominal; a dynamic memory leaks nothing beside its refresh.

        Raises:
            ValueError: a voltage that is not above the threshold, where the delay law ends.
        """
        if is_dynamic(part):
            return Supply(1.0, 0.0)
        if not has_voltages(part):
            return Supply(1.0, self.leakage_share)
        volts = part.voltage, part.nominal_voltage
        return Supply(self.dynamic_factor(*volts), self.leakage_factor(*volts))

    def dynamic_factor(self, voltage: float, nominal_voltage: float) -> float:
        """Dynamic energy at a voltage relative to nominal: ``(V / V_nominal)^2``; voltages in volts."""
        return (voltage / nominal_voltage) ** 2

    def leakage_factor(self, voltage: float, nominal_voltage: float) -> float:
        """Leakage of an operation at a voltage, relative to its dynamic energy at nominal voltage.

        ``leakage_share (V / V_nominal) d(V)``, see the class; `leakage_share` itself at nominal voltage.

        Args:
            voltage, nominal_voltage: in volts.

        Raises:
            ValueError: a voltage that is not above the threshold, where the delay law ends.

        >>> round(EnergyModel().leakage_factor(0.5, 1.0), 4)
        0.1682
        """
        if self.leakage_share == 0 or voltage == nominal_voltage:
            return self.leakage_share
        if min(voltage, nominal_voltage) <= self.threshold_voltage:
            raise ValueError(
                f"Leakage follows a delay law that holds above the threshold, {self.threshold_voltage} V. Give your "
                "process's own, Hardware(energy=EnergyModel(threshold_voltage=...)), or leave leakage out with "
                f"leakage_share=0. Received: voltage={voltage!r}, nominal_voltage={nominal_voltage!r}"
            )
        delay = relative_delay(voltage, nominal_voltage, threshold=self.threshold_voltage, alpha=self.alpha)
        return self.leakage_share * voltage / nominal_voltage * delay


def has_voltages(part: Any) -> bool:
    """Whether a memory or datapath has a supply voltage and a nominal one."""
    return part is not None and part.voltage is not None and part.nominal_voltage is not None


def has_decoder(part: Any) -> bool:
    """Whether a memory's words pass through a circuit that checks or corrects them."""
    protection = getattr(part, "protection", None)
    return protection is not None and protection.has_decoder


def is_dynamic(part: Any) -> bool:
    """Whether a part is a memory that is refreshed."""
    return getattr(part, "refresh_intervals_s", None) is not None
