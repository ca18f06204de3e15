"""The same hardware at another voltage or error rate, and what one compiled function can play of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from axtrain.hardware import Hardware
from axtrain.noise_models.carry_chain import CarryChain


def at(hardware: Hardware, value: float, by_rate: bool, chain: CarryChain, notes: dict[str, None]) -> Hardware:
    """One layer's hardware at a voltage or error rate; what stays as it was is noted."""
    changes: dict[str, Any] = {
        name: _set_to(memory, value, by_rate) for name, memory in swept(hardware, by_rate).items()
    }
    for name, memory in hardware.memories.items():
        if name not in changes:
            notes[f"{name} ({type(memory).__name__}) stays as it is, at rate {memory.rate:.2g}"] = None
    if hardware.datapath is not None:
        again = None if by_rate else hardware.datapath.with_voltage(value, chain)
        if again is None:
            why = "" if by_rate else ", since `chain` did not make it"
            notes[f"datapath ({type(hardware.datapath).__name__}) stays as it is{why}"] = None
        else:
            changes["datapath"] = again
    return replace(hardware, **changes) if changes else hardware


def swept(hardware: Hardware, by_rate: bool) -> dict[str, Any]:
    """The memories that the sweep sets, by the name of their field."""
    found = hardware.memories.items()
    return {name: memory for name, memory in found if _set_to(memory, _now(memory, by_rate), by_rate) is not None}


def _now(memory: Any, by_rate: bool) -> Any:
    return memory.rate if by_rate else memory.voltage


def _set_to(memory: Any, value: float, by_rate: bool) -> Any:
    return memory.with_rate(value) if by_rate else memory.with_voltage(value)


def by_noise_strength(parts: tuple[Hardware, ...]) -> tuple[Hardware, list[float]] | None:
    """One hardware, and the noise strengths at which it is each of `parts` to the last cell; `None` if there is none.

    A cell fails where its number lies below float32(rate) strength. So all memories of a layer must fail equally
    often, and nothing else may follow the strength.
    """
    first = parts[0]
    if all(part is first for part in parts):
        return first, [1.0] * len(parts)
    rates = [{memory.rate for memory in part.memories.values()} for part in parts]
    own = any(m.protection is not None and not m.protection.follows_rate for m in first.memories.values())
    if first.datapath is not None or own or any(len(each) > 1 for each in rates):
        return None
    levels = [each.pop() for each in rates]
    # A power of two, so that its product with the strength is float32(rate) without any rounding.
    ceiling = 0.5 if max(levels) <= 0.5 else 1.0
    memories: dict[str, Any] = {name: memory.scaled_by_strength(ceiling) for name, memory in first.memories.items()}
    if None in memories.values():
        return None
    return replace(first, **memories), [level / ceiling for level in levels]
