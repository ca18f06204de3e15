"""What each integer operation is among LiteRT's: operator, options, constant tensors."""

from __future__ import annotations

from typing import Any

import numpy as np

from axtrain.emulation.geometry import same_pads
from axtrain.integers.network import (
    NO_PADDING,
    Addition,
    Operation,
    Pad,
    Pooling,
    Product,
    Rescale,
    Reshape,
    Softmax,
)
from axtrain.integers.requantisation import clamp_codes

_ACTIVATIONS = {"RELU": (0.0, np.inf), "RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0)}


def _activation(writer: Any, operation: Any) -> int:
    """LiteRT's number of the function that clamps as the operation does."""
    output, known = writer.network.tensors[operation.output], writer.schema.ActivationFunctionType
    clamp = (operation.lowest, operation.highest)
    if clamp == (-128, 127):
        return known.NONE
    for name, ends in _ACTIVATIONS.items():
        if clamp == clamp_codes(*ends, output.scale, output.zero_point):
            return getattr(known, name)
    raise ValueError(
        f"LiteRT clamps to none, ReLU, ReLU6 or [-1, 1] alone; give layer {operation.name!r} one of these. "
        f"Received: codes from {clamp[0]} to {clamp[1]} at {output}"
    )


def _padding(writer: Any, operation: Any, window, dilation) -> int:
    """SAME or VALID."""
    padding, sizes = operation.padding, writer.network.tensors[operation.inputs[0]].shape[:2]
    same = same_pads(sizes, window, operation.strides, dilation)
    if padding == NO_PADDING:
        return writer.schema.Padding.VALID
    if tuple(padding) == (*same[0], *same[1]):
        return writer.schema.Padding.SAME
    raise ValueError(f"LiteRT pads by SAME or VALID alone. Received: {padding} of layer {operation.name!r}")


def _product(writer: Any, product: Product) -> tuple:
    if product.table is not None:
        name = "a table" if product.multiplier is None else f"{product.multiplier.name!r}"
        raise ValueError(
            "LiteRT has no multiplication but the exact one. Export the model on exact multipliers, "
            'Hardware(quantisation=Quantisation.litert()), or choose the format "c", which takes a table. '
            f"Received: layer {product.name!r} on {name}"
        )
    input_scale = np.float32(writer.network.tensors[product.inputs[0]].scale)
    scales = product.weight_scale.astype(np.float32)
    options: dict[str, Any] = {"fusedActivationFunction": _activation(writer, product)}
    axis, codes = 0, np.moveaxis(product.codes, -1, 0)
    if product.kind == "depthwise_conv2d":
        axis, codes = 3, product.codes.reshape(1, *product.codes.shape[:2], -1)
        options["depthMultiplier"] = product.codes.shape[-1]
    weights = writer.constant(f"{product.output}/weights", codes.astype(np.int8), scales, axis)
    bias = writer.constant(f"{product.output}/bias", product.bias.astype(np.int32), input_scale * scales)
    if product.kind == "dense":
        options["keepNumDims"] = len(writer.network.tensors[product.inputs[0]].shape) > 1
        return "FULLY_CONNECTED", "FullyConnectedOptions", options, [weights, bias]
    options |= {"strideH": product.strides[0], "strideW": product.strides[1]}
    options |= {"dilationHFactor": product.dilation[0], "dilationWFactor": product.dilation[1]}
    options["padding"] = _padding(writer, product, product.codes.shape[:2], product.dilation)
    if product.kind == "conv2d":
        return "CONV_2D", "Conv2DOptions", options, [weights, bias]
    return "DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions", options, [weights, bias]


def _addition(writer: Any, operation: Addition) -> tuple:
    return "ADD", "AddOptions", {"fusedActivationFunction": _activation(writer, operation)}, []


def _pooling(writer: Any, operation: Pooling) -> tuple:
    options = {
        "fusedActivationFunction": _activation(writer, operation),
        "padding": _padding(writer, operation, operation.window, (1, 1)),
    }
    options |= {"strideH": operation.strides[0], "strideW": operation.strides[1]}
    options |= {"filterHeight": operation.window[0], "filterWidth": operation.window[1]}
    return f"{operation.kind.upper()}_POOL_2D", "Pool2DOptions", options, []


def _reshape(writer: Any, operation: Reshape) -> tuple:
    shape = np.array([-1, *writer.network.tensors[operation.output].shape], np.int32)
    constant = writer.constant(f"{operation.output}/shape", shape)
    return "RESHAPE", "ReshapeOptions", {"newShape": shape.tolist()}, [constant]


def _pad(writer: Any, operation: Pad) -> tuple:
    top, bottom, left, right = operation.padding
    amounts = np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32)
    return "PAD", "PadOptions", {}, [writer.constant(f"{operation.output}/paddings", amounts)]


def _rescale(writer: Any, operation: Rescale) -> tuple:
    functions = writer.schema.ActivationFunctionType
    function = _activation(writer, operation)
    if function == functions.NONE:
        return "QUANTIZE", "QuantizeOptions", {}, []
    names = {functions.RELU: "RELU", functions.RELU6: "RELU6", functions.RELU_N1_TO_1: "RELU_N1_TO_1"}
    return names[function], None, {}, []


def _softmax(writer: Any, operation: Softmax) -> tuple:
    return "SOFTMAX", "SoftmaxOptions", {"beta": 1.0}, []


# Operation -> function of (the `LiteRTWriter`, it) to (operator, kind of options, options, indices of constants).
OPERATORS: dict[type[Operation], Any] = {
    Product: _product,
    Addition: _addition,
    Pooling: _pooling,
    Reshape: _reshape,
    Pad: _pad,
    Rescale: _rescale,
    Softmax: _softmax,
}
