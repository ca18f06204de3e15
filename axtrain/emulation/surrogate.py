"""Exact integers forward, ordinary differentiable functions backward."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
from keras import ops


def surrogate_gradient(exact: Callable, surrogate: Callable | Sequence[Callable], *operands):
    """``exact()`` in the forward pass, the gradient of ``surrogate(*operands)`` in the backward pass.

    With the float product of the dequantised operands as the surrogate it is the straight-through estimator,
    d/da = b and d/db = a (theory page, section 3). It is differentiable again.

    Args:
        exact: function of nothing giving the forward value; it may use look-ups and integers.
        surrogate: differentiable function of the operands, giving a tensor of the same shape; or one such
            function for each operand, which gives that operand's gradient and no other.
        operands: float32 tensors.
    """
    if keras.backend.backend() != "tensorflow":
        value = ops.stop_gradient(exact())
        if callable(surrogate):
            return _in_front_of(surrogate(*operands), value)
        for own, function in enumerate(surrogate):
            held = [x if i == own else ops.stop_gradient(x) for i, x in enumerate(operands)]
            value = _in_front_of(function(*held), value)
        return value

    import tensorflow as tf

    # The surrogate is evaluated in the backward pass only: products are bilinear, so their gradients
    # need the operands and not the value, and the graph drops the value.
    @tf.custom_gradient
    def product(*operands):
        def gradient(upstream):
            if callable(surrogate):
                return _gradient(surrogate, operands, operands, upstream)
            return [
                _gradient(function, operands, [operand], upstream)[0]
                for function, operand in zip(surrogate, operands, strict=True)
            ]

        return exact(), tf.autograph.experimental.do_not_convert(gradient)

    return product(*(tf.convert_to_tensor(operand) for operand in operands))  # a tape watches no Keras variable


def _gradient(function, operands, sources, upstream):
    import tensorflow as tf

    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(sources)
        value = function(*operands)
    return tape.gradient(value, sources, output_gradients=upstream)


def _in_front_of(approximate, value):
    """`value`, with its own gradient and that of `approximate`."""
    return approximate + (value - ops.stop_gradient(approximate))
