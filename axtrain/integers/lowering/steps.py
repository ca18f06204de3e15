"""A Keras model laid flat: one step after another on named tensors, activation functions as steps of their own."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from axtrain.integers.lowering.counterparts import IDENTITIES, KINDS, check_layer, clamp_or_softmax, function_of
from axtrain.layers.registry import lowered
from axtrain.model_walk import all_layers, is_graph, labels


@dataclass(kw_only=True, eq=False)
class Step:
    """One step of a network in float; folding changes it.

    Attributes:
        kind: `"product"`, `"normalisation"`, `"clamp"`, `"softmax"`, `"addition"`, `"max"`, `"average"`,
            `"reshape"` or `"pad"`.
        name: of the Keras layer; its path where another one bears the name too.
        layer: the plain layer, without its activation.
        function: from the input tensors to the output.
        inputs, output: names of tensors.
        hardware_layer: of a product, the layer on hardware.
        product: of a product, its kind in integers.
        clamp: (lowest, highest) real value of the output.
        gain, offset: of a product, what its layer or normalisation after it multiplies each channel by and adds,
            float64 arrays; `None` where there is none.
    """

    kind: str
    name: str
    layer: Any
    function: Callable
    inputs: tuple[str, ...]
    output: str
    hardware_layer: Any = None
    product: str = ""
    clamp: tuple[float, float] = (-math.inf, math.inf)
    gain: Any = None
    offset: Any = None


@dataclass(frozen=True, kw_only=True)
class FlatModel:
    """Steps in an order in which each finds its inputs made.

    Attributes:
        steps: of the network.
        shapes: of every tensor, without the batch.
        input, output: names of tensors.
    """

    steps: list[Step]
    shapes: dict[str, tuple[int, ...]]
    input: str
    output: str

    def consumers(self, steps: list[Step] | None = None) -> dict[str, list[Step]]:
        """The steps that read each tensor."""
        found: dict[str, list[Step]] = {name: [] for name in self.shapes}
        for step in self.steps if steps is None else steps:
            for name in step.inputs:
                found[name].append(step)
        return found


def flat_model(plain: keras.Model, on_hardware: keras.Model) -> FlatModel:
    """The steps of a model with one input and one output; nested models are opened.

    Args:
        plain: a copy with plain layers, whose activations are taken out of its layers here.
        on_hardware: the same model on hardware.

    Raises:
        ValueError: several inputs or outputs, a shape that is open, or a layer that has no integer counterpart.
    """
    if not is_graph(plain):
        raise ValueError(f"Integer networks are made of Sequential and Functional models. Received: {plain.name!r}")
    return _Flattening(plain, on_hardware).flat()


class _Flattening:
    def __init__(self, plain: keras.Model, on_hardware: keras.Model) -> None:
        self.model = plain
        pairs = zip(all_layers(plain), all_layers(on_hardware), strict=True)
        self.hardware = {id(layer): other for layer, other in pairs}
        self.labels = labels(plain)
        self.steps: list[Step] = []
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.activations: dict[int, Callable] = {}

    def flat(self) -> FlatModel:
        inputs, outputs = (keras.tree.flatten(part) for part in (self.model.inputs, self.model.outputs))
        if len(inputs) != 1 or len(outputs) != 1:
            raise ValueError(
                f"An integer network has one input and one output. Received: {self.model.name!r} with {len(inputs)} "
                f"inputs and {len(outputs)} outputs; cut it with keras.Model(one_input, one_output)"
            )
        name = self._tensor("input", inputs[0].shape[1:], self.model.name)
        (output,) = self._walk(self.model, [name])
        return FlatModel(steps=self.steps, shapes=self.shapes, input=name, output=output)

    def _walk(self, model: keras.Model, inputs: list[str]) -> list[str]:
        graph = getattr(model, "_functional", None) or model
        tensors = keras.tree.flatten(graph.inputs)
        names = {id(tensor): name for tensor, name in zip(tensors, inputs, strict=True)}
        for depth in sorted(graph._nodes_by_depth, reverse=True):
            for node in graph._nodes_by_depth[depth]:
                layer = node.operation
                if isinstance(layer, keras.layers.InputLayer):
                    continue
                given = [names[id(tensor)] for tensor in node.input_tensors]
                if isinstance(layer, keras.Model):
                    made = self._walk(layer, given)
                else:
                    made = [self._step(layer, given, node.output_tensors[0].shape[1:])]
                names.update({id(tensor): name for tensor, name in zip(node.output_tensors, made, strict=True)})
        return [names[id(tensor)] for tensor in keras.tree.flatten(graph.outputs)]

    def _step(self, layer, inputs: list[str], shape) -> str:
        """Adds the steps of one use of a layer and names its output."""
        if isinstance(layer, IDENTITIES):
            return inputs[0]
        kind = KINDS.get(type(layer)) if lowered(layer) is None else "product"
        if kind is None:
            return self._function(layer, *function_of(layer, len(shape)), inputs[0], shape)
        check_layer(layer, kind, [self.shapes[name] for name in inputs])
        activation = None
        if kind == "product":
            # A shared layer comes here for each of its uses.
            activation = self.activations.setdefault(id(layer), layer.activation)
            layer.activation = keras.activations.linear
        function = (lambda *tensors: layer(list(tensors))) if kind == "addition" else layer
        if activation not in (None, keras.activations.linear):
            found = clamp_or_softmax(activation, layer.name)  # refused before anything is added
            sums = self._add(kind, layer, function, inputs, shape, "/sums")
            return self._function(layer, *found, sums, shape)
        if kind == "addition":
            return self._sum(layer, inputs, shape)
        return self._add(kind, layer, function, inputs, shape)

    def _sum(self, layer, inputs: list[str], shape) -> str:
        """Two at a time, as there are more."""
        total = inputs[0]
        for number, other in enumerate(inputs[1:], start=2):
            part = "" if number == len(inputs) else f"/of_{number}"
            total = self._add("addition", layer, lambda first, second: first + second, [total, other], shape, part)
        return total

    def _function(self, layer, kind: str, function, clamp, given: str, shape) -> str:
        name = self._add(kind, layer, function, [given], shape)
        self.steps[-1].clamp = clamp
        return name

    def _add(self, kind: str, layer, function, inputs: list[str], shape, part: str = "") -> str:
        label = self.labels[id(layer)]
        output = self._tensor(f"{label}{part}", shape, label)
        step = Step(kind=kind, name=label, layer=layer, function=function, inputs=tuple(inputs), output=output)
        product = lowered(layer) if kind == "product" else None
        if product is not None:
            step.hardware_layer = self.hardware[id(layer)]
            step.product, gain = product
            if gain is not None:
                if gain.shape not in ((), tuple(shape[-1:])):
                    raise ValueError(
                        f"`lowering` must give one factor, or one for each of {shape[-1]} channels, for layer "
                        f"{label!r}. Received: shape {gain.shape}"
                    )
                step.gain, step.offset = np.broadcast_to(gain, shape[-1:]), np.zeros(shape[-1])
        self.steps.append(step)
        return output

    def _tensor(self, wanted: str, shape, layer: str) -> str:
        if None in shape:
            raise ValueError(
                f"An integer network has fixed shapes; give keras.Input whole sizes. Received: {tuple(shape)} at "
                f"layer {layer!r}"
            )
        name, number = wanted, 1
        while name in self.shapes:
            name, number = f"{wanted}_{number}", number + 1
        self.shapes[name] = tuple(shape)
        return name
