"""A network in integers alone as a LiteRT (TensorFlow Lite) file, with our codes, scales and biases as they are.

The file is built from LiteRT's own schema, not by its converter, which would choose scales of its own. Inputs and
outputs are int8; the batch may be resized. Needs the extra `litert`.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from axtrain.integers.litert.operations import OPERATORS
from axtrain.integers.network import IntegerNetwork, Operation, Tensor
from axtrain.noise_models.files import write_whole

_IDENTIFIER = b"TFL3"
_SCHEMA_VERSION = 3
# What the operations of int8 tensors have been numbered in LiteRT's schema.
_VERSIONS = {
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "FULLY_CONNECTED": 4,
    "ADD": 2,
    "AVERAGE_POOL_2D": 2,
    "MAX_POOL_2D": 2,
    "PAD": 2,
    "QUANTIZE": 2,
    "RELU": 2,
    "SOFTMAX": 2,
}


def litert_library() -> Any:
    """LiteRT's schema, as Python classes.

    Raises:
        ImportError: the extra is not installed.
    """
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError as error:
        raise ImportError("LiteRT files need the extra `litert`: pip install 'axtrain[litert]'") from error
    return schema_py_generated


def write_litert(network: IntegerNetwork, path: str | os.PathLike[str]) -> None:
    """Writes the network as a `.tflite` file, whole or not at all.

    LiteRT's reference kernels (`OpResolverType.BUILTIN_REF`, no delegate) give the network's codes; a plain
    `Interpreter(path)` runs the XNNPACK delegate, which rounds differently. `axtrain.compare_litert` measures either.

    Args:
        network: of exact multipliers.
        path: of the file.

    Raises:
        ValueError: a product through a multiplier's table, which LiteRT cannot play, or a clamp or padding that
            LiteRT has no word for.
        ImportError: the extra `litert` is not installed.
    """
    write_whole(path, LiteRTWriter(network).content())


class LiteRTWriter:
    """Builds one file.

    Args:
        network: what is written.
    """

    def __init__(self, network: IntegerNetwork) -> None:
        self.network = network
        self.schema = litert_library()
        self.buffers: list[Any] = [self.schema.BufferT()]  # the first is LiteRT's empty one
        self.tensors: list[Any] = []
        self.codes: list[str] = []
        self.index: dict[str, int] = {}

    def content(self) -> bytes:
        """The file."""
        import flatbuffers

        network, schema = self.network, self.schema
        for tensor in network.tensors.values():
            self.index[tensor.name] = self._tensor(tensor)
        graph = schema.SubGraphT()
        graph.name = network.name
        graph.operators = [self._operator(operation) for operation in network.operations]
        graph.tensors = self.tensors
        graph.inputs, graph.outputs = [self.index[network.input]], [self.index[network.output]]
        model = schema.ModelT()
        model.version, model.description = _SCHEMA_VERSION, f"{network.name}, written by axtrain"
        model.subgraphs, model.buffers = [graph], self.buffers
        model.operatorCodes = [self._operator_code(name) for name in self.codes]
        model.signatureDefs = [self._signature()]
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(model.Pack(builder), _IDENTIFIER)
        return bytes(builder.Output())

    def _operator(self, operation: Operation) -> Any:
        code, kind, options, constants = OPERATORS[type(operation)](self, operation)
        operator = self.schema.OperatorT()
        if code not in self.codes:
            self.codes.append(code)
        operator.opcodeIndex = self.codes.index(code)
        operator.inputs = [*(self.index[name] for name in operation.inputs), *constants]
        operator.outputs = [self.index[operation.output]]
        if kind is not None:
            operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, kind)
            operator.builtinOptions = getattr(self.schema, f"{kind}T")()
            for name, value in options.items():
                setattr(operator.builtinOptions, name, value)
        return operator

    def _operator_code(self, name: str) -> Any:
        code = self.schema.OperatorCodeT()
        number = getattr(self.schema.BuiltinOperator, name)
        code.builtinCode, code.version = number, _VERSIONS.get(name, 1)
        code.deprecatedBuiltinCode = min(number, 127)
        return code

    def _signature(self) -> Any:
        signature = self.schema.SignatureDefT()
        signature.signatureKey = "serving_default"
        for field, tensor, name in (
            ("inputs", self.network.input, "input"),
            ("outputs", self.network.output, "output"),
        ):
            entry = self.schema.TensorMapT()
            entry.name, entry.tensorIndex = name, self.index[tensor]
            setattr(signature, field, [entry])
        return signature

    def _tensor(self, tensor: Tensor) -> int:
        quantised = self._quantisation([tensor.scale], [tensor.zero_point], 0)
        entry = self._entry(tensor.name, (1, *tensor.shape), self.schema.TensorType.INT8, quantised)
        entry.shapeSignature = [-1, *tensor.shape]
        return len(self.tensors) - 1

    def constant(self, name: str, values: np.ndarray, scales=None, axis: int = 0) -> int:
        """Index of a new tensor with these values, int8 or int32."""
        kind = {"int8": "INT8", "int32": "INT32"}[values.dtype.name]
        quantised = None if scales is None else self._quantisation(scales, [0] * len(scales), axis)
        entry = self._entry(name, values.shape, getattr(self.schema.TensorType, kind), quantised)
        entry.buffer = len(self.buffers)
        buffer = self.schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        self.buffers.append(buffer)
        return len(self.tensors) - 1

    def _entry(self, name: str, shape, kind: int, quantised) -> Any:
        entry = self.schema.TensorT()
        entry.name, entry.shape, entry.type, entry.quantization = name, list(shape), kind, quantised
        entry.hasRank = True
        self.tensors.append(entry)
        return entry

    def _quantisation(self, scales, zero_points, axis: int) -> Any:
        quantised = self.schema.QuantizationParametersT()
        quantised.scale = [float(np.float32(scale)) for scale in scales]
        quantised.zeroPoint, quantised.quantizedDimension = [int(point) for point in zero_points], axis
        return quantised
