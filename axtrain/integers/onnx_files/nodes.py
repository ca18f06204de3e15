"""The ONNX graph of an integer network while it grows: nodes, constants, codes and their real values.

Images lie in ONNX's order, channels first, from the first operation to the last; codes are transposed where an
operation needs the channels last.

Codes and weights are stored as uint8, `SHIFT` above the network's int8, and so are zero points: the same numbers. A
runtime on x86 turns int8 activations into uint8 itself; the kernels that it has for those with int8 weights add pairs
of products within 16 bits where the CPU has no VNNI, and saturate. Those for uint8 with uint8 do not, on any CPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from axtrain.integers.network import IntegerNetwork, Operation, Tensor

FIRST, LAST = [0, 3, 1, 2], [0, 2, 3, 1]  # channels first from last, and back
SHIFT = 128  # of a stored code above the network's


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
        codes = self._quantised("input", tensor, f"{tensor.name}/given" if is_image(tensor) else codes_name(tensor))
        if is_image(tensor):
            self.node("Transpose", [codes], codes_name(tensor), perm=FIRST)

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
        """Clamps a float result and quantises it."""
        tensor = self.network.tensors[operation.output]
        lowest, highest = getattr(operation, "lowest", -128), getattr(operation, "highest", 127)
        if lowest == tensor.zero_point and highest == 127:
            real = self.node("Relu", [real], f"{tensor.name}/clamped")
        elif (lowest, highest) != (-128, 127):
            ends = (np.float32((end - tensor.zero_point) * np.float32(tensor.scale)) for end in (lowest, highest))
            names = (f"{tensor.name}/{name}" for name in ("lowest", "highest"))
            limits = [self.constant(name, np.asarray(end)) for name, end in zip(names, ends, strict=True)]
            real = self.node("Clip", [real, *limits], f"{tensor.name}/clamped")
        self._quantised(real, tensor, codes_name(tensor))

    def channels_last(self, tensor: Tensor) -> str:
        """The codes of a tensor in the network's own order."""
        if not is_image(tensor):
            return codes_name(tensor)
        name = f"{codes_name(tensor)}/channels_last"
        if name not in self._names:
            self._names.add(name)
            self.node("Transpose", [codes_name(tensor)], name, perm=LAST)
        return name

    def real(self, tensor: Tensor) -> str:
        """The real values of a tensor."""
        return self._dequantised(f"{tensor.name}/real", codes_name(tensor), tensor)

    def real_channels_last(self, tensor: Tensor) -> str:
        """The real values of a tensor in the network's own order."""
        if not is_image(tensor):
            return self.real(tensor)
        return self._dequantised(f"{tensor.name}/real/channels_last", self.channels_last(tensor), tensor)

    def weights(self, name: str, codes: np.ndarray, scale: np.ndarray, axis: int) -> str:
        """Dequantised constant codes, int8 (stored as uint8) or int32, with a scale for each entry along an axis."""
        scales, narrow = np.asarray(scale, np.float32), codes.dtype == np.int8
        inputs = [self.constant(f"{name}/codes", stored(codes) if narrow else codes)]
        inputs.append(self.constant(f"{name}/scale", scales))
        if narrow:
            inputs.append(self.constant(f"{name}/zero_point", stored(np.zeros(scales.shape, np.int8))))
        return self.node("DequantizeLinear", inputs, name, axis=axis)

    def zero_point(self, tensor: Tensor) -> str:
        """The stored code that is the real value 0."""
        return self.constant(f"{tensor.name}/zero_point", stored(np.asarray(tensor.zero_point)))

    def _quantised(self, real: str, tensor: Tensor, output: str) -> str:
        return self.node("QuantizeLinear", [real, *self._scale(tensor)], output)

    def _dequantised(self, name: str, codes: str, tensor: Tensor) -> str:
        if name not in self._names:
            self._names.add(name)
            self.node("DequantizeLinear", [codes, *self._scale(tensor)], name)
        return name

    def _scale(self, tensor: Tensor) -> list[str]:
        scale = self.constant(f"{tensor.name}/scale", np.asarray(tensor.scale, np.float32))
        return [scale, self.zero_point(tensor)]

    def _value(self, name: str, tensor: Tensor) -> Any:
        shape = ["batch", *tensor.shape]
        return self.onnx.helper.make_tensor_value_info(name, self.onnx.TensorProto.FLOAT, shape)


def is_image(tensor: Tensor) -> bool:
    """Whether it has rows, columns and channels."""
    return len(tensor.shape) == 3


def codes_name(tensor: Tensor) -> str:
    """What the graph calls a tensor's codes."""
    return f"{tensor.name}/codes"


def stored(codes: np.ndarray) -> np.ndarray:
    """The uint8 that stand in the file for int8 codes."""
    return (codes.astype(np.int16) + SHIFT).astype(np.uint8)
