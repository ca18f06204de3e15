"""The statistical fidelities: a product's error as a few ordinary products, a bias, and cheap noise.

``y = sum a w + s_a s_w (sum_r sum_k u_r(a_k) v_r(w_k) + sum_k mu(w_k) + eps)``, with eps of variance
``sum_k s(a_k) t(w_k)`` (theory page, section 4). Everything but the products is elementwise or a look-up; on
TensorFlow XLA compiles it to one pass over memory before the product and one after.

Padding counts: u and s are taken relative to their values at the zero point, where a product that is padded
with 0 is right, and what that leaves out is the same for every output: ``sum_k u(z) v(w_k)`` and ``K s(z)``.
"""

from __future__ import annotations

import math
from functools import partial

from keras import ops

from axtrain.emulation.geometry import terms
from axtrain.emulation.surrogate import surrogate_gradient
from axtrain.layers import noise
from axtrain.layers.joint import joined, joint_product, window_sums
from axtrain.noise_models.fused import fused
from axtrain.quantisers import Codes, Quantiser

# Weights below this number are looked up without compiling a function for them (chosen here).
_LARGE = 1 << 15


def statistical(state, geometry, inputs, quantiser: Quantiser, w: Codes, playing, bias=None):
    """The layer's sums of products in real units under the fitted error model, float32.

    The gradient is that of the float product of the dequantised operands.

    Args:
        state: a fitted `HardwareState`.
        geometry: of the product.
        inputs: float32 activations.
        quantiser: theirs.
        w: the weights.
        playing: which residual is drawn.
        bias: float32, one per output channel, or `None`.

    Raises:
        ValueError: the state was never calibrated.
    """
    if not state.calibrated:
        raise ValueError(
            f"The {playing.fidelity} fidelity is fitted to calibration data; use axtrain.convert with calibration=... "
            f"Received: {state.name!r}, never calibrated"
        )
    real = quantiser.real(inputs)
    operands = (real, w.real) if bias is None else (real, w.real, bias)

    def surrogate(a, kernel, *added):
        sums = geometry.floats(a, kernel)
        return sums + added[0] if added else sums

    # Gradients flow through the surrogate alone; TensorFlow looks for variables behind all that `forward` reads.
    held = [ops.stop_gradient(x) for x in operands]

    def forward():
        return _forward(state, geometry, quantiser, w, playing, *held)

    return surrogate_gradient(forward, surrogate, *operands)


def _forward(state, geometry, quantiser, w, playing, real, kernel, bias=None):
    table, model = state.hardware.code_table, state.error_model
    count = terms(geometry, kernel.shape)
    shape = playing.residual_of(count)
    form = None if shape == "none" else "product" if geometry.operation != "depthwise" and count else "full"
    scale, index_of_zero = quantiser.scale, quantiser.zero_point - table.activation_low

    weight_side, size = partial(_weight_side, geometry), math.prod(kernel.shape) if None not in kernel.shape else 0
    if size >= _LARGE:
        weight_side = fused(_weight_side, geometry, shape=(model.rank, *kernel.shape))
    right, offset, spread = weight_side(kernel, w.codes - table.weight_low, w.scale, scale, index_of_zero, model)
    left, position = real, None
    if model.rank or form:
        activation_side = fused(_activation_side, form, shape=(model.rank, *real.shape[1:]))
        left, position = activation_side(real, scale, index_of_zero, model)

    sums = joint_product(geometry, left, right, model.rank)
    offset = offset if bias is None else offset + bias
    if form is None:
        return sums + offset
    # The variances come as sums relative to padding; K s(z) or s(z) T(n) makes them whole again.
    at_zero = ops.take(model.activation_variance, ops.cast(index_of_zero, "int32"))
    channel = geometry.per_output(spread)
    if form == "full":
        position = geometry.floats(position, spread) + at_zero * channel
        channel = ops.ones_like(channel)
    else:
        position = window_sums(geometry, position, kernel.shape) / count + at_zero
    drawn = noise.places(ops.shape(sums), state.noise)
    add_noise = fused(_add_noise, shape, shape=tuple(sums.shape[1:]))
    return add_noise(sums, offset, position, channel, drawn, model.levels)


def _weight_side(geometry, kernel, index, w_scale, a_scale, index_of_zero, model):
    """The joint kernel, the bias that errors add up to, and each weight's share of the variance, in real units."""
    index = ops.cast(index, "int32")
    parts, mean = [kernel], ops.take(model.mean_given_weight, index)
    for r in range(model.rank):
        factor = ops.take(model.weight_factors[r], index)
        mean = mean + ops.take(model.activation_factors[r], ops.cast(index_of_zero, "int32")) * factor
        parts.append(factor * w_scale)
    offset = geometry.per_output(mean * w_scale) * a_scale
    spread = ops.take(model.weight_variance, index) * (a_scale * w_scale) ** 2
    return joined(geometry, parts), offset, spread


def _activation_side(form, real, scale, index_of_zero, model):
    """The joint activations, and what each contributes to the variance (summed over channels in product form)."""
    zero = ops.cast(index_of_zero, "int32")
    # What is not a number has no code; the product makes NaN of it.
    index = ops.cast(ops.round(ops.where(ops.isnan(real), 0.0, real) * (1 / scale)), "int32") + zero

    def looked_up(table):
        return ops.take(table - ops.take(table, zero), index)

    parts = [real, *(looked_up(scale * model.activation_factors[r]) for r in range(model.rank))]
    left = ops.concatenate(parts, axis=-1) if model.rank else real
    if form is None:
        return left, ops.zeros(())
    variance = looked_up(model.activation_variance)
    return left, ops.sum(variance, axis=-1, keepdims=True) if form == "product" else variance


def _add_noise(shape, sums, offset, position, channel, drawn, levels):
    """``sums + offset + noise sqrt(position channel)``."""
    drawn = noise.read(ops.shape(sums), drawn, levels if shape == "mixture" else None)
    return sums + offset + drawn * ops.sqrt(ops.maximum(position, 0.0)) * ops.sqrt(channel)
