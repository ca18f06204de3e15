"""The same hardware at another voltage or error rate, and what one compiled function can play of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from axtrain.hardware import Hardware
from axtrain.noise_models.datapath import CarryChain, DroppedMACs, TimingErrors
from axtrain.noise_models.memories import BitErrors, NearThresholdSRAM, RobustBits


def at(hardware: Hardware, value: float, by_rate: bool, chain: CarryChain, notes: dict[str, None]) -> Hardware:
    """One layer's hardware at a voltage or error rate; what stays as it was is noted."""
    changes: dict[str, Any] = {
        name: replace(memory, **{"rate" if by_rate else "voltage": value})
        for name, memory in swept(hardware, by_rate).items()
    }
    for name, memory in hardware.memories.items():
        if name not in changes:
            notes[f"{name} ({type(memory).__name__}) stays as it is, at rate {memory.rate:.2g}"] = None
    if hardware.datapath is not None:
        again = None if by_rate else remade(hardware.datapath, value, chain)
        if again is None:
            why = "" if by_rate else ", since `chain` did not make it"
            notes[f"datapath ({type(hardware.datapath).__name__}) stays as it is{why}"] = None
        else:
            changes["datapath"] = again
    return replace(hardware, **changes) if changes else hardware


def swept(hardware: Hardware, by_rate: bool) -> dict[str, Any]:
    """The memories that the sweep sets, by the name of their field."""
    found = hardware.memories.items()
    return {
        name: memory
        for name, memory in found
        if (by_rate and isinstance(memory, BitErrors)) or (not by_rate and memory.voltage is not None)
    }


def remade(datapath, voltage: float, chain: CarryChain):
    """The datapath at another voltage if the chain is seen to have made it: a datapath keeps rates and no chain."""
    kind = type(datapath)
    reached = chain.threshold_voltage < (datapath.voltage or 0) <= chain.nominal_voltage
    if kind not in (TimingErrors, DroppedMACs) or not reached:
        return None
    widths = [datapath.accumulator_bits] if kind is TimingErrors else range(2, 33)
    fitting = [bits for bits in widths if kind.at_voltage(datapath.voltage, chain, bits) == datapath]
    # Several fit where nothing is ever late at its own voltage; then its width is not known.
    return kind.at_voltage(voltage, chain, fitting[0]) if len(fitting) == 1 else None


def dialled(parts: tuple[Hardware, ...]) -> tuple[Hardware, list[float]] | None:
    """One hardware, and the noise strengths at which it is each of `parts` to the last cell; `None` if there is none.

    A cell fails where its number lies below float32(rate) strength. So all memories of a layer must fail equally
    often, and nothing else may follow the strength.
    """
    first = parts[0]
    if all(part is first for part in parts):
        return first, [1.0] * len(parts)
    rates = [{memory.rate for memory in part.memories.values()} for part in parts]
    hashed = all(isinstance(memory, (BitErrors, NearThresholdSRAM)) for memory in first.memories.values())
    own = any(isinstance(m.protection, RobustBits) and m.protection.rate > 0 for m in first.memories.values())
    if first.datapath is not None or not hashed or own or any(len(each) > 1 for each in rates):
        return None
    levels = [each.pop() for each in rates]
    # A power of two, so that its product with the strength is float32(rate) without any rounding.
    ceiling = 0.5 if max(levels) <= 0.5 else 1.0
    same = ("fault", "share_of_ones", "encoding", "protection", "clustering")
    memories: dict[str, Any] = {}
    for name, memory in first.memories.items():
        memories[name] = BitErrors(rate=ceiling, **{field: getattr(memory, field) for field in same})
    return replace(first, **memories), [level / ceiling for level in levels]
