"""Every integer operation alone against LiteRT's reference kernels, on random codes: zero differences."""

import sys

import numpy as np
import pytest

import axtrain as ax
from axtrain.emulation.geometry import same_pads
from axtrain.integers.network import (
    NO_PADDING,
    Addition,
    IntegerNetwork,
    Pad,
    Padding,
    Pooling,
    Product,
    Rescale,
    Reshape,
    Softmax,
    Tensor,
)
from axtrain.integers.requantisation import (
    addition_multipliers,
    clamp_codes,
    product_multipliers,
    rescaling_multiplier,
)

pytest.importorskip("ai_edge_litert")
RELU, RELU6, LINEAR = (0.0, np.inf), (0.0, 6.0), (-np.inf, np.inf)


def single(value):
    return float(np.float32(value))


def network(*operations, tensors):
    names = {tensor.name: tensor for tensor in tensors}
    return IntegerNetwork(name="one", tensors=names, operations=operations, input="in", output=operations[-1].output)


def check(made, path, samples=40, seed=0, values=2):
    """No code of any tensor differs; and the output says something."""
    shape = made.tensors[made.input].shape
    codes = np.random.default_rng(seed).integers(-128, 128, (samples, *shape)).astype(np.int8)
    codes[0], codes[1] = -128, 127
    ax.write_litert(made, path)
    found = ax.compare_litert(made, path, codes)
    assert found.equal, str(found)
    assert len(np.unique(made.run(codes))) >= values


def sizes(shape, window, strides, dilation=(1, 1), padding="valid"):
    pads = same_pads(shape[:2], window, strides, dilation) if padding == "same" else [(0, 0), (0, 0)]
    found = [
        (size + sum(pad) - (k - 1) * d - 1) // s + 1
        for size, pad, k, s, d in zip(shape, pads, window, strides, dilation, strict=False)
    ]
    return tuple(found), Padding(*pads[0], *pads[1]) if padding == "same" else NO_PADDING


def product(
    kind, shape, kernel, *, strides=(1, 1), dilation=(1, 1), padding="valid", ends=LINEAR, gain=1.0, seed=0, zero=None
):
    """A random product whose outputs fill the codes; a gain of 1000 saturates nearly all of them."""
    rng = np.random.default_rng(seed)
    depthwise = kind == "depthwise_conv2d"
    channels = kernel[-1] * (kernel[-2] if depthwise else 1)
    weight_scale = rng.uniform(1e-3, 1e-2, channels).astype(np.float32)
    input_scale = single(rng.uniform(0.01, 0.1))
    terms = int(np.prod(kernel[: -2 if depthwise else -1]))
    output_scale = single(input_scale * weight_scale.mean() * np.sqrt(terms) * 74 * 74 / 64 / gain)
    zero_in, zero_out = (int(point) for point in rng.integers(-128, 128, 2))
    zero_out = zero_out if zero is None else zero
    factor, shift = product_multipliers(input_scale, weight_scale, output_scale)
    space, pads = ((), NO_PADDING) if kind == "dense" else sizes(shape, kernel[:2], strides, dilation, padding)
    lowest, highest = clamp_codes(*ends, output_scale, zero_out)
    operation = Product(
        name="layer",
        inputs=("in",),
        output="out",
        kind=kind,
        codes=rng.integers(-127, 128, kernel).astype(np.int8),
        weight_scale=weight_scale,
        bias=rng.integers(-9999, 9999, channels).astype(np.int32),
        factor=factor,
        shift=shift,
        lowest=lowest,
        highest=highest,
        strides=strides,
        dilation=dilation,
        padding=pads,
        roundings=1 if kind == "dense" else 2,
    )
    lead = shape[:-1] if kind == "dense" else space
    return network(
        operation,
        tensors=[
            Tensor(name="in", shape=shape, scale=input_scale, zero_point=zero_in),
            Tensor(name="out", shape=(*lead, channels), scale=output_scale, zero_point=zero_out),
        ],
    )


@pytest.mark.parametrize("ends", [LINEAR, RELU, RELU6], ids=["linear", "relu", "relu6"])
@pytest.mark.parametrize("gain", [0.05, 1.0, 1e3, 1e6])
@pytest.mark.parametrize("shape", [(37,), (5, 37)])
def test_dense(shape, gain, ends, tmp_path):
    check(product("dense", shape, (37, 11), ends=ends, gain=gain), tmp_path / "a.tflite")


@pytest.mark.parametrize("kind", ["conv2d", "depthwise_conv2d"])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(
    ("strides", "dilation"), [((1, 1), (1, 1)), ((2, 2), (1, 1)), ((1, 3), (1, 1)), ((1, 1), (2, 2)), ((1, 1), (1, 3))]
)
def test_convolutions(kind, padding, strides, dilation, tmp_path):
    options = {"strides": strides, "dilation": dilation, "padding": padding, "ends": RELU}
    check(product(kind, (9, 7, 5), (3, 2, 5, 3), **options), tmp_path / "a.tflite")


@pytest.mark.parametrize("kind", ["conv2d", "depthwise_conv2d"])
@pytest.mark.parametrize(("gain", "zero"), [(1e3, 20), (1e5, -20), (0.02, 5)])
def test_convolutions_at_the_ends_of_their_codes(kind, gain, zero, tmp_path):
    check(product(kind, (5, 6, 3), (3, 3, 3, 4), gain=gain, zero=zero, ends=RELU6), tmp_path / "a.tflite")
    check(product(kind, (5, 6, 3), (3, 3, 3, 4), gain=gain, zero=zero), tmp_path / "a.tflite")


def test_an_image_of_one_pixel_and_a_window_larger_than_the_image(tmp_path):
    check(product("conv2d", (1, 1, 7), (1, 1, 7, 4)), tmp_path / "a.tflite")
    check(product("conv2d", (2, 3, 4), (5, 5, 4, 4), padding="same"), tmp_path / "a.tflite")


@pytest.mark.parametrize("seed", range(8))
def test_additions(seed, tmp_path):
    rng = np.random.default_rng(seed)
    first, second, out = (single(scale) for scale in 10 ** rng.uniform(-2, 0, 3))
    zeros = [int(zero) for zero in rng.integers(-128, 128, 3)]
    tensors = [
        Tensor(name=name, shape=(3, 50), scale=scale, zero_point=zero)
        for name, scale, zero in zip(("in", "other", "out"), (first, second, out), zeros, strict=True)
    ]
    factor, shift = rescaling_multiplier(first, second, clamped=False)
    other = Rescale(name="rescale", inputs=("in",), output="other", factor=factor, shift=shift)
    pairs, (factor, shift) = addition_multipliers((first, second), out)
    lowest, highest = clamp_codes(*(LINEAR, RELU, RELU6)[seed % 3], out, zeros[2])
    addition = Addition(
        name="add",
        inputs=("in", "other"),
        output="out",
        factors=(pairs[0][0], pairs[1][0]),
        shifts=(pairs[0][1], pairs[1][1]),
        factor=factor,
        shift=shift,
        lowest=lowest,
        highest=highest,
    )
    check(network(other, addition, tensors=tensors), tmp_path / "a.tflite")


@pytest.mark.parametrize("ends", [LINEAR, RELU, RELU6], ids=["linear", "relu", "relu6"])
@pytest.mark.parametrize("ratio", [0.011, 0.3, 1.0, 1.7, 90.0])
def test_rescaling(ratio, ends, tmp_path):
    scales = single(0.037), single(0.037 / ratio)
    lowest, highest = clamp_codes(*ends, scales[1], -30)
    clamped = (lowest, highest) != (-128, 127)
    factor, shift = rescaling_multiplier(*scales, clamped=clamped)
    options = {"factor": factor, "shift": shift, "lowest": lowest, "highest": highest}
    tensors = [Tensor(name="in", shape=(256,), scale=scales[0], zero_point=5)]
    tensors.append(Tensor(name="out", shape=(256,), scale=scales[1], zero_point=-30))
    check(network(Rescale(name="rescale", inputs=("in",), output="out", **options), tensors=tensors), tmp_path / "a")


@pytest.mark.parametrize("kind", ["max", "average"])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(
    ("window", "strides"), [((2, 2), (2, 2)), ((3, 2), (1, 2)), ((9, 7), (9, 7)), ((1, 1), (2, 2))]
)
def test_pooling(kind, padding, window, strides, tmp_path):
    space, pads = sizes((9, 7, 3), window, strides, padding=padding)
    for ends in ({}, {"lowest": 3}):
        operation = Pooling(
            name="pool", inputs=("in",), output="out", kind=kind, window=window, strides=strides, padding=pads, **ends
        )
        tensors = [Tensor(name="in", shape=(9, 7, 3), scale=single(0.1), zero_point=3)]
        tensors.append(Tensor(name="out", shape=(*space, 3), scale=single(0.1), zero_point=3))
        check(network(operation, tensors=tensors), tmp_path / "a.tflite")


def test_reshaping_and_padding(tmp_path):
    tensors = [
        Tensor(name=name, shape=shape, scale=single(0.1), zero_point=-7)
        for name, shape in (("in", (3, 4, 2)), ("padded", (6, 5, 2)), ("out", (60,)))
    ]
    pad = Pad(name="pad", inputs=("in",), output="padded", padding=Padding(1, 2, 0, 1))
    check(network(pad, Reshape(name="flat", inputs=("padded",), output="out"), tensors=tensors), tmp_path / "a.tflite")


@pytest.mark.parametrize("scale", [1e-3, 0.0234, 0.1, 0.5, 1.7, 20.0])
@pytest.mark.parametrize("classes", [2, 10, 300])
def test_softmax(scale, classes, tmp_path):
    tensors = [Tensor(name="in", shape=(classes,), scale=single(scale), zero_point=11)]
    tensors.append(Tensor(name="out", shape=(classes,), scale=1 / 256, zero_point=-128))
    made = network(Softmax(name="softmax", inputs=("in",), output="out"), tensors=tensors)
    check(made, tmp_path / "a.tflite", samples=300, values=1 if scale * 255 < 1 else 2)


def test_a_wrong_layer_is_named_and_counted(tmp_path):
    """One bias changed in the file alone."""
    made = product("conv2d", (5, 5, 2), (2, 2, 2, 3))
    codes = np.random.default_rng(0).integers(-128, 128, (7, 5, 5, 2)).astype(np.int8)
    made.operations[0].bias[1] += 4000
    ax.write_litert(made, tmp_path / "a.tflite")
    changed = made.run(codes)
    made.operations[0].bias[1] -= 4000
    found = ax.compare_litert(made, tmp_path / "a.tflite", codes)
    assert not found.equal
    assert found.first.layer == "layer"
    assert found.first.differing == np.count_nonzero(changed != made.run(codes)) > 50
    assert found.first.largest == np.abs(changed.astype(int) - made.run(codes)).max()
    assert "first difference in layer 'layer'" in str(found)


def test_what_litert_cannot_play(tmp_path):
    made = product("dense", (4,), (4, 2))
    table = made.operations[0].__dict__ | {"table": np.zeros((256, 256), np.int32)}
    with pytest.raises(ValueError, match=r"no multiplication but the exact one.*Received: layer 'layer'"):
        ax.write_litert(network(Product(**table), tensors=made.tensors.values()), tmp_path / "a.tflite")
    clamped = made.operations[0].__dict__ | {"lowest": -100, "highest": 101}
    with pytest.raises(ValueError, match=r"clamps to none, ReLU.*codes from -100 to 101"):
        ax.write_litert(network(Product(**clamped), tensors=made.tensors.values()), tmp_path / "a.tflite")
    assert not list(tmp_path.iterdir())


def test_comparing_needs_known_kernels_and_the_right_file(tmp_path):
    made, other = product("dense", (4,), (4, 2)), product("dense", (4,), (4, 2))
    ax.write_litert(made, tmp_path / "a.tflite")
    codes = np.zeros((1, 4), np.int8)
    with pytest.raises(ValueError, match="Received: kernels='fast'"):
        ax.compare_litert(made, tmp_path / "a.tflite", codes, kernels="fast")
    tensors = [other.tensors["in"], Tensor(name="new", shape=(2,), scale=1.0, zero_point=0)]
    renamed = network(Product(**(other.operations[0].__dict__ | {"output": "new"})), tensors=tensors)
    with pytest.raises(ValueError, match=r"not written from this network.*\['new'\]"):
        ax.compare_litert(renamed, tmp_path / "a.tflite", codes)


def test_without_the_extra(tmp_path, monkeypatch):
    made = product("dense", (4,), (4, 2))
    ax.write_litert(made, tmp_path / "a.tflite")
    for name in ("ai_edge_litert", "ai_edge_litert.interpreter"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"axtrain\[litert\]"):
        ax.write_litert(made, tmp_path / "b.tflite")
    with pytest.raises(ImportError, match=r"axtrain\[litert\]"):
        ax.compare_litert(made, tmp_path / "a.tflite", np.zeros((1, 4), np.int8))
