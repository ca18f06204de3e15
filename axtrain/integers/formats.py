"""The forms that `axtrain.export` can write beside its integers; light, so that a command line can list them.

To add one, write a function like these, which imports what it needs when it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def _litert(model: Any, network: Any, folder: Path) -> None:
    """`model.tflite`: int8 LiteRT, exact multipliers alone."""
    from axtrain.integers.litert.writing import write_litert

    write_litert(network, folder / "model.tflite")


def _saved_model(model: Any, network: Any, folder: Path) -> None:
    """`saved_model/`: TensorFlow's, any multiplier, no Python of ours."""
    from axtrain.portable import frozen_copy, write_saved_model

    write_saved_model(frozen_copy(model), folder / "saved_model")


def _c(model: Any, network: Any, folder: Path) -> None:
    """`NAME.h`, `NAME.c`, `NAME_test.c`: C99, any multiplier."""
    from axtrain.integers.c_code.source import write

    write(model, network, folder)


def _memory(model: Any, network: Any, folder: Path) -> None:
    """`weights.hex`, `weights.bin`, `weights.json`: the weight memory's image, any hardware."""
    from axtrain.integers.memory.image import write

    write(model, network, folder)


def _intel_hex(model: Any, network: Any, folder: Path) -> None:
    """The files of `memory`, and `weights.ihex`: the bytes of `weights.bin` as Intel HEX."""
    from axtrain.integers.memory.image import write

    write(model, network, folder, intel=True)


def _onnx(model: Any, network: Any, folder: Path) -> None:
    """`model.onnx`: quantise/dequantise nodes, exact multipliers alone; needs no session option on any CPU."""
    from axtrain.integers.onnx_files.writing import write

    write(model, network, folder)


# Name -> function of (the Keras model, its `IntegerNetwork`, the folder), which writes files or subfolders there.
FORMATS: dict[str, Callable[[Any, Any, Path], None]] = {
    "litert": _litert,
    "saved_model": _saved_model,
    "c": _c,
    "memory": _memory,
    "intel_hex": _intel_hex,
    "onnx": _onnx,
}
# Those that are written from the Keras model alone: they get `None` for the integer network.
WITHOUT_NETWORK = frozenset({"saved_model", "memory", "intel_hex"})


def check_formats(formats: Sequence[str]) -> tuple[str, ...]:
    """The names, each once.

    Raises:
        ValueError: an unknown name.
        TypeError: a single string, of which each letter would be a name.
    """
    if isinstance(formats, str):
        raise TypeError(f"`formats` is a sequence of names, such as ('litert',). Received: formats={formats!r}")
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise ValueError(f"Unknown formats. Known: {', '.join(sorted(FORMATS))}. Received: {unknown}")
    return tuple(dict.fromkeys(formats))


def write_formats(model: Any, folder: Path, formats: Sequence[str], calibration: Any = None) -> None:
    """Writes the formats into a folder; the integer network is made once, where one of them needs it.

    Args:
        model: from `axtrain.convert`.
        folder: that exists.
        formats: names.
        calibration: as for `axtrain.integer_network`.
    """
    names, network = check_formats(formats), None
    if set(names) - WITHOUT_NETWORK:
        from axtrain.integers.lowering.lowering import integer_network

        network = integer_network(model, calibration)
    for name in names:
        FORMATS[name](model, None if name in WITHOUT_NETWORK else network, folder)
