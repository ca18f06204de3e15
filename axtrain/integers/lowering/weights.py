"""A layer's weights as an integer product takes them: codes, scales, biases, and the multiplier's table."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from keras import ops

from axtrain.emulation.code_table import encoded_table
from axtrain.integers.lowering.steps import Step
from axtrain.noise_models.multiplier import Multiplier

# A bias keeps this far from the ends of int32, so that bias and products together do not wrap.
_LARGEST_BIAS = 1 << 30


class IntegerWeights(NamedTuple):
    """Of one product.

    Attributes:
        codes: int8, as `axtrain.integers.network.Product` has them.
        scale: float32, one for each output channel.
        bias: int32, in units of `s_in * scale`.
    """

    codes: np.ndarray
    scale: np.ndarray
    bias: np.ndarray


def layer_weights(step: Step, input_scale: float, *, odd: bool) -> IntegerWeights:
    """Weights of a layer on hardware, normalisation folded: its own codes, with g in their scales.

    Args:
        step: a product.
        input_scale: of the product's input.
        odd: whether ``T[a, -w] = -T[a, w]``, so that a negative g may change the signs of codes.

    Raises:
        ValueError: a negative g and a table that is not odd.
    """
    layer = step.hardware_layer
    (product,) = layer.products
    axes = product.geometry.summed_axes(len(product.kernel.shape))
    quantised = layer.hardware.weight_codes(ops.convert_to_tensor(product.kernel), axes)
    codes = ops.convert_to_numpy(quantised.codes).astype(np.int64)
    scale = ops.convert_to_numpy(quantised.scale).reshape(-1).astype(np.float64)
    bias = ops.convert_to_numpy(layer.bias).astype(np.float64) if layer.use_bias else np.zeros(scale.size)
    if step.gain is not None:
        if not odd and (step.gain < 0).any():
            raise ValueError(
                f"The normalisation after layer {step.name!r} has negative factors in channels "
                f"{np.flatnonzero(step.gain < 0).tolist()}, and {layer.hardware.circuit.name!r} does not multiply "
                "w and -w alike, so the codes cannot change their sign. Train with "
                "BatchNormalization(gamma_constraint=keras.constraints.NonNeg()), or take a multiplier for "
                "magnitudes (unsigned, weight_encoding='sign_magnitude'). Received: negative factors"
            )
        bias, scale = bias * step.gain + step.offset, scale * np.abs(step.gain)
        codes = codes * _by_channel(np.where(step.gain < 0, -1, 1), codes.shape, len(axes))
    return fitted(codes, scale, bias, input_scale, len(axes))


def normalisation_weights(step: Step, input_scale: float) -> IntegerWeights:
    """A normalisation of its own as a depthwise convolution of one pixel: codes 127 and -127."""
    codes = np.where(step.gain < 0, -127, 127).reshape(1, 1, -1, 1)
    return fitted(codes, np.abs(step.gain) / 127, step.offset, input_scale, 2)


def fitted(codes: np.ndarray, scale: np.ndarray, bias: np.ndarray, input_scale: float, summed: int) -> IntegerWeights:
    """Codes, float32 scales and int32 biases; a channel that is next to nothing beside its bias gets larger steps.

    Args:
        codes: whole numbers.
        scale: float64, one for each output channel; may be 0.
        bias: float64, in real units.
        input_scale: of the product's input.
        summed: how many of the codes' axes come before those of the channels.

    Raises:
        ValueError: scales or biases that are not finite.
    """
    if not (np.isfinite(scale).all() and np.isfinite(bias).all()):
        raise ValueError(
            "Weights with the normalisation folded in must be finite; look at its moving variance. "
            f"Received: scales {scale.tolist()}, biases {bias.tolist()}"
        )
    needed = np.abs(bias) / (input_scale * _LARGEST_BIAS)
    larger = np.maximum(np.maximum(scale, needed), np.finfo(np.float32).tiny)
    share = np.where(larger > scale, scale / larger, 1.0)
    codes = np.round(codes * _by_channel(share, codes.shape, summed))
    single = larger.astype(np.float32)
    steps = bias / (np.float64(np.float32(input_scale)) * single)
    return IntegerWeights(codes.astype(np.int8), single, np.round(steps).astype(np.int32))


def circuit_table(layer) -> tuple[np.ndarray | None, Multiplier | None]:
    """(table over int8 codes, circuit) of a hardware layer, (None, None) where it multiplies exactly.

    Unsigned activation words are u = a + 128, and the table is less 128 w, so that the sums agree.

    Raises:
        ValueError: a circuit of other than 8 x 8 bits.
    """
    hardware = layer.hardware
    table = encoded_table(hardware.circuit, *hardware.operand_encodings)
    if not table.error.any():
        return None, None
    if table.products.shape != (256, 256):
        raise ValueError(
            "The table of an integer network is of 8 x 8 bits. Convert to a Hardware with such a multiplier. "
            f"Received: layer {layer.name!r} on {hardware.circuit.name!r}, {table.products.shape} products"
        )
    return table.products - (table.activation_low + 128) * table.weight_codes.astype(np.int32), hardware.circuit


def is_odd(table: np.ndarray | None) -> bool:
    """Whether ``T[a, -w] = -T[a, w]`` for the weight codes -127 to 127."""
    return table is None or bool((table[:, 1:] == -table[:, :0:-1]).all())


def _by_channel(values: np.ndarray, shape: tuple[int, ...], summed: int) -> np.ndarray:
    """One value for each channel, shaped to broadcast against codes."""
    return values.reshape((1,) * summed + shape[summed:])
