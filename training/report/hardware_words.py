"""Hardware in plain words."""

from __future__ import annotations

from typing import Any

from axtrain.hardware import Hardware

_MEMORIES = {
    "bit_errors": "a memory with bit errors",
    "near_threshold_sram": "near-threshold SRAM",
    "approximate_dram": "DRAM that is refreshed too rarely",
    "measured": "a measured memory",
}
_FAULTS = {
    "random": "other bits at every read",
    "persistent": "always the same weak cells of a chip",
    "stuck": "cells that are stuck",
}


def hardware_rows(hardware: Hardware) -> list[tuple[str, str]]:
    """(part, what it is) for each part of a description."""
    circuit, metrics = hardware.circuit, hardware.circuit.metrics()
    power = "no figure known for its power"
    if circuit.power is not None:
        power = f"{100 * circuit.power:.3g} % of the exact circuit's power"
    error = "no error" if circuit.is_exact else f"mean relative error {100 * metrics.mre:.3g} %"
    rows = [("multiplier", f"{circuit.name}: {error}, {power}")]
    for part, memory in (
        ("weights", hardware.weight_memory),
        ("activations", hardware.activation_store),
        ("biases", hardware.bias_memory),
    ):
        bits = {"weights": hardware.weight_bits, "activations": hardware.activation_bits}.get(part)
        width = f"{bits or hardware.quantisation.bias_bits} bits"
        rows.append((part, f"{width}, {_memory(memory)}"))
    datapath = hardware.datapath
    voltage = "" if getattr(datapath, "voltage", None) is None else f" at {datapath.voltage:g} V"
    words = "exact in 32 bits" if datapath is None else f"on a datapath that fails{voltage} ({_spoken(datapath.label)})"
    return [*rows, ("sums", words)]


def in_short(hardware: Hardware) -> str:
    """Its name, or multiplier and voltage."""
    if hardware.name:
        return hardware.name
    voltages = sorted({memory.voltage for memory in hardware.memories.values() if memory.voltage is not None})
    return ", ".join([hardware.circuit.name, *(f"{voltage:g} V" for voltage in voltages)])


def _memory(memory: Any) -> str:
    if memory is None:
        return "in a memory that never fails"
    where = _MEMORIES.get(memory.label, _spoken(memory.label))
    at = "" if memory.voltage is None else f" at {memory.voltage:g} V"
    words = f"in {where}{at}: {100 * memory.rate:.2g} % of the bits are wrong ({_FAULTS[memory.fault]})"
    if memory.rate == 0:
        words = f"in {where}{at}: no bit is wrong"
    guarded = "" if memory.protection is None else f", protected by {_spoken(memory.protection.label)}"
    return f"{words}, {_spoken(memory.encoding)}{guarded}"


def _spoken(name: str) -> str:
    return (
        name.replace("twos_complement", "two's complement")
        .replace("sign_magnitude", "sign-magnitude")
        .replace("_", " ")
    )
