"""What nodes keep between steps, weights and the optimizer's slots alike: is it still of the code, and if not, mended.

A product finds a wrong shard only where its operand is not zero, so one may lie unseen behind inputs that are silent.
It must not get into a checkpoint, nor into the shards that are made from the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from keras import ops

from axtrain.coded.decoder import CORRECTED, Decoder

if TYPE_CHECKING:
    from axtrain.coded.layouts import ShardLayout

DRIFT = 1e-4  # of a shard's largest value: ten times what 5,000 updates in float32 put between shards of one code


class StoredShards:
    """Shards that are checked and decoded by the codewords that they are stored in.

    Args:
        layout: of the coded kernel.
        adversarial: as for `Decoder`.
    """

    def __init__(self, layout: ShardLayout, adversarial: bool) -> None:
        self.layout = layout
        self.codewords = [
            (members, Decoder(generator, adversarial=adversarial))
            for generator, members in layout.code.codewords
            if len(generator) > generator.shape[1]
        ]
        basis = np.linalg.svd(layout.generator, full_matrices=False)[0]
        self._onto_code = basis @ basis.T

    def is_clean(self, states: list) -> Any:
        """Whether no shard of these variables is off by more than rounding: a boolean scalar."""
        flat, limits = self._flat(states)
        return self._fits(flat, limits)

    def mended(self, states: list) -> tuple[list, Any, Any]:
        """The variables with wrong shards decoded from the others; a node's shards are wrong in all of them or none.

        Args:
            states: coded kernels; a shard that is not finite is lost.

        Returns:
            `(states, regenerated, possible)`: anew, how many shards were wrong, and whether all are of the code now.
        """
        flat, limits = self._flat(states)
        before = flat
        for members, decoder in self.codewords:
            groups = _taken(flat, members)
            bounds = ops.broadcast_to(_bound(limits, decoder), (len(members), flat.shape[1]))
            found = decoder.decode(groups, bounds)
            anew = ops.cast(ops.matmul(decoder.generator, found.messages), flat.dtype)
            take = ops.logical_and(found.wrong, (found.status == CORRECTED)[:, None])[..., None]
            mended = ops.reshape(ops.where(take, anew, groups), (-1, flat.shape[1]))
            place = len(members.ravel()) + np.arange(len(self.layout.generator))
            place[members.ravel()] = np.arange(members.size)
            flat = ops.take(ops.concatenate([mended, flat]), place, axis=0)
        regenerated = ops.sum(ops.cast(ops.any(before != flat, axis=1), "float32"))
        return self._split(flat, states), regenerated, self._fits(flat, limits)

    def settled(self, states: list) -> list:
        """The variables with what rounding has put between their shards taken out."""
        flat, _ = self._flat(states)
        return self._split(ops.matmul(ops.cast(self._onto_code, flat.dtype), flat), states)

    def _flat(self, states: list) -> tuple[Any, Any]:
        """All variables side by side, shape (shards, columns), and for each column what rounding may make of it."""
        parts = [ops.reshape(self.layout.shards(state), (len(self.layout.generator), -1)) for state in states]
        limits = [DRIFT * _usual(part) * ops.ones((part.shape[1],), part.dtype) for part in parts]
        return ops.concatenate(parts, axis=1), ops.concatenate(limits)

    def _split(self, flat: Any, states: list) -> list:
        width = flat.shape[1] // len(states)
        shape = (len(self.layout.generator), self.layout.height, self.layout.width)
        parts = [flat[:, number * width : (number + 1) * width] for number in range(len(states))]
        return [self.layout.from_shards(ops.reshape(part, shape)) for part in parts]

    def _fits(self, flat: Any, limits: Any) -> Any:
        within = []
        for members, decoder in self.codewords:
            syndrome = ops.matmul(ops.cast(decoder.checks, flat.dtype), _taken(flat, members))
            length = ops.sqrt(ops.sum(ops.square(syndrome), axis=1))  # what the decoder judges by
            within.append(ops.all(length <= _bound(limits, decoder)))
        return ops.all(ops.stack(within)) if within else ops.ones((), "bool")


class StoredSums:
    """Blocks that are checked by the sums of their rows and columns, and not mended."""

    def __init__(self, layout: ShardLayout) -> None:
        self.layout = layout

    def is_clean(self, states: list) -> Any:
        """Whether all sums are those of their blocks."""
        return ops.all(ops.stack([self._fits(ops.convert_to_tensor(state)) for state in states]))

    def mended(self, states: list) -> tuple[list, Any, Any]:
        """As they are; see `StoredShards`."""
        return states, ops.zeros(()), self.is_clean(states)

    def settled(self, states: list) -> list:
        """With their sums anew."""
        return [self.layout.encode(self.layout.decode(ops.convert_to_tensor(state))) for state in states]

    def _fits(self, state: Any) -> Any:
        shards = self.layout.shards(state)
        anew = self.layout.shards(self.layout.encode(self.layout.decode(state)))
        size = _usual(ops.reshape(shards, (ops.shape(shards)[0], -1)))
        limit = DRIFT * (self.layout.height * self.layout.width) ** 0.5 * size
        return ops.all(ops.abs(anew - shards) <= limit)  # false where a sum is NaN


def _bound(limits: Any, decoder: Decoder) -> Any:
    """Of a column of the syndrome, whose entries may each be off by the limit."""
    return limits * decoder.redundancy**0.5


def _taken(flat: Any, members: np.ndarray) -> Any:
    """The shards of each codeword: shape (codewords, N, columns)."""
    return ops.reshape(ops.take(flat, members.ravel(), axis=0), (*members.shape, flat.shape[1]))


def _usual(shards: Any) -> Any:
    """The largest value of most shards: a few wrong ones do not raise it."""
    sizes = ops.abs(shards)
    return ops.median(ops.max(ops.where(ops.isfinite(sizes), sizes, 0.0), axis=1))
