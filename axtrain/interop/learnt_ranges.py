"""What a model quantised by TensorFlow Model Optimization has learnt: each layer's hardware and its input's range."""

from __future__ import annotations

from typing import Any

import numpy as np

from axtrain.hardware import Hardware
from axtrain.quantisation import Quantisation

# Their outputs are values of their inputs, or 0.
_MOVING = ("Flatten", "Reshape", "Permute", "MaxPooling", "GlobalMaxPooling", "Dropout", "SpatialDropout", "Cropping",
           "ZeroPadding", "ActivityRegularization")  # fmt: skip
# How the default 8-bit scheme scales the weights of each layer.
_SCALES = {"Dense": "per_tensor", "Conv2DTranspose": "per_tensor", "DepthwiseConv2D": "per_tensor",
           "Conv2D": "per_channel"}  # fmt: skip


def hardware_of(layer: Any) -> Hardware | None:
    """The hardware that a wrapped layer of Keras 2 emulates; `None` for one whose weights are not quantised.

    Raises:
        ValueError: quantisers that are neither those of the default 8-bit scheme nor ours.
    """
    config = getattr(layer, "quantize_config", None)
    if config is None or not layer._weight_vars:
        return None
    if hasattr(layer, "hardware_product"):
        return config.hardware
    inner, name = layer.layer, type(layer.layer).__name__
    if not type(config).__name__.startswith("Default8Bit") or name not in _SCALES:
        raise ValueError(
            "Only weights that the default 8-bit scheme or an ApproximateQuantizeConfig quantised have hardware here. "
            f"Received: {inner.name!r} of class {name} with a {type(config).__name__}"
        )
    if getattr(inner, "depth_multiplier", 1) != 1:
        raise ValueError(
            "The 8-bit scheme scales depthwise weights per multiplier and no hardware here does; use "
            f"depth_multiplier=1. Received: {inner.name!r}, depth_multiplier={inner.depth_multiplier}"
        )
    return Hardware(quantisation=Quantisation(weight_scale=_SCALES[name]))


def input_ranges(model: Any) -> dict[str, tuple[float, float]]:
    """The learnt (low, high) of each layer's input, by the name of the layer in the user's model.

    A range comes from the quantiser before the layer, past layers that only move values, or from the layer's own; that
    of a layer with several calls covers all of theirs.
    """
    import tensorflow as tf

    of_tensors: dict[int, Any] = {}
    found: dict[str, list] = {}  # of each call
    for node in nodes(model):
        layer, inputs = node.layer, tf.nest.flatten(node.keras_inputs)
        before = of_tensors.get(id(inputs[0])) if len(inputs) == 1 else None
        product = getattr(layer, "hardware_product", None)
        if product is not None and float(product.state.seen.value) > 0:
            before = product.state.low.value, product.state.high.value
        if hasattr(layer, "quantize_config"):
            found.setdefault(layer.layer.name, []).append(before)
        after = _output_range(layer, before)
        of_tensors.update({id(tensor): after for tensor in tf.nest.flatten(node.outputs)})
    ranges = {name: np.array(bounds, np.float64) for name, bounds in found.items() if None not in bounds}
    hull = {name: (float(bounds[:, 0].min()), float(bounds[:, 1].max())) for name, bounds in ranges.items()}
    return {name: bounds for name, bounds in hull.items() if bounds[0] < bounds[1]}


def nodes(model: Any) -> list:
    """The calls of a Keras 2 model's layers, inputs left out, each behind those that it needs."""
    found = [node for depth in sorted(model._nodes_by_depth, reverse=True) for node in model._nodes_by_depth[depth]]
    return [node for node in found if not node.is_input]


def activation(layer: Any) -> Any:
    """A layer's own activation, taken out of its quantisers; where one follows in a layer of its own, none."""
    found = layer.activation
    while hasattr(found, "quantizer"):
        found = found.activation
    return None if type(found).__name__ == "NoOpActivation" else found


def _output_range(layer: Any, before: Any) -> Any:
    variables = None
    if hasattr(layer, "quantizer"):
        if layer.quantizer is None:
            return before
        variables = layer.quantizer_vars
    elif hasattr(layer, "quantize_config"):
        variables = getattr(layer, "_output_quantizer_vars", None)
        for quantised in layer._quantize_activations:
            variables = getattr(quantised, "_post_activation_vars", variables)
        layer = layer.layer
    if variables is not None:
        return variables["min_var"], variables["max_var"]
    return before if type(layer).__name__.startswith(_MOVING) else None
