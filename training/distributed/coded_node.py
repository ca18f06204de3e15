"""One node of a coded network: its shards, its products, its own decoding and its own update.

No node trusts another: each decodes all products for itself, computes the nonlinearity for itself, and compares a
digest of what it has with its peers'. Protocol: CodeNet (Dutta, Bai, Low, Grover 2018); theory page, section 8.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from axtrain.coded.code import Code
from axtrain.coded.layouts import ShardLayout
from axtrain.training.distributed.coded_products import CodedProducts, blocks_summed
from axtrain.training.distributed.dense_stack import DenseStack, activate, derivative
from axtrain.training.distributed.stored_digests import StoredDigests


class CodedNode:
    """What a node keeps and does. Methods give `(note, value)`; a value goes to all nodes.

    Args:
        number: of its shard.
        stack: the network.
        code: how kernels are spread.
        data: (x, y), all samples.
        momentum, nesterov: of SGD.
        adversarial: trust only corrections that are right whatever the errors are.
    """

    def __init__(
        self,
        number: int,
        stack: DenseStack,
        code: Code,
        data: tuple[np.ndarray, np.ndarray],
        momentum: float = 0.0,
        nesterov: bool = False,
        adversarial: bool = False,
    ) -> None:
        self.number, self.stack, self.code, self.data = number, stack, code, data
        self.momentum, self.nesterov = momentum, nesterov
        self.layouts = [ShardLayout(code, layer.rows, layer.outputs) for layer in stack.layers]
        self.products = CodedProducts(number, code, self.layouts, adversarial)
        self.stored = StoredDigests(code, self.layouts, adversarial)
        self.step = self._begun = -1
        self.shards: list[np.ndarray] = [np.zeros(layout.shape[1:], np.float32) for layout in self.layouts]
        self.velocity = [np.zeros_like(shard) for shard in self.shards]
        self._kept: tuple | None = None
        self._x: list[np.ndarray] = []
        self._delta: dict[int, np.ndarray] = {}
        self._last: tuple | None = None
        self._digest = np.zeros(3)

    def adopt(self, step: int, weights: list, velocity: list, inputs: Any = ()) -> tuple[Any, Any]:
        """Take one's shards of decoded kernels: at the start, and from a file."""
        for mine, given in ((self.shards, weights), (self.velocity, velocity)):
            for number, (layout, kernel) in enumerate(zip(self.layouts, given, strict=True)):
                mine[number] = self._own(layout, np.asarray(kernel, np.float32))
        self.step = step
        self.keep()
        return None, None

    def begin(self, step: int, samples: np.ndarray, inputs: Any = ()) -> tuple[Any, Any]:
        """Begin a step on these samples: the first layer's product."""
        x, self._y = (part[samples] for part in self.data)
        self._begun = step
        self._x, self._delta, self._digest = [x.reshape(len(x), -1).astype(np.float32)], {}, np.zeros(3)
        return {}, {**self._answer("forward", 0), "stored": self.stored.of(self.shards, self.velocity)}

    def forward(self, step: int, layer: int, inputs: list) -> tuple[Any, Any]:
        """Decode a layer's products, apply its activation; the next layer's product, or the last one's backward."""
        self._compared(inputs)
        note = self._decode_forward(layer, inputs)
        if layer == 0:
            note["stray"], explained = self.stored.judged([None if g is None else g["stored"] for g in inputs])
            note["hopeless"] = note["hopeless"] or not explained
        self._last = (self._decode_forward, layer, inputs)
        if layer + 1 < len(self.stack.layers):
            return note, self._answer("forward", layer + 1)
        return note, self._answer("backward", layer)

    def backward(self, step: int, layer: int, inputs: list) -> tuple[Any, Any]:
        """Decode the gradient of a layer's input; the product of the layer before."""
        self._compared(inputs)
        note = self._decode_backward(layer, inputs)
        self._last = (self._decode_backward, layer, inputs)
        return note, self._answer("backward", layer - 1)

    def update(self, step: int, rate: float, keep: bool, inputs: list) -> tuple[Any, Any]:
        """Update one's own shards: an outer product of coded operands. A step is done once, however often asked."""
        if step != self.step:
            return {"stale": self.step}, None
        self._compared(inputs)
        if keep:
            self.keep()  # what both passes have verified
        for number, (layer, layout) in enumerate(zip(self.stack.layers, self.layouts, strict=True)):
            right = blocks_summed(layer.operand(self._x[number]), self.code.right[self.number], layout.height)
            left = blocks_summed(self._delta[number], self.code.left[self.number], layout.width)
            gradient = right.T @ left
            self.velocity[number] = self.momentum * self.velocity[number] - rate * gradient
            ahead = self.momentum * self.velocity[number] - rate * gradient
            self.shards[number] = self.shards[number] + (ahead if self.nesterov else self.velocity[number])
        self.step += 1
        return {}, None

    def ready(self, step: int, inputs: Any = ()) -> tuple[Any, Any]:
        """Says that it is there."""
        return {}, None

    def outputs(self, step: int, inputs: Any = ()) -> tuple[Any, Any]:
        """Of this step, before its update; `None` if the node took no part in it."""
        return {}, self._x[-1] if step == self._begun and len(self._x) > len(self.stack.layers) else None

    def state(self, step: int, inputs: Any = ()) -> tuple[Any, Any]:
        """Shards and their velocities, for a peer."""
        return {"step": self.step}, [*self.shards, *self.velocity]

    def regenerate(self, step: int, weights: list[float], inputs: list) -> tuple[Any, Any]:
        """One's shards anew, as sums of peers' states; says whether one's own had been wrong."""
        anew = [
            sum(weight * part for weight, part in zip(weights, parts, strict=True))
            for parts in zip(*inputs, strict=True)
        ]
        own = [*self.shards, *self.velocity]
        size = [np.abs(part).max() + 1e-30 for part in anew]
        same = all(np.abs(a - b).max() <= 1e-4 * s for a, b, s in zip(own, anew, size, strict=True))
        if not same or self.step != step:
            anew = [part.astype(np.float32) for part in anew]
            self.shards, self.velocity = anew[: len(self.shards)], anew[len(self.shards) :]
        changed, self.step = not same, step
        return {"changed": changed}, None

    def keep(self) -> None:
        """A checkpoint in memory."""
        self._kept = (self.step, [part.copy() for part in self.shards], [part.copy() for part in self.velocity])

    def go_back(self, step: int, inputs: Any = ()) -> tuple[Any, Any]:
        """To the checkpoint; says of which step."""
        if self._kept is None:
            return {"step": None}, None
        self.step, shards, velocity = self._kept
        self.shards, self.velocity = [part.copy() for part in shards], [part.copy() for part in velocity]
        return {"step": self.step}, None

    def _answer(self, stage: str, layer: int) -> dict[str, Any]:
        """One's product for a layer, where one takes part, and the digest of what it was made from."""
        takes_part = stage == "forward" or layer > 0
        found = self.products.own(stage, layer, self._operand(stage, layer), self.shards[layer]) if takes_part else None
        return {"product": found, "digest": self._digest}

    def _decode_forward(self, layer: int, inputs: list) -> dict[str, Any]:
        part = self.stack.layers[layer]
        sums, note = self._decoded("forward", layer, inputs)
        outputs = activate(part.activation, sums)
        self._x[layer + 1 :] = [outputs]
        self._digest = _digest(outputs)
        if layer + 1 == len(self.stack.layers):
            note["loss"], self._delta[layer] = self.stack.error(outputs, self._y)
        return note

    def _decode_backward(self, layer: int, inputs: list) -> dict[str, Any]:
        found, note = self._decoded("backward", layer, inputs)
        before = self.stack.layers[layer - 1]
        self._delta[layer - 1] = found[:, : before.outputs] * derivative(before.activation, self._x[layer])
        self._digest = _digest(self._delta[layer - 1])
        return note

    def _operand(self, stage: str, layer: int) -> np.ndarray:
        return self.stack.layers[layer].operand(self._x[layer]) if stage == "forward" else self._delta[layer]

    def _decoded(self, stage: str, layer: int, inputs: list) -> tuple[np.ndarray, dict[str, Any]]:
        products = [None if given is None else given["product"] for given in inputs]
        return self.products.decoded(stage, layer, self._operand(stage, layer), self.shards[layer], products)

    def _compared(self, inputs: list) -> None:
        """Do one's last decoding again where peers have something else."""
        digests = np.array([given["digest"] for given in inputs if given is not None])
        if self._last is None or not len(digests):
            return
        agreed = np.nanmedian(digests, axis=0)
        if not np.allclose(self._digest, agreed, rtol=1e-3, atol=1e-6):
            function, layer, before = self._last
            function(layer, before)

    def _own(self, layout: ShardLayout, kernel: np.ndarray) -> np.ndarray:
        blocks = np.asarray(layout.blocks(kernel))
        return np.einsum("q,qhw->hw", layout.generator[self.number], blocks).astype(np.float32)


def _digest(values: np.ndarray) -> np.ndarray:
    """Three sums that tell two decodings apart."""
    place = np.sin(np.arange(1, values.shape[1] + 1))
    wide = values.astype(np.float64)
    return np.array([wide.sum(), np.abs(wide).sum(), (wide @ place).sum()])
