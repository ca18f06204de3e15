"""ONNX files, run by onnxruntime, against plain integer loops: at most one code apart for the same input codes."""

import importlib.util
import sys
from dataclasses import replace

import network_loops
import numpy as np
import pytest
import random_networks
from random_networks import CIRCUITS, Builder

import axtrain as ax
from axtrain.integers.network import IntegerNetwork, Pad, Product, Reshape, Tensor
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
        info = onnx.helper.make_tensor_value_info(f"{name}/codes", onnx.TensorProto.UINT8, None)
        model.graph.output.append(info)
    runner = session(model.SerializeToString(), optimised)
    found = dict(
        zip(names, runner.run([f"{name}/codes" for name in names], {"input": real(network, codes)}), strict=True)
    )
    return {
        name: (array.transpose(0, 2, 3, 1) if array.ndim == 4 else array).astype(np.int64) - 128
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
    assert weights.dtype == np.uint8
    np.testing.assert_array_equal(weights.transpose(2, 3, 1, 0).astype(int) - 128, product.codes)
    assert "default session" in session(str(tmp_path / "model.onnx"), True).get_modelmeta().description
    np.testing.assert_array_equal(arrays[f"{product.output}/bias/codes"], product.bias)
    assert {item.name for item in model.graph.node if item.op_type == "Relu"}


def large_sums():
    """A dense layer of large codes of one sign, whose pairs of products leave 16 bits."""
    rng = np.random.default_rng(0)
    codes = np.where(rng.random((64, 8)) < 0.95, 127, -128).astype(np.int8)
    product = Product(
        name="d",
        inputs=("x",),
        output="y",
        kind="dense",
        codes=codes,
        weight_scale=np.full(8, 0.01, np.float32),
        bias=np.zeros(8, np.int32),
        factor=np.full(8, 1 << 30, np.int32),
        shift=np.full(8, -13, np.int32),
    )
    tensors = {
        "x": Tensor(name="x", shape=(64,), scale=0.01, zero_point=-128),
        "y": Tensor(name="y", shape=(8,), scale=0.0001 * 2**14, zero_point=-128),
    }
    network = IntegerNetwork(name="large", tensors=tensors, operations=(product,), input="x", output="y")
    return network, rng.integers(80, 128, (16, 64)).astype(np.int8)


def products_without_vnni(given, weights):
    """Sums of products as ONNX Runtime has them on x86 without VNNI: uint8 by int8 goes through `vpmaddubsw`, which
    adds pairs of products and saturates at 16 bits; uint8 by uint8 through `vpmaddwd`, within 32 bits."""
    pairs = np.einsum("bpk,pkn->bpkn", given.reshape(len(given), -1, 2), weights.reshape(-1, 2, weights.shape[-1]))
    pairs = pairs.sum(2)
    return pairs.clip(-(2**15), 2**15 - 1).sum(1) if weights.min() < 0 else pairs.sum(1)


@needs_onnx
def test_sums_do_not_saturate_without_vnni(tmp_path):
    """In the types that the file has, on a CPU that need not be here; as int8 weights the same sums would."""
    import onnx

    network, codes = large_sums()
    model = onnx.load(write_onnx(network, tmp_path / "a.onnx"))
    weights = next(onnx.numpy_helper.to_array(one) for one in model.graph.initializer if "weights/codes" in one.name)
    weights, signed, given = weights.astype(int), network.operations[0].codes.astype(int), codes.astype(int) + 128
    exact = given @ signed
    np.testing.assert_array_equal(products_without_vnni(given, weights) - 128 * given.sum(1, keepdims=True), exact)
    assert (products_without_vnni(given, signed) != exact).mean() > 0.9


@needs_onnx
def test_compared_in_the_default_session(tmp_path):
    """Each operation from the runtime's own codes; of a file, of the folder of an export, with a session's options."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    for network, codes in (large_sums(), (random_networks.convolutional(0), None)):
        codes = random_networks.inputs(network, 3, 0) if codes is None else codes
        write(None, network, tmp_path)
        found = ax.compare_onnx(network, tmp_path, codes)
        assert found == ax.compare_onnx(network, tmp_path / "model.onnx", codes, options=options)
        assert found.as_promised and found.largest == max(tensor.largest for tensor in found.tensors) <= 1
        assert found.samples == len(codes) and len(found.tensors) == len(network.operations)
        (values,) = session(str(tmp_path / "model.onnx"), True).run(["output"], {"input": real(network, codes)})
        off = output_codes(network, values) - network.run(codes)
        assert (found.output.differing, found.output.largest) == (np.count_nonzero(off), np.abs(off).max())
        assert f"from equal inputs each of {len(found.tensors)} layers is within 1 code" in str(found)


@needs_onnx
def test_a_file_that_is_off_is_told(tmp_path):
    network, codes = large_sums()
    other = replace(network.operations[0], bias=np.full(8, 1 << 17, np.int32))
    path = write_onnx(replace(network, operations=(other,)), tmp_path / "a.onnx")
    found = ax.compare_onnx(network, path, codes)
    assert not found.as_promised and not found.equal and found.largest == found.output.largest == 8
    assert "NOT within 1 code as promised: from equal inputs layer 'd' is off by up to 8 codes (1 of 1" in str(found)
    tensors = network.tensors | {"z": replace(network.tensors["y"], name="z")}
    renamed = replace(network, tensors=tensors, output="z", operations=(replace(other, output="z"),))
    with pytest.raises(ValueError, match=r"not written from this network.*\['z'\]"):
        ax.compare_onnx(renamed, path, codes)


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
    network, codes = large_sums()
    with pytest.raises(ImportError, match=r"pip install \"axtrain\[onnx\]\""):
        ax.compare_onnx(network, tmp_path / "a.onnx", codes)
