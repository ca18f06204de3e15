"""An exported LiteRT file against its integer network, tensor by tensor: where do they first differ, by how much?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from axtrain.integers.network import IntegerNetwork
from axtrain.integers.running import run

KERNELS = ("reference", "builtin", "default")
_BATCH = 100


@dataclass(frozen=True, kw_only=True)
class TensorComparison:
    """One tensor in both.

    Attributes:
        layer: the Keras layer that it comes from.
        tensor: its name.
        codes: how many codes were compared.
        differing: how many of them differ.
        largest: the largest difference in code steps.
    """

    layer: str
    tensor: str
    codes: int
    differing: int
    largest: int


@dataclass(frozen=True, kw_only=True)
class LiteRTComparison:
    """A LiteRT file against the integer network that it was written from.

    Attributes:
        kernels: LiteRT's kernels that ran.
        samples: how many inputs.
        tensors: in the network's order; the output alone where LiteRT kept no others.
        decisions: samples whose largest output stands at another place.
    """

    kernels: str
    samples: int
    tensors: tuple[TensorComparison, ...]
    decisions: int

    @property
    def first(self) -> TensorComparison | None:
        """The first tensor that differs, `None` where all are equal."""
        return next((tensor for tensor in self.tensors if tensor.differing), None)

    @property
    def equal(self) -> bool:
        """Whether every code is the same."""
        return self.first is None

    def __str__(self) -> str:
        codes = sum(tensor.codes for tensor in self.tensors)
        told = f"LiteRT ({self.kernels} kernels) on {self.samples} samples: "
        if self.first is None:
            return told + f"all {codes} codes of {len(self.tensors)} tensors are equal"
        first = self.first
        return told + (
            f"first difference in layer {first.layer!r} (tensor {first.tensor!r}): {first.differing} of {first.codes} "
            f"codes, by up to {first.largest}; {self.tensors[-1].differing} of {self.tensors[-1].codes} output codes "
            f"and {self.decisions} decisions differ"
        )


def compare_litert(
    network: IntegerNetwork, path: str | os.PathLike[str], codes: np.ndarray, *, kernels: str = "reference"
) -> LiteRTComparison:
    """Runs a LiteRT file and the integer network on the same codes and compares them tensor by tensor.

    Args:
        network: what the file was written from.
        path: of the `.tflite` file.
        codes: int8 inputs (batch, *input shape), e.g. `network.quantised(x)`.
        kernels: `"reference"`, LiteRT's plain C++, which ours equal code for code; `"builtin"`, its optimised ones;
            or `"default"`, those and the XNNPACK delegate, which rounds differently. With `"default"` only the
            output is compared, since a delegate keeps no tensors between.

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
    decisions = _decisions(ours[network.output]) != _decisions(theirs[network.output])
    return LiteRTComparison(
        kernels=kernels,
        samples=len(codes),
        tensors=tuple(_compared(made[name], name, ours[name], theirs[name]) for name in names),
        decisions=int(np.sum(decisions)),
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


def _compared(layer: str, name: str, ours: np.ndarray, theirs: np.ndarray) -> TensorComparison:
    difference = np.abs(ours.astype(np.int64) - theirs)
    return TensorComparison(
        layer=layer,
        tensor=name,
        codes=ours.size,
        differing=int(np.count_nonzero(difference)),
        largest=int(difference.max(initial=0)),
    )


def _decisions(codes: np.ndarray) -> np.ndarray:
    return codes.reshape(len(codes), -1).argmax(-1)
