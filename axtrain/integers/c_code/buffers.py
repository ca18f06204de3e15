"""Where a network's codes lie while it runs: one block of bytes, each part of it used again and again."""

from __future__ import annotations

import math
from dataclasses import dataclass

from axtrain.integers.network import IntegerNetwork, Reshape

INPUT, OUTPUT = "input", "output"


@dataclass(frozen=True, kw_only=True)
class Buffers:
    """The place of every tensor.

    Attributes:
        places: by tensor name: its first byte in the block, or `"input"` or `"output"`, the caller's own arrays.
        size: of the block, in bytes.
    """

    places: dict[str, int | str]
    size: int


def planned(network: IntegerNetwork) -> Buffers:
    """Places for all tensors of a network, so that no two that are needed at one time overlap.

    A tensor is needed from the operation that writes it to the last that reads it. A reshaped tensor is the one
    that it was made from. The largest are placed first, each at the lowest place that is free (the greedy plan by
    size of Pisarchyk and Lee 2020).
    """
    owner = _owners(network)
    born: dict[str, int] = {}
    needed: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for step, operation in enumerate(network.operations):
        for name in (*operation.inputs, operation.output):
            root = owner[name]
            born.setdefault(root, step)
            needed[root] = step
            sizes[root] = math.prod(network.tensors[name].shape)
    outside: dict[str, int | str] = {owner[network.output]: OUTPUT}
    outside[owner[network.input]] = INPUT
    placed: dict[str, int] = {}
    for root in sorted(sizes, key=lambda name: (-sizes[name], born[name])):
        if root not in outside:
            beside = [name for name in placed if born[name] <= needed[root] and born[root] <= needed[name]]
            placed[root] = _first_gap(sizes[root], [(placed[name], placed[name] + sizes[name]) for name in beside])
    size = max((start + sizes[root] for root, start in placed.items()), default=0)
    every = {**placed, **outside}
    return Buffers(places={name: every[root] for name, root in owner.items()}, size=size)


def _owners(network: IntegerNetwork) -> dict[str, str]:
    """For each tensor the one whose bytes it shares: itself, or what it is a reshape of."""
    owner = {network.input: network.input}
    for operation in network.operations:
        owner[operation.output] = operation.output
        if isinstance(operation, Reshape):
            source = owner[operation.inputs[0]]
            # The caller's input cannot be the caller's output: that one is copied.
            if source != network.input or operation.output != network.output:
                owner[operation.output] = source
    return owner


def _first_gap(size: int, taken: list[tuple[int, int]]) -> int:
    place = 0
    for start, end in sorted(taken):
        if place + size <= start:
            break
        place = max(place, end)
    return place
