"""Integer operations from folded steps: multipliers, clamps, paddings."""

from __future__ import annotations

from typing import Any

import keras

from axtrain.emulation.geometry import same_pads
from axtrain.integers.lowering.scales import HIGHEST, LOWEST, Scale, scale_of_layer
from axtrain.integers.lowering.steps import FlatModel, Step
from axtrain.integers.lowering.weights import circuit_table, is_odd, layer_weights, normalisation_weights
from axtrain.integers.network import (
    NO_PADDING,
    Addition,
    IntegerNetwork,
    Operation,
    Pad,
    Padding,
    Pooling,
    Product,
    Rescale,
    Reshape,
    Softmax,
    Tensor,
)
from axtrain.integers.requantisation import (
    addition_multipliers,
    clamp_codes,
    product_multipliers,
    rescaling_multiplier,
)

_GLOBAL = (keras.layers.GlobalMaxPooling2D, keras.layers.GlobalAveragePooling2D)


class Assembly:
    """Operations and tensors of one network.

    Args:
        name: of the model.
        flat: the network in float, for shapes.
        steps: what is left of it after folding.
        scales: of the tensors.
    """

    def __init__(self, name: str, flat: FlatModel, steps: list[Step], scales: dict[str, Scale]) -> None:
        self.name, self.flat, self.steps = name, flat, steps
        self.tensors: dict[str, Tensor] = {}
        self.operations: list[Operation] = []
        for tensor, scale in scales.items():
            self._tensor(tensor, flat.shapes[tensor], scale)

    def network(self) -> IntegerNetwork:
        """The network."""
        rules = {
            "product": self._product,
            "normalisation": self._normalisation,
            "clamp": self._clamp,
            "softmax": self._softmax,
            "addition": self._addition,
            "max": self._pooling,
            "average": self._pooling,
            "reshape": self._reshape,
            "pad": self._pad,
        }
        for step in self.steps:
            try:
                rules[step.kind](step)
            except ValueError as error:
                raise ValueError(f"Layer {step.name!r} has no integer form. {error}") from error
        return IntegerNetwork(
            name=self.name,
            tensors=self.tensors,
            operations=tuple(self.operations),
            input=self.flat.input,
            output=self.flat.output,
        )

    def _tensor(self, wanted: str, shape, scale: Scale) -> Tensor:
        name, number = wanted, 1
        while name in self.tensors:  # a shared layer comes here for each of its uses
            name, number = f"{wanted}_{number}", number + 1
        self.tensors[name] = Tensor(name=name, shape=tuple(shape), scale=scale.scale, zero_point=scale.zero_point)
        return self.tensors[name]

    def _product(self, step: Step) -> None:
        given = self._as_calibrated(step)
        table, circuit = circuit_table(step.hardware_layer)
        weights = layer_weights(step, given.scale, odd=is_odd(table))
        kind = step.product
        options: dict[str, Any] = {}
        if kind != "dense":
            layer = step.layer
            options = {"strides": tuple(layer.strides), "dilation": tuple(layer.dilation_rate)}
            window = tuple(layer.kernel_size)
            options["padding"] = _padding(layer.padding, given.shape, window, *options.values())
        self._add_product(step, kind, given, weights, table=table, multiplier=circuit, **options)

    def _normalisation(self, step: Step) -> None:
        given = self.tensors[step.inputs[0]]
        if len(given.shape) != 3:
            raise ValueError(
                f"BatchNormalization {step.name!r} follows no product that it could be folded into, and stands alone "
                f"on images only. Put it right after a layer without activation. Received: shape {given.shape}"
            )
        self._add_product(step, "depthwise_conv2d", given, normalisation_weights(step, given.scale))

    def _add_product(self, step: Step, kind: str, given: Tensor, weights, **options) -> None:
        output = self.tensors[step.output]
        factor, shift = product_multipliers(given.scale, weights.scale, output.scale)
        self.operations.append(
            Product(
                name=step.name,
                inputs=(given.name,),
                output=step.output,
                kind=kind,
                codes=weights.codes,
                weight_scale=weights.scale,
                bias=weights.bias,
                factor=factor,
                shift=shift,
                roundings=1 if kind == "dense" else 2,
                **self._ends(step),
                **options,
            )
        )

    def _as_calibrated(self, step: Step) -> Tensor:
        """The product's input at the scale that its layer was calibrated with, rescaled where it has another."""
        given, wanted = self.tensors[step.inputs[0]], scale_of_layer(step.hardware_layer)
        if (given.scale, given.zero_point) == wanted:
            return given
        rescaled = self._tensor(f"{step.name}/input", given.shape, wanted)
        factor, shift = rescaling_multiplier(given.scale, wanted.scale, clamped=False)
        self.operations.append(
            Rescale(name=step.name, inputs=(given.name,), output=rescaled.name, factor=factor, shift=shift)
        )
        return rescaled

    def _ends(self, step: Step) -> dict[str, Any]:
        output = self.tensors[step.output]
        lowest, highest = clamp_codes(*step.clamp, output.scale, output.zero_point)
        return {"lowest": lowest, "highest": highest}

    def _addition(self, step: Step) -> None:
        first, second = (self.tensors[name].scale for name in step.inputs)
        pairs, (factor, shift) = addition_multipliers((first, second), self.tensors[step.output].scale)
        self.operations.append(
            Addition(
                name=step.name,
                inputs=step.inputs,
                output=step.output,
                factors=(pairs[0][0], pairs[1][0]),
                shifts=(pairs[0][1], pairs[1][1]),
                factor=factor,
                shift=shift,
                **self._ends(step),
            )
        )

    def _clamp(self, step: Step) -> None:
        """A clamp that nothing before it could take in."""
        given, output, ends = self.tensors[step.inputs[0]], self.tensors[step.output], self._ends(step)
        clamped = ends != {"lowest": LOWEST, "highest": HIGHEST}
        factor, shift = rescaling_multiplier(given.scale, output.scale, clamped=clamped)
        self.operations.append(
            Rescale(name=step.name, inputs=step.inputs, output=step.output, factor=factor, shift=shift, **ends)
        )

    def _softmax(self, step: Step) -> None:
        self.operations.append(Softmax(name=step.name, inputs=step.inputs, output=step.output))

    def _pooling(self, step: Step) -> None:
        given, output, layer = self.tensors[step.inputs[0]], self.tensors[step.output], step.layer
        options: dict[str, Any] = {"window": given.shape[:2], "strides": given.shape[:2]}
        name = step.output
        if isinstance(layer, _GLOBAL):
            if len(output.shape) == 1:  # its two axes of length 1 are dropped
                scale = Scale(output.scale, output.zero_point)
                name = self._tensor(f"{step.output}/pooled", (1, 1, *output.shape), scale).name
        else:
            options = {"window": tuple(layer.pool_size), "strides": tuple(layer.strides)}
            options["padding"] = _padding(layer.padding, given.shape, options["window"], options["strides"])
        self.operations.append(
            Pooling(name=step.name, inputs=step.inputs, output=name, kind=step.kind, **options, **self._ends(step))
        )
        if name != step.output:
            self.operations.append(Reshape(name=step.name, inputs=(name,), output=step.output))

    def _reshape(self, step: Step) -> None:
        self.operations.append(Reshape(name=step.name, inputs=step.inputs, output=step.output))

    def _pad(self, step: Step) -> None:
        (top, bottom), (left, right) = step.layer.padding
        padding = Padding(top, bottom, left, right)
        self.operations.append(Pad(name=step.name, inputs=step.inputs, output=step.output, padding=padding))


def _padding(kind: str, shape: tuple[int, ...], window, strides, dilation=(1, 1)) -> Padding:
    if kind == "valid":
        return NO_PADDING
    rows, columns = same_pads(shape[:2], window, strides, dilation)
    return Padding(*rows, *columns)
