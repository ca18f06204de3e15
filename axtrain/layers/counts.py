"""How many products one sample costs in a layer, plain or on hardware, and how many words they read and write."""

from __future__ import annotations

import math
from typing import NamedTuple

import keras

from axtrain.layers.base import ApproximateLayer
from axtrain.layers.equations import EinsumProduct, equation_obstacle
from axtrain.layers.registry import counting


class Count(NamedTuple):
    """Of one call of a layer for one sample.

    Each product of a layer reads its operands from memory and writes its results there; what happens between
    products (softmax, gating, normalisation, pooling) is not counted.

    Attributes:
        multiplications: how many products are summed, and so how many additions.
        weights: how many stored weights they read; operands that are both activations read none.
        inputs: how many activations are read, each taken once, intermediate ones included.
        outputs: how many activations are written, intermediate ones included.
        biases: how many stored biases are read.
    """

    multiplications: int
    weights: int
    inputs: int = 0
    outputs: int = 0
    biases: int = 0


def count(layer: keras.Layer, input_shape: tuple, output_shape: tuple) -> Count | None:
    """Counts one call of a layer; `None` where the layer has no products that hardware plays.

    Args:
        layer: built; plain or approximate.
        input_shape, output_shape: of the call, with the batch axis.

    Raises:
        ValueError: a size is left open, or a layer on hardware is of a kind that was registered without a count.
    """
    counted = counting(layer)
    if counted is not None:
        return counted(layer, tuple(input_shape), tuple(output_shape))
    if isinstance(layer, ApproximateLayer) and layer.hardware is not None:
        raise ValueError(
            "Nothing says how many products this layer has; give axtrain.register_layer its `count`. "
            f"Received: layer {layer.name!r} of class {type(layer).__name__}"
        )
    return None


def _size(layer, sizes) -> int:
    """The product of sizes, all of which must be known."""
    if None in sizes:
        raise ValueError(
            "Counting products needs fixed sizes; rebuild the model with a fixed input shape. "
            f"Received: layer {layer.name!r} with sizes {tuple(sizes)}"
        )
    return math.prod(sizes)


def _biases(owner) -> int:
    """Of a layer or a recurrent cell, which may have none."""
    bias = getattr(owner, "bias", None)
    return 0 if bias is None else math.prod(bias.shape)


def _one_kernel(layer, summed: int, input_shape, output_shape) -> Count:
    inputs, outputs = _size(layer, input_shape[1:]), _size(layer, output_shape[1:])
    return Count(outputs * summed, math.prod(layer.kernel.shape), inputs, outputs, _biases(layer))


def kernel_layer(layer, input_shape, output_shape) -> Count:
    """One kernel whose last axis is the output channels: dense layers and convolutions."""
    return _one_kernel(layer, math.prod(layer.kernel.shape[:-1]), input_shape, output_shape)


def depthwise(layer, input_shape, output_shape) -> Count:
    """A depthwise convolution."""
    return _one_kernel(layer, math.prod(layer.kernel.shape[:-2]), input_shape, output_shape)


def transposed(layer, input_shape, output_shape) -> Count:
    """A transposed convolution."""
    # As an accelerator runs it that convolves the widened image: inserted zeros are multiplied too, and not read.
    summed = math.prod((*layer.kernel.shape[:-2], layer.kernel.shape[-1]))
    return _one_kernel(layer, summed, input_shape, output_shape)


def einsum(layer, input_shape, output_shape) -> Count | None:
    """An einsum with a kernel; `None` where the equation is not one matrix product."""
    if equation_obstacle(layer.equation):
        return None
    # Counted from the inputs: Keras may leave the output's rows open.
    product, weights = EinsumProduct.parse(layer.equation), math.prod(layer.kernel.shape)
    sizes = dict(zip(product.second, layer.kernel.shape, strict=True))
    summed = math.prod(sizes[axis] for axis in product.summed)
    inputs = _size(layer, input_shape[1:])
    rows, columns = inputs // summed, weights // summed
    return Count(rows * weights, weights, inputs, rows * columns, _biases(layer))


def separable(layer, input_shape, output_shape) -> Count:
    """A depthwise convolution and a pointwise one."""
    # The depthwise product's outputs are written, and read again by the pointwise one.
    weights = math.prod(layer.depthwise_kernel.shape) + math.prod(layer.pointwise_kernel.shape)
    pixels = _size(layer, output_shape[1:-1])
    between = pixels * math.prod(layer.depthwise_kernel.shape[-2:])
    inputs, outputs = _size(layer, input_shape[1:]) + between, between + pixels * output_shape[-1]
    return Count(pixels * weights, weights, inputs, outputs, _biases(layer))


def recurrent(layer, input_shape, output_shape) -> Count:
    """LSTM and GRU."""
    # The hidden state is read and written at every step, whatever the layer returns; the gates' sums stay in the
    # accumulators, which take the sums of both products.
    weights = math.prod(layer.cell.kernel.shape) + math.prod(layer.cell.recurrent_kernel.shape)
    steps, features = _size(layer, input_shape[1:2]), _size(layer, input_shape[2:])
    hidden = steps * layer.units
    return Count(steps * weights, weights, steps * features + hidden, hidden, _biases(layer.cell))


def attention(layer, input_shape, output_shape) -> Count:
    """Multi-head attention: projections, scores and combination."""
    # A call's record has the query's shape alone; the others are those that the layer was built for.
    shapes = layer.get_build_config()["shapes_dict"]
    value_shape = shapes["value_shape"]
    key_shape = shapes.get("key_shape") or value_shape
    queries, keys = _size(layer, input_shape[1:-1]), _size(layer, key_shape[1:-1])
    attended = _size(layer, [value_shape[axis] for axis in layer.attention_axes])
    scores, heads = queries * attended * layer.num_heads, layer.num_heads
    # Scores: queries by keys. Combination: probabilities by values. Both operands are activations.
    multiplications = scores * (layer.key_dim + layer.value_dim)
    inputs = (queries + keys) * heads * layer.key_dim + scores + keys * heads * layer.value_dim
    outputs = scores + queries * heads * layer.value_dim
    projections = [
        (layer.query_dense, queries, input_shape[-1]),
        (layer.key_dense, keys, key_shape[-1]),
        (layer.value_dense, keys, value_shape[-1]),
        (layer.output_dense, queries, heads * layer.value_dim),
    ]
    if hasattr(layer, "_gate_dense"):
        projections.append((layer._gate_dense, queries, input_shape[-1]))
    weights = biases = 0
    for dense, tokens, features in projections:
        kernel = math.prod(dense.kernel.shape)
        weights, biases = weights + kernel, biases + _biases(dense)
        multiplications += kernel * tokens
        inputs += tokens * features
        outputs += tokens * kernel // features
    return Count(multiplications, weights, inputs, outputs, biases)
