"""The gradient of a layer is that of the float product of its dequantised operands, to second order."""

import numpy as np
import pytest
import tensorflow as tf

import axtrain as ax

LAYERS = {
    "dense": (lambda **k: ax.layers.ApproxDense(3, **k), (4, 6), lambda a, w: a @ w),
    "conv1d": (
        lambda **k: ax.layers.ApproxConv1D(3, 3, padding="causal", **k),
        (2, 7, 2),
        lambda a, w: tf.nn.conv1d(tf.pad(a, [(0, 0), (2, 0), (0, 0)]), w, 1, "VALID"),
    ),
    "conv2d": (
        lambda **k: ax.layers.ApproxConv2D(3, 3, padding="same", strides=2, **k),
        (2, 6, 5, 2),
        lambda a, w: tf.nn.conv2d(a, w, 2, "SAME"),
    ),
    "depthwise": (
        lambda **k: ax.layers.ApproxDepthwiseConv2D(3, padding="same", depth_multiplier=2, **k),
        (2, 5, 6, 2),
        lambda a, w: tf.nn.depthwise_conv2d(a, w, [1, 1, 1, 1], "SAME"),
    ),
}
every_layer = pytest.mark.parametrize("case", LAYERS)
# Two binary digits of DRUM: errors so large that a gradient through the table would be far off.
HARDWARE = ax.Hardware(multiplier=ax.multipliers.get("drum2"))


def make(case, fidelity="exact"):
    build, shape, product = LAYERS[case]
    layer = build(hardware=HARDWARE, fidelity=fidelity, use_bias=False)
    layer.build(shape)
    rng = np.random.default_rng(0)
    layer.kernel.assign(rng.normal(size=layer.kernel.shape))
    layer.hardware_state.set_range(-1.0, 1.5)
    return layer, tf.constant(rng.normal(0.2, 1, shape), tf.float32), product


def dequantised(layer, x):
    """a and w with the straight-through gradient, written out: clip, then round without a gradient."""
    state = layer.hardware_state
    scale = (state.high - state.low) / 255
    zero_point = tf.round(-state.low / scale)
    clipped = tf.clip_by_value(x, -zero_point * scale, (255 - zero_point) * scale)
    a = clipped + tf.stop_gradient(
        (tf.clip_by_value(tf.round(x / scale) + zero_point, 0, 255) - zero_point) * scale - clipped
    )
    kernel = tf.convert_to_tensor(layer.kernel)
    w_scale = tf.reduce_max(tf.abs(kernel), axis=layer._summed_axes, keepdims=True) / 127
    w = kernel + tf.stop_gradient(tf.round(kernel / w_scale) * w_scale - kernel)
    return a, w


def straight_through_output(layer, product, x, value):
    """The layer's value in front of the float product's gradient."""
    surrogate = product(*dequantised(layer, x))
    return surrogate + tf.stop_gradient(value - surrogate)


@pytest.mark.parametrize("compiled", [False, True])
@every_layer
def test_straight_through_gradient(case, compiled):
    layer, x, product = make(case)

    def gradients():
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(tf.sin(layer(x)))
        return tape.gradient(loss, [x, layer.kernel.value])

    found = (tf.function(gradients, jit_compile=True) if compiled else gradients)()
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(tf.sin(straight_through_output(layer, product, x, layer(x))))
    for ours, theirs in zip(found, tape.gradient(loss, [x, layer.kernel.value]), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
        assert np.abs(ours).max() > 0.1
    outside = (np.asarray(x) < -1.01) | (np.asarray(x) > 1.51)
    assert outside.any()
    assert not np.asarray(found[0])[outside].any()


@every_layer
def test_the_forward_value_is_the_approximate_one(case):
    layer, x, product = make(case)
    assert np.abs(layer(x) - product(*dequantised(layer, x))).max() > 0.05


@pytest.mark.parametrize("compiled", [False, True])
@every_layer
def test_double_back_propagation(case, compiled):
    """The gradient of |dL/dw|^2, as the active search for tolerant weights takes it."""
    layer, x, product = make(case)

    def second_order(output):
        def gradient():
            with tf.GradientTape() as outer:
                with tf.GradientTape() as inner:
                    loss = tf.reduce_sum(tf.sin(output(x)))
                squared = tf.reduce_sum(inner.gradient(loss, layer.kernel.value) ** 2)
            return outer.gradient(squared, layer.kernel.value)

        return gradient

    ours = second_order(layer)
    found = (tf.function(ours) if compiled else ours)()
    value = layer(x)
    expected = second_order(lambda x: straight_through_output(layer, product, x, value))()
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


@every_layer
def test_the_gaussian_fidelity_has_the_same_gradient(case):
    layer, x, product = make(case, "gaussian")
    rows, columns = HARDWARE.code_table.products.shape
    layer.hardware_state.mean_given_weight.assign(np.full(columns, 50.0))
    layer.hardware_state.activation_variance.assign(np.full(rows, 900.0))
    layer.hardware_state.weight_variance.assign(np.ones(columns))
    weights = tf.random.stateless_normal(layer(x).shape, (0, 0))
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(weights * layer(x))  # linear: its gradient does not see the noise
    found = tape.gradient(loss, [x, layer.kernel.value])
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(weights * product(*dequantised(layer, x)))
    for ours, theirs in zip(found, tape.gradient(loss, [x, layer.kernel.value]), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_faults_in_the_memory_pass_the_gradient_to_the_clean_kernel():
    memory = ax.memories.BitErrors(rate=0.2, fault="persistent")
    layer = ax.layers.ApproxDense(3, use_bias=False, hardware=ax.Hardware(weight_memory=memory))
    layer.build((2, 5))
    layer.hardware_state.set_range(0.0, 1.0)
    x = tf.constant(np.random.default_rng(0).uniform(0, 1, (2, 5)), tf.float32)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x))
    codes = tf.round(x * 255) / 255
    expected = np.repeat(np.asarray(codes).sum(0)[:, None], 3, axis=1)
    np.testing.assert_allclose(tape.gradient(loss, layer.kernel.value), expected, rtol=1e-5)
