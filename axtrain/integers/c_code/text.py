"""Pieces of C text: names, comments, arrays, constants."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

_TYPES = (np.int8, np.uint8, np.int16, np.uint16, np.int32)
_WIDTH = 110


def identifier(text: str) -> str:
    """A C identifier that reads like `text`, a letter first.

    >>> identifier("block 3/conv-1"), identifier("1x1")
    ('block_3_conv_1', 'n1x1')
    """
    found = re.sub(r"[^0-9A-Za-z_]+", "_", text).strip("_")
    return found if found[:1].isalpha() else f"n{found}"


def identifiers(names: Iterable[str]) -> dict[str, str]:
    """An identifier for each name, no two alike."""
    chosen: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        found, number = identifier(name), 2
        while found in taken:
            found, number = f"{identifier(name)}_{number}", number + 1
        taken.add(found)
        chosen[name] = found
    return chosen


def plain(text: str) -> str:
    """The text in one line of ASCII, without what means something to a compiler's first passes."""
    return "".join(letter if " " <= letter <= "~" and letter not in "\\?" else "_" for letter in text)


def comment(text: str) -> str:
    """`/* text */` of any text: what could end a comment or a line early is taken out."""
    return f"/* {plain(text).replace('*/', '* /').replace('/*', '/ *')} */"


def smallest_type(values: np.ndarray) -> str:
    """The smallest of C's integer types, to 32 bits, that holds all values."""
    for kind in _TYPES:
        limits = np.iinfo(kind)
        if limits.min <= values.min() and values.max() <= limits.max:
            return f"{np.dtype(kind).name}_t"
    raise ValueError(f"Values must fit 32 bits. Received: {values.min()} to {values.max()}")


def array(name: str, values: np.ndarray, kind: str | None = None) -> str:
    """`static const TYPE NAME[COUNT] = {...};` of the flattened values.

    Args:
        name: a C identifier.
        values: integers.
        kind: C's type; `None` takes the smallest that fits.
    """
    flat = np.asarray(values).reshape(-1)
    kind = kind or smallest_type(flat)
    # -2147483648 is minus of a number that is no int32.
    words = ["(-2147483647 - 1)" if value == -(1 << 31) else str(value) for value in flat.tolist()]
    per_line = max(1, _WIDTH // (max(map(len, words)) + 2))
    lines = (", ".join(words[start : start + per_line]) for start in range(0, len(words), per_line))
    return f"static const {kind} {name}[{flat.size}] = {{\n    " + ",\n    ".join(lines) + "\n};\n"


def constants(values: dict[str, int]) -> str:
    """An `enum` of a function's sizes, a few to the line."""
    words = [f"{name} = {value}" for name, value in values.items()]
    lines, line = [], ""
    for word in words:
        if line and len(line) + len(word) > _WIDTH - 10:
            lines.append(line)
            line = ""
        line += f"{', ' if line else ''}{word}"
    lines.append(line)
    return "    enum {\n        " + ",\n        ".join(lines) + "\n    };"


def shape_text(shape: Iterable[int]) -> str:
    """`(28, 28, 1)` as `28 x 28 x 1`."""
    return " x ".join(map(str, shape)) or "1"
