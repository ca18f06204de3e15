"""Whether the parts of a `Hardware` are of the right kind, and fit together."""

from __future__ import annotations

from typing import Any

from axtrain.energy_model import EnergyModel
from axtrain.noise_models.datapath import Datapath
from axtrain.noise_models.memory import Memory
from axtrain.noise_models.multiplier import Multiplier
from axtrain.quantisation import Quantisation


def check_parts(hardware: Any) -> None:
    """Raises TypeError for a part of the wrong kind, ValueError for parts that do not fit together."""
    if hardware.multiplier is not None and not isinstance(hardware.multiplier, Multiplier):
        raise TypeError(
            "`multiplier` must be an axtrain.Multiplier: use axtrain.multipliers.get(name) or "
            f"axtrain.Multiplier.load(path, signed=...). Received: multiplier={hardware.multiplier!r}"
        )
    for name, memory in hardware.memories.items():
        if not isinstance(memory, Memory):
            raise TypeError(
                f"`{name}` must be one of axtrain.memories, such as BitErrors(rate=...). Received: {name}={memory!r}"
            )
        if memory.encoding == "unsigned" and (name != "activation_memory" or min(hardware.activation_codes) < 0):
            raise ValueError(
                f"The codes in `{name}` are signed and an unsigned word would lose their sign. Use "
                "encoding='twos_complement', 'sign_magnitude' or 'offset' in the memory. "
                "Received: encoding='unsigned'"
            )
    _ = hardware.activation_store  # raises where the protection cannot hold the codes
    if hardware.datapath is not None and not isinstance(hardware.datapath, Datapath):
        raise TypeError(
            "`datapath` must be one of axtrain.datapaths, such as TimingErrors.at_voltage(0.75). "
            f"Received: datapath={hardware.datapath!r}"
        )
    for name, kind in (("quantisation", Quantisation), ("energy", EnergyModel)):
        if not isinstance(getattr(hardware, name), kind):
            raise TypeError(f"`{name}` must be a {kind.__name__}. Received: {name}={getattr(hardware, name)!r}")
    _check_encodings(hardware)


def _check_encodings(hardware: Any) -> None:
    circuit, quantisation = hardware.circuit, hardware.quantisation
    if (
        circuit.signed
        and hardware.activations == "affine"
        and quantisation.activation_encoding not in ("offset", "auto")
    ):
        raise ValueError(
            f"The signed multiplier {circuit.name!r} cannot take the unsigned codes of affine activations. Use "
            "activations='symmetric', or activation_encoding='offset' (codes shifted down by half the range), "
            "or an unsigned multiplier. Received: activations='affine', "
            f"activation_encoding={quantisation.activation_encoding!r}"
        )
    for name in ("activation_encoding", "weight_encoding"):
        allowed = (None, "auto", "offset") if circuit.signed and name == "activation_encoding" else (None,)
        if circuit.signed and getattr(quantisation, name) not in allowed:
            raise ValueError(
                f"The signed multiplier {circuit.name!r} takes two's complement codes as they are. Leave "
                f"`{name}` at None. Received: {name}={getattr(quantisation, name)!r}"
            )
    given = quantisation.activation_encoding not in (None, "auto")
    if not circuit.signed and hardware.activations == "affine" and given:
        raise ValueError(
            "Affine activation codes are unsigned and reach an unsigned multiplier as they are. Leave "
            f"`activation_encoding` at None. Received: {quantisation.activation_encoding!r}"
        )
    for name, wanted, width in (
        ("activation_bits", quantisation.activation_bits, circuit.activation_bits),
        ("weight_bits", quantisation.weight_bits, circuit.weight_bits),
    ):
        if wanted is not None and wanted > width:
            raise ValueError(
                f"`{name}` cannot exceed the {width}-bit operand of {circuit.name!r}. Received: {name}={wanted}"
            )
