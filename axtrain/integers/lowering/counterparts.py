"""Which Keras layers and activation functions have a counterpart in integers, and what is told of the others."""

from __future__ import annotations

import math
from collections.abc import Callable

import keras

from axtrain.layers.registry import LAYERS

# What an inference leaves as it is.
IDENTITIES = (
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
    keras.layers.GaussianNoise,
    keras.layers.GaussianDropout,
    keras.layers.AlphaDropout,
    keras.layers.ActivityRegularization,
    keras.layers.Identity,
)
KINDS = {
    keras.layers.BatchNormalization: "normalisation",
    keras.layers.Add: "addition",
    keras.layers.MaxPooling2D: "max",
    keras.layers.GlobalMaxPooling2D: "max",
    keras.layers.AveragePooling2D: "average",
    keras.layers.GlobalAveragePooling2D: "average",
    keras.layers.Flatten: "reshape",
    keras.layers.Reshape: "reshape",
    keras.layers.ZeroPadding2D: "pad",
}
_ENDS = {"relu": (0.0, math.inf), "relu6": (0.0, 6.0), "hard_tanh": (-1.0, 1.0)}


def function_of(layer, rank: int) -> tuple[str, Callable, tuple[float, float]]:
    """(kind, function, clamp) of a layer that is an activation function; `rank` counts its axes but the batch's."""
    if isinstance(layer, keras.layers.Activation):
        return clamp_or_softmax(layer.activation, layer.name)
    if isinstance(layer, keras.layers.ReLU):
        if layer.negative_slope or layer.threshold:
            raise ValueError(
                f"A ReLU with a slope or a threshold is no clamp; use relu. Received: layer {layer.name!r}"
            )
        return "clamp", layer, (0.0, math.inf if layer.max_value is None else float(layer.max_value))
    if isinstance(layer, keras.layers.Softmax):
        if layer.axis not in (-1, rank):
            raise ValueError(f"Softmax runs over the last axis. Received: axis={layer.axis} in layer {layer.name!r}")
        return "softmax", layer, (-math.inf, math.inf)
    products = {kind.__name__ for kind, entry in LAYERS.items() if entry.lowering is not None}
    known = sorted({kind.__name__ for kind in KINDS} | products | {"Activation", "ReLU", "Softmax", "Dropout"})
    raise ValueError(
        f"Layer {layer.name!r} has no integer counterpart. Known: {', '.join(known)}. Cut it off with "
        "keras.Model(inputs, outputs) and compute it outside, or put known layers in its place. "
        f"Received: {type(layer).__name__}"
    )


def clamp_or_softmax(function, layer: str) -> tuple[str, Callable, tuple[float, float]]:
    """(kind, function, clamp) of an activation function.

    Raises:
        ValueError: neither a clamp nor softmax.
    """
    name = getattr(function, "__name__", repr(function))
    if function is keras.activations.softmax:
        return "softmax", function, (-math.inf, math.inf)
    if name not in _ENDS or function is not getattr(keras.activations, name):
        raise ValueError(
            f"The activation of layer {layer!r} has no integer counterpart. Known: linear, softmax, "
            f"{', '.join(_ENDS)}. Train with one of these, or cut it off at the end. Received: {name}"
        )
    return "clamp", function, _ENDS[name]


def check_layer(layer, kind: str, shapes: list[tuple[int, ...]]) -> None:
    """Raises ValueError for a variant of a known layer that is not known."""
    obstacle = None
    if getattr(layer, "data_format", "channels_last") not in (None, "channels_last"):
        obstacle = "data_format='channels_first'; use channels_last"
    elif getattr(layer, "groups", 1) != 1:
        obstacle = f"groups={layer.groups}; use DepthwiseConv2D or groups=1"
    elif kind == "normalisation" and layer.axis not in (-1, len(shapes[0])):
        obstacle = f"axis={layer.axis}; normalise the last axis"
    elif kind == "addition" and len(set(shapes)) > 1:
        obstacle = f"inputs of different shapes {shapes}; add tensors of one shape"
    if obstacle:
        raise ValueError(f"Layer {layer.name!r} has no integer counterpart. Received: {obstacle}")
