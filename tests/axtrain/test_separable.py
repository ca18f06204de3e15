"""A separable convolution plays two products, the second on what the first gave."""

import keras
import numpy as np
import pytest
import reference

import axtrain as ax

SHAPE = (2, 6, 5, 3)
OPTIONS = {
    "same": {"padding": "same", "depth_multiplier": 2},
    "strided": {"padding": "same", "strides": (2, 1)},
    "dilated": {"dilation_rate": 2, "use_bias": False},
}


def make(hardware, options="same", **kwargs):
    layer = ax.layers.ApproxSeparableConv2D(4, 3, hardware=hardware, name="separable", **OPTIONS[options], **kwargs)
    layer.build(SHAPE)
    rng = np.random.default_rng(0)
    for weight in layer.trainable_weights:
        weight.assign(rng.normal(size=weight.shape))
    if hardware is not None:
        layer.hardware_state.set_range(-1.7, 2.1)
        layer.pointwise_state.set_range(-14.0, 13.0)
    return layer, np.clip(rng.normal(0.3, 0.7, SHAPE), -1.7, 2.1).astype(np.float32)


def expected_sums(layer, x):
    """Accumulators of both products, and the output."""
    hardware, options = layer.hardware, {"padding": layer.padding}
    options |= {"strides": layer.strides, "dilation_rate": layer.dilation_rate}
    first = hardware.activation_codes[0]
    a, a_scale, zero = reference.activation_codes(layer.hardware_state, x)
    w, w_scale = reference.weight_codes(hardware, layer.depthwise_kernel, (0, 1))
    table, zero_index = reference._table(hardware, zero)
    shifted = w + (1 << (hardware.weight_bits - 1)) - 1
    sums = reference.depthwise_conv2d(a - first, shifted, table, zero_point=zero_index, **options)
    sums = sums - zero * w.sum(axis=(0, 1)).reshape(-1)
    between = sums.astype(np.float32) * (a_scale * w_scale.reshape(-1))
    kernel = np.asarray(layer.pointwise_kernel)[0, 0]
    last, real = reference.dense_product(layer.pointwise_state, between.reshape(-1, between.shape[-1]), kernel)
    shape = (*sums.shape[:-1], layer.filters)
    return sums, last.reshape(shape), real.reshape(shape) + (np.asarray(layer.bias) if layer.use_bias else 0)


def check(layer, x, monkeypatch):
    seen = reference.recorded(monkeypatch)
    outputs = layer(x)
    depthwise, pointwise, real = expected_sums(layer, x)
    assert [name for name, _ in seen] == ["separable_depthwise_hardware", "separable_pointwise_hardware"]
    reference.same(seen[0][1], depthwise)
    reference.same(seen[1][1], pointwise)
    np.testing.assert_allclose(outputs, real, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("circuit", "engine"), reference.CIRCUITS_AND_ENGINES)
def test_both_accumulators(circuit, engine, monkeypatch):
    check(*make(ax.Hardware(multiplier=reference.circuit(circuit)), engine=engine), monkeypatch)


@pytest.mark.parametrize("options", OPTIONS)
def test_every_option(options, monkeypatch):
    layer, x = make(ax.Hardware(multiplier=reference.circuit("zero is not zero")), options, engine="low_rank")
    check(layer, x, monkeypatch)
    exact, plain = make(ax.Hardware(), options, engine="low_rank")[0], make(None, options)[0]
    expected = np.asarray(plain(x))
    difference = np.abs(np.asarray(exact(x)) - expected).max()
    assert difference < 0.02 * np.abs(expected).max() < np.abs(np.asarray(layer(x)) - expected).max()


def test_each_product_is_calibrated_on_its_own_input():
    model = keras.Sequential([keras.Input(SHAPE[1:]), keras.layers.SeparableConv2D(4, 3, name="separable")])
    x = np.random.default_rng(0).normal(size=(12, *SHAPE[1:])).astype(np.float32)
    hardware = ax.Hardware(quantisation=ax.Quantisation(activation_range="minmax"))
    layer = ax.convert(model, hardware, x).get_layer("separable")
    between = keras.ops.depthwise_conv(x, model.layers[0].depthwise_kernel, data_format="channels_last")
    for state, values in ((layer.hardware_state, x), (layer.pointwise_state, np.asarray(between))):
        assert (float(state.low), float(state.high)) == pytest.approx((values.min(), values.max()), rel=1e-5)


def test_the_integers_and_the_multiplications(tmp_path):
    model = keras.Sequential([keras.Input(SHAPE[1:]), keras.layers.SeparableConv2D(4, 3, name="separable")])
    noisy = ax.convert(model, ax.Hardware(), np.ones((4, *SHAPE[1:]), np.float32))
    written = ax.export(noisy, tmp_path / "out").integers["separable"]
    shapes = {name: values.shape for name, values in written.items()}
    scalars = dict.fromkeys(("depthwise/activation_scale", "depthwise/zero_point"), ())
    scalars |= dict.fromkeys(("pointwise/activation_scale", "pointwise/zero_point"), ())
    assert shapes == {
        "depthwise/codes": (3, 3, 3, 1),
        "depthwise/scale": (3,),
        "pointwise/codes": (1, 1, 3, 4),
        "pointwise/scale": (4,),
        "pointwise/bias": (4,),
        **scalars,
    }
    (part,) = ax.energy(noisy).layers
    assert part.multiplications == 4 * 3 * (3 * 9 + 3 * 4)
    with pytest.raises(ValueError, match="no single accumulator.*'separable' with products"):
        noisy.get_layer("separable").accumulator(np.ones((1, *SHAPE[1:])))
