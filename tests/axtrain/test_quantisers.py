"""Quantisers: codes, ranges and straight-through gradients, at every width."""

import numpy as np
import pytest
import tensorflow as tf

import axtrain as ax
from axtrain.layers.state import HardwareState
from axtrain.quantisers import affine_parameters, calibrated_range, quantise, quantise_weights, symmetric_scale

BITS = range(2, 11)
VALUES = np.linspace(-3, 5, 1001, dtype=np.float32)


def affine(bits, low=-1.3, high=2.9):
    scale, zero_point = affine_parameters(tf.constant(low), tf.constant(high), 0, 2**bits - 1)
    return scale, zero_point, 0, 2**bits - 1


def symmetric(bits, low=-1.3, high=2.9):
    limit = 2 ** (bits - 1) - 1
    return symmetric_scale(tf.constant(low), tf.constant(high), limit), tf.zeros(()), -limit, limit


@pytest.mark.parametrize("make", [affine, symmetric])
@pytest.mark.parametrize("bits", BITS)
def test_codes_by_hand(make, bits):
    scale, zero_point, low, high = make(bits)
    found = quantise(tf.constant(VALUES), scale, zero_point, low, high)
    s, z = np.float32(scale), np.float32(zero_point)
    codes = np.clip(np.round(VALUES / s) + z, low, high)
    np.testing.assert_array_equal(found.codes, codes)
    np.testing.assert_allclose(found.real, (codes - z) * s, rtol=0, atol=1e-6)
    assert set(np.unique(codes)) <= set(range(low, high + 1))
    inside = ((low - z) * s <= VALUES) & ((high - z) * s >= VALUES)
    assert np.abs(np.asarray(found.real) - VALUES)[inside].max() <= 0.5 * s * (1 + 1e-5)


@pytest.mark.parametrize("make", [affine, symmetric])
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(("low", "high"), [(-1.3, 2.9), (0.4, 0.7), (-3.0, -1.0), (-1e-4, 50.0), (0.0, 0.0)])
def test_zero_is_exactly_representable(make, bits, low, high):
    scale, zero_point, code_low, code_high = make(bits, low, high)
    found = quantise(tf.zeros((1,)), scale, zero_point, code_low, code_high)
    assert float(found.real[0]) == 0.0
    assert float(zero_point) == round(float(zero_point))
    assert code_low <= float(zero_point) <= code_high


@pytest.mark.parametrize("bits", BITS)
def test_the_range_is_covered(bits):
    scale, _zero_point, low, high = affine(bits)
    assert (high - low) * float(scale) == pytest.approx(2.9 + 1.3, rel=1e-6)
    assert symmetric(bits)[3] * float(symmetric(bits)[0]) == pytest.approx(2.9, rel=1e-6)


@pytest.mark.parametrize("make", [affine, symmetric])
@pytest.mark.parametrize("bits", BITS)
def test_gradient_is_one_inside_and_zero_outside(make, bits):
    scale, zero_point, low, high = make(bits)
    x = tf.constant(VALUES)
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(quantise(x, scale, zero_point, low, high).real)
    s, z = float(scale), float(zero_point)
    inside = ((low - z) * s < VALUES) & ((high - z) * s > VALUES)
    # A value on the very edge may fall on either side by rounding.
    edge = np.isclose(VALUES, (low - z) * s, atol=1e-5) | np.isclose(VALUES, (high - z) * s, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(tape.gradient(total, x))[~edge], inside[~edge].astype(np.float32))
    assert 0 < inside.sum() < inside.size


def test_scale_and_zero_point_get_no_gradient():
    scale, zero_point = tf.Variable(0.1), tf.Variable(3.0)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(quantise(tf.constant(VALUES), scale, zero_point, 0, 15).real)
    assert tape.gradient(total, [scale, zero_point]) == [None, None]


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(("shape", "axes"), [((6, 4), (0,)), ((3, 2, 5, 4), (0, 1, 2)), ((3, 3, 4, 2), (0, 1))])
def test_weights_have_one_scale_per_channel(bits, shape, axes):
    kernel = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    found = quantise_weights(tf.constant(kernel), bits, axes)
    limit = 2 ** (bits - 1) - 1
    scale = np.abs(kernel).max(axis=axes, keepdims=True) / np.float32(limit)
    np.testing.assert_allclose(found.scale, scale, rtol=1e-6)
    np.testing.assert_array_equal(found.codes, np.round(kernel / np.asarray(found.scale)))
    # Every channel uses its full range.
    np.testing.assert_array_equal(np.abs(found.codes).max(axis=axes), np.full(found.scale.shape, limit).max(axis=axes))


def test_a_channel_of_zeros_stays_zero():
    kernel = np.ones((5, 3), np.float32)
    kernel[:, 1] = 0
    found = quantise_weights(tf.constant(kernel), 8, (0,))
    np.testing.assert_array_equal(found.codes, 127 * kernel)
    np.testing.assert_allclose(found.real, kernel, rtol=1e-6)
    assert np.isfinite(found.scale).all()


@pytest.mark.parametrize(("method", "expected"), [("minmax", (-50.0, 1000.0)), ("percentile", (10.0, 990.0))])
def test_affine_ranges(method, expected):
    samples = np.concatenate([np.arange(1000.0), [-50.0, 1000.0]])
    low, high = calibrated_range(samples, method=method, percentile=99, symmetric=False)
    assert (low, high) == pytest.approx(expected, abs=2)
    assert method == "percentile" or (low, high) == expected


def test_symmetric_percentile_is_of_the_magnitude():
    samples = np.concatenate([-np.arange(500.0), np.arange(500.0)])
    low, high = calibrated_range(samples, method="percentile", percentile=90, symmetric=True)
    assert low == -high
    assert high == pytest.approx(np.percentile(np.abs(samples), 90))


@pytest.mark.parametrize("bad", [np.array([]), np.array([1.0, np.nan]), np.array([np.inf])])
def test_a_range_needs_finite_samples(bad):
    with pytest.raises(ValueError, match="finite calibration values"):
        calibrated_range(bad, method="minmax", percentile=100, symmetric=False)


def moving(momentum=0.75, **kwargs):
    quantisation = ax.Quantisation(activation_range="moving_average", momentum=momentum, **kwargs)
    state = HardwareState(ax.Hardware(quantisation=quantisation))
    state.build()
    return state


def test_moving_average_follows_the_training_batches():
    state = moving()
    batches = [np.array([-1.0, 3.0]), np.array([-2.0, 7.0]), np.array([0.0, 1.0])]
    low = high = None
    for batch in batches:
        state.quantise_activations(tf.constant(batch, tf.float32), training=True)
        low = batch.min() if low is None else 0.75 * low + 0.25 * batch.min()
        high = batch.max() if high is None else 0.75 * high + 0.25 * batch.max()
        assert (float(state.low), float(state.high)) == pytest.approx((low, high))
    state.quantise_activations(tf.constant([-100.0, 100.0]), training=False)
    assert (float(state.low), float(state.high)) == pytest.approx((low, high))


def test_moving_average_unseen_takes_the_batch_itself_and_remembers_nothing():
    state = moving()
    found = state.quantise_activations(tf.constant([0.0, 2.55]), training=False)
    assert float(found.scale) == pytest.approx(0.01)
    assert float(state.seen) == 0


def test_moving_average_over_the_steps_of_fit():
    import keras

    hardware = ax.Hardware(quantisation=ax.Quantisation(activation_range="moving_average", momentum=0.5))
    layer = ax.layers.ApproxDense(1, hardware=hardware)
    model = keras.Sequential([keras.Input((2,)), layer])
    model.compile("sgd", "mse")
    x = np.array([[0, 1], [0, 2], [-4, 3], [0, 8]], np.float32)
    model.fit(x, np.zeros((4, 1)), batch_size=1, epochs=1, shuffle=False, verbose=0)
    high, low = 1.0, 0.0
    for row in x[1:]:
        high, low = 0.5 * high + 0.5 * row.max(), 0.5 * low + 0.5 * row.min()
    assert (float(layer.hardware_state.low), float(layer.hardware_state.high)) == pytest.approx((low, high))
