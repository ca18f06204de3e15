"""`Hardware`: one frozen, serialisable description of what a network will run on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

from axtrain.energy_model import EnergyModel
from axtrain.hardware_checks import check_parts
from axtrain.noise_models import multipliers
from axtrain.noise_models.datapath import datapath_from_dict
from axtrain.noise_models.description import Description
from axtrain.noise_models.files import write_whole
from axtrain.noise_models.memories import memory_from_dict
from axtrain.noise_models.multiplier import Multiplier
from axtrain.noise_models.reading import read_json, reading
from axtrain.quantisation import Quantisation

_FORMAT = "axtrain-hardware-1"
_ADDED = ("energy.sign_pj_per_bit",)  # which earlier versions did not write


@dataclass(frozen=True, kw_only=True)
class Hardware(Description):
    """A multiplier, a weight memory, and how numbers are coded on the way to them.

    Raises:
        ValueError: parts that do not fit together, such as a signed multiplier for unsigned codes.
        TypeError: a part of the wrong kind.

    Examples:
        >>> import axtrain as ax
        >>> ax.Hardware(multiplier=ax.multipliers.get("drum4")).activations
        'affine'
    """

    multiplier: Multiplier | None = None
    """The multiplying circuit; `None` is exact at the quantisation's width (8 bits by default)."""
    weight_memory: Any = None
    """Where the weights live, from `axtrain.memories`; `None` never fails."""
    activation_memory: Any = None
    """Where each layer's inputs lie until they are multiplied, as codes; `None` never fails."""
    bias_memory: Any = None
    """Where the biases live, as symmetric words of `Quantisation.bias_bits`; `None` never fails."""
    datapath: Any = None
    """What the accumulators do near the threshold voltage, from `axtrain.datapaths`; `None` is exact."""
    quantisation: Quantisation = field(default_factory=Quantisation)
    """How real numbers become codes."""
    energy: EnergyModel = field(default_factory=EnergyModel)
    """What an operation costs."""
    name: str | None = None
    """A name for tables and plots."""

    def __post_init__(self) -> None:
        check_parts(self)

    @property
    def has_faults(self) -> bool:
        """Whether something in it fails: the cells of a memory, or the datapath."""
        return self.datapath is not None or any(memory.rate > 0 for memory in self.memories.values())

    @property
    def memories(self) -> dict[str, Any]:
        """The memories that can fail, by the name of their field."""
        names = ("weight_memory", "activation_memory", "bias_memory")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    @property
    def circuit(self) -> Multiplier:
        """The multiplier, the exact one where none was given."""
        if self.multiplier is not None:
            return self.multiplier
        bits = (self.quantisation.activation_bits or 8, self.quantisation.weight_bits or 8)
        signed = self.quantisation.activations == "symmetric" or self.quantisation.activation_encoding == "auto"
        return multipliers.get("exact", bits=bits if bits[0] != bits[1] else bits[0], signed=signed)

    @property
    def activations(self) -> str:
        """`"affine"` or `"symmetric"`, resolved."""
        return self.quantisation.activations or ("symmetric" if self.circuit.signed else "affine")

    @property
    def activation_bits(self) -> int:
        """Width of the activation codes."""
        return self.quantisation.activation_bits or self.circuit.activation_bits

    @property
    def weight_bits(self) -> int:
        """Width of the weight codes, and of the words in the weight memory."""
        return self.quantisation.weight_bits or self.circuit.weight_bits

    def weight_codes(self, kernel, axes: tuple[int, ...]):
        """A kernel as the `axtrain.quantisers.Codes` that this hardware stores.

        Args:
            kernel: float32 tensor.
            axes: those that one output sums over.
        """
        from axtrain.quantisers import quantise_weights  # needs Keras; a description does not

        return quantise_weights(kernel, self.weight_bits, axes, self.quantisation.weight_scale == "per_tensor")

    @property
    def activation_codes(self) -> tuple[int, int]:
        """Smallest and largest activation code."""
        bits = self.activation_bits
        if self.activations == "symmetric":
            return -(1 << (bits - 1)) + 1, (1 << (bits - 1)) - 1
        low = -(1 << (bits - 1)) if self.circuit.signed else 0
        return low, low + (1 << bits) - 1

    @property
    def activation_store(self) -> Any:
        """The activation memory in the encoding of the codes: unsigned ones are stored as they are."""
        memory = self.activation_memory
        if memory is None or min(self.activation_codes) < 0:
            return memory
        return replace(memory, encoding="unsigned")

    @property
    def read_activation_codes(self) -> tuple[int, int]:
        """Smallest and largest activation code that reaches the multiplier: a fault can also make -2^(n-1)."""
        low, high = self.activation_codes
        return (-high - 1 if self.activation_memory is not None and low < 0 else low), high

    @property
    def operand_encodings(self) -> tuple[str, str]:
        """How (activation, weight) codes reach the circuit's words: plain, sign_magnitude or offset."""
        if self.circuit.signed:
            return "plain", "plain"
        chosen = self.quantisation.activation_encoding
        default = "sign_magnitude" if chosen in (None, "auto") else chosen
        activation = "plain" if self.activations == "affine" else default
        return activation, self.quantisation.weight_encoding or "sign_magnitude"

    @property
    def code_table(self):
        """The circuit's `CodeTable` over the codes in use, encodings folded in."""
        from axtrain.emulation.code_table import table_in_use  # needs Keras; a description does not

        half = 1 << (self.weight_bits - 1)
        # Quantised weights are symmetric; a fault in a memory can also make the word of -2^(n-1).
        lowest = 1 - half if self.weight_memory is None else -half
        return table_in_use(self.circuit, self.operand_encodings, self.read_activation_codes, (lowest, half - 1))

    @property
    def _faulty_parts(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("weight_memory", "activation_memory", "bias_memory", "datapath")}

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able description; `from_dict` rebuilds an equal object."""
        return {
            "format": _FORMAT,
            "name": self.name,
            "multiplier": None if self.multiplier is None else self.multiplier.to_dict(),
            **{name: None if part is None else part.to_dict() for name, part in self._faulty_parts.items()},
            "quantisation": self.quantisation.to_dict(),
            "energy": self.energy.to_dict(),
        }

    @classmethod
    def from_dict(cls, description: dict[str, Any]) -> Hardware:
        """Rebuilds what `to_dict` gave.

        Raises:
            ValueError: not a description of hardware, or of another version.
        """
        if not isinstance(description, dict) or description.get("format") != _FORMAT:
            received = description.get("format") if isinstance(description, dict) else type(description).__name__
            raise ValueError(f"Not a hardware description of format {_FORMAT!r}. Received: {received!r}")
        parts = dict(description)
        del parts["format"]
        unknown = set(parts) - {item.name for item in fields(cls)}
        if unknown:
            raise ValueError(f"A hardware description with unknown parts. Received: {sorted(unknown)}")
        if parts.get("multiplier") is not None:
            parts["multiplier"] = Multiplier.from_dict(parts["multiplier"])
        for name in ("weight_memory", "activation_memory", "bias_memory", "datapath"):
            if parts.get(name) is not None:
                read = datapath_from_dict if name == "datapath" else memory_from_dict
                parts[name] = read(parts[name])
        for name, kind in (("quantisation", Quantisation), ("energy", EnergyModel)):
            if name in parts:
                parts[name] = kind.from_dict(parts[name])
        return cls(**parts)

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Writes the description to a file, whole or not at all."""
        write_whole(path, json.dumps(self.to_dict(), indent=1).encode())

    @classmethod
    def from_json(cls, path: str | os.PathLike[str]) -> Hardware:
        """Reads what `to_json` wrote.

        Raises:
            OSError: there is no such file, or it may not be read.
            ValueError: the file is not JSON, or not a whole hardware description; the format has no checksum.
        """
        what, remedy = "a description of hardware", "write it again with Hardware.to_json"
        description = read_json(path, what, remedy)
        with reading(path, what, remedy):
            hardware = cls.from_dict(description)
            # In a file an entry that was lost would else become its default: a memory that never fails.
            missing = [name for name in _missing(description, hardware.to_dict()) if name not in _ADDED]
            if missing:
                raise ValueError(f"no {', '.join(missing)}; null where there is none")
            return hardware


def _missing(described: dict[str, Any], whole: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Entries that a whole description has and this one lacks."""
    for key, value in whole.items():
        if key not in described:
            yield prefix + key
        elif isinstance(value, dict) and isinstance(described[key], dict):
            yield from _missing(described[key], value, f"{prefix}{key}.")
