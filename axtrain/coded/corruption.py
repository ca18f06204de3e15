"""Soft errors played on the numbers of a coded layer, in the graph."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from axtrain.coded.faults import MIXTURE, STAGES, SoftErrors
from axtrain.noise_models.random_numbers import uniform

_NODES, _PARTS, _VALUES = range(3)  # what is drawn, each from numbers of its own
_KIND, _WORD, _FACTOR, _BITS = 0, 1, 2, slice(3, 11)  # columns of what is drawn for a part
_WORDS = ("bit_flip", "multi_bit", "nan", "inf")  # kinds that change one word of a block


class Corruption:
    """The errors of one layer.

    Args:
        faults: what goes wrong.
        name: of the layer: each has errors of its own.
        nodes: P.
    """

    def __init__(self, faults: SoftErrors, name: str, nodes: int) -> None:
        self.faults, self.nodes = faults, nodes
        self._salt = sum((i + 1) * ord(letter) for i, letter in enumerate(name)) & 0xFFFFFF

    def __call__(self, values: Any, owner: np.ndarray, step: Any, stage: str, other: Any = None) -> tuple[Any, Any]:
        """The values with this step's errors.

        Args:
            values: shape (parts, ...): one block for each part of the work.
            owner: the node of each part: shape (parts,).
            step: int32 scalar: every step draws anew.
            stage: one of `STAGES`.
            other: the parts' results for another message, for adversarial errors.

        Returns:
            `(values, injected)`: a float32 scalar, 1 where an error large enough to see was made.
        """
        faults, strikes = self.faults, self.faults.rate > 0 and stage in self.faults.where
        drawn = self._draw((self.nodes, 2), self._first(step), stage, _NODES)
        injected = ops.zeros(())
        if strikes:
            hit = ops.take(self._erring(drawn[:, 0], step), owner)[:, None]
            flat = ops.reshape(values, (len(owner), -1))
            changed, injected = ops.cond(
                ops.any(hit), lambda: self._changed(flat, hit, step, stage, other), lambda: (flat, ops.zeros(()))
            )
            values = ops.reshape(changed, ops.shape(values))
        if faults.lost > 0 and stage in ("forward", "backward"):
            lost = ops.reshape(ops.take(drawn[:, 1] < faults.lost, owner), (-1,) + (1,) * (len(values.shape) - 1))
            values = ops.where(lost, float("nan"), values)
        return values, injected

    def _first(self, step: Any) -> Any:
        """The step whose draw says which nodes err: stuck nodes are drawn once for all."""
        return step * 0 if self.faults.kind == "stuck" else step

    def _erring(self, drawn: Any, step: Any) -> Any:
        """Which nodes err: boolean, shape (P,)."""
        if self.faults.kind != "stuck":
            return drawn < self.faults.rate
        first = ops.log(ops.maximum(drawn, 1e-30)) / np.log1p(-min(self.faults.rate, 1 - 1e-7))  # geometric
        return ops.cast(step, "float32") >= first

    def _changed(self, flat: Any, hit: Any, step: Any, stage: str, other: Any) -> tuple[Any, Any]:
        """The blocks with errors where `hit`, and whether any is large enough to see."""
        kinds = list(MIXTURE) if self.faults.kind == "mixture" else [self.faults.kind]
        drawn = self._draw((flat.shape[0], 11), step, stage, _PARTS)
        changed, below = flat, 0.0
        words = [kind for kind in kinds if kind in _WORDS]
        if words:
            changed = self._one_word(flat, drawn, words, kinds)
        for kind in kinds:
            share = MIXTURE[kind] if len(kinds) > 1 else 1.0
            if kind not in _WORDS:
                block = self._block(flat, drawn, step, stage, other, kind)
                here = _between(drawn, below, below + share) if len(kinds) > 1 else None
                changed = block if here is None else ops.where(here, block, changed)
            below += share
        changed = ops.where(hit, changed, flat)
        size = ops.mean(ops.abs(flat)) * flat.shape[0] ** 0.5
        difference = ops.max(ops.where(ops.isfinite(changed), ops.abs(changed - flat), float("inf")))
        return changed, ops.cast(difference > 1e-4 * size, "float32")

    def _one_word(self, flat: Any, drawn: Any, words: list, kinds: list) -> Any:
        """One word of each block with flipped bits, or NaN, or infinite."""
        several = drawn[:, _FACTOR : _FACTOR + 1]
        wanted = 2.0 + ops.floor(several * 7.0) if "multi_bit" in words else ops.ones_like(several)
        new, below = None, 0.0
        if "bit_flip" in words and "multi_bit" in words:
            wanted = ops.where(drawn[:, :1] < MIXTURE["bit_flip"], 1.0, wanted)
        if "bit_flip" in words or "multi_bit" in words:
            new = _flipped(flat, _mask(drawn[:, _BITS], wanted))
        for kind in kinds:
            share = MIXTURE[kind] if len(kinds) > 1 else 1.0
            if kind in ("nan", "inf"):
                special = ops.full_like(flat, float(kind))
                new = special if new is None else ops.where(_between(drawn, below, below + share), special, new)
            below += share
        count = ops.shape(flat)[1]
        place = ops.cast(drawn[:, _WORD : _WORD + 1] * ops.cast(count, "float32"), "int32")
        return ops.where(ops.arange(count, dtype="int32")[None] == place, new, flat)

    def _block(self, flat: Any, drawn: Any, step: Any, stage: str, other: Any, kind: str) -> Any:
        """Every block wrong as a whole."""
        size = ops.sqrt(ops.mean(ops.square(flat), axis=1, keepdims=True))
        if kind == "zeroed":
            return ops.zeros_like(flat)
        if kind == "scaled":
            return flat * (8.0 * drawn[:, _FACTOR : _FACTOR + 1] - 4.0)
        if kind == "stuck":
            return ops.zeros_like(flat) + 3.0 * size
        if kind == "adversarial" and other is not None:
            return flat + other(size, ops.shape(flat)[1])
        rows = flat.shape[0] if kind == "random" else 1
        even = (2.0 * self._draw((rows, ops.shape(flat)[1]), step, stage, _VALUES) - 1.0) * 3.0**0.5  # of variance 1
        return size * even if kind == "random" else flat + ops.max(size) * even

    def _draw(self, shape: tuple, step: Any, stage: str, purpose: int) -> Any:
        """Uniform in [0, 1) from (seed, layer, step, stage, purpose)."""
        second = (ops.cast(step, "int64") * len(STAGES) + STAGES.index(stage)) * 3 + purpose
        first = np.int64((self.faults.seed * 0x1000003 + self._salt) & 0xFFFFFFFF)
        words = ops.stack([ops.convert_to_tensor(first), ops.bitwise_and(second, np.int64(0xFFFFFFFF))])
        return uniform(shape, ops.cast(words, "uint32"))


def _between(drawn: Any, low: float, high: float) -> Any:
    """Parts whose kind was drawn in an interval."""
    return ops.logical_and(drawn[:, :1] >= low, drawn[:, :1] < high)


def _mask(drawn: Any, wanted: Any) -> Any:
    """`wanted` of 32 bits, drawn with repetition: int32, shape (parts, 1)."""
    bits = ops.cast(drawn * 32.0, "int32")
    masks = ops.where(np.arange(8)[None] < wanted, ops.left_shift(ops.ones_like(bits), bits), 0)
    total = masks[:, :1]
    for column in range(1, 8):
        total = ops.bitwise_or(total, masks[:, column : column + 1])
    return total


def _flipped(values: Any, mask: Any) -> Any:
    """Float32 words with the bits of an int32 mask flipped."""
    if keras.backend.backend() != "tensorflow":
        raise NotImplementedError("Bit flips in float32 words need the TensorFlow backend.")
    import tensorflow as tf

    words = tf.bitcast(ops.cast(values, "float32"), tf.int32)
    return ops.cast(tf.bitcast(tf.bitwise.bitwise_xor(words, mask), tf.float32), values.dtype)
