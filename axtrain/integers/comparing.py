"""What a runtime made of an exported file against the integer network, tensor by tensor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


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
class Comparison:
    """A file against the integer network that it was written from, both from the same input codes.

    Attributes:
        samples: how many inputs.
        tensors: in the network's order, the output last.
        decisions: samples whose largest output stands at another place.
    """

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

    def _told(self, runtime: str) -> str:
        codes, last = sum(tensor.codes for tensor in self.tensors), self.tensors[-1]
        told = f"{runtime} on {self.samples} samples: "
        if self.first is None:
            return told + f"all {codes} codes of {len(self.tensors)} tensors are equal"
        first = self.first
        return told + (
            f"first difference in layer {first.layer!r} (tensor {first.tensor!r}): {first.differing} of {first.codes} "
            f"codes, by up to {first.largest}; {last.differing} of {last.codes} output codes and {self.decisions} "
            "decisions differ"
        )


def compared(layer: str, name: str, ours: np.ndarray, theirs: np.ndarray) -> TensorComparison:
    """One tensor's codes, as the network and as the runtime has them."""
    difference = np.abs(ours.astype(np.int64) - theirs)
    return TensorComparison(
        layer=layer,
        tensor=name,
        codes=ours.size,
        differing=int(np.count_nonzero(difference)),
        largest=int(difference.max(initial=0)),
    )


def other_decisions(ours: np.ndarray, theirs: np.ndarray) -> int:
    """Samples (along the first axis) whose largest code stands at another place."""
    return int(np.sum(_decisions(ours) != _decisions(theirs)))


def _decisions(codes: np.ndarray) -> np.ndarray:
    return codes.reshape(len(codes), -1).argmax(-1)
