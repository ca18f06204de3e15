"""A few numbers of what each node stores, which are a codeword as the shards are: they tell whose shards are wrong.

A product finds a wrong shard only where its operand is not zero. The same random projection of every shard, ``u' S v``,
is linear, so the projections of a codeword's shards are a codeword, a thousandth of the bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from axtrain.coded.code import Code
from axtrain.coded.decoder import CORRECTED, Decoder
from axtrain.coded.layouts import ShardLayout
from axtrain.coded.stored import DRIFT

_PROJECTIONS = 4


class StoredDigests:
    """The projections of one network's shards, and what they say.

    Args:
        code: how kernels are spread.
        layouts: of each layer's kernel.
        adversarial: as for `Decoder`.
    """

    def __init__(self, code: Code, layouts: Sequence[ShardLayout], adversarial: bool) -> None:
        generator = np.random.default_rng(0)  # the same at every node
        self._directions = [
            tuple(generator.standard_normal((_PROJECTIONS, size)).astype(np.float32) for size in layout.shape[1:])
            for layout in layouts
        ]
        self._nodes = code.shards
        self._codewords = [
            (members, Decoder(words, adversarial=adversarial))
            for words, members in code.codewords
            if len(words) > words.shape[1]
        ]

    def of(self, shards: Sequence[np.ndarray], velocity: Sequence[np.ndarray]) -> np.ndarray:
        """One node's, shape (numbers,): of each layer's shard and its velocity."""
        return np.concatenate(
            [
                ((rows @ state) * columns).sum(axis=1, dtype=np.float64)
                for states in (shards, velocity)
                for (rows, columns), state in zip(self._directions, states, strict=True)
            ]
        )

    def judged(self, digests: Sequence[np.ndarray | None]) -> tuple[np.ndarray, bool]:
        """Numbers of the nodes whose shards are wrong, and whether that explains everything.

        Args:
            digests: of every node, `None` where there is none.
        """
        numbers = max((len(given) for given in digests if given is not None), default=0)
        given = np.full((self._nodes, numbers), np.nan)
        for node, digest in enumerate(digests):
            if digest is not None and digest.shape == (numbers,):
                given[node] = digest
        missing = ~np.isfinite(given).all(axis=1)
        if missing.all() or self._agree(given):
            return np.zeros(0, int), True
        wrong = missing.copy()
        for members, decoder in self._codewords:
            groups = given[members]
            limits = np.broadcast_to(self._limits(given) * decoder.redundancy**0.5, (len(members), numbers))
            found = decoder.decode(groups, limits, erased=wrong[members])
            sure = np.asarray(found.status) == CORRECTED
            wrong[members[sure][np.asarray(found.wrong)[sure]]] = True
        given[wrong] = np.nan
        return np.flatnonzero(wrong & ~missing), self._agree(given)

    def _limits(self, given: np.ndarray) -> np.ndarray:
        return DRIFT * np.maximum(np.nanmedian(np.abs(given), axis=0), 1e-30)

    def _agree(self, given: np.ndarray) -> bool:
        """Whether what is there lies in the code."""
        limits = self._limits(given)
        for members, decoder in self._codewords:
            for group in members:
                there = np.isfinite(given[group]).all(axis=1)
                basis, seen = decoder.generator[there], given[group][there]
                apart = seen - basis @ (np.linalg.pinv(basis) @ seen)
                if np.any(np.linalg.norm(apart, axis=0) > limits * decoder.redundancy**0.5):
                    return False
        return True
