"""An exported ONNX file in ONNX Runtime against its integer network: does each layer keep within a code?"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from axtrain.integers.comparing import Comparison, TensorComparison, compared, other_decisions
from axtrain.integers.network import IntegerNetwork, Operation, Tensor
from axtrain.integers.onnx_files.nodes import FIRST, LAST, codes_name
from axtrain.integers.onnx_files.writing import onnx_package
from axtrain.integers.running import run

_BATCH = 100
_PROMISED = 1  # code, for each layer from equal inputs


@dataclass(frozen=True, kw_only=True)
class ONNXComparison(Comparison):
    """An ONNX file against the integer network that it was written from.

    Attributes:
        tensors: of each layer by itself, from the integer network's codes before it: what the layer adds.
        output: of the whole file as it is, where the differences of the layers have passed on.
    """

    output: TensorComparison

    @property
    def largest(self) -> int:
        """By how many codes a layer differs at most, from equal inputs."""
        return max(tensor.largest for tensor in self.tensors)

    @property
    def as_promised(self) -> bool:
        """Whether every layer keeps within 1 code from equal inputs, as `axtrain.write_onnx` promises."""
        return self.largest <= _PROMISED

    def __str__(self) -> str:
        off = [tensor for tensor in self.tensors if tensor.largest > _PROMISED]
        layers = (
            f"NOT within {_PROMISED} code as promised: from equal inputs layer {off[0].layer!r} is off by up to "
            f"{off[0].largest} codes ({len(off)} of {len(self.tensors)} layers are off by more than {_PROMISED})"
            if off
            else f"from equal inputs each of {len(self.tensors)} layers is within {_PROMISED} code"
        )
        return (
            f"ONNX Runtime on {self.samples} samples: {layers}; {self.output.differing} of {self.output.codes} output "
            f"codes, by up to {self.output.largest}, and {self.decisions} decisions differ"
        )


def compare_onnx(
    network: IntegerNetwork, path: str | os.PathLike[str], codes: np.ndarray, *, options: Any = None
) -> ONNXComparison:
    """Runs an ONNX file and the integer network on the same codes and compares them, layer by layer and as a whole.

    ONNX Runtime's CPU provider runs the file as it is for the output, and each layer's nodes cut out of it, fed with
    the integer network's codes. To ask the whole file for what lies between would not do: with more outputs ONNX
    Runtime fuses other nodes, and computes something else.

    Args:
        network: what the file was written from.
        path: of the `.onnx` file, or of the folder that `axtrain.export` wrote it to.
        codes: int8 inputs (batch, *input shape), e.g. `network.quantised(x)`.
        options: `onnxruntime.SessionOptions`; by default those of a default session.

    Returns:
        an `ONNXComparison`: as text, or `as_promised` and `largest`.

    Raises:
        ValueError: a file that lacks a tensor of the network: written from another; codes that are not the network's.
        ImportError: the extra `onnx` is not installed.

    Examples:
        ```python
        network = ax.integer_network(noisy, x_train[:512])
        compared = ax.compare_onnx(network, "deploy", network.quantised(x_test))
        print(compared)
        ```
    """
    onnx, path = onnx_package(), Path(path)
    model = onnx.load(path / "model.onnx" if path.is_dir() else path)
    made = {name for node in model.graph.node for name in node.output}
    missing = [name for name, tensor in network.tensors.items() if codes_name(tensor) not in made]
    if missing:
        raise ValueError(f"{path} was not written from this network: it lacks tensors. Received: {missing}")
    ours = run(network, codes, keep=True)
    given, target = network.tensors[network.input], network.tensors[network.output]
    whole = target.codes(_output(model, {"input": given.real(codes)}, options))
    tensors = []
    for operation in network.operations:
        tensor = network.tensors[operation.output]
        feeds = {name: _channels(network.tensors[name].real(ours[name]), FIRST) for name in operation.inputs}
        found = _channels(_output(_cut_out(onnx, model, network, operation), feeds, options), LAST)
        tensors.append(compared(operation.name, tensor.name, ours[tensor.name], tensor.codes(found)))
    return ONNXComparison(
        samples=len(codes),
        tensors=tuple(tensors),
        output=compared(network.operations[-1].name, target.name, ours[target.name], whole),
        decisions=other_decisions(ours[target.name], whole),
    )


def _cut_out(onnx: Any, model: Any, network: IntegerNetwork, operation: Operation) -> Any:
    """The file's nodes of one operation, between a quantise node for each input and a dequantise node."""
    helper, inputs = onnx.helper, [network.tensors[name] for name in dict.fromkeys(operation.inputs)]
    target = network.tensors[operation.output]
    wanted, done = {codes_name(target)}, {codes_name(tensor) for tensor in inputs}
    nodes = [helper.make_node("DequantizeLinear", [codes_name(target), *_scale(target)], ["output"])]
    for node in reversed(model.graph.node):  # the file has them in an order in which each finds its inputs made
        if node.output[0] in wanted - done:
            nodes.insert(0, node)
            wanted.update(node.input)
    starts = [
        helper.make_node("QuantizeLinear", [tensor.name, *_scale(tensor)], [codes_name(tensor)]) for tensor in inputs
    ]
    real = [helper.make_tensor_value_info(tensor.name, onnx.TensorProto.FLOAT, None) for tensor in inputs]
    output = helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, None)
    used = {name for node in (*starts, *nodes) for name in node.input}
    constants = [constant for constant in model.graph.initializer if constant.name in used]
    graph = helper.make_graph([*starts, *nodes], "layer", real, [output], constants)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def _output(model: Any, feeds: dict[str, np.ndarray], options: Any) -> np.ndarray:
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError("Running an ONNX file needs the extra `onnx`: pip install 'axtrain[onnx]'") from error
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options or onnxruntime.SessionOptions(), providers=["CPUExecutionProvider"]
    )
    count = len(next(iter(feeds.values())))
    return np.concatenate(
        [
            session.run(["output"], {name: values[start : start + _BATCH] for name, values in feeds.items()})[0]
            for start in range(0, count, _BATCH)
        ]
    )


def _scale(tensor: Tensor) -> list[str]:
    return [f"{tensor.name}/scale", f"{tensor.name}/zero_point"]


def _channels(values: np.ndarray, order: list[int]) -> np.ndarray:
    return values.transpose(order) if values.ndim == 4 else values
