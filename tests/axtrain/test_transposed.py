"""A transposed convolution runs as an ordinary one of the widened image, and inserted zeros are multiplied."""

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf

import axtrain as ax

SHAPE = (1, 3, 4, 2)
OPTIONS = {
    "valid": {},
    "valid_strided": {"strides": 3},
    "valid_wide_stride": {"kernel_size": (1, 2), "strides": (3, 4)},
    "valid_output_padding": {"strides": 3, "output_padding": (2, 1)},
    "same": {"padding": "same"},
    "same_even": {"padding": "same", "kernel_size": (4, 2), "strides": 2},
    "same_strided": {"padding": "same", "strides": (2, 3)},
    "same_wide_stride": {"padding": "same", "kernel_size": 2, "strides": 4},
    "same_output_padding": {"padding": "same", "strides": (2, 3), "output_padding": (1, 2)},
    "same_even_output_padding": {"padding": "same", "kernel_size": 4, "strides": 2, "output_padding": 1},
    "dilated": {"dilation_rate": 2, "use_bias": False},
    "dilated_same": {"dilation_rate": (1, 3), "padding": "same"},
}


def make(options, hardware=None, **kwargs):
    arguments = {"filters": 3, "kernel_size": 3, **OPTIONS[options], **kwargs}
    layer = ax.layers.ApproxConv2DTranspose(**arguments, hardware=hardware)
    layer.build(SHAPE)
    rng = np.random.default_rng(0)
    for weight in layer.trainable_weights:
        weight.assign(rng.normal(size=weight.shape))
    if hardware is not None:
        layer.hardware_state.set_range(-1.7, 2.1)
    return layer, np.clip(rng.normal(0.3, 0.5, SHAPE), -1.7, 2.1).astype(np.float32)


@pytest.mark.parametrize("options", OPTIONS)
def test_accumulators_and_the_float_layer(options):
    layer, x = make(options, ax.Hardware(multiplier=reference.circuit("zero is not zero")), engine="low_rank")
    expected, scale = reference.layer_accumulator(layer, x)
    reference.same(np.asarray(layer.accumulator(x)), expected)
    bias = np.asarray(layer.bias) if layer.use_bias else 0
    np.testing.assert_allclose(layer(x), expected * scale + bias, rtol=1e-5, atol=1e-5)
    ten_bits = ax.Hardware(quantisation=ax.Quantisation(activation_bits=10, weight_bits=10))
    plain = np.asarray(make(options)[0](x))
    np.testing.assert_allclose(make(options, ten_bits)[0](x), plain, atol=0.02)
    assert np.abs(np.asarray(layer(x)) - plain).max() > 0.1


@pytest.mark.parametrize(("circuit", "engine"), reference.CIRCUITS_AND_ENGINES)
def test_every_kind_of_circuit(circuit, engine):
    layer, x = make("same_strided", ax.Hardware(multiplier=reference.circuit(circuit)), engine=engine)
    expected, _ = reference.layer_accumulator(layer, x)
    reference.same(np.asarray(layer.accumulator(x)), expected)


def test_inserted_zeros_contribute_what_the_circuit_makes_of_the_zero_point():
    """Between pixels three apart a window of one meets nothing but an inserted zero."""
    circuit = reference.circuit("zero is not zero")
    layer, _ = make("valid_strided", ax.Hardware(multiplier=circuit), engine="low_rank", kernel_size=1, use_bias=False)
    state = layer.hardware_state
    _, _, zero = reference.activation_codes(state, np.zeros(1))
    w, _ = reference.weight_codes(layer.hardware, layer.kernel, (0, 1, 3))
    signed = np.where(w < 0, -1, 1) * circuit.table[zero, np.abs(w)] - zero * w  # sign-magnitude weights
    sums = np.asarray(layer.accumulator(np.ones(SHAPE, np.float32)))
    np.testing.assert_array_equal(sums[0, 1, 1], signed.sum(axis=(0, 1, 3)))
    assert np.abs(sums[0, 1, 1]).min() > 0


def test_pictures_of_open_size():
    layer, _ = make("same_strided", ax.Hardware(multiplier=ax.multipliers.get("drum4")), engine="low_rank")
    compiled = tf.function(layer, input_signature=[tf.TensorSpec((None, None, None, 2))])
    for height, width in ((5, 4), (3, 6)):
        x = np.random.default_rng(0).normal(size=(2, height, width, 2)).astype(np.float32)
        np.testing.assert_allclose(compiled(x), layer(x), rtol=1e-5, atol=1e-5)
        assert compiled(x).shape == layer.compute_output_shape(x.shape)


def test_the_padding_of_the_output_is_kept_everywhere(tmp_path):
    """Keras 3.10 leaves it out of a layer's configuration."""
    up = keras.layers.Conv2DTranspose(2, 3, strides=3, output_padding=2)
    model = keras.Sequential([keras.Input(SHAPE[1:]), up])
    noisy = ax.convert(model, ax.Hardware(), np.random.default_rng(0).normal(size=(4, *SHAPE[1:])))
    noisy.save(tmp_path / "up.keras")
    active = ax.with_sensitivity(model, ax.LossGradient(1.0))
    for other in (
        noisy,
        ax.load_model(tmp_path / "up.keras"),
        ax.strip(noisy),
        ax.convert(noisy, ax.Hardware()),
        active,
    ):
        assert other.output_shape == model.output_shape == (None, 11, 14, 2)


def test_the_integers_and_the_multiplications(tmp_path):
    model = keras.Sequential([keras.Input(SHAPE[1:]), keras.layers.Conv2DTranspose(5, 3, strides=2, name="up")])
    noisy = ax.convert(model, ax.Hardware(), np.random.default_rng(0).normal(size=(4, *SHAPE[1:])))
    layer, export = noisy.get_layer("up"), ax.export(noisy, tmp_path / "out")
    written, (entry,) = export.integers["up"], export.manifest["layers"]
    assert entry["products"] == [{"name": "", "kernel_shape": [3, 3, 2, 5]}]
    codes = written["codes"] * written["scale"]
    flipped = np.asarray(layer.kernel)[::-1, ::-1].swapaxes(2, 3)
    assert np.abs(codes - flipped).max() <= 0.501 * written["scale"].max()
    (part,) = ax.energy(noisy).layers
    assert part.multiplications == 7 * 9 * 5 * (3 * 3 * 2)
