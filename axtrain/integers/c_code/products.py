"""C functions and arrays of the products: dense, convolution, depthwise convolution."""

from __future__ import annotations

from string import Template

import numpy as np

from axtrain.integers.c_code.text import array, comment, constants, shape_text
from axtrain.integers.network import IntegerNetwork, Product, Tensor

# The sums of all output channels grow together, so that weights are read in the order in which they lie.
_DENSE = Template("""\
static void $function(const int8_t *input, int8_t *output)
{
$constants
    for (int32_t row = 0; row < ROWS; ++row) {
        for (int32_t unit = 0; unit < UNITS; ++unit) {
            sums[unit] = ${data}_start[unit];
        }
        for (int32_t term = 0; term < INPUTS; ++term) {
            const int8_t code = input[row * INPUTS + term];
            const int8_t *weights = ${data}_weights + term * UNITS;
            for (int32_t unit = 0; unit < UNITS; ++unit) {
                sums[unit] += $multiply(code, weights[unit]);
            }
        }
        for (int32_t unit = 0; unit < UNITS; ++unit) {
            const int32_t code = $requantised(sums[unit], ${data}_factor[unit], ${data}_shift[unit]);
            output[row * UNITS + unit] = clamped(code, OUTPUT_ZERO_POINT, LOWEST, HIGHEST);
        }
    }
}
""")

# Padding is a code like any other: a circuit that is not exact may give it a product that is not zero.
_CONVOLUTION = Template("""\
static void $function(const int8_t *input, int8_t *output)
{
$constants
    for (int32_t row = 0; row < OUTPUT_HEIGHT; ++row) {
        for (int32_t column = 0; column < OUTPUT_WIDTH; ++column) {
            for (int32_t filter = 0; filter < FILTERS; ++filter) {
                sums[filter] = ${data}_start[filter];
            }
            for (int32_t i = 0; i < WINDOW_HEIGHT; ++i) {
                const int32_t y = row * STRIDE_ROWS + i * DILATION_ROWS - TOP;
                for (int32_t j = 0; j < WINDOW_WIDTH; ++j) {
                    const int32_t x = column * STRIDE_COLUMNS + j * DILATION_COLUMNS - LEFT;
                    const int inside = y >= 0 && y < HEIGHT && x >= 0 && x < WIDTH;
                    for (int32_t channel = 0; channel < CHANNELS; ++channel) {
                        const int8_t code = inside ? input[(y * WIDTH + x) * CHANNELS + channel] : ZERO_POINT;
                        const int32_t place = (i * WINDOW_WIDTH + j) * CHANNELS + channel;
$inner
                    }
                }
            }
            for (int32_t filter = 0; filter < FILTERS; ++filter) {
                const int32_t code = $requantised(sums[filter], ${data}_factor[filter], ${data}_shift[filter]);
                output[(row * OUTPUT_WIDTH + column) * FILTERS + filter] =
                    clamped(code, OUTPUT_ZERO_POINT, LOWEST, HIGHEST);
            }
        }
    }
}
""")

_ALL_CHANNELS = Template("""\
                        const int8_t *weights = ${data}_weights + place * FILTERS;
                        for (int32_t filter = 0; filter < FILTERS; ++filter) {
                            sums[filter] += $multiply(code, weights[filter]);
                        }""")

_ONE_CHANNEL = Template("""\
                        const int8_t *weights = ${data}_weights + place * FILTERS_PER_CHANNEL;
                        for (int32_t part = 0; part < FILTERS_PER_CHANNEL; ++part) {
                            sums[channel * FILTERS_PER_CHANNEL + part] += $multiply(code, weights[part]);
                        }""")


def product_function(product: Product, network: IntegerNetwork, function: str, data: str, macro: str) -> str:
    """C of one product; `data` begins the names of its arrays."""
    source, target = network.tensors[product.inputs[0]], network.tensors[product.output]
    ends = {"OUTPUT_ZERO_POINT": target.zero_point, "LOWEST": product.lowest, "HIGHEST": product.highest}
    names = {"function": function, "data": data, "multiply": macro}
    names["requantised"] = "requantised_once" if product.roundings == 1 else "requantised"
    if product.kind == "dense":
        inputs, units = product.codes.shape
        sizes = {"ROWS": int(np.prod(source.shape)) // inputs, "INPUTS": inputs, "UNITS": units}
        return _DENSE.substitute(names, constants=constants(sizes | ends))
    sizes = _convolution_sizes(product, source, target) | ends
    inner = _ONE_CHANNEL if product.kind == "depthwise_conv2d" else _ALL_CHANNELS
    return _CONVOLUTION.substitute(names, constants=constants(sizes), inner=inner.substitute(names))


def _convolution_sizes(product: Product, source: Tensor, target: Tensor) -> dict[str, int]:
    height, width, channels = source.shape
    sizes = {"HEIGHT": height, "WIDTH": width, "CHANNELS": channels}
    sizes |= {"OUTPUT_HEIGHT": target.shape[0], "OUTPUT_WIDTH": target.shape[1], "FILTERS": target.shape[2]}
    if product.kind == "depthwise_conv2d":
        sizes["FILTERS_PER_CHANNEL"] = product.codes.shape[3]
    sizes |= {"WINDOW_HEIGHT": product.codes.shape[0], "WINDOW_WIDTH": product.codes.shape[1]}
    sizes |= {"STRIDE_ROWS": product.strides[0], "STRIDE_COLUMNS": product.strides[1]}
    sizes |= {"DILATION_ROWS": product.dilation[0], "DILATION_COLUMNS": product.dilation[1]}
    return sizes | {"TOP": product.padding.top, "LEFT": product.padding.left, "ZERO_POINT": source.zero_point}


def product_data(product: Product, network: IntegerNetwork, data: str) -> str:
    """C arrays of one product: weights, where the sums start, and the requantisation.

    Raises:
        ValueError: sums that may not fit 32 bits.
    """
    zero_point = network.tensors[product.inputs[0]].zero_point
    start = _starts(product, zero_point)
    _check_sums(product, start)
    order = {"dense": "(input, unit)", "conv2d": "(row, column, channel, filter)"}
    axes = order.get(product.kind, "(row, column, channel, filter of the channel)")
    texts = [
        comment(f"{product.output}: weights of shape {shape_text(product.codes.shape)}, {axes}"),
        array(f"{data}_weights", product.codes, "int8_t"),
        comment(f"where each sum starts: bias - ({zero_point}) (sum of the weights); {zero_point} is the code of 0"),
        array(f"{data}_start", start, "int32_t"),
        comment("output code = zero point + sum * factor * 2^(shift - 31)"),
        array(f"{data}_factor", product.factor, "int32_t"),
        array(f"{data}_shift", product.shift, "int8_t"),
    ]
    return "\n".join(texts)


def _starts(product: Product, zero_point: int) -> np.ndarray:
    """The bias with the zero point's share of the sum, int64, one for each output channel."""
    return product.bias.astype(np.int64) - zero_point * _terms(product).sum(0)


def _terms(product: Product) -> np.ndarray:
    """Weight codes as (terms of a sum, output channels), int64."""
    codes = product.codes.astype(np.int64)
    if product.kind == "depthwise_conv2d":
        return codes.reshape(codes.shape[0] * codes.shape[1], -1)
    return codes.reshape(-1, codes.shape[-1])


def _check_sums(product: Product, start: np.ndarray) -> None:
    codes = np.arange(-128, 128, dtype=np.int64)
    table = np.multiply.outer(codes, codes) if product.table is None else product.table.astype(np.int64)
    places = _terms(product) + 128
    highest, lowest = (start + end[places].sum(0) for end in (table.max(0), table.min(0)))
    if max(abs(start).max(), highest.max(), -lowest.min()) >= 1 << 31:
        raise ValueError(
            "A sum of this layer may not fit 32 bits; give the layer fewer inputs or smaller biases. Received: layer "
            f"{product.name!r}, sums from {lowest.min()} to {highest.max()}"
        )
