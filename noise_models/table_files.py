"""Multiplier tables in files: NumPy arrays, CSV, tf-approximate's ``.bin`` and C sources.

Nothing here unpickles, and a file that is too short, too long or ambiguous is refused rather than guessed.
"""

from __future__ import annotations

import math
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from .circuits import operand_widths
from .files import whole_file
from .reading import array_from, array_header, check_member, reading

LARGEST_TABLE_BITS = 10
"""Widest operand of a table: 10 by 10 bits are a million products, 4 MiB."""

# Bytes of text that are read for one product, and for all else in a file (chosen here; a C source holds other things).
_TEXT_OF_A_CELL, _TEXT_BESIDE = 64, 1 << 20


def read_table(path: str | os.PathLike[str], bits: int | tuple[int, int], signed: bool) -> np.ndarray:
    """Read a multiplier table, first index the activation's raw code, second the weight's.

    - ``.npy``: one array of shape ``(2^na, 2^nb)``.
    - ``.npz``: the only array, or the one named ``table``.
    - ``.csv``: ``2^na`` lines of ``2^nb`` integers separated by commas, no header.
    - ``.bin``: tf-approximate's format, ``2^(na+nb)`` little-endian 16-bit words, ``for a: for b:``;
      two's complement words for a signed multiplier.
    - ``.c``, ``.h``: a source with exactly one brace initialiser of ``2^(na+nb)`` integer constants. In a
      signed multiplier's source, constants beyond the positive range of the declared type (16 bits wide, or
      32) are read as two's complement.

    Args:
        path: the file; its suffix tells the format.
        bits: width of both operands, or ``(activation_bits, weight_bits)``; each 2..10.
        signed: whether operands and products are signed.

    Returns:
        An array of shape ``(2^na, 2^nb)``; its values are checked by `Multiplier`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the suffix is unknown, or the file does not hold exactly one such table.
    """
    path = Path(path)
    widths = operand_widths(bits, largest=LARGEST_TABLE_BITS)
    reader = _known_suffix(path, _READERS)
    if not path.is_file():
        raise FileNotFoundError(f"There is no multiplier table file at this path. Received: path={str(path)!r}")
    return reader(path, (2 ** widths[0], 2 ** widths[1]), bool(signed))


def write_table(path: str | os.PathLike[str], table: np.ndarray, bits: int | tuple[int, int], signed: bool) -> None:
    """Write a multiplier table so that `read_table` gives it back; the file is whole or not there at all.

    Args:
        path: the file; its suffix tells the format, ``.npy``, ``.npz``, ``.csv`` or ``.bin``.
        table: integers of shape ``(2^na, 2^nb)``.
        bits: as for `read_table`.
        signed: as for `read_table`.

    Raises:
        ValueError: if the suffix is unknown or read-only (C sources), the shape is wrong, or the products
            do not fit the 16-bit words of a ``.bin`` file.
    """
    path = Path(path)
    widths = operand_widths(bits, largest=LARGEST_TABLE_BITS)
    if path.suffix.lower() in (".c", ".h"):
        raise ValueError(
            "C sources are read only: a table in C belongs to a program that axtrain does not know. Save it "
            f"as one of {', '.join(sorted(_WRITERS))}. Received: path={str(path)!r}"
        )
    writer = _known_suffix(path, _WRITERS)
    table = np.asarray(table)
    shape = (2 ** widths[0], 2 ** widths[1])
    if table.shape != shape or table.dtype.kind not in "iu":
        raise ValueError(
            f"`table` must be integers of shape {shape} for bits={widths}. "
            f"Received: shape={table.shape}, dtype={table.dtype}"
        )
    with whole_file(path) as temporary, temporary.open("wb") as file:
        writer(file, table, bool(signed), path)


def _known_suffix(path: Path, formats: dict[str, Callable]) -> Callable:
    """The reader or writer of a path's suffix."""
    try:
        return formats[path.suffix.lower()]
    except KeyError:
        raise ValueError(
            f"Unknown table format; the suffix must be one of {', '.join(sorted(formats))}. "
            f"Received: path={str(path)!r}"
        ) from None


def _npy_from(file: BinaryIO, label: str, shape: tuple[int, int], size: int) -> np.ndarray:
    """Read one array in NumPy's format, whose header is compared with what is wanted before anything is allocated."""
    found, _, dtype = array_header(file)
    if dtype.kind not in "iuf":
        raise ValueError(
            f"{label} must hold integers, and pickled objects are never read; save the table with "
            f"np.save(path, table.astype(np.int32)). Received: dtype={dtype}"
        )
    if found != shape:
        raise ValueError(
            f"{label} must hold an array of shape {shape}, activation first; transpose it, or give the `bits` "
            f"of its operands. Received: shape={found}"
        )
    file.seek(0)
    return array_from(file, size)


def _read_npy(path: Path, shape: tuple[int, int], signed: bool) -> np.ndarray:
    remedy = "save the table with np.save(path, table)"
    with reading(path, "one array written by np.save (pickles are never read)", remedy), open(path, "rb") as file:
        return _npy_from(file, str(path), shape, path.stat().st_size)


def _read_npz(path: Path, shape: tuple[int, int], signed: bool) -> np.ndarray:
    what, remedy = "a whole .npz archive", "write it again with np.savez"
    with reading(path, what, remedy), zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        name = names[0] if len(names) == 1 else "table.npy"
        if names.count(name) != 1:
            raise ValueError(
                f"{path} must hold one array, or one named 'table'. Received: {[n.removesuffix('.npy') for n in names]}"
            )
        member = archive.getinfo(name)
        check_member(member)
        with archive.open(member) as file:
            return _npy_from(file, f"{path}[{name}]", shape, member.file_size)  # type: ignore[arg-type]


def _text(path: Path, shape: tuple[int, int]) -> str:
    """The text of a table's file, whose size is looked at first."""
    largest = _TEXT_BESIDE + _TEXT_OF_A_CELL * math.prod(shape)
    if path.stat().st_size > largest:
        raise ValueError(
            f"{path} is too large for {math.prod(shape)} products; is it another file? "
            f"Received: {path.stat().st_size} bytes, at most {largest} are read"
        )
    return path.read_text(encoding="utf-8", errors="replace")


def _read_csv(path: Path, shape: tuple[int, int], signed: bool) -> np.ndarray:
    lines = _text(path, shape).splitlines()
    integer = re.compile(r"\s*[-+]?[0-9]{1,10}\s*")
    rows = []
    for number, line in enumerate(lines, start=1):
        cells = line.split(",")
        wrong = [cell for cell in cells if not integer.fullmatch(cell)]
        if wrong:
            raise ValueError(
                f"{path}, line {number}: every cell must be an integer; remove headers and blank lines. "
                f"Received: {wrong[0][:40]!r}"
            )
        if len(cells) != shape[1]:
            raise ValueError(
                f"{path}, line {number}: expected {shape[1]} cells; give the `bits` of the table's operands. "
                f"Received: {len(cells)} cells"
            )
        rows.append([int(cell) for cell in cells])
    if len(rows) != shape[0]:
        raise ValueError(
            f"{path} must have {shape[0]} lines of {shape[1]} cells; give the `bits` of its operands. "
            f"Received: {len(rows)} lines"
        )
    return np.array(rows, np.int64)


def _read_bin(path: Path, shape: tuple[int, int], signed: bool) -> np.ndarray:
    expected, received = 2 * math.prod(shape), path.stat().st_size
    if received != expected:
        raise ValueError(
            f"{path} must hold {expected} bytes, one 16-bit word per operand pair; give the `bits` of its "
            f"operands. Received: {received} bytes"
        )
    return np.fromfile(path, "<i2" if signed else "<u2").reshape(shape)


_C_COMMENT_OR_STRING = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"', re.DOTALL)
_C_INTEGER = re.compile(r"([-+]?)\s*(0[xX][0-9a-fA-F]+|[0-9]+)[uUlL]*")
_C_INITIALISER = re.compile(r"=\s*\{")
_C_BRACE = re.compile(r"[{}]")


def _c_integer(text: str) -> int | None:
    """The value of a C integer constant (leading 0: octal), or None if it is not one."""
    match = _C_INTEGER.fullmatch(text.strip())
    if match is None:
        return None
    digits = match[2]
    base = 16 if digits[:2].lower() == "0x" else 8 if digits.startswith("0") and len(digits) > 1 else 10
    try:
        return int(digits, base) * (-1 if match[1] == "-" else 1)
    except ValueError:  # an 8 or 9 in an octal constant
        return None


def _read_c(path: Path, shape: tuple[int, int], signed: bool) -> np.ndarray:
    source = _C_COMMENT_OR_STRING.sub(" ", _text(path, shape))
    tables: list[tuple[str, list[int]]] = []
    counts = []
    for match in _C_INITIALISER.finditer(source):
        depth, end = 1, match.end()
        for brace in _C_BRACE.finditer(source, end):
            depth += 1 if brace[0] == "{" else -1
            if depth == 0:
                end = brace.start()
                break
        if depth:
            raise ValueError(
                f"{path} ends inside a brace initialiser; fetch the whole file. Received: {depth} unclosed braces"
            )
        body = source[match.end() : end]
        rows = [
            row.strip().removesuffix(",").split(",")  # C allows a comma after the last element
            for row in _C_BRACE.split(body)
            if row.strip(" \t\r\n,")
        ]
        cells = [_c_integer(cell) for row in rows for cell in row]
        values = [value for value in cells if value is not None]
        counts.append(len(cells))
        # C zero-fills short rows, so a nested initialiser must be complete row by row.
        complete = len(rows) == 1 or all(len(row) == shape[1] for row in rows)
        if len(values) == len(cells) == math.prod(shape) and complete:
            start = max(source.rfind(stop, 0, match.start()) for stop in ";{}=")
            tables.append((source[start + 1 : match.start()], values))
    if len(tables) != 1:
        raise ValueError(
            f"{path} must hold exactly one brace initialiser of {math.prod(shape)} integer constants (found "
            f"{len(tables)}); split the file, or give the `bits` of its operands. "
            f"Received: initialisers of {counts[:10]} elements"
        )
    declaration, values = tables[0]
    if not all(-(2**31) <= value < 2**32 for value in values):
        raise ValueError(f"{path}: products must fit 32 bits. Received: {max(values, key=abs)}")
    table = np.array(values, np.int64).reshape(shape)
    if signed:
        width = 16 if re.search(r"\b(u?int16_t|short)\b", declaration) else 32
        table = np.where(table >= 1 << (width - 1), table - (1 << width), table)
    return table


def _write_npy(file: BinaryIO, table: np.ndarray, signed: bool, path: Path) -> None:
    np.save(file, np.ascontiguousarray(table), allow_pickle=False)


def _write_npz(file: BinaryIO, table: np.ndarray, signed: bool, path: Path) -> None:
    np.savez_compressed(file, table=table)


def _write_csv(file: BinaryIO, table: np.ndarray, signed: bool, path: Path) -> None:
    file.writelines((",".join(map(str, row)) + "\n").encode("ascii") for row in table.tolist())


def _write_bin(file: BinaryIO, table: np.ndarray, signed: bool, path: Path) -> None:
    word = np.iinfo(np.int16 if signed else np.uint16)
    if table.min() < word.min or table.max() > word.max:
        raise ValueError(
            f"A .bin file holds products in {word.min}..{word.max}; save this table as .npy. "
            f"Received: products in {table.min()}..{table.max()}, path={str(path)!r}"
        )
    file.write(table.astype("<i2" if signed else "<u2").tobytes())


_READERS: dict[str, Callable[[Path, tuple[int, int], bool], np.ndarray]] = {
    ".npy": _read_npy, ".npz": _read_npz, ".csv": _read_csv, ".bin": _read_bin, ".c": _read_c, ".h": _read_c,
}  # fmt: skip
_WRITERS: dict[str, Callable[[BinaryIO, np.ndarray, bool, Path], None]] = {
    ".npy": _write_npy, ".npz": _write_npz, ".csv": _write_csv, ".bin": _write_bin,
}  # fmt: skip
