"""How many products one sample costs in a layer, plain or on hardware, and how many weights they read."""

from __future__ import annotations

import math
from typing import NamedTuple

import keras

from axtrain.layers.einsum import equation_obstacle
from axtrain.layers.equations import EinsumProduct


class Count(NamedTuple):
    """Of one call of a layer for one sample.

    Attributes:
        multiplications: how many products are summed.
        weights: how many stored weights they read; operands that are both activations read none.
    """

    multiplications: int
    weights: int


def count(layer: keras.Layer, input_shape: tuple, output_shape: tuple) -> Count | None:
    """Counts one call of a layer; `None` where the layer has no products that hardware plays.

    Args:
        layer: built; plain or approximate.
        input_shape, output_shape: of the call, with the batch axis.

    Raises:
        ValueError: a size is left open.
    """
    counted = next((function for kind, function in _COUNTS if isinstance(layer, kind)), None)
    if counted is None or (isinstance(layer, keras.layers.EinsumDense) and equation_obstacle(layer.equation)):
        return None
    return counted(layer, tuple(input_shape), tuple(output_shape))


def _size(layer, sizes) -> int:
    """The product of sizes, all of which must be known."""
    if None in sizes:
        raise ValueError(
            "Counting products needs fixed sizes; rebuild the model with a fixed input shape. "
            f"Received: layer {layer.name!r} with sizes {tuple(sizes)}"
        )
    return math.prod(sizes)


def _one_kernel(layer, summed: int, output_shape) -> Count:
    return Count(_size(layer, output_shape[1:]) * summed, math.prod(layer.kernel.shape))


def _kernel_layer(layer, input_shape, output_shape) -> Count:
    return _one_kernel(layer, math.prod(layer.kernel.shape[:-1]), output_shape)


def _depthwise(layer, input_shape, output_shape) -> Count:
    return _one_kernel(layer, math.prod(layer.kernel.shape[:-2]), output_shape)


def _transposed(layer, input_shape, output_shape) -> Count:
    # As an accelerator runs it that convolves the widened image: inserted zeros are multiplied too.
    return _one_kernel(layer, math.prod((*layer.kernel.shape[:-2], layer.kernel.shape[-1])), output_shape)


def _einsum(layer, input_shape, output_shape) -> Count:
    # Counted from the inputs: Keras may leave the output's rows open.
    product, weights = EinsumProduct.parse(layer.equation), math.prod(layer.kernel.shape)
    sizes = dict(zip(product.second, layer.kernel.shape, strict=True))
    summed = math.prod(sizes[axis] for axis in product.summed)
    return Count(_size(layer, input_shape[1:]) // summed * weights, weights)


def _separable(layer, input_shape, output_shape) -> Count:
    weights = math.prod(layer.depthwise_kernel.shape) + math.prod(layer.pointwise_kernel.shape)
    return Count(_size(layer, output_shape[1:-1]) * weights, weights)


def _recurrent(layer, input_shape, output_shape) -> Count:
    weights = math.prod(layer.cell.kernel.shape) + math.prod(layer.cell.recurrent_kernel.shape)
    return Count(_size(layer, input_shape[1:2]) * weights, weights)


def _attention(layer, input_shape, output_shape) -> Count:
    # A call's record has the query's shape alone; the others are those that the layer was built for.
    shapes = layer.get_build_config()["shapes_dict"]
    value_shape = shapes["value_shape"]
    key_shape = shapes.get("key_shape") or value_shape
    queries, keys = _size(layer, input_shape[1:-1]), _size(layer, key_shape[1:-1])
    attended = math.prod(value_shape[axis] for axis in layer.attention_axes)
    multiplications = queries * attended * layer.num_heads * (layer.key_dim + layer.value_dim)
    projections = [(layer.query_dense, queries), (layer.key_dense, keys), (layer.value_dense, keys)]
    projections += [(layer.output_dense, queries)]
    if hasattr(layer, "_gate_dense"):
        projections.append((layer._gate_dense, queries))
    multiplications += sum(math.prod(dense.kernel.shape) * tokens for dense, tokens in projections)
    return Count(multiplications, sum(math.prod(dense.kernel.shape) for dense, _ in projections))


_COUNTS = (
    (keras.layers.DepthwiseConv2D, _depthwise),
    (keras.layers.Conv2DTranspose, _transposed),
    ((keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D), _kernel_layer),
    (keras.layers.EinsumDense, _einsum),
    (keras.layers.SeparableConv2D, _separable),
    (keras.layers.MultiHeadAttention, _attention),
    ((keras.layers.LSTM, keras.layers.GRU), _recurrent),
)
