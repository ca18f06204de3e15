"""An exported LiteRT file against its integer network, tensor by tensor: where do they first differ, by how much?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from axtrain.integers.comparing import Comparison, compared, other_decisions
from axtrain.integers.network import IntegerNetwork
from axtrain.integers.running import run

KERNELS = ("reference", "builtin", "default")
_BATCH = 100


@dataclass(frozen=True, kw_only=True)
class LiteRTComparison(Comparison):
    """A LiteRT file against the integer network that it was written from; see `Comparison`.

    Attributes:
        kernels: LiteRT's kernels that ran. With `"default"` the output alone was compared.
    """

    kernels: str

    def __str__(self) -> str:
        return self._told(f"LiteRT ({self.kernels} kernels)")


def compare_litert(
    network: IntegerNetwork, path: str | os.PathLike[str], codes: np.ndarray, *, kernels: str = "reference"
) -> LiteRTComparison:
    """Runs a LiteRT file and the integer network on the same codes and compares them tensor by tensor.

    Args:
        network: what the file was written from.
        path: of the `.tflite` file.
        codes: int8 inputs (batch, *input shape), e.g. `network.quantised(x)`.
        kernels: `"reference"`, LiteRT's plain C++ (`OpResolverType.BUILTIN_REF`), which ours equal code for code;
            `"builtin"`, its optimised ones (`BUILTIN_WITHOUT_DEFAULT_DELEGATES`); or `"default"`, what a plain
            `Interpreter(path)` runs (`AUTO`), those and the XNNPACK delegate, which rounds differently. With
            `"default"` only the output is compared, since a delegate keeps no tensors between.

    Raises:
        ValueError: unknown kernels, or a file that lacks a tensor of the network: written from another.
        ImportError: the extra `litert` is not installed.
    """
    if kernels not in KERNELS:
        raise ValueError(f"`kernels` must be one of {KERNELS}. Received: kernels={kernels!r}")
    ours = run(network, codes, keep=True)
    made = {operation.output: operation.name for operation in network.operations}
    names = [network.output] if kernels == "default" else list(made)
    theirs = run_litert(path, codes, kernels=kernels, keep=names)
    return LiteRTComparison(
        kernels=kernels,
        samples=len(codes),
        tensors=tuple(compared(made[name], name, ours[name], theirs[name]) for name in names),
        decisions=other_decisions(ours[network.output], theirs[network.output]),
    )


def run_litert(
    path: str | os.PathLike[str], codes: np.ndarray, *, kernels: str = "reference", keep: Sequence[str]
) -> dict[str, np.ndarray]:
    """Tensors of a LiteRT file with one input, by name, for input codes (batch, ...).

    Args:
        path: of the file.
        codes: int8.
        kernels: as for `compare_litert`.
        keep: names of the tensors to give.

    Raises:
        ValueError: a tensor that the file lacks.
    """
    interpreter = _interpreter(path, kernels)
    index = {entry["name"]: entry["index"] for entry in interpreter.get_tensor_details()}
    missing = [name for name in keep if name not in index]
    if missing:
        raise ValueError(f"{os.fspath(path)} was not written from this network: it lacks tensors. Received: {missing}")
    entry = interpreter.get_input_details()[0]["index"]
    parts: dict[str, list[np.ndarray]] = {name: [] for name in keep}
    for start in range(0, len(codes), _BATCH):
        part = codes[start : start + _BATCH]
        if start == 0 or len(part) != _BATCH:
            interpreter.resize_tensor_input(entry, part.shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(entry, part)
        interpreter.invoke()
        for name in keep:
            parts[name].append(interpreter.get_tensor(index[name]))
    return {name: np.concatenate(held) for name, held in parts.items()}


def _interpreter(path: str | os.PathLike[str], kernels: str) -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    except ImportError as error:
        raise ImportError("Running a LiteRT file needs the extra `litert`: pip install 'axtrain[litert]'") from error
    resolvers = {
        "reference": OpResolverType.BUILTIN_REF,
        "builtin": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        "default": OpResolverType.AUTO,
    }
    return Interpreter(
        model_path=os.fspath(path),
        experimental_op_resolver_type=resolvers[kernels],
        experimental_preserve_all_tensors=kernels != "default",
    )
