"""The ONNX nodes of each operation of an integer network."""

from __future__ import annotations

from typing import Any

import numpy as np

from axtrain.integers.network import (
    Addition,
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
from axtrain.integers.onnx_files.nodes import FIRST, OnnxGraph, codes_name, is_image


def add_operation(graph: OnnxGraph, operation: Operation) -> None:
    """Adds the nodes of one operation.

    Raises:
        TypeError: an operation that is not known here.
    """
    source, target = (graph.network.tensors[name] for name in (operation.inputs[0], operation.output))
    result = f"{target.name}/result"
    if isinstance(operation, Product):
        add = _add_dense if operation.kind == "dense" else _add_convolution
        add(graph, operation, source, target, result)
    elif isinstance(operation, Addition):
        reals = [graph.real(graph.network.tensors[name]) for name in operation.inputs]
        graph.finish(operation, graph.node("Add", reals, result))
    elif isinstance(operation, Pooling):
        _add_pooling(graph, operation, source, result)
    elif isinstance(operation, Rescale):
        graph.finish(operation, graph.node("Identity", [graph.real(source)], result))
    elif isinstance(operation, Softmax):
        axis = 1 if is_image(source) else -1
        graph.finish(operation, graph.node("Softmax", [graph.real(source)], result, axis=axis))
    elif isinstance(operation, Reshape):
        _add_reshape(graph, graph.channels_last(source), target)
    elif isinstance(operation, Pad):
        top, bottom, left, right = operation.padding
        pads = graph.constant(f"{target.name}/pads", np.array([0, 0, top, left, 0, 0, bottom, right], np.int64))
        graph.node("Pad", [codes_name(source), pads, graph.zero_point(source)], codes_name(target))
    else:
        raise TypeError(f"No ONNX is known for this operation. Received: {type(operation).__name__}")


def _add_dense(graph: OnnxGraph, product: Product, source: Tensor, target: Tensor, result: str) -> None:
    weights = graph.weights(f"{target.name}/weights", product.codes, product.weight_scale, axis=1)
    bias = _bias(graph, product, source, target)
    given = graph.real_channels_last(source)
    if len(source.shape) == 1:
        graph.finish(product, graph.node("Gemm", [given, weights, bias], result))
        return
    sums = graph.node("Add", [graph.node("MatMul", [given, weights], f"{target.name}/sums"), bias], result)
    if is_image(target):
        sums = graph.node("Transpose", [sums], f"{result}/channels_first", perm=FIRST)
    graph.finish(product, sums)


def _add_convolution(graph: OnnxGraph, product: Product, source: Tensor, target: Tensor, result: str) -> None:
    height, width, channels, filters = product.codes.shape
    if product.kind == "depthwise_conv2d":
        groups, codes = channels, product.codes.transpose(2, 3, 0, 1).reshape(channels * filters, 1, height, width)
    else:
        groups, codes = 1, product.codes.transpose(3, 2, 0, 1)
    weights = graph.weights(f"{target.name}/weights", codes, product.weight_scale, axis=0)
    attributes = {
        "kernel_shape": [height, width],
        "strides": list(product.strides),
        "dilations": list(product.dilation),
        "pads": _pads(product.padding),
        "group": groups,
    }
    bias = _bias(graph, product, source, target)
    graph.finish(product, graph.node("Conv", [graph.real(source), weights, bias], result, **attributes))


def _bias(graph: OnnxGraph, product: Product, source: Tensor, target: Tensor) -> str:
    scale = np.float32(source.scale) * product.weight_scale.astype(np.float32)
    return graph.weights(f"{target.name}/bias", product.bias.astype(np.int32), scale, axis=0)


def _add_pooling(graph: OnnxGraph, pooling: Pooling, source: Tensor, result: str) -> None:
    attributes: dict[str, Any] = {"kernel_shape": list(pooling.window), "strides": list(pooling.strides)}
    attributes["pads"] = _pads(pooling.padding)
    if pooling.kind == "average":
        attributes["count_include_pad"] = 0
    kind = "MaxPool" if pooling.kind == "max" else "AveragePool"
    graph.finish(pooling, graph.node(kind, [graph.real(source)], result, **attributes))


def _add_reshape(graph: OnnxGraph, codes: str, target: Tensor) -> None:
    shape = graph.constant(f"{target.name}/shape", np.array([-1, *target.shape], np.int64))
    if not is_image(target):
        graph.node("Reshape", [codes, shape], codes_name(target))
        return
    shaped = graph.node("Reshape", [codes, shape], f"{codes_name(target)}/channels_last")
    graph.node("Transpose", [shaped], codes_name(target), perm=FIRST)


def _pads(padding: Padding) -> list[int]:
    return [padding.top, padding.left, padding.bottom, padding.right]
