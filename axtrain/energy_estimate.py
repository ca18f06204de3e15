"""Energy per inference: arithmetic, weights, activations, biases and leakage, against the exact machine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import keras

from axtrain.energy_model import EnergyModel, has_decoder, has_voltages, is_dynamic
from axtrain.hardware import Hardware
from axtrain.layers.counts import Count, count
from axtrain.model_walk import calls, labels

_EXACT = "with exact multipliers and memories at nominal voltage"
# Field of `Hardware`, and what it is called in words.
_PARTS = {
    "weight_memory": "weight memory",
    "activation_memory": "activation memory",
    "bias_memory": "bias memory",
    "datapath": "datapath",
}


@dataclass(frozen=True)
class LayerEnergy:
    """Energy of one layer for one sample, in picojoules, and the counts behind it.

    Attributes:
        name: the layer's; its path, as in `left/proj`, where another one bears the name too.
        multiplications: how many products it sums; as many additions.
        multiply_pj, add_pj: dynamic energy of the arithmetic.
        weight_read_pj, activation_read_pj, activation_write_pj, bias_read_pj: dynamic energy of the traffic, check
            cells, decoders and the refresh of dynamic memories included.
        leakage_pj: of all of these.
        weights, inputs, outputs, biases: how many different words are read, or written; the energy model says how
            often.
    """

    name: str
    multiplications: int
    multiply_pj: float
    add_pj: float
    weight_read_pj: float
    activation_read_pj: float = 0.0
    activation_write_pj: float = 0.0
    bias_read_pj: float = 0.0
    leakage_pj: float = 0.0
    weights: int = 0
    inputs: int = 0
    outputs: int = 0
    biases: int = 0

    @property
    def additions(self) -> int:
        """As many as products."""
        return self.multiplications

    @property
    def by_part(self) -> dict[str, float]:
        """Picojoules of each part; they sum to `total_pj`."""
        return {
            "multiplications": self.multiply_pj,
            "additions": self.add_pj,
            "weights": self.weight_read_pj,
            "activations": self.activation_read_pj + self.activation_write_pj,
            "biases": self.bias_read_pj,
            "leakage": self.leakage_pj,
        }

    @property
    def total_pj(self) -> float:
        """All of it."""
        return sum(self.by_part.values())


@dataclass(frozen=True)
class EnergyEstimate:
    """Energy of one inference. As text: the total, what each part takes, and the assumptions.

    Attributes:
        layers: one `LayerEnergy` per call of a hardware layer.
        reference_pj: the same network on the reference machine, in picojoules.
        assumptions: what the estimate took for granted, in words.
        reference_layers: as `layers`, on the reference machine.
        against: the reference machine in words.
    """

    layers: tuple[LayerEnergy, ...]
    reference_pj: float
    assumptions: tuple[str, ...]
    reference_layers: tuple[LayerEnergy, ...] = ()
    against: str = "on the reference machine"

    @property
    def total_pj(self) -> float:
        """Energy of one inference in picojoules."""
        return sum(layer.total_pj for layer in self.layers)

    @property
    def by_part(self) -> dict[str, float]:
        """Picojoules of each part, over all layers; they sum to `total_pj`."""
        return _summed(self.layers)

    @property
    def reference_by_part(self) -> dict[str, float]:
        """Picojoules of each part on the reference machine; they sum to `reference_pj`."""
        return _summed(self.reference_layers)

    @property
    def saving(self) -> float:
        """Share of the reference's energy that is saved, 0 to 1 (negative if it costs more)."""
        return 1 - self.total_pj / self.reference_pj if self.reference_pj else 0.0

    def plot(self, sensitivity: Any = None, *, width: float | None = None) -> Any:
        """A matplotlib `Figure`: a bar for each layer, by part; with a `SensitivityMap` what each costs in loss.

        Raises:
            ValueError: a sensitivity of other layers.
        """
        from axtrain.energy_picture import energy_figure  # only here: an estimate needs no pictures

        return energy_figure(self, sensitivity, width=width)

    def __str__(self) -> str:
        change = f"{100 * abs(self.saving):.1f} % {'less' if self.saving >= 0 else 'more'} than {self.against}"
        lines = [f"Energy per inference: {self.total_pj / 1e3:.4g} nJ, {change} ({self.reference_pj / 1e3:.4g} nJ)."]
        reference = self.reference_by_part
        for part, spent in self.by_part.items():
            share = 100 * spent / self.total_pj if self.total_pj else 0.0
            against = f"   reference {reference[part] / 1e3:>9.4g} nJ" if part in reference else ""
            lines.append(f"  {part:<15} {spent / 1e3:>9.4g} nJ {share:>5.1f} %{against}")
        return "\n".join([*lines, *(f"  assumed: {line}" for line in self.assumptions)])


def _summed(layers: Iterable[LayerEnergy]) -> dict[str, float]:
    total: dict[str, float] = {}
    for layer in layers:
        for part, spent in layer.by_part.items():
            total[part] = total.get(part, 0.0) + spent
    return total


def energy(model: keras.Model, hardware: Hardware | None = None, reference: Hardware | None = None) -> EnergyEstimate:
    """Estimates the energy of one inference in the layers that multiply.

    Per layer, each part at its own voltage V (multipliers and adders at the datapath's):

    - multiplications: ``N (P e_mul(n_a, n_w) + e_sign) (V / V_nominal)^2`` for N products (at all time steps of a
      recurrent layer, of all kinds in attention) and the multiplier's relative power P; e_sign where the circuit is
      unsigned, not exact, and an operand reaches it as sign and magnitude, else 0: for exact products there is a
      signed circuit too;
    - additions: ``N e_add (V / V_nominal)^2``;
    - weights: ``W r (c e_read + e_decoder) (V / V_nominal)^2`` for W weights read r times, in words of c cells,
      those of the protection included;
    - activations: the same for inputs, read, and outputs, written, as words of the activation codes' width;
    - biases: the same, each read once, as words of `Quantisation.bias_bits`, wherever they live;
    - leakage: ``leakage_share V / V_nominal d(V)`` times the energy of each of these at nominal voltage, d the
      delay; none in a dynamic memory, where refresh stands for it.

    Constants and their sources: `EnergyModel` (theory page, section 6). A part without a voltage is counted at
    nominal. Control, clocks and what happens between products are not in this estimate.

    Args:
        model: a converted model, or a plain one together with `hardware`.
        hardware: plays every layer with products; `None` takes each layer's own.
        reference: the machine to compare with; default `exact_machine`.

    Returns:
        an `EnergyEstimate`.

    Raises:
        ValueError: no layer with products on hardware, a shape left open, or a voltage below the threshold of the
            energy model.
    """
    layers, reference_layers, machines = [], [], []
    assumptions: list[str] = []
    told = labels(model)
    for call in calls(model):
        described = hardware or getattr(call.layer, "hardware", None)
        if described is None:
            continue
        counted = count(*call)
        if counted is None:
            continue
        layers.append(_layer_energy(told[id(call.layer)], counted, described))
        reference_layers.append(_layer_energy(told[id(call.layer)], counted, reference or exact_machine(described)))
        assumptions += _assumptions(described)
        machines.append((described.circuit.name, described))
    if not layers:
        raise ValueError(
            "No layer of this model multiplies on hardware; use axtrain.convert, or give `hardware`. "
            f"Received: {model.name!r}"
        )
    assumptions = [*circuits_in_words(machines), *assumptions]
    if reference is not None:
        own = [*circuits_in_words([(reference.circuit.name, reference)]), *_assumptions(reference)]
        assumptions += [f"of the reference: {line}" for line in own if line not in assumptions]
    return EnergyEstimate(
        tuple(layers),
        sum(layer.total_pj for layer in reference_layers),
        tuple(dict.fromkeys(assumptions)),
        tuple(reference_layers),
        _EXACT if reference is None else f"on {reference.name or 'the reference machine'}",
    )


def exact_machine(hardware: Hardware) -> Hardware:
    """The exact multiplier of the same widths, exact sums, and words without protection at nominal voltage.

    What a memory is made of stays: where the hardware has a dynamic memory, so has its exact machine, refreshed at
    the standard interval.
    """
    return replace(
        hardware,
        multiplier=None,
        datapath=None,
        **{name: memory.unfailing for name, memory in hardware.memories.items()},
        quantisation=replace(
            hardware.quantisation,
            activation_bits=hardware.activation_bits,
            weight_bits=hardware.weight_bits,
            activations=None,
            activation_encoding=None,
            weight_encoding=None,
        ),
    )


def _layer_energy(name: str, counted: Count, hardware: Hardware) -> LayerEnergy:
    model, circuit = hardware.energy, hardware.circuit
    power = 1.0 if circuit.power is None else circuit.power
    products = counted.multiplications
    weights, activations, biases = hardware.weight_memory, hardware.activation_store, hardware.bias_memory
    width, bias_width = hardware.activation_bits, hardware.quantisation.bias_bits
    word = model.word_pj(weights, hardware.weight_bits, model.weight_read_pj_per_bit)
    read = model.word_pj(activations, width, model.activation_read_pj_per_bit)
    written = model.word_pj(activations, width, model.activation_write_pj_per_bit)
    bias = model.word_pj(biases, bias_width, model.bias_read_pj_per_bit)
    one_pj = power * model.multiplication_pj(circuit.activation_bits, circuit.weight_bits) + _sign_pj(hardware)
    logic, stored = model.supply(hardware.datapath), model.supply(activations)
    nominal = {  # picojoules at nominal voltage, and the supply that the part really has
        "multiply_pj": (products * one_pj, logic),
        "add_pj": (products * model.addition_pj(), logic),
        "weight_read_pj": (counted.weights * model.weight_reads * word, model.supply(weights)),
        "activation_read_pj": (counted.inputs * model.activation_reads * read, stored),
        "activation_write_pj": (counted.outputs * written, stored),
        "bias_read_pj": (counted.biases * bias, model.supply(biases)),
    }
    spent: dict[str, Any] = {part: energy_pj * supply.dynamic for part, (energy_pj, supply) in nominal.items()}
    leakage = sum(energy_pj * supply.leakage for energy_pj, supply in nominal.values())
    return LayerEnergy(name=name, **counted._asdict(), **spent, leakage_pj=leakage)


def _sign_pj(hardware: Hardware) -> float:
    """For each product; an exact one can come from a signed circuit."""
    circuit = hardware.circuit
    if circuit.is_exact or "sign_magnitude" not in hardware.operand_encodings:
        return 0.0
    return hardware.energy.sign_pj(circuit.activation_bits, circuit.weight_bits)


def circuits_in_words(machines: Iterable[tuple[str, Hardware]]) -> list[str]:
    """What the energy of hardware, each with its name, takes for granted of the circuit: its power, and its signs."""
    unknown, signs = dict[str, None](), dict[float, dict[str, None]]()
    for name, hardware in machines:
        sign_pj = _sign_pj(hardware)
        if hardware.circuit.power is None:
            unknown[name] = None
        if sign_pj and hardware.energy.is_default("sign_pj_per_bit"):
            signs.setdefault(sign_pj, {})[name] = None
    lines = []
    if unknown:
        lines.append(
            f"{', '.join(unknown)}: no relative power known, counted as the exact multiplier's; give power=... to "
            "axtrain.Multiplier to change that"
        )
    return lines + [
        f"{', '.join(names)}: unsigned, so the sign of each product is handled beside the circuit, {pj:.3g} pJ "
        "(EnergyModel's sign_pj_per_bit, illustrative)"
        for pj, names in signs.items()
    ]


def _assumptions(hardware: Hardware) -> list[str]:
    """What else the energy of this hardware takes for granted: guesses, and constants that are still illustrative."""
    model = hardware.energy
    lines = []
    if model.is_default("weight_reads", "activation_reads"):
        lines.append(
            f"reads of each weight per inference: {model.weight_reads:g}, of each input per layer: "
            f"{model.activation_reads:g} (EnergyModel's weight_reads, activation_reads)"
        )
    for name, words in _PARTS.items():
        part = getattr(hardware, name)
        if part is None:
            continue
        if is_dynamic(part):
            lines += _dram_in_words(model, part.refresh_intervals_s[1], words)
        elif not has_voltages(part):
            lines.append(f"the {words} has no voltage{'s' if part.voltage else ''}, so it is counted at nominal energy")
        if has_decoder(part) and model.is_default("decoder_pj_per_word"):
            lines.append(
                f"the decoder of the {words}'s {part.protection.label} costs {model.decoder_pj_per_word:g} pJ per "
                "word: no figure known (EnergyModel's decoder_pj_per_word)"
            )
        assumption = getattr(getattr(part, "protection", None), "assumption", "")
        if assumption:
            lines.append(assumption.format(memory=words))
        width = getattr(part, "accumulator_bits", model.accumulator_bits)
        if width != model.accumulator_bits:
            lines.append(
                f"additions are counted at EnergyModel's accumulator_bits={model.accumulator_bits}; the datapath's "
                f"accumulators have {width}"
            )
    if model.leakage_share and model.is_default("leakage_share", "threshold_voltage", "alpha"):
        lines.append(
            f"leakage is {100 * model.leakage_share:g} % of the dynamic energy at nominal voltage, and grows with the "
            f"delay for threshold {model.threshold_voltage:g} V and exponent {model.alpha:g} (illustrative)"
        )
    return lines


def _dram_in_words(model: EnergyModel, standard_s: float, words: str) -> list[str]:
    if not model.is_default("dram_refresh_share"):
        return []
    return [
        f"refresh is {100 * model.dram_refresh_share:g} % of an access to the {words} at its standard interval, "
        f"{standard_s:g} s, and falls as one over the interval (illustrative)"
    ]
