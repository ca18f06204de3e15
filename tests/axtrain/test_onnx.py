"""ONNX files, run by onnxruntime, against plain integer loops: at most one code apart for the same input codes."""

import importlib.util
import sys

import network_loops
import numpy as np
import pytest
import random_networks
from random_networks import CIRCUITS, Builder

from axtrain.integers.network import Pad, Reshape
from axtrain.integers.onnx_files.writing import OPSET, write, write_onnx

missing = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
needs_onnx = pytest.mark.skipif(bool(missing), reason=f"{' and '.join(missing)} not installed")

NETWORKS = [
    *((random_networks.convolutional, seed) for seed in range(4)),
    *((random_networks.dense, seed) for seed in range(2)),
    *((random_networks.pooled, seed) for seed in range(2)),
]


def real(network, codes):
    tensor = network.tensors[network.input]
    return ((codes.astype(np.float32) - tensor.zero_point) * np.float32(tensor.scale)).astype(np.float32)


def output_codes(network, values):
    tensor = network.tensors[network.output]
    return np.round(values / np.float32(tensor.scale)).astype(int) + tensor.zero_point


def session(content, optimised):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def all_codes(path, network, codes, optimised):
    """The codes of every tensor, as onnxruntime finds them, in the network's own order of axes."""
    import onnx

    model = onnx.load(path)
    names = list(network.tensors)
    for name in names:
        info = onnx.helper.make_tensor_value_info(f"{name}/codes", onnx.TensorProto.INT8, None)
        model.graph.output.append(info)
    runner = session(model.SerializeToString(), optimised)
    found = dict(
        zip(names, runner.run([f"{name}/codes" for name in names], {"input": real(network, codes)}), strict=True)
    )
    return {
        name: (array.transpose(0, 2, 3, 1) if array.ndim == 4 else array).astype(np.int64)
        for name, array in found.items()
    }


@needs_onnx
@pytest.mark.parametrize("optimised", [False, True])
@pytest.mark.parametrize(("make", "seed"), NETWORKS, ids=lambda value: getattr(value, "__name__", value))
def test_each_operation_is_within_one_code(tmp_path, make, seed, optimised):
    """For the very codes that onnxruntime gives it; what only moves codes, or takes the largest, is equal."""
    network = make(seed)
    path, codes = write_onnx(network, tmp_path / "a.onnx"), random_networks.inputs(network, 6, seed)
    found = all_codes(path, network, codes, optimised)
    np.testing.assert_array_equal(found[network.input], codes)
    for operation in network.operations:
        for index in range(len(codes)):
            given = {name: found[name][index] for name in operation.inputs}
            expected, got = network_loops.step(network, operation, given), found[operation.output][index]
            moves = isinstance(operation, (Pad, Reshape)) or getattr(operation, "kind", None) == "max"
            assert np.abs(expected - got).max() <= (0 if moves else 1), operation


@needs_onnx
def test_whole_networks_agree(tmp_path):
    """Differences of layers pass on, and grow in random networks, but stay few; n = 8 networks of 20 samples."""
    differences, same_class = [], []
    for number, (make, seed) in enumerate(NETWORKS):
        network = make(seed)
        path, codes = write_onnx(network, tmp_path / f"{number}.onnx"), random_networks.inputs(network, 20, seed)
        expected = np.stack([network_loops.run(network, sample) for sample in codes])
        for optimised in (False, True):
            (values,) = session(str(path), optimised).run(["output"], {"input": real(network, codes)})
            assert values.dtype == np.float32 and values.shape == expected.shape
            found = output_codes(network, values)
            differences.append(np.abs(found - expected).reshape(-1))
            rows = [array.reshape(-1, array.shape[-1]) for array in (found, expected)]
            # The class is open where two codes are the largest.
            clear = np.partition(rows[1], -2)[:, -1] > np.partition(rows[1], -2)[:, -2] + 1
            same_class.append((rows[0].argmax(-1) == rows[1].argmax(-1))[clear])
    differences = np.concatenate(differences)
    assert (differences > 0).mean() < 0.35 and differences.max() <= 3
    assert np.concatenate(same_class).mean() > 0.98


@needs_onnx
def test_dense_layers_on_the_channels_of_images(tmp_path):
    b = Builder(1, (3, 4, 5), name="")
    b.dense(6)
    b.rescale(lowest=-50, highest=60)
    b.softmax()
    network = b.finished()
    path, codes = write_onnx(network, tmp_path / "a.onnx"), random_networks.inputs(network, 4)
    found = all_codes(path, network, codes, optimised=False)
    for operation in network.operations:
        for index in range(len(codes)):
            given = {name: found[name][index] for name in operation.inputs}
            expected = network_loops.step(network, operation, given)
            assert np.abs(expected - found[operation.output][index]).max() <= 1
    (values,) = session(str(path), True).run(["output"], {"input": real(network, codes)})
    assert values.shape == (4, 3, 4, 6)


@needs_onnx
def test_what_the_file_says(tmp_path):
    import onnx

    network = random_networks.convolutional(0)
    write(None, network, tmp_path)
    model = onnx.load(tmp_path / "model.onnx")
    assert [item.version for item in model.opset_import] == [OPSET] and model.producer_name == "axtrain"
    shapes = [
        [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    ]
    assert shapes == [["batch", 7, 9, 2], ["batch", 5]]
    arrays = {item.name: onnx.numpy_helper.to_array(item) for item in model.graph.initializer}
    product = network.operations[0]
    weights = arrays[f"{product.output}/weights/codes"]
    assert weights.dtype == np.int8
    np.testing.assert_array_equal(weights.transpose(2, 3, 1, 0), product.codes)
    np.testing.assert_array_equal(arrays[f"{product.output}/bias/codes"], product.bias)
    assert {item.name for item in model.graph.node if item.op_type == "Relu"}


@needs_onnx
def test_an_approximate_multiplier_is_refused(tmp_path):
    network = random_networks.dense(0, CIRCUITS["drum4"]())
    with pytest.raises(ValueError, match=r"multiplies exactly.*Received: layer 'product' on 'drum4'"):
        write_onnx(network, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install \"axtrain\[onnx\]\""):
        write_onnx(random_networks.dense(0), tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())
