"""Reading files that may be damaged or hostile: one error that names the file, and nothing allocated on its word."""

from __future__ import annotations

import csv
import json
import math
import os
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import numpy as np

_PIECE = 1 << 20
_LONGEST_LINE = 1 << 16
"""Characters in a line of a CSV file (chosen here: a tester's rows have a few numbers)."""
_DEFLATE = 1032
"""No byte of a deflated stream holds more than this many (zlib's technical notes)."""


@contextmanager
def reading(path: str | os.PathLike[str], what: str, remedy: str) -> Iterator[None]:
    """Turns whatever a reader raises within the block into a ValueError that names the file and says what to do.

    Args:
        path: of the file.
        what: it should be, such as `"a table in NumPy's format"`.
        remedy: imperative, such as `"save it again with np.save"`.

    Raises:
        OSError: the system's own, which name the file: it is absent, or may not be read.
        ValueError: all else.
    """
    try:
        yield
    except Exception as error:
        named = isinstance(error, ValueError) and str(path) in str(error)
        if named or (isinstance(error, OSError) and error.filename is not None):
            raise
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise ValueError(f"{path} cannot be read as {what}; {remedy}. Received: {reason}") from error


def read_json(path: str | os.PathLike[str], what: str, remedy: str, *, finite: bool = True) -> dict[str, Any]:
    """The object in a JSON file, of finite numbers and different keys. The format has no checksum.

    Args:
        path, what, remedy: as for `reading`.
        finite: refuse NaN and infinity.

    Raises:
        OSError: as for `reading`.
        ValueError: no JSON, another value than an object, NaN or infinity in it, or a key that stands twice.
    """
    with reading(path, what, remedy):
        numbers: Any = {"parse_constant": _no_constant, "parse_float": _finite} if finite else {}
        content = json.loads(Path(path).read_bytes(), object_pairs_hook=_once, **numbers)
        if not isinstance(content, dict):
            raise ValueError(f"JSON of a {type(content).__name__}, not of an object")
        return content


def _no_constant(name: str) -> Any:
    raise ValueError(f"the number {name}")


def _finite(text: str) -> float:
    if not math.isfinite(float(text)):
        raise ValueError(f"the number {text}")
    return float(text)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} twice")
    return content


class _Rows(csv.DictReader):
    """Rows without further cells than the header line has columns; empty ones, as spreadsheets leave, do no harm."""

    def __next__(self):
        row = super().__next__()
        if any(row.get(None, ())):
            raise ValueError(
                f"line {self.line_num} has more cells than the header line has columns; write decimal points, not "
                f"commas: {row[None]!r} behind {', '.join(self.fieldnames or ())}"
            )
        return row


@contextmanager
def csv_rows(path: str | os.PathLike[str], what: str, remedy: str) -> Iterator[csv.DictReader]:
    """The rows of a CSV file by the names of its header line; the file is read as they are asked for.

    What is no text is replaced, and NUL too, at which Python 3.10 would stop.

    Args:
        path, what, remedy: as for `reading`, which is what the block is in.

    Raises:
        OSError, ValueError: as for `reading`; a column that stands twice, a row of more cells than there are columns.
    """
    with reading(path, what, remedy), open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
        rows = _Rows(_lines(file), skipinitialspace=True)
        names = [name for name in rows.fieldnames or () if name]
        if len(set(names)) < len(names):
            raise ValueError(f"a column may stand once in a header line: {', '.join(names)}")
        yield rows


def _lines(file: TextIO) -> Iterator[str]:
    while line := file.readline(_LONGEST_LINE + 1):
        if len(line) > _LONGEST_LINE:
            raise ValueError(f"a line of more than {_LONGEST_LINE} characters")
        yield line.replace("\0", "\N{REPLACEMENT CHARACTER}")


def read_array(path: str | os.PathLike[str], what: str, remedy: str) -> np.ndarray:
    """The array in a `.npy` file, which holds nothing else. The format has no checksum: its header and length count.

    Args:
        path, what, remedy: as for `reading`.

    Raises:
        OSError, ValueError: as for `reading`.
    """
    with reading(path, what, remedy), open(path, "rb") as file:
        return array_from(file, os.fstat(file.fileno()).st_size)


def read_arrays(
    path: str | os.PathLike[str], what: str, remedy: str, names: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """The arrays in a `.npz` file, each checked against its checksum.

    Args:
        path, what, remedy: as for `reading`.
        names: of those to read; `None` reads all.

    Raises:
        OSError, ValueError: as for `reading`; an array that is not there.
    """
    with reading(path, what, remedy), zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        wanted = list(members) if names is None else list(names)
        missing = [name for name in wanted if name not in members]
        if missing:
            raise ValueError(f"{path} must hold {', '.join(missing)}. Received: {', '.join(members) or 'nothing'}")
        if len(members) < len(archive.infolist()):
            raise ValueError("two arrays of one name")
        found = {}
        for name in wanted:
            check_member(members[name])
            with archive.open(members[name]) as file:
                found[name] = array_from(file, members[name].file_size)  # type: ignore[arg-type]
        return found


def check_archive(path: str | os.PathLike[str]) -> None:
    """Reads a zip archive to its end, in small pieces.

    Raises:
        Exception: whatever a damaged one ends with; call it within `reading`.
    """
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            check_member(info)
            with archive.open(info) as file:
                while file.read(_PIECE):  # at its end its checksum is compared
                    pass


def check_member(info: zipfile.ZipInfo) -> None:
    """Raises ValueError where a part of an archive says to be larger than its bytes can hold."""
    largest = info.compress_size * (1 if info.compress_type == zipfile.ZIP_STORED else _DEFLATE)
    if info.file_size > largest:
        raise ValueError(f"{info.filename} of {info.file_size} bytes, packed into {info.compress_size}")


def array_from(file: BinaryIO, size: int) -> np.ndarray:
    """One array in NumPy's format that takes a whole file, whose header is compared with its size first.

    Args:
        file: at its start.
        size: of the file in bytes.

    Raises:
        ValueError: another format or version, objects (pickles are never read), a size other than the header's.
    """
    shape, fortran_order, dtype = array_header(file)
    expected = file.tell() + math.prod(shape) * dtype.itemsize
    if expected != size:
        raise ValueError(f"{size} bytes; its header says {dtype} of shape {shape}, {expected} bytes")
    array = np.empty(shape, dtype, "F" if fortran_order else "C")
    data, done = memoryview(array.reshape(-1, order="A").view(np.uint8)), 0  # type: ignore[arg-type]
    while done < len(data):
        piece = file.read(min(_PIECE, len(data) - done))
        if not piece:
            raise ValueError(f"{done} of {len(data)} bytes after its header")
        data[done : done + len(piece)] = piece
        done += len(piece)
    if file.read(1):  # also what makes a zip archive compare the checksum
        raise ValueError(f"more than {len(data)} bytes after its header")
    return array


def array_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether the first index runs fastest, and type; errors as of `array_from`."""
    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version not in headers:
        raise ValueError(f"NumPy's format in version {version}")
    shape, fortran_order, dtype = headers[version](file)
    if dtype.hasobject or dtype.itemsize == 0:
        raise ValueError(f"an array of {dtype}; pickled objects are never read")
    if any(length < 0 for length in shape):
        raise ValueError(f"an array of shape {shape}")
    return shape, fortran_order, dtype
