"""An `IntegerNetwork` run in NumPy, code for code what LiteRT's reference kernels and a C program compute."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from axtrain.integers.fixed_point_softmax import softmax_codes
from axtrain.integers.network import (
    NO_PADDING,
    Addition,
    IntegerNetwork,
    Operation,
    Pad,
    Padding,
    Pooling,
    Product,
    Rescale,
    Reshape,
    Softmax,
    Tensor,
)
from axtrain.integers.requantisation import multiplied, multiplied_once

# Codes are shifted left by this before an addition rescales them (LiteRT's ADD).
ADDITION_SHIFT = 20
# Window values held at once, 8 bytes each (chosen here).
_HELD_VALUES = 1 << 23


def run(network: IntegerNetwork, codes: np.ndarray, *, keep: bool = False):
    """Output codes of a network, or every tensor's.

    Args:
        network: what `axtrain.integer_network` gives.
        codes: int8 of shape (batch, *input shape), e.g. from `network.quantised(x)`.
        keep: give a dictionary of every tensor's codes by name instead of the output's.

    Returns:
        int8 (batch, *output shape), or the dictionary.

    Raises:
        ValueError: codes of another shape, or that are not int8.
    """
    codes = np.asarray(codes)
    expected = network.tensors[network.input].shape
    if codes.dtype != np.int8 or codes.shape[1:] != tuple(expected):
        raise ValueError(
            f"`codes` must be int8 of shape (batch, {', '.join(map(str, expected))}); network.quantised(x) makes them "
            f"of real inputs. Received: {codes.dtype} of shape {codes.shape}"
        )
    held = {network.input: codes}
    last = {name: index for index, operation in enumerate(network.operations) for name in operation.inputs}
    for index, operation in enumerate(network.operations):
        tensors = [network.tensors[name] for name in operation.inputs]
        inputs = [held[name] for name in operation.inputs]
        held[operation.output] = _RULES[type(operation)](operation, inputs, tensors, network.tensors[operation.output])
        for name in operation.inputs:
            if not keep and last[name] == index and name != network.output:
                held.pop(name, None)
    return held if keep else held[network.output]


def accumulators(product: Product, codes: np.ndarray, zero_point: int) -> np.ndarray:
    """int32 ``sum_k (T[a_k, w_kn] - z w_kn)`` of a product, before its bias; sums wrap at 32 bits.

    Args:
        product: the operation.
        codes: int8 (batch, ...).
        zero_point: of the codes.
    """
    depthwise = product.kind == "depthwise_conv2d"
    if product.table is not None:
        return _looked_up(product, product.table, codes, zero_point)
    values = codes.astype(np.float64) - zero_point  # exact: a sum stays below 2^53
    weights = product.codes.astype(np.float64)
    if product.kind == "dense":
        return _wrapped(values @ weights)
    values = _padded(values, product.padding, 0.0)
    parts = []
    for part in _batches(values, weights.size if depthwise else weights[..., 0].size, product.strides):
        windows = _windows(part, weights.shape[:2], product.strides, product.dilation)
        if depthwise:  # (B, Y, X, C, i, j) with (i, j, C, m)
            sums = np.einsum("byxcij,ijcm->byxcm", windows, weights, optimize=True)
            parts.append(_wrapped(sums.reshape(*sums.shape[:3], -1)))
        else:
            rows = np.moveaxis(windows, 3, 5).reshape(*windows.shape[:3], -1)
            parts.append(_wrapped(rows @ weights.reshape(-1, weights.shape[-1])))
    return np.concatenate(parts)


def _looked_up(product: Product, table: np.ndarray, codes: np.ndarray, zero_point: int) -> np.ndarray:
    """The sums through the multiplier's table, by the engines that Keras layers use."""
    from keras import ops

    from axtrain.emulation.code_table import CodeTable
    from axtrain.emulation.selection import engine_for

    kinds = {"dense": "dense", "conv2d": "conv", "depthwise_conv2d": "depthwise"}
    weights = product.codes.astype(np.int32)
    # Fewer columns mean fewer factors, so faster sums: the code -128 is no weight's.
    products = CodeTable(table, -128, -128).restricted(weights=(min(-127, int(weights.min())), 127))
    engine = engine_for(products, operation=kinds[product.kind], terms=weights.size // product.weight_scale.size)
    depthwise = product.kind == "depthwise_conv2d"
    total = weights.sum((0, 1)).reshape(-1) if depthwise else weights.reshape(-1, weights.shape[-1]).sum(0)
    padded = _padded(codes, product.padding, zero_point) if product.kind != "dense" else codes
    a, w = (ops.convert_to_tensor(array.astype(np.float32)) for array in (padded, weights))
    if product.kind == "dense":
        sums = engine.matmul(a, w)
    else:
        function = engine.depthwise_conv if depthwise else engine.conv
        sums = function(a, w, product.strides, product.dilation)
    return _wrapped(ops.convert_to_numpy(sums).astype(np.int64) - zero_point * total)


def _product(product: Product, inputs: list, tensors: list[Tensor], output: Tensor) -> np.ndarray:
    sums = accumulators(product, inputs[0], tensors[0].zero_point).astype(np.int64) + product.bias
    rule = multiplied_once if product.roundings == 1 else multiplied
    return _clamped(rule(_wrapped(sums), product.factor, product.shift), product, output)


def _addition(operation: Addition, inputs: list, tensors: list[Tensor], output: Tensor) -> np.ndarray:
    total = sum(
        multiplied((codes.astype(np.int64) - tensor.zero_point) << ADDITION_SHIFT, factor, shift)
        for codes, tensor, factor, shift in zip(inputs, tensors, operation.factors, operation.shifts, strict=True)
    )
    return _clamped(multiplied(total, operation.factor, operation.shift), operation, output)


def _rescale(operation: Rescale, inputs: list, tensors: list[Tensor], output: Tensor) -> np.ndarray:
    values = inputs[0].astype(np.int64) - tensors[0].zero_point
    return _clamped(multiplied(values, operation.factor, operation.shift), operation, output)


def _pooling(operation: Pooling, inputs: list, tensors: list[Tensor], output: Tensor) -> np.ndarray:
    largest = operation.kind == "max"
    values = _padded(inputs[0].astype(np.int64), operation.padding, -128 if largest else 0)
    windows = _windows(values, operation.window, operation.strides, (1, 1))
    if largest:
        found = windows.max((-2, -1))
    else:
        inside = _padded(np.ones((1, *inputs[0].shape[1:3], 1), np.int64), operation.padding, 0)
        count = _windows(inside, operation.window, operation.strides, (1, 1)).sum((-2, -1))
        total = windows.sum((-2, -1))
        found = np.sign(total) * ((np.abs(total) + count // 2) // count)
    return np.clip(found, operation.lowest, operation.highest).astype(np.int8)


def _reshape(operation: Reshape, inputs: list, tensors: list[Tensor], output: Tensor) -> np.ndarray:
    return inputs[0].reshape(len(inputs[0]), *output.shape)


def _pad(operation: Pad, inputs: list, tensors: list[Tensor], output: Tensor) -> np.ndarray:
    return _padded(inputs[0], operation.padding, tensors[0].zero_point)


def _softmax(operation: Softmax, inputs: list, tensors: list[Tensor], output: Tensor) -> np.ndarray:
    return softmax_codes(inputs[0], tensors[0].scale)


_RULES: dict[type[Operation], Callable[..., np.ndarray]] = {
    Product: _product,
    Addition: _addition,
    Rescale: _rescale,
    Pooling: _pooling,
    Reshape: _reshape,
    Pad: _pad,
    Softmax: _softmax,
}


def _clamped(values: np.ndarray, operation, output: Tensor) -> np.ndarray:
    return np.clip(_wrapped(values + output.zero_point), operation.lowest, operation.highest).astype(np.int8)


def _wrapped(sums: np.ndarray) -> np.ndarray:
    """int32, wrapped as a 32-bit accumulator wraps."""
    return sums.astype(np.int64).astype(np.int32)


def _padded(values: np.ndarray, padding: Padding, filled) -> np.ndarray:
    if padding == NO_PADDING:
        return values
    rows, columns = (padding.top, padding.bottom), (padding.left, padding.right)
    return np.pad(values, [(0, 0), rows, columns, (0, 0)], constant_values=filled)


def _windows(image: np.ndarray, window, strides, dilation) -> np.ndarray:
    """A view (B, Y, X, C, i, j) of the windows of images (B, H, W, C)."""
    spans = [(size - 1) * step + 1 for size, step in zip(window, dilation, strict=True)]
    views = np.lib.stride_tricks.sliding_window_view(image, spans, axis=(1, 2))
    return views[:, :: strides[0], :: strides[1], :, :: dilation[0], :: dilation[1]]


def _batches(image: np.ndarray, window_size: int, strides) -> Iterator[np.ndarray]:
    """Parts of a batch whose windows fit in memory."""
    values = image.shape[1] * image.shape[2] * window_size // (strides[0] * strides[1])
    step = max(1, _HELD_VALUES // max(values, 1))
    for start in range(0, max(len(image), 1), step):
        yield image[start : start + step]
