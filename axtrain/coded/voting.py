"""Work that no code protects, done by three nodes whose answers are compared: decoding and nonlinearities."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from keras import ops

from axtrain.coded.corruption import Corruption


class Vote(NamedTuple):
    """What three replicas agreed on; all but `taken` float32 scalars, 1 or 0.

    Attributes:
        taken: what the first said, or the second where the third agrees with it.
        injected: whether an error large enough to see was made.
        detected: whether the first two differed.
        hopeless: whether no two of the three agreed.
        missed: whether the first two agreed on something wrong.
    """

    taken: Any
    injected: Any
    detected: Any
    hopeless: Any
    missed: Any


def voted(values: Any, corruption: Corruption, step: Any, stage: str) -> Vote:
    """Two replicas compared; a third decides where they differ."""
    replicas = ops.stop_gradient(ops.broadcast_to(values[None], (3, *ops.shape(values))))
    replicas, struck = corruption(replicas, np.arange(3) % corruption.nodes, step, stage)
    first, second, third = replicas[0], replicas[1], replicas[2]
    agree, with_first, with_second = ops.all(first == second), ops.all(third == first), ops.all(third == second)
    taken = ops.where(ops.logical_or(agree, with_first), first, second)
    none = ops.logical_not(ops.logical_or(agree, ops.logical_or(with_first, with_second)))
    missed = ops.logical_and(agree, ops.logical_not(ops.all(first == values)))
    said = (ops.cast(answer, "float32") for answer in (ops.logical_not(agree), none, missed))
    return Vote(taken, struck, *said)
