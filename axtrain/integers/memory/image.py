"""`write_memory`: the weights as a memory holds them, for a hardware testbench; `read_memory` gives the codes back."""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from axtrain.integers.c_code.text import shape_text
from axtrain.integers.memory.intel_hex import intel_hex
from axtrain.integers.memory.row_files import cells_of_rows, read_rows, rows_bytes, rows_of_cells, rows_text
from axtrain.integers.memory.words import (
    WeightBlock,
    WordFormat,
    cells_of,
    model_blocks,
    model_format,
    network_blocks,
    places,
)
from axtrain.integers.network import IntegerNetwork
from axtrain.noise_models.files import write_whole
from axtrain.noise_models.protections import Protection, protection_from_dict
from axtrain.noise_models.reading import read_json, reading

_FORMAT = "axtrain-memory-1"
_MAP, _HEX, _BIN, _INTEL = "weights.json", "weights.hex", "weights.bin", "weights.ihex"
_WIDEST = 4096
_WHAT, _REMEDY = "a map of a weight memory", "write it again with write_memory"


def write(model: Any, network: IntegerNetwork | None, folder: str | os.PathLike[str], *, intel: bool = False) -> None:
    """`write_memory` as `axtrain.export` calls it.

    The codes are the network's, which the other exported files compute with (batch normalisation is folded into
    them); without a network, those that the model's layers store. Word format and addresses are the model's.
    """
    form = model_format(model)
    blocks = list(model_blocks(model)) if network is None else network_blocks(network, model)
    write_blocks(blocks, form, folder, None, intel=intel)


def write_memory(
    source: Any,
    folder: str | os.PathLike[str],
    *,
    width: int | None = None,
    encoding: str | None = None,
    protection: Protection | None = None,
    intel: bool = False,
) -> tuple[Path, ...]:
    """Writes the image of a weight memory: `weights.hex`, `weights.bin` and the map `weights.json`.

    A code becomes a word of n cells (its encoding, and its protection's check bits or copies) at the address that
    chips know it by, and takes the cells ``address n .. address n + n - 1``, lowest bit first. Rows of `width` cells
    are filled without gaps, as `axtrain.memories.MeasuredMemory` lays out a tester's rows, so that a fault map of
    `word_bits=width` has its bits in the same places. Where a protection stores more words than codes (SECDED, three
    copies), the layers' words follow one another instead.

    - `weights.hex`: for Verilog's `$readmemh` into `reg [width-1:0]`, one row to the line, with a comment where a
      layer begins.
    - `weights.bin`: the rows, each in as few bytes as hold it, little endian.
    - `weights.ihex`, where `intel` asks for it: the bytes of `weights.bin` as Intel HEX, for programmers and loaders.
    - `weights.json`: word format, and for each layer its name, shape, scales, address of the first code, first
      stored word, and the row and bit where it begins.

    Args:
        source: a converted model, or an `IntegerNetwork`.
        folder: where to write; made if absent.
        width: cells in a row; `None` takes a stored word to the row.
        encoding: `"twos_complement"`, `"sign_magnitude"` or `"offset"`; `None` is that of the model's weight memory,
            or two's complement where there is none.
        protection: of `axtrain.memories`; `None` is that of the model's weight memory.
        intel: also write Intel HEX.

    Returns:
        the paths.

    Raises:
        ValueError: layers with different memories, nothing to store, a bad width or encoding, codes that it cannot
            represent, weights that are not finite.
        FileExistsError: files of these names lie there that are no image of a weight memory.

    Examples:
        >>> import keras, tempfile, axtrain as ax
        >>> layer = keras.layers.Dense(3, kernel_initializer="ones", name="out")
        >>> model = keras.Sequential([keras.Input((2,)), layer])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     paths = write_memory(ax.convert(model, ax.Hardware()), folder)
        ...     {name: codes.tolist() for name, codes in read_memory(folder).items()}
        {'out': [[127, 127, 127], [127, 127, 127]]}
    """
    if isinstance(source, IntegerNetwork):
        blocks, form = network_blocks(source), WordFormat()
    else:
        blocks, form = list(model_blocks(source)), model_format(source)
    form = WordFormat(
        bits=form.bits,
        encoding=form.encoding if encoding is None else encoding,
        protection=form.protection if protection is None else protection,
    )
    return write_blocks(blocks, form, folder, width, intel=intel)


def read_memory(
    folder: str | os.PathLike[str], *, image: str | os.PathLike[str] | None = None
) -> dict[str, np.ndarray]:
    """The codes of an image, int32 in their kernels' shapes by name, as the protection's decoder gives them.

    Args:
        folder: that `write_memory` wrote.
        image: a `.hex` file to read in place of the folder's, such as what a testbench dumped with faults in it;
            it must name every row. The folder's own is checked against the sum in the map.

    Raises:
        ValueError: not a map of this format, or an image that is not as the map says.
    """
    folder = Path(folder)
    described = _map(folder)
    path = folder / _HEX if image is None else Path(image)
    with reading(path, "an image of that map", "write it again, or dump every row of the memory"):
        if image is None and "sha256" in described:  # images of earlier versions have no sums
            _check_sum(path, described["sha256"].get(_HEX))
        width = described["width"]
        cells = cells_of_rows(read_rows(path, width, described["rows"]), width)
    with reading(folder / _MAP, _WHAT, _REMEDY):
        form = WordFormat(
            bits=described["bits"], encoding=described["encoding"], protection=_protection(described["protection"])
        )
        return {entry["name"]: _codes(entry, cells, form) for entry in described["layers"]}


def _map(folder: Path) -> dict[str, Any]:
    described = read_json(folder / _MAP, _WHAT, _REMEDY)
    if described.get("format") != _FORMAT:
        raise ValueError(f"Not a map of format {_FORMAT!r}. Received: {described.get('format')!r} in {folder / _MAP}")
    with reading(folder / _MAP, _WHAT, _REMEDY):
        largest = (folder / _HEX).stat().st_size if (folder / _HEX).exists() else math.inf
        if not 0 < described["rows"] <= largest or not 1 <= described["width"] <= _WIDEST:
            raise ValueError(f"rows={described['rows']}, width={described['width']}")
    return described


def _check_sum(path: Path, expected: Any) -> None:
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected:
        raise ValueError(f"a file of sha256 {found}; its map says {expected}")


def _codes(entry: dict[str, Any], cells: np.ndarray, form: WordFormat) -> np.ndarray:
    first, count = entry["first_word"] * form.cells, entry["words"] * form.cells
    if first < 0 or count < 0 or first + count > len(cells):
        raise ValueError(f"{entry['name']} in cells {first} to {first + count} of {len(cells)}")
    bits = cells[first : first + count].reshape(-1, form.cells).astype(np.int64)
    stored = (bits << np.arange(form.cells)).sum(1)
    return form.read(stored, math.prod(entry["shape"])).reshape(entry["shape"])


def write_blocks(
    blocks: list[WeightBlock],
    form: WordFormat,
    folder: str | os.PathLike[str],
    width: int | None = None,
    *,
    intel: bool = False,
) -> tuple[Path, ...]:
    """`write_memory` of weights that lie at hand; arguments and errors are described there."""
    if not blocks:
        raise ValueError("Nothing to store; use axtrain.convert first. Received: no layer with weights on hardware")
    width = form.cells if width is None else width
    if isinstance(width, bool) or not isinstance(width, int) or not 1 <= width <= _WIDEST:
        raise ValueError(f"`width` must be an int from 1 to {_WIDEST} cells. Received: width={width!r}")
    folder = Path(folder)
    _check_target(folder)
    starts, stored = places(blocks, form), [form.stored(block.codes) for block in blocks]
    ends = [start + len(words) for start, words in zip(starts, stored, strict=True)]
    cells = np.zeros(max(ends) * form.cells, np.uint8)
    for start, words in zip(starts, stored, strict=True):
        cells[start * form.cells : (start + len(words)) * form.cells] = cells_of(words, form.cells)
    rows = rows_of_cells(cells, width)
    layers: list[dict[str, Any]] = [
        {
            "name": block.name,
            "shape": list(block.codes.shape),
            "order": "C",
            "address": block.address,
            "first_word": start,
            "words": len(words),
            "row": start * form.cells // width,
            "bit": start * form.cells % width,
            "scale": [float(scale) for scale in block.scale],
        }
        for block, start, words in zip(blocks, starts, stored, strict=True)
    ]
    described = {
        "format": _FORMAT,
        "bits": form.bits,
        "encoding": form.encoding,
        "protection": None if type(form.protection) is Protection else form.protection.to_dict(),
        "cells_per_word": form.cells,
        "width": width,
        "rows": len(rows),
        "layers": layers,
    }
    marks: dict[int, list[str]] = {0: [_about(described)]}
    for entry in layers:
        about = f"{entry['name']}: {shape_text(entry['shape'])}, from bit {entry['bit']}"
        marks.setdefault(entry["row"], []).append(about)
    contents = {
        _HEX: rows_text(rows, width, marks).encode("ascii"),
        _BIN: rows_bytes(rows, width),
    }
    if intel:
        contents[_INTEL] = intel_hex(contents[_BIN]).encode("ascii")
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    # The map is written first: by it the next call knows the rest, and a reader that it is not there yet.
    contents = {_MAP: json.dumps({**described, "sha256": sums}, indent=1).encode(), **contents}
    for name, content in contents.items():
        write_whole(folder / name, content)
    return tuple(folder / name for name in (_HEX, _BIN, _MAP, _INTEL) if name in contents)


def _check_target(folder: Path) -> None:
    """Raises FileExistsError where a file of someone else would be replaced."""
    there = [name for name in (_MAP, _HEX, _BIN, _INTEL) if (folder / name).exists()]
    if not there:
        return
    try:
        _map(folder)
    except (ValueError, OSError) as error:
        raise FileExistsError(
            "Not overwriting files that are no image of a weight memory; choose another folder. "
            f"Received: {folder} with {', '.join(there)} ({error})"
        ) from error


def _about(described: dict[str, Any]) -> str:
    protection = described["protection"] or {"kind": "none"}
    kind = protection.get("kind") or protection["class_name"]
    return (
        f"{described['rows']} rows of {described['width']} bits; codes of {described['bits']} bits in "
        f"{described['encoding']}, protection {kind}: words of {described['cells_per_word']} cells, lowest bit first"
    )


def _protection(described: dict[str, Any] | None) -> Protection:
    return Protection() if described is None else protection_from_dict(described)
