"""`write_onnx`: a network as an ONNX file of float operations between quantise and dequantise nodes (QDQ)."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from axtrain.integers.network import IntegerNetwork, Product
from axtrain.integers.onnx_files.nodes import OnnxGraph
from axtrain.integers.onnx_files.operations import add_operation
from axtrain.noise_models.files import whole_file

OPSET = 17
_IR_VERSION = 8  # of the release that brought opset 17, so that runtimes since then read the file
_PROMISE = (
    "Codes and weights are uint8, 128 above the int8 codes of the integer network, so that sums are exact in ONNX "
    "Runtime's default session on the CPU provider, on x86 with and without VNNI: each layer differs from the integer "
    "network by at most 1 code from equal inputs."
)


def write(model: Any, network: IntegerNetwork, folder: str | os.PathLike[str]) -> None:
    """`write_onnx` to `model.onnx`, as `axtrain.export` calls it; the Keras model is not looked at."""
    write_onnx(network, Path(folder) / "model.onnx")


def write_onnx(network: IntegerNetwork, path: str | os.PathLike[str]) -> Path:
    """Writes a network as ONNX (opset 17), which any runtime with QuantizeLinear reads.

    Weights have a scale for each output channel, biases are int32; every tensor between two operations is quantised
    with the network's own scale and zero point. The graph's input and output are real numbers (float32, batch first,
    images in the order height, width, channels) named `input` and `output`. The codes of a tensor are `NAME/codes`, of
    an image with the channels first.

    Codes, weights and zero points are uint8, 128 above the network's int8: with int8 weights ONNX Runtime's sums
    saturate at 16 bits on x86 without VNNI (its option `session.x64quantprecision`), with uint8 they are exact on
    every CPU. So no session needs an option; the file's description says so. `axtrain.compare_onnx` measures it.

    The format asks for float arithmetic between the codes, rounded half to even, where the integer network rounds
    its sums twice, so codes differ: for the same input codes each layer's by at most 1 (while float32 sums err by
    less than a quarter code). Both lie within a real value: the integers' roundings by 1/2 + 1/4 of a code, the
    quantise node's by 1/2. Differences of one layer pass on to the next. Softmax too is computed in float. Means
    differ where two codes are equally near.

    Args:
        network: of exact multipliers alone: the format knows no others.
        path: of the file.

    Returns:
        the path.

    Raises:
        ValueError: a layer whose multiplier is not exact.
        ImportError: the package onnx is not installed.

    Examples:
        >>> import tempfile, numpy as np, onnx
        >>> from axtrain.integers.network import IntegerNetwork, Product, Tensor
        >>> one = np.ones(1, np.int32)
        >>> product = Product(name="out", inputs=("x",), output="y", kind="dense", codes=np.ones((2, 1), np.int8),
        ...                   weight_scale=np.ones(1, np.float32), bias=one, factor=one << 30, shift=one)
        >>> tensors = {"x": Tensor(name="x", shape=(2,), scale=1.0, zero_point=0),
        ...            "y": Tensor(name="y", shape=(1,), scale=1.0, zero_point=0)}
        >>> network = IntegerNetwork(name="sum", tensors=tensors, operations=(product,), input="x", output="y")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     [node.op_type for node in onnx.load(write_onnx(network, f"{folder}/sum.onnx")).graph.node][-2:]
        ['QuantizeLinear', 'DequantizeLinear']
    """
    for operation in network.operations:
        if isinstance(operation, Product) and operation.table is not None:
            circuit = "a table" if operation.multiplier is None else repr(operation.multiplier.name)
            raise ValueError(
                "ONNX multiplies exactly; export the C or the integers of a network on approximate multipliers. "
                f"Received: layer {operation.name!r} on {circuit}"
            )
    onnx = onnx_package()
    graph = OnnxGraph(network, onnx)
    graph.begin()
    for operation in network.operations:
        add_operation(graph, operation)
    graph.end()
    written = onnx.helper.make_model(
        onnx.helper.make_graph(graph.nodes, network.name or "network", graph.inputs, graph.outputs, graph.constants),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        producer_name="axtrain",
        ir_version=_IR_VERSION,
        doc_string=_PROMISE,
    )
    onnx.checker.check_model(written, full_check=True)
    with whole_file(path) as temporary:
        onnx.save_model(written, temporary)
    return Path(path)


def onnx_package() -> Any:
    """The package onnx.

    Raises:
        ImportError: not installed.
    """
    try:
        return importlib.import_module("onnx")
    except ImportError as error:
        raise ImportError('ONNX files need the package onnx: pip install "axtrain[onnx]"') from error
