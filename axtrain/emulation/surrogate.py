"""Exact integers forward, an ordinary differentiable product backward (the straight-through estimator)."""

from __future__ import annotations

import keras
from keras import ops


def surrogate_gradient(exact, surrogate, *operands):
    """``exact()`` in the forward pass, the gradient of ``surrogate(*operands)`` in the backward pass.

    For a product the surrogate is the float product of the dequantised operands, so d/da = b and
    d/db = a (theory page, section 3). It is differentiable again.

    Args:
        exact: function of nothing giving the forward value; it may use look-ups and integers.
        surrogate: differentiable function of the operands, giving a tensor of the same shape.
        operands: float32 tensors.
    """
    if keras.backend.backend() != "tensorflow":
        approximate = surrogate(*operands)
        return approximate + ops.stop_gradient(exact() - approximate)

    import tensorflow as tf

    # The surrogate is evaluated in the backward pass only: products are bilinear, so their gradients
    # need the operands and not the value, and the graph drops the value.
    @tf.custom_gradient
    def product(*operands):
        def gradient(upstream):
            with tf.GradientTape() as tape:
                tape.watch(operands)
                value = surrogate(*operands)
            return tape.gradient(value, operands, output_gradients=upstream)

        return exact(), tf.autograph.experimental.do_not_convert(gradient)

    return product(*operands)
