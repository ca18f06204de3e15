"""Sizes that a graph may not know."""

from __future__ import annotations

import math
from typing import Any


def size_of(shape: tuple[Any, ...]) -> Any:
    """The product of sizes: an int, or an int32 scalar tensor where one of them is a tensor."""
    if all(isinstance(size, int) for size in shape):
        return math.prod(shape)
    from keras import ops

    return ops.prod(ops.stack([ops.cast(size, "int32") for size in shape]))
