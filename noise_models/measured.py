"""A real chip's failing cells, from a tester's map, and the memory that has just these."""

from __future__ import annotations

import itertools
import math
import os
from collections import Counter
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from .memory import Memory, in_range
from .protections import Protection
from .reading import csv_rows, read_array, reading

LARGEST_MAP = 1 << 28
"""Most cells of a `FaultMap`, 32 MiB of memory: a byte is held for each (chosen here)."""


@dataclass(frozen=True, kw_only=True)
class FaultMap:
    """The failing cells of one chip at one operating point.

    Args:
        words: how many words the memory has.
        word_bits: cells in a word of the memory (of a row, where the tester reads rows).
        addresses: word of each failing cell, ``0 .. words - 1``.
        bits: its place in the word, ``0 .. word_bits - 1``, lowest first.
        values: what each of them is stuck at, 0 or 1; `None` where the tester only saw wrong reads, which are
            then played as flips.
        voltage: at which it was measured, in volts, or `None`.
        temperature: in degrees Celsius, or `None`.

    Raises:
        ValueError: for cells outside of the memory, a cell that stands twice, lists of unequal length, or more than
            `LARGEST_MAP` cells.
    """

    words: int
    word_bits: int
    addresses: tuple[int, ...]
    bits: tuple[int, ...]
    values: tuple[int, ...] | None = None
    voltage: float | None = None
    temperature: float | None = None

    def __post_init__(self) -> None:
        for name in ("words", "word_bits"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"`{name}` must be an int >= 1. Received: {name}={value!r}")
        if self.words * self.word_bits > LARGEST_MAP:
            raise ValueError(
                f"A map has at most {LARGEST_MAP} cells; give that of the part of the memory where the network lies. "
                f"Received: words={self.words}, word_bits={self.word_bits}"
            )
        for name in ("addresses", "bits", "values"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(int(value) for value in getattr(self, name)))
        if len({len(self.addresses), len(self.bits), len(self.values or self.bits)}) > 1:
            raise ValueError(
                "Each failing cell has an address, a bit and (for all or none) a value. Received: "
                f"{len(self.addresses)} addresses, {len(self.bits)} bits, {len(self.values or ())} values"
            )
        for name, values, limit in (
            ("addresses", self.addresses, self.words),
            ("bits", self.bits, self.word_bits),
            ("values", self.values or (), 2),
        ):
            outside = [value for value in values if not 0 <= value < limit]
            if outside:
                raise ValueError(f"`{name}` must lie in 0 .. {limit - 1}. Received: {outside[:3]}")
        cells = Counter(zip(self.addresses, self.bits, strict=True))
        twice = next((cell for cell, times in cells.items() if times > 1), None)
        if twice is not None:
            raise ValueError(f"A cell may stand once in a map. Received: address {twice[0]}, bit {twice[1]} twice")

    @property
    def rate(self) -> float:
        """Share of the cells that fail."""
        return len(self.addresses) / (self.words * self.word_bits)

    @classmethod
    def from_npy(cls, path: str | os.PathLike[str], **context: Any) -> FaultMap:
        """Reads an array: bool (words, word_bits), true where a cell fails; or integers (cells, 2 or 3).

        Args:
            path: the file; columns of integers are address, bit and, if there is a third, the stuck value.
            context: `voltage`, `temperature`; and for integers `words` and `word_bits`.

        Raises:
            ValueError: for another array, bytes behind it, or integers without `words` and `word_bits`.
        """
        what, remedy = "a map of failing cells", "save it again with np.save(path, map)"
        array = read_array(path, what, remedy)
        with reading(path, what, remedy):
            if array.ndim == 2 and array.dtype == bool:
                addresses, bits = (tuple(found.tolist()) for found in np.nonzero(array))
                words, word_bits = array.shape
                return cls(words=words, word_bits=word_bits, addresses=addresses, bits=bits, **context)
            if array.ndim != 2 or array.shape[1] not in (2, 3) or not np.issubdtype(array.dtype, np.integer):
                raise ValueError(
                    f"{path} must hold booleans of shape (words, word_bits) or integers of shape (cells, 2 or 3). "
                    f"Received: {array.dtype} of shape {array.shape}"
                )
            return cls._from_rows(path, array.tolist(), array.shape[1] == 3, context)

    @classmethod
    def from_csv(cls, path: str | os.PathLike[str], **context: Any) -> FaultMap:
        """Reads a CSV file with a header line and the columns `address`, `bit` and, for stuck cells, `value`.

        Args:
            path: the file.
            context: `words`, `word_bits`, and `voltage` or `temperature`.

        Raises:
            ValueError: for a missing column or an entry that is no integer, with its line; or a bad map.
        """
        remedy = "give a CSV with a header line and the columns address, bit and, for stuck cells, value"
        with csv_rows(path, "a map of failing cells", remedy) as reader:
            columns = [name for name in ("address", "bit", "value") if name in (reader.fieldnames or ())]
            if columns[:2] != ["address", "bit"]:
                raise ValueError(
                    f"{path} needs a header line with the columns address and bit. Received: {reader.fieldnames!r}"
                )
            rows = []
            for row in reader:
                try:
                    rows.append([int(row[name], 0) for name in columns])  # 0x1f is a usual way to write an address
                except (TypeError, ValueError):
                    raise ValueError(
                        f"{path}, line {reader.line_num}: {', '.join(columns)} must be integers. Received: {row!r}"
                    ) from None
            return cls._from_rows(path, rows, len(columns) == 3, context)

    @classmethod
    def _from_rows(cls, path: Any, rows: list[list[int]], with_values: bool, context: dict[str, Any]) -> FaultMap:
        if not {"words", "word_bits"} <= set(context):
            raise ValueError(
                f"A list of cells does not say how large the memory is: give words=... and word_bits=... to read {path}"
            )
        columns = list(zip(*rows, strict=True)) or [(), (), ()]
        values = tuple(columns[2]) if with_values else None
        return cls(addresses=tuple(columns[0]), bits=tuple(columns[1]), values=values, **context)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able description."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class MeasuredMemory(Memory):
    """A memory whose failing cells were measured, so every read sees the faults of that one chip.

    Words fill the memory's cells without gaps, from the address at which their layer begins (`axtrain.convert`
    lays the layers out one after another); where they are more than it holds, it is filled again from its start.

    Args:
        maps: one or more `FaultMap` of the same chip, at different voltages or temperatures.
        voltage: the supply in volts; between two measured ones the faults of the lower are taken. `None` where
            the maps have no voltage.
        temperature: in degrees Celsius, one of those measured; `None` where the maps have none or one.
        rotate: whether each chip number shifts the layout by a random address, which shows how much the
            accuracy depends on the mapping; else every chip number is this one chip.
        nominal_voltage: As for `NearThresholdSRAM`.
        encoding, protection: as for `Memory`; there is no clustering beside the measured one.

    Raises:
        ValueError: for maps of different sizes, or an operating point that was not measured.
    """

    maps: tuple[FaultMap, ...]
    voltage: float | None = None
    temperature: float | None = None
    rotate: bool = False
    nominal_voltage: float = 1.0

    kind: ClassVar[str] = "measured"

    def __post_init__(self) -> None:
        read = tuple(FaultMap(**item) if isinstance(item, dict) else item for item in self.maps)
        object.__setattr__(self, "maps", read)
        if not read or not all(isinstance(item, FaultMap) for item in read):
            raise ValueError(f"`maps` must hold one FaultMap or more. Received: {len(read)} maps")
        if len({(item.words, item.word_bits, item.values is None) for item in read}) > 1:
            raise ValueError(
                "All maps of a chip must have the same words, word_bits and kind of fault. Received: maps of "
                f"{sorted({(item.words, item.word_bits) for item in read})}"
            )
        if self.clustering is not None:
            raise ValueError(
                "Measured cells lie where they lie. Leave `clustering` at None. "
                f"Received: clustering={self.clustering!r}"
            )
        if self.voltage is not None and not in_range(self.voltage, 0.0, self.nominal_voltage):
            raise ValueError(
                f"`voltage` must not exceed nominal_voltage={self.nominal_voltage}. Received: voltage={self.voltage!r}"
            )
        _ = self.map
        self._check()

    @property
    def map(self) -> FaultMap:
        """The map of the operating point."""
        fitting = [item for item in self.maps if self.temperature is None or item.temperature == self.temperature]
        measured = sorted({(item.voltage, item.temperature) for item in self.maps}, key=str)
        if self.voltage is not None:
            fitting = [item for item in fitting if item.voltage is not None and item.voltage <= self.voltage + 1e-9]
            highest = max((item.voltage for item in fitting if item.voltage is not None), default=None)
            fitting = [item for item in fitting if item.voltage == highest]
        if len(fitting) != 1:
            raise ValueError(
                "The operating point must name one map, at its voltage or the next lower one. Measured (V, deg C): "
                f"{measured}. Received: voltage={self.voltage!r}, temperature={self.temperature!r}"
            )
        return fitting[0]

    @property
    def rate(self) -> float:
        """Share of the cells that fail at the operating point."""
        return self.map.rate

    @property
    def fault(self) -> str:
        """`"stuck"` where the tester knows the values, else `"persistent"`."""
        return "persistent" if self.map.values is None else "stuck"

    @property
    def share_of_ones(self) -> float:
        """Share of the stuck cells that are stuck at one."""
        values = self.map.values
        return sum(values) / len(values) if values else 0.5

    def at(self, voltage: float | None = None, temperature: float | None = None) -> MeasuredMemory:
        """The same chip at another operating point."""
        return replace(self, voltage=voltage, temperature=temperature)

    def _faulty(self, shape: Any, protection: Protection, bits: int, seed: Any, strength: Any, address: int):
        from keras import ops

        from .faults import below
        from .random_numbers import hashed, positions

        faulty, ones = _cells(self.map)
        width = protection.width(bits)
        known = math.prod(length for length in shape if isinstance(length, int))  # weights; a batch is never so many
        last = (known + self.map.words + address % len(faulty)) * width
        place = ops.cast(positions(shape), "int32" if last < 1 << 31 else "int64")
        if self.rotate:  # a number of the chip, the same for all its words
            chip = ops.stack([seed[0], ops.zeros_like(seed[1])])  # the second word tells layers of one chip apart
            place = place + ops.cast(hashed(ops.zeros((1,), "uint32"), chip) % self.map.words, place.dtype)
        first = (place + address % len(faulty)) * width
        masks = [ops.zeros_like(place, dtype="int32") for _ in range(2)]
        for bit in range(width):
            cell = (first + bit) % len(faulty)
            # A schedule takes part of the cells, more of them as it rises.
            active = below(hashed(ops.cast(cell, "uint32"), seed, 1), strength)
            for index, cells in enumerate((faulty, ones)):
                marked = ops.logical_and(ops.take(ops.convert_to_tensor(cells), cell) > 0, active)
                masks[index] = masks[index] + ops.where(marked, 1 << bit, 0)
        found = [ops.reshape(mask, shape) for mask in masks]
        return found[0], found[1] if self.fault == "stuck" else None


@lru_cache(maxsize=16)
def _cells(found: FaultMap) -> tuple[np.ndarray, np.ndarray]:
    """uint8, one for each cell of the memory: whether it fails, and whether it is stuck at one."""
    faulty, ones = (np.zeros(found.words * found.word_bits, np.uint8) for _ in range(2))
    cells = np.array(found.addresses, np.int64) * found.word_bits + np.array(found.bits, np.int64)
    faulty[cells] = 1
    if found.values is not None:
        ones[cells[np.array(found.values, bool)]] = 1
    return faulty, ones


def is_nested(maps: tuple[FaultMap, ...]) -> bool:
    """Whether the failing cells at each voltage are among those at every lower one, as weak cells' are.

    Raises:
        ValueError: for maps without a voltage.
    """
    if any(item.voltage is None for item in maps):
        raise ValueError("Maps can be nested in voltage only where each has one. Received: a map without a voltage")
    falling = sorted(maps, key=lambda item: -(item.voltage or math.nan))
    cells = [set(zip(item.addresses, item.bits, strict=True)) for item in falling]
    return all(higher <= lower for higher, lower in itertools.pairwise(cells))
