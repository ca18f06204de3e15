"""Rows of a memory as files: text for Verilog's `$readmemh`, and raw bytes. A row is a Python integer, of any width."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from axtrain.integers.c_code.text import plain

_TEXT_OF_A_ROW, _TEXT_BESIDE = 64, 1 << 20  # bytes beside the digits that are read: comments, addresses (chosen here)


def rows_of_cells(cells: np.ndarray, width: int) -> list[int]:
    """Rows of `width` cells each, lowest bit first, the last filled up with zeros.

    >>> rows_of_cells(np.array([1, 0, 1, 1, 1], np.uint8), 4)
    [13, 1]
    """
    filled = np.pad(cells, (0, -len(cells) % width)).reshape(-1, width)
    return [int.from_bytes(row.tobytes(), "little") for row in np.packbits(filled, axis=1, bitorder="little")]


def cells_of_rows(rows: Sequence[int], width: int) -> np.ndarray:
    """uint8 zeros and ones: what `rows_of_cells` took, with its filling."""
    data = np.frombuffer(rows_bytes(rows, width), np.uint8).reshape(len(rows), -1)
    return np.unpackbits(data, axis=1, bitorder="little")[:, :width].reshape(-1)


def rows_bytes(rows: Sequence[int], width: int) -> bytes:
    """Each row in as few bytes as hold its width, little endian."""
    size = (width + 7) // 8
    return b"".join(row.to_bytes(size, "little") for row in rows)


def rows_text(rows: Sequence[int], width: int, marks: dict[int, list[str]]) -> str:
    """Text for `$readmemh`: one row to the line, and at some of them their address, below comments.

    Args:
        rows: of the memory.
        width: of a row in bits.
        marks: comments by the row that they stand above.
    """
    digits, lines = (width + 3) // 4, []
    for start, end in pairwise(sorted({*marks, len(rows)})):
        lines += [f"// {plain(text)}" for text in marks[start]]
        lines += [f"@{start:x}", *(f"{row:0{digits}x}" for row in rows[start:end])]
    return "\n".join(lines) + "\n"


def read_rows(path: str | os.PathLike[str], width: int, count: int) -> list[int]:
    """The rows of a `$readmemh` file: comments, `@address` marks, hexadecimal words.

    Args:
        path: the file.
        width: bits of a row.
        count: of rows.

    Raises:
        ValueError: what is no hexadecimal word of that width, or lies outside; a row named twice, or not at all.
    """
    path = Path(path)
    if path.stat().st_size > _TEXT_OF_A_ROW * count + width * count + _TEXT_BESIDE:
        raise ValueError(f"{path} must hold {count} rows of {width} bits. Received: {path.stat().st_size} bytes")
    rows, address = dict[int, int](), 0
    text = re.sub(r"//[^\n]*|/\*.*?\*/", " ", path.read_text(encoding="ascii", errors="replace"), flags=re.DOTALL)
    for word in text.split():
        digits = word.removeprefix("@").replace("_", "")
        if not re.fullmatch(r"[0-9a-fA-F]+", digits):
            raise ValueError(f"{path} must hold hexadecimal words and @addresses. Received: {word!r}")
        value = int(digits, 16)
        if word.startswith("@"):
            address = value
            continue
        if address >= count or value >> width:
            raise ValueError(f"{path} must hold {count} rows of {width} bits. Received: {word} at row {address:x}")
        if address in rows:
            raise ValueError(f"{path} must name each row once. Received: row {address:x} twice")
        rows[address] = value
        address += 1
    if len(rows) < count:
        first = next(row for row in range(count) if row not in rows)
        raise ValueError(f"{path} must name all of {count} rows. Received: {len(rows)}, without row {first:x}")
    return [rows[row] for row in range(count)]
