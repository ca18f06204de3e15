"""One coded product, checked and decoded: what a layer calls forward and backward.

The check is fast: ``|H y| <= tolerance`` for every column of results, with a tolerance that follows the rounding of
the products. Only where it fails does the joint decoder look at them, with a tolerance from the operands, which no
wrong result can raise.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from axtrain.coded.code import Code, Stage
from axtrain.coded.decoder import CLEAN, UNCORRECTABLE, Decoder
from axtrain.coded.layouts import Corrupt, layout

MARGIN = 8.0
"""Tolerances in units of the rounding expected: eps sqrt(contraction length) |operands|."""


class Found(NamedTuple):
    """What the check of a product said.

    Attributes:
        wrong: shape (results,), boolean: coded results that were wrong or missing.
        detected, uncorrectable: float32 scalars, 1 or 0.
    """

    wrong: Any
    detected: Any
    uncorrectable: Any


class CodedProduct:
    """The products of a layer with a coded kernel.

    Args:
        code: how.
        inputs, outputs: of the kernel.
        adversarial: trust only corrections that are right whatever the errors are.
        margin: of the tolerances, see `MARGIN`.
    """

    def __init__(
        self, code: Code, inputs: int, outputs: int, *, adversarial: bool = False, margin: float = MARGIN
    ) -> None:
        self.code, self.margin = code, margin
        self.layout = layout(code, inputs, outputs)
        self._decoders = {
            "forward": Decoder(code.forward.generator, adversarial=adversarial),
            "backward": Decoder(code.backward.generator, adversarial=adversarial),
        }

    def forward(self, coded: Any, x: Any, corrupt: Corrupt | None = None) -> tuple[Any, Found]:
        """``x W`` for x of shape (batch, inputs), and what its check said."""
        results = self.layout.forward(coded, x, corrupt)
        return self._decoded(results, coded, x, self.code.forward, "forward", self.layout.outputs)

    def backward(self, coded: Any, delta: Any, corrupt: Corrupt | None = None) -> tuple[Any, Found]:
        """``delta W'`` for delta of shape (batch, outputs), and what its check said."""
        results = self.layout.backward(coded, delta, corrupt)
        return self._decoded(results, coded, delta, self.code.backward, "backward", self.layout.inputs)

    def _decoded(
        self, results: Any, coded: Any, operand: Any, stage: Stage, name: str, width: int
    ) -> tuple[Any, Found]:
        decoder = self._decoders[name]
        if not decoder.redundancy:
            return _joined(decoder.messages_of_clean(results), stage, width), nothing_found(stage)
        length = operand.shape[-1]

        def clean():
            return _joined(decoder.messages_of_clean(results), stage, width), nothing_found(stage)

        def dirty():
            tolerance = self._tolerance_of_operands(results, coded, operand, length)
            return self._corrected(results, tolerance, decoder, stage, width)

        return ops.cond(self._is_clean(results, decoder, length), clean, dirty)

    def _is_clean(self, results: Any, decoder: Decoder, length: int) -> Any:
        """Whether no column of the syndrome is longer than the results' own size allows."""
        eps = _eps(results)
        size = ops.mean(ops.abs(results), axis=(1, 2, 3))
        tolerance = self.margin * eps * (length * decoder.redundancy) ** 0.5 * size
        largest = ops.max(ops.abs(decoder.syndrome(results)), axis=(1, 2, 3))
        # Not the other way round: comparisons with NaN are false, and an infinite tolerance allows all.
        return ops.all(ops.logical_and(largest <= tolerance, ops.isfinite(tolerance)))

    def _tolerance_of_operands(self, results: Any, coded: Any, operand: Any, length: int) -> Any:
        """For each sample: from the operand's length, the shards' usual size, and the results' usual size."""
        eps = _eps(results)
        shards = ops.abs(self.layout.shards(coded))
        usual = ops.median(ops.mean(ops.where(ops.isfinite(shards), shards, 0.0), axis=(1, 2)))
        norm = ops.sqrt(ops.sum(ops.square(operand), axis=-1))
        sizes = ops.mean(ops.where(ops.isfinite(results), ops.abs(results), 0.0), axis=3)
        sizes = ops.median(ops.reshape(sizes, (ops.shape(sizes)[0], -1)), axis=-1)
        return self.margin * eps * (length * self.code.recovery_threshold) ** 0.5 * (norm * usual + sizes)

    def _corrected(self, results: Any, tolerance: Any, decoder: Decoder, stage: Stage, width: int) -> tuple[Any, Found]:
        batch, groups, nodes, block = ops.shape(results)
        columns = ops.reshape(ops.transpose(results, (1, 2, 0, 3)), (groups, nodes, batch * block))
        limits = ops.broadcast_to(ops.repeat(tolerance, block)[None], (groups, batch * block))
        found = decoder.decode(columns, limits)
        messages = ops.reshape(found.messages, (groups, decoder.messages, batch, block))
        messages = ops.cast(ops.transpose(messages, (2, 0, 1, 3)), results.dtype)
        wrong = ops.reshape(found.wrong, (stage.results,))
        detected = ops.cast(ops.any(found.status != CLEAN), "float32")
        hopeless = ops.cast(ops.any(found.status == UNCORRECTABLE), "float32")
        return _joined(messages, stage, width), Found(wrong, detected, hopeless)


def nothing_found(stage: Stage) -> Found:
    """Of a product that was clean."""
    return Found(ops.zeros((stage.results,), "bool"), ops.zeros(()), ops.zeros(()))


def _eps(values: Any) -> float:
    return float(np.finfo(keras.backend.standardize_dtype(values.dtype)).eps)


def _joined(messages: Any, stage: Stage, width: int) -> Any:
    """The wanted blocks side by side: shape (batch, width), from messages of shape (batch, groups, K, block)."""
    if stage.wanted.shape[0] != stage.wanted.shape[1] or (stage.wanted != np.eye(len(stage.wanted))).any():
        messages = ops.matmul(ops.cast(stage.wanted, messages.dtype), messages)
    _, groups, blocks, block = messages.shape
    return ops.reshape(messages, (-1, groups * blocks * block))[:, :width]
