"""`Hardware`: one frozen, serialisable description of what a network will run on."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from axtrain.files import write_whole
from axtrain.noise_models import multipliers
from axtrain.noise_models.memories import memory_from_dict
from axtrain.noise_models.multiplier import Multiplier

_FORMAT = "axtrain-hardware-1"


def _choice(name: str, value: Any, allowed: tuple) -> None:
    if value not in allowed:
        raise ValueError(f"`{name}` must be one of {allowed}. Received: {name}={value!r}")


@dataclass(frozen=True, kw_only=True)
class Quantisation:
    """How real numbers become operand codes; `None` leaves a choice to the multiplier.

    Weights are symmetric, one scale per output channel. Activations have one scale per tensor.
    """

    activations: str | None = None
    """`"affine"` (unsigned codes with a zero point; default for unsigned multipliers) or `"symmetric"`
    (signed codes, zero point 0; default for signed ones)."""
    activation_encoding: str | None = None
    """How activation codes reach the multiplier's words where they do not fit as they are: `"offset"`
    or, for symmetric codes on an unsigned multiplier, `"sign_magnitude"` (the default there)."""
    weight_encoding: str | None = None
    """How signed weight codes reach an unsigned multiplier: `"sign_magnitude"` (default) or `"offset"`."""
    activation_bits: int | None = None
    """2 to 10 bits; default the multiplier's width."""
    weight_bits: int | None = None
    """2 to 10 bits; default the multiplier's width."""
    activation_range: str = "percentile"
    """Where the range comes from: `"percentile"` or `"minmax"` of the calibration data, or
    `"moving_average"` of the batches' minima and maxima during training."""
    percentile: float = 99.99
    """For `"percentile"`: how much of the calibration data lies inside the range, in per cent."""
    momentum: float = 0.99
    """For `"moving_average"`: the share of the old range kept at each step."""

    def __post_init__(self) -> None:
        _choice("activations", self.activations, (None, "affine", "symmetric"))
        _choice("activation_encoding", self.activation_encoding, (None, "offset", "sign_magnitude"))
        _choice("weight_encoding", self.weight_encoding, (None, "offset", "sign_magnitude"))
        _choice("activation_range", self.activation_range, ("percentile", "minmax", "moving_average"))
        for name in ("activation_bits", "weight_bits"):
            bits = getattr(self, name)
            if bits is not None and (not isinstance(bits, int) or not 2 <= bits <= 10):
                raise ValueError(f"`{name}` must be an int from 2 to 10, or None. Received: {name}={bits!r}")
        if not 50 < self.percentile <= 100:
            raise ValueError(f"`percentile` must lie in (50, 100]. Received: percentile={self.percentile!r}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"`momentum` must lie in [0, 1). Received: momentum={self.momentum!r}")


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


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """A multiplier, a weight memory, and how numbers are coded on the way to them.

    Raises:
        ValueError: parts that do not fit together, such as a signed multiplier for unsigned codes.
        TypeError: a part of the wrong kind.

    Example:
        >>> import axtrain as ax
        >>> ax.Hardware(multiplier=ax.multipliers.get("drum4")).activations
        'affine'
    """

    multiplier: Multiplier | None = None
    """The multiplying circuit; `None` is exact at the quantisation's width (8 bits by default)."""
    weight_memory: Any = None
    """Where the weights live, from `axtrain.memories`; `None` never fails."""
    quantisation: Quantisation = field(default_factory=Quantisation)
    """How real numbers become codes."""
    energy: EnergyModel = field(default_factory=EnergyModel)
    """What an operation costs."""
    name: str | None = None
    """A name for tables and plots."""

    def __post_init__(self) -> None:
        if self.multiplier is not None and not isinstance(self.multiplier, Multiplier):
            raise TypeError(
                "`multiplier` must be an axtrain.Multiplier: use axtrain.multipliers.get(name) or "
                f"axtrain.Multiplier.load(path, signed=...). Received: multiplier={self.multiplier!r}"
            )
        if self.weight_memory is not None and not hasattr(self.weight_memory, "read"):
            raise TypeError(
                "`weight_memory` must be one of axtrain.memories, such as BitErrors(rate=...). "
                f"Received: weight_memory={self.weight_memory!r}"
            )
        if getattr(self.weight_memory, "encoding", None) == "unsigned":
            raise ValueError(
                "Weight codes are signed and an unsigned word would lose their sign. Use encoding='twos_complement', "
                "'sign_magnitude' or 'offset' in the memory. Received: encoding='unsigned'"
            )
        for name, kind in (("quantisation", Quantisation), ("energy", EnergyModel)):
            if not isinstance(getattr(self, name), kind):
                raise TypeError(f"`{name}` must be a {kind.__name__}. Received: {name}={getattr(self, name)!r}")
        self._check_encodings()

    def _check_encodings(self) -> None:
        circuit, quantisation = self.circuit, self.quantisation
        if circuit.signed and self.activations == "affine" and quantisation.activation_encoding != "offset":
            raise ValueError(
                f"The signed multiplier {circuit.name!r} cannot take the unsigned codes of affine activations. Use "
                "activations='symmetric', or activation_encoding='offset' (codes shifted down by half the range), "
                "or an unsigned multiplier. Received: activations='affine', "
                f"activation_encoding={quantisation.activation_encoding!r}"
            )
        for name in ("activation_encoding", "weight_encoding"):
            allowed = (None, "offset") if circuit.signed and name == "activation_encoding" else (None,)
            if circuit.signed and getattr(quantisation, name) not in allowed:
                raise ValueError(
                    f"The signed multiplier {circuit.name!r} takes two's complement codes as they are. Leave "
                    f"`{name}` at None. Received: {name}={getattr(quantisation, name)!r}"
                )
        if not circuit.signed and self.activations == "affine" and quantisation.activation_encoding is not None:
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

    @property
    def has_faults(self) -> bool:
        """Whether something in it fails: a memory whose cells do."""
        return self.weight_memory is not None and self.weight_memory.rate > 0

    @property
    def circuit(self) -> Multiplier:
        """The multiplier, the exact one where none was given."""
        if self.multiplier is not None:
            return self.multiplier
        bits = (self.quantisation.activation_bits or 8, self.quantisation.weight_bits or 8)
        signed = self.quantisation.activations == "symmetric"
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

    @property
    def activation_codes(self) -> tuple[int, int]:
        """Smallest and largest activation code."""
        bits = self.activation_bits
        if self.activations == "symmetric":
            return -(1 << (bits - 1)) + 1, (1 << (bits - 1)) - 1
        low = -(1 << (bits - 1)) if self.circuit.signed else 0
        return low, low + (1 << bits) - 1

    @property
    def operand_encodings(self) -> tuple[str, str]:
        """How (activation, weight) codes reach the circuit's words: plain, sign_magnitude or offset."""
        if self.circuit.signed:
            return "plain", "plain"
        default = self.quantisation.activation_encoding or "sign_magnitude"
        activation = "plain" if self.activations == "affine" else default
        return activation, self.quantisation.weight_encoding or "sign_magnitude"

    @property
    def code_table(self):
        """The circuit's `CodeTable` over the codes in use, encodings folded in."""
        from axtrain.emulation.code_table import table_in_use  # needs Keras; a description does not

        half = 1 << (self.weight_bits - 1)
        # Quantised weights are symmetric; a fault in a memory can also make the word of -2^(n-1).
        lowest = 1 - half if self.weight_memory is None else -half
        return table_in_use(self.circuit, self.operand_encodings, self.activation_codes, (lowest, half - 1))

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able description; `from_dict` rebuilds an equal object."""
        return {
            "format": _FORMAT,
            "name": self.name,
            "multiplier": None if self.multiplier is None else self.multiplier.to_dict(),
            "weight_memory": None if self.weight_memory is None else self.weight_memory.to_dict(),
            "quantisation": asdict(self.quantisation),
            "energy": asdict(self.energy),
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
        if parts.get("weight_memory") is not None:
            parts["weight_memory"] = memory_from_dict(parts["weight_memory"])
        for name, kind in (("quantisation", Quantisation), ("energy", EnergyModel)):
            if name in parts:
                parts[name] = kind(**parts[name])
        return cls(**parts)

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Writes the description to a file, whole or not at all."""
        write_whole(path, json.dumps(self.to_dict(), indent=1).encode())

    @classmethod
    def from_json(cls, path: str | os.PathLike[str]) -> Hardware:
        """Reads what `to_json` wrote.

        Raises:
            ValueError: the file is not JSON, or not a hardware description.
        """
        try:
            description = json.loads(Path(path).read_text())
        except json.JSONDecodeError as error:
            raise ValueError(f"Not a JSON file: {path} ({error})") from error
        return cls.from_dict(description)
