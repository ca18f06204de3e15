"""Gradients of coded layers: products of encoded operands, never the transpose of a decoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from keras import ops

from axtrain.coded.checks import Found

if TYPE_CHECKING:
    from axtrain.coded.layer import CodedLayer

EVENTS = ("injected", "detected", "corrected", "regenerated", "missed")
"""What a layer counts: stages with an error; stages found wrong; of these corrected; shards; stages not found."""


def with_coded_gradient(layer: CodedLayer, step: Any):
    """The product of a layer, whose gradient is the coded one: encoded operands, never the decoder's transpose."""
    product = layer.product

    def corrupted(stage_name: str, injected: list):
        if not layer.strikes(stage_name):
            return None

        def corrupt(values, stage, name):
            owner = layer.code.owner(name)[stage.shards]
            changed, struck = layer.corruption(values, owner, step, name, _other_message(stage, values))
            injected.append(struck)
            return changed

        return corrupt

    @ops.custom_gradient
    def multiply(x, coded):
        injected: list = []
        y, found = product.forward(coded, x, corrupted("forward", injected))
        record = _record(found, injected)

        def gradient(*upstream, **_):
            delta, struck = upstream[0], []
            c = ops.zeros_like(x)
            if layer.input_gradient:
                c, seen = product.backward(coded, delta, corrupted("backward", struck))
                layer.note("backward", ops.cast(seen.wrong, "float32"), _record(seen, struck))
            coded_gradient = product.layout.gradient(x, delta)
            if layer.strikes("update"):
                shards = product.layout.shards(coded_gradient)
                shards, made = layer.corruption(shards, layer.code.owner("update"), step, "update")
                coded_gradient = product.layout.from_shards(shards)
                layer.counts.assign_add(ops.stack([made, *[ops.zeros(())] * (len(EVENTS) - 1)]))
            return c, coded_gradient

        return (y, record, ops.cast(found.wrong, "float32")), gradient

    return multiply


def _record(found: Found, injected: list) -> Any:
    """Counts in the order of `EVENTS`, and whether the result is beyond correction."""
    struck = injected[0] if injected else ops.zeros(())
    missed = struck * (1.0 - found.detected)
    corrected = found.detected * (1.0 - found.uncorrectable)
    return ops.stack([struck, found.detected, corrected, ops.zeros(()), missed, found.uncorrectable])


def _other_message(stage, values):
    """What adversarial nodes add: the results of one random message, the same for all of them."""

    def other(size, count):
        place = ops.cast(ops.arange(count), "float32")[None]
        phases = np.arange(1, stage.threshold + 1, dtype="float32")[:, None]
        message = ops.sin(place * 12.9898 * phases + phases)
        rows = stage.generator[stage.sums % len(stage.generator)]
        return ops.max(size) * ops.matmul(ops.cast(rows, values.dtype), message)

    return other


def decoded_kernel(layout: Any, coded: Any) -> Any:
    """The kernel of a coded one, with a gradient that is encoded."""

    @ops.custom_gradient
    def decode(coded):
        return layout.decode(coded), lambda *upstream, **_: layout.encode(upstream[0])

    return decode(coded)


def in_place_of(taken: Any, values: Any) -> Any:
    """`taken`, with the gradient of `values`."""

    @ops.custom_gradient
    def replace(values):
        return taken * 1.0, lambda *upstream, **_: upstream[0]

    return replace(values)
