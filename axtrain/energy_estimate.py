"""Energy per inference: multiplications, additions and weight reads, against the exact machine."""

from __future__ import annotations

from dataclasses import dataclass, replace

import keras

from axtrain.hardware import Hardware
from axtrain.layers.counts import Count, count
from axtrain.model_walk import calls


@dataclass(frozen=True)
class LayerEnergy:
    """Energy of one layer for one sample, in picojoules, and the counts behind it."""

    name: str
    multiplications: int
    multiply_pj: float
    add_pj: float
    weight_read_pj: float

    @property
    def total_pj(self) -> float:
        """All of it."""
        return self.multiply_pj + self.add_pj + self.weight_read_pj


@dataclass(frozen=True)
class EnergyEstimate:
    """Energy of one inference.

    Attributes:
        layers: one `LayerEnergy` per call of a hardware layer.
        reference_pj: the same network on the reference machine, in picojoules.
        assumptions: what the estimate took for granted, in words.
    """

    layers: tuple[LayerEnergy, ...]
    reference_pj: float
    assumptions: tuple[str, ...]

    @property
    def total_pj(self) -> float:
        """Energy of one inference in picojoules."""
        return sum(layer.total_pj for layer in self.layers)

    @property
    def saving(self) -> float:
        """Share of the reference's energy that is saved, 0 to 1 (negative if it costs more)."""
        return 1 - self.total_pj / self.reference_pj if self.reference_pj else 0.0


def energy(model: keras.Model, hardware: Hardware | None = None, reference: Hardware | None = None) -> EnergyEstimate:
    """Estimates the energy of one inference in the layers that multiply.

    Per layer: ``N (P e_mul(n_a, n_w) + e_add)`` for N products (at all time steps of a recurrent layer, of all
    kinds in attention) and the multiplier's relative power P, and
    ``n_w W r e_read (V / V_nominal)^2`` for W weights read r times. Constants: `EnergyModel` (theory page,
    section 6). Leakage and activation traffic are not in this estimate.

    Args:
        model: a converted model, or a plain one together with `hardware`.
        hardware: plays every layer with products; `None` takes each layer's own.
        reference: the machine to compare with; default the exact multiplier of the same widths with its
            memory at nominal voltage.

    Returns:
        an `EnergyEstimate`.

    Raises:
        ValueError: no layer with products on hardware, or a shape left open.
    """
    layers: list[LayerEnergy] = []
    assumptions: list[str] = []
    reference_pj = 0.0
    for call in calls(model):
        described = hardware or getattr(call.layer, "hardware", None)
        if described is None:
            continue
        counted = count(*call)
        if counted is None:
            continue
        layers.append(_layer_energy(call.layer.name, counted, described, assumptions))
        reference_pj += _layer_energy(call.layer.name, counted, reference or exact_machine(described), []).total_pj
    if not layers:
        raise ValueError(
            "No layer of this model multiplies on hardware; use axtrain.convert, or give `hardware`. "
            f"Received: {model.name!r}"
        )
    return EnergyEstimate(tuple(layers), reference_pj, tuple(dict.fromkeys(assumptions)))


def exact_machine(hardware: Hardware) -> Hardware:
    """The exact multiplier of the same widths, weights in a memory at nominal voltage."""
    return replace(
        hardware,
        multiplier=None,
        weight_memory=None,
        quantisation=replace(
            hardware.quantisation,
            activation_bits=hardware.activation_bits,
            weight_bits=hardware.weight_bits,
            activations=None,
            activation_encoding=None,
            weight_encoding=None,
        ),
    )


def _layer_energy(name: str, counted: Count, hardware: Hardware, assumptions: list[str]) -> LayerEnergy:
    model, circuit = hardware.energy, hardware.circuit
    power = circuit.power
    if power is None:
        power = 1.0
        assumptions.append(
            f"{circuit.name}: no relative power known, counted as the exact multiplier's; give power=... to "
            "axtrain.Multiplier to change that"
        )
    memory, voltage_factor = hardware.weight_memory, 1.0
    if memory is not None and memory.voltage is not None:
        voltage_factor = (memory.voltage / memory.nominal_voltage) ** 2
    elif memory is not None:
        assumptions.append("the weight memory has no voltage, so its reads are counted at nominal energy")
    one_pj = power * model.multiplication_pj(circuit.activation_bits, circuit.weight_bits)
    return LayerEnergy(
        name=name,
        multiplications=counted.multiplications,
        multiply_pj=counted.multiplications * one_pj,
        add_pj=counted.multiplications * model.addition_pj(),
        weight_read_pj=counted.weights
        * hardware.weight_bits
        * model.weight_reads
        * model.weight_read_pj_per_bit
        * voltage_factor,
    )
