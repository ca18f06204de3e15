"""A tester's counts: how many cells failed at each supply voltage. NumPy alone."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .curves import check_voltage
from .reading import csv_rows


@dataclass(frozen=True, kw_only=True)
class Readings:
    """What a tester counted: cells that failed at each supply voltage.

    Args:
        voltages: V different positive voltages, in volts, in any order; kept ascending.
        failures: Cells that failed, whole numbers of shape (V,), or (chips, V); kept as rows of chips.
        cells: Cells measured: one number, or an array that broadcasts to the shape of `failures`.
        nested: True where a chip's same cells were measured at every voltage: one that fails at a voltage fails
            at every lower one, so its counts cannot rise. False for other cells or chips at each voltage.
        source: Where the numbers come from.

    Raises:
        ValueError: for shapes that do not match, a voltage given twice, counts that are not whole or not in
            `0 <= failures <= cells`; if nested, for failures that rise with the voltage or cells that change.

    >>> Readings(voltages=(0.6, 0.5), failures=(3, 120), cells=10_000).failures
    ((120, 3),)
    """

    voltages: Sequence[float]
    failures: Any
    cells: Any
    nested: bool = True
    source: str = "readings"

    def __post_init__(self) -> None:
        voltages = np.array([check_voltage(voltage) for voltage in self.voltages])
        failures, cells = np.atleast_2d(np.asarray(self.failures)), np.asarray(self.cells)
        chips, count = len(failures), len(voltages)
        whole = {failures.dtype.kind, cells.dtype.kind} <= set("iu")
        fits = failures.shape == (chips, count) and cells.shape in ((), (count,), (chips, 1), (chips, count))
        if not (whole and fits and count):
            raise ValueError(
                "`failures` needs a whole number for each voltage, (V,) or (chips, V), and `cells` one or as many. "
                f"Received: voltages={self.voltages!r}, failures={self.failures!r}, cells={self.cells!r}"
            )
        failures, cells = failures.astype(np.int64), np.broadcast_to(cells, failures.shape).astype(np.int64)
        order = np.argsort(voltages)
        voltages, failures, cells = voltages[order], failures[:, order], cells[:, order]
        for voltage in voltages[1:][np.diff(voltages) == 0]:
            raise ValueError(f"Each voltage may stand once; give a row per chip. Received: {voltage} V twice")
        rules = {"Counts must be 0 <= failures <= cells": (failures < 0) | (failures > cells) | (cells < 1)}
        if self.nested:
            rules["Nested readings are of the same cells; pass nested=False for other cells"] = np.diff(cells) != 0
            rules["Nested failures cannot rise; measure again or pass nested=False"] = np.diff(failures) > 0
        for rule, broken in rules.items():
            for chip, i in np.argwhere(broken):
                last = i + 1 if broken.shape == failures.shape else i + 2
                counts = (f"{failures[chip, j]} of {cells[chip, j]} at {voltages[j]} V" for j in range(i, last))
                raise ValueError(f"{rule}. Received: {' and '.join(counts)}, chip {chip} of {chips}")
        object.__setattr__(self, "voltages", tuple(voltages.tolist()))
        for name, array in (("failures", failures), ("cells", cells)):
            object.__setattr__(self, name, tuple(map(tuple, array.tolist())))

    def pooled(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Voltages, failures and cells, each of shape (V,), summed over the chips: all that the likelihood needs.

        Chips that differ by more than counting noise are fitted one by one.
        """
        return np.array(self.voltages), np.sum(self.failures, axis=0), np.sum(self.cells, axis=0)

    @classmethod
    def from_csv(cls, path: str | os.PathLike[str], *, nested: bool = True) -> Readings:
        """Reads a CSV file with a header line and the columns `voltage` (V), `failures` and `cells`.

        With nested readings of several chips a column `chip` names the chip, and each chip must be measured at
        every voltage; if not nested, rows of one voltage are summed, and with a column `chip` two rows that are alike
        in all columns are taken for one that was logged twice. `source` is the file's name.

        Raises:
            ValueError: for a bad entry, with its line; a chip that lacks a voltage or has it twice; a row logged
                twice; bad counts.
        """
        table: dict[tuple[str, float], np.ndarray] = {}
        seen: set[tuple] = set()
        remedy = "give a CSV with a header line and the columns voltage, failures and cells"
        with csv_rows(path, "a tester's counts", remedy) as reader:
            columns = ("voltage", "failures", "cells")
            if not set(columns) <= set(reader.fieldnames or ()):
                raise ValueError(f"{path} needs the columns {', '.join(columns)}. Received: {reader.fieldnames!r}")
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                try:
                    voltage, *counts = (float(row[name]) for name in columns)
                except (TypeError, ValueError):
                    counts = [np.nan]
                if not all(count.is_integer() for count in counts):
                    raise ValueError(f"{where}: needs a voltage and whole numbers of cells. Received: {row!r}")
                logged = tuple(row.values())
                if "chip" in row and logged in seen:
                    fix = "remove the second row, or add a column that tells the two measurements apart"
                    raise ValueError(f"{where}: {fix}. Received: a row like an earlier one, {row!r}")
                seen.add(logged)
                key = ((row.get("chip") or "") if nested else "", voltage)
                if nested and key in table:
                    fix = "give one row per voltage and chip (column `chip`), or pass nested=False to sum"
                    raise ValueError(f"{where}: {fix}. Received: {voltage} V twice")
                table[key] = table.get(key, 0) + np.array(counts, np.int64)
            chips, voltages = (
                (list(dict.fromkeys(names)) for names in zip(*table, strict=True)) if table else ([""], [])
            )
            for chip, voltage in itertools.product(chips, voltages):
                if (chip, voltage) not in table:
                    fix = "measure every chip at every voltage, or leave out the incomplete chips or voltages"
                    raise ValueError(f"{path}: {fix}. Received: no row of chip {chip!r} at {voltage} V")
            both = np.array([table[key] for key in itertools.product(chips, voltages)], np.int64)
            failures, cells = both.reshape(len(chips), len(voltages), 2).transpose(2, 0, 1)
            return cls(voltages=voltages, failures=failures, cells=cells, nested=nested, source=os.path.basename(path))
