"""The nodes of an ONNX graph for each operation of an integer network.

Images lie in ONNX's order, channels first, from the first operation to the last; codes are transposed where an
operation needs the channels last.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from axtrain.integers.network import (
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

_FIRST, _LAST = [0, 3, 1, 2], [0, 2, 3, 1]  # channels first from last, and back


class OnnxGraph:
    """Nodes and constants as they are added; a tensor of the network is `NAME/codes` and, dequantised, `NAME/real`.

    Args:
        network: whose tensors have scales and zero points.
        onnx: the package.
    """

    def __init__(self, network: IntegerNetwork, onnx: Any) -> None:
        self.network, self.onnx = network, onnx
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self._names: set[str] = set()

    def begin(self) -> None:
        """The input: real numbers, quantised."""
        tensor = self.network.tensors[self.network.input]
        self.inputs.append(self._value("input", tensor))
        codes = self._quantised("input", tensor, f"{tensor.name}/given" if _is_image(tensor) else _codes(tensor))
        if _is_image(tensor):
            self.node("Transpose", [codes], _codes(tensor), perm=_FIRST)
        self._dequantised(tensor)

    def end(self) -> None:
        """The output: real numbers, dequantised."""
        tensor = self.network.tensors[self.network.output]
        codes = self.channels_last(tensor)
        self.node("DequantizeLinear", [codes, *self._scale(tensor)], "output")
        self.outputs.append(self._value("output", tensor))

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Adds a node of one output, and gives its name."""
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [output], name=f"{kind}:{output}", **attributes))
        return output

    def constant(self, name: str, values: np.ndarray) -> str:
        """Adds an array, once, and gives its name."""
        if name not in self._names:
            self._names.add(name)
            self.constants.append(self.onnx.numpy_helper.from_array(values.copy(order="C"), name))
        return name

    def finish(self, operation: Operation, real: str) -> None:
        """Clamps a float result, quantises it, and dequantises it for those that read it."""
        tensor = self.network.tensors[operation.output]
        lowest, highest = getattr(operation, "lowest", -128), getattr(operation, "highest", 127)
        if lowest == tensor.zero_point and highest == 127:
            real = self.node("Relu", [real], f"{tensor.name}/clamped")
        elif (lowest, highest) != (-128, 127):
            ends = (np.float32((end - tensor.zero_point) * np.float32(tensor.scale)) for end in (lowest, highest))
            names = (f"{tensor.name}/{name}" for name in ("lowest", "highest"))
            limits = [self.constant(name, np.asarray(end)) for name, end in zip(names, ends, strict=True)]
            real = self.node("Clip", [real, *limits], f"{tensor.name}/clamped")
        self._quantised(real, tensor, _codes(tensor))
        self._dequantised(tensor)

    def given(self, operation: Operation, codes: str) -> None:
        """Takes codes that are known to be the operation's, and dequantises them."""
        tensor = self.network.tensors[operation.output]
        if codes != _codes(tensor):
            self.node("Identity", [codes], _codes(tensor))
        self._dequantised(tensor)

    def channels_last(self, tensor: Tensor) -> str:
        """The codes of a tensor in the network's own order."""
        if not _is_image(tensor):
            return _codes(tensor)
        name = f"{_codes(tensor)}/channels_last"
        if name not in self._names:
            self._names.add(name)
            self.node("Transpose", [_codes(tensor)], name, perm=_LAST)
        return name

    def real_channels_last(self, tensor: Tensor) -> str:
        """The real values of a tensor in the network's own order."""
        if not _is_image(tensor):
            return _real(tensor)
        name = f"{_real(tensor)}/channels_last"
        if name not in self._names:
            self._names.add(name)
            self.node("DequantizeLinear", [self.channels_last(tensor), *self._scale(tensor)], name)
        return name

    def weights(self, name: str, codes: np.ndarray, scale: np.ndarray, axis: int) -> str:
        """Dequantised constant codes, int8 or int32, with a scale for each entry along an axis."""
        scales = np.asarray(scale, np.float32)
        inputs = [self.constant(f"{name}/codes", codes), self.constant(f"{name}/scale", scales)]
        if codes.dtype == np.int8:
            inputs.append(self.constant(f"{name}/zero_point", np.zeros(scales.shape, np.int8)))
        return self.node("DequantizeLinear", inputs, name, axis=axis)

    def _quantised(self, real: str, tensor: Tensor, output: str) -> str:
        return self.node("QuantizeLinear", [real, *self._scale(tensor)], output)

    def _dequantised(self, tensor: Tensor) -> None:
        self.node("DequantizeLinear", [_codes(tensor), *self._scale(tensor)], _real(tensor))

    def _scale(self, tensor: Tensor) -> list[str]:
        scale = self.constant(f"{tensor.name}/scale", np.asarray(tensor.scale, np.float32))
        return [scale, self.constant(f"{tensor.name}/zero_point", np.asarray(tensor.zero_point, np.int8))]

    def _value(self, name: str, tensor: Tensor) -> Any:
        shape = ["batch", *tensor.shape]
        return self.onnx.helper.make_tensor_value_info(name, self.onnx.TensorProto.FLOAT, shape)


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
        graph.finish(
            operation, graph.node("Add", [_real(graph.network.tensors[name]) for name in operation.inputs], result)
        )
    elif isinstance(operation, Pooling):
        _add_pooling(graph, operation, source, result)
    elif isinstance(operation, Rescale):
        graph.finish(operation, graph.node("Identity", [_real(source)], result))
    elif isinstance(operation, Softmax):
        axis = 1 if _is_image(source) else -1
        graph.finish(operation, graph.node("Softmax", [_real(source)], result, axis=axis))
    elif isinstance(operation, Reshape):
        _add_reshape(graph, graph.channels_last(source), target)
        graph.given(operation, _codes(target))
    elif isinstance(operation, Pad):
        top, bottom, left, right = operation.padding
        pads = graph.constant(f"{target.name}/pads", np.array([0, 0, top, left, 0, 0, bottom, right], np.int64))
        zero = graph.constant(f"{source.name}/zero_point", np.asarray(source.zero_point, np.int8))
        graph.given(operation, graph.node("Pad", [_codes(source), pads, zero], _codes(target)))
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
    if _is_image(target):
        sums = graph.node("Transpose", [sums], f"{result}/channels_first", perm=_FIRST)
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
    graph.finish(product, graph.node("Conv", [_real(source), weights, bias], result, **attributes))


def _bias(graph: OnnxGraph, product: Product, source: Tensor, target: Tensor) -> str:
    scale = np.float32(source.scale) * product.weight_scale.astype(np.float32)
    return graph.weights(f"{target.name}/bias", product.bias.astype(np.int32), scale, axis=0)


def _add_pooling(graph: OnnxGraph, pooling: Pooling, source: Tensor, result: str) -> None:
    attributes: dict[str, Any] = {"kernel_shape": list(pooling.window), "strides": list(pooling.strides)}
    attributes["pads"] = _pads(pooling.padding)
    if pooling.kind == "average":
        attributes["count_include_pad"] = 0
    kind = "MaxPool" if pooling.kind == "max" else "AveragePool"
    graph.finish(pooling, graph.node(kind, [_real(source)], result, **attributes))


def _add_reshape(graph: OnnxGraph, codes: str, target: Tensor) -> None:
    shape = graph.constant(f"{target.name}/shape", np.array([-1, *target.shape], np.int64))
    if not _is_image(target):
        graph.node("Reshape", [codes, shape], _codes(target))
        return
    shaped = graph.node("Reshape", [codes, shape], f"{_codes(target)}/channels_last")
    graph.node("Transpose", [shaped], _codes(target), perm=_FIRST)


def _pads(padding: Padding) -> list[int]:
    return [padding.top, padding.left, padding.bottom, padding.right]


def _is_image(tensor: Tensor) -> bool:
    return len(tensor.shape) == 3


def _codes(tensor: Tensor) -> str:
    return f"{tensor.name}/codes"


def _real(tensor: Tensor) -> str:
    return f"{tensor.name}/real"
