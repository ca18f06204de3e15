"""C functions of the operations that multiply no weights: addition, pooling, padding, rescaling, softmax."""

from __future__ import annotations

import math
from string import Template

from axtrain.integers.c_code.text import constants
from axtrain.integers.network import (
    Addition,
    IntegerNetwork,
    Operation,
    Pad,
    Padding,
    Pooling,
    Rescale,
    Reshape,
    Softmax,
)

_LONGEST_SOFTMAX = 4095

_ADDITION = Template("""\
static void $function(const int8_t *first, const int8_t *second, int8_t *output)
{
$constants
    for (int32_t i = 0; i < COUNT; ++i) {
        const int32_t a = requantised((first[i] - (int32_t)FIRST_ZERO_POINT) * 1048576, FIRST_FACTOR, FIRST_SHIFT);
        const int32_t b = requantised((second[i] - (int32_t)SECOND_ZERO_POINT) * 1048576, SECOND_FACTOR, SECOND_SHIFT);
        output[i] = clamped(requantised(a + b, FACTOR, SHIFT), OUTPUT_ZERO_POINT, LOWEST, HIGHEST);
    }
}
""")

_RESCALE = Template("""\
static void $function(const int8_t *input, int8_t *output)
{
$constants
    for (int32_t i = 0; i < COUNT; ++i) {
        const int32_t code = requantised(input[i] - (int32_t)ZERO_POINT, FACTOR, SHIFT);
        output[i] = clamped(code, OUTPUT_ZERO_POINT, LOWEST, HIGHEST);
    }
}
""")

_POOLING = Template("""\
static void $function(const int8_t *input, int8_t *output)
{
$constants
    for (int32_t row = 0; row < OUTPUT_HEIGHT; ++row) {
        for (int32_t column = 0; column < OUTPUT_WIDTH; ++column) {
            for (int32_t channel = 0; channel < CHANNELS; ++channel) {
$begin
                for (int32_t i = 0; i < WINDOW_HEIGHT; ++i) {
                    const int32_t y = row * STRIDE_ROWS + i - TOP;
                    for (int32_t j = 0; j < WINDOW_WIDTH; ++j) {
                        const int32_t x = column * STRIDE_COLUMNS + j - LEFT;
                        if (y >= 0 && y < HEIGHT && x >= 0 && x < WIDTH) {
                            const int32_t code = input[(y * WIDTH + x) * CHANNELS + channel];
$take
                        }
                    }
                }
$end
            }
        }
    }
}
""")

_LARGEST = {
    "begin": "                int32_t largest = -128;",
    "take": "                            largest = code > largest ? code : largest;",
    "end": """\
                output[(row * OUTPUT_WIDTH + column) * CHANNELS + channel] = clamped(largest, 0, LOWEST, HIGHEST);""",
}

_MEAN = {
    "begin": "                int32_t sum = 0, count = 0;",
    "take": """\
                            sum += code;
                            ++count;""",
    "end": """\
                /* to the nearest code, halves away from zero */
                const int32_t mean = (sum > 0 ? sum + count / 2 : sum - count / 2) / count;
                output[(row * OUTPUT_WIDTH + column) * CHANNELS + channel] = clamped(mean, 0, LOWEST, HIGHEST);""",
}

_PAD = Template("""\
static void $function(const int8_t *input, int8_t *output)
{
$constants
    for (int32_t row = 0; row < OUTPUT_HEIGHT; ++row) {
        for (int32_t column = 0; column < OUTPUT_WIDTH; ++column) {
            const int32_t y = row - TOP;
            const int32_t x = column - LEFT;
            const int inside = y >= 0 && y < HEIGHT && x >= 0 && x < WIDTH;
            for (int32_t channel = 0; channel < CHANNELS; ++channel) {
                const int8_t code = inside ? input[(y * WIDTH + x) * CHANNELS + channel] : ZERO_POINT;
                output[(row * OUTPUT_WIDTH + column) * CHANNELS + channel] = code;
            }
        }
    }
}
""")

_COPY = Template("""\
static void $function(const int8_t *input, int8_t *output)
{
    for (int32_t i = 0; i < $count; ++i) {
        output[i] = input[i];
    }
}
""")

_SOFTMAX = Template("""\
static void $function(const int8_t *input, int8_t *output)
{
$constants
    for (int32_t row = 0; row < ROWS; ++row) {
        softmax_row(input + row * COUNT, output + row * COUNT, COUNT, FACTOR, SHIFT, FURTHEST);
    }
}
""")


def operation_function(operation: Operation, network: IntegerNetwork, function: str) -> str:
    """C of one operation that is no product.

    Raises:
        ValueError: a softmax over more classes than its sum has room for.
        TypeError: an operation that is not known here.
    """
    source, target = network.tensors[operation.inputs[0]], network.tensors[operation.output]
    count = math.prod(target.shape)
    ends = {name.upper(): getattr(operation, name) for name in ("lowest", "highest") if hasattr(operation, name)}
    zero = {"OUTPUT_ZERO_POINT": target.zero_point}
    if isinstance(operation, Addition):
        second = network.tensors[operation.inputs[1]]
        sizes = {"COUNT": count, "FIRST_ZERO_POINT": source.zero_point, "SECOND_ZERO_POINT": second.zero_point}
        for name, factor, shift in zip(("FIRST", "SECOND"), operation.factors, operation.shifts, strict=True):
            sizes |= {f"{name}_FACTOR": int(factor), f"{name}_SHIFT": int(shift)}
        sizes |= {"FACTOR": operation.factor, "SHIFT": operation.shift, **zero, **ends}
        return _ADDITION.substitute(function=function, constants=constants(sizes))
    if isinstance(operation, Rescale):
        sizes = {"COUNT": count, "ZERO_POINT": source.zero_point, "FACTOR": operation.factor, "SHIFT": operation.shift}
        return _RESCALE.substitute(function=function, constants=constants({**sizes, **zero, **ends}))
    if isinstance(operation, Reshape):
        return _COPY.substitute(function=function, count=count)
    if isinstance(operation, Softmax):
        return _softmax(source.shape[-1], math.prod(source.shape), source.scale, operation.name, function)
    if isinstance(operation, Pad):
        sizes = _image(source.shape, target.shape, operation.padding) | {"ZERO_POINT": source.zero_point}
        return _PAD.substitute(function=function, constants=constants(sizes))
    if isinstance(operation, Pooling):
        sizes = _image(source.shape, target.shape, operation.padding)
        for name, pair in (("WINDOW", operation.window), ("STRIDE", operation.strides)):
            names = ("HEIGHT", "WIDTH") if name == "WINDOW" else ("ROWS", "COLUMNS")
            sizes |= {f"{name}_{axis}": size for axis, size in zip(names, pair, strict=True)}
        parts = _LARGEST if operation.kind == "max" else _MEAN
        return _POOLING.substitute(parts, function=function, constants=constants(sizes | ends))
    raise TypeError(f"No C is known for this operation. Received: {type(operation).__name__} of {operation.name!r}")


def _image(source: tuple[int, ...], target: tuple[int, ...], padding: Padding) -> dict[str, int]:
    sizes = {"HEIGHT": source[0], "WIDTH": source[1], "CHANNELS": source[2]}
    return sizes | {"OUTPUT_HEIGHT": target[0], "OUTPUT_WIDTH": target[1], "TOP": padding.top, "LEFT": padding.left}


def _softmax(classes: int, count: int, scale: float, layer: str, function: str) -> str:
    if classes > _LONGEST_SOFTMAX:
        raise ValueError(
            f"LiteRT's integer softmax has room for {_LONGEST_SOFTMAX} classes; end the network at its logits. "
            f"Received: layer {layer!r}, {classes} classes"
        )
    # A difference of codes becomes a number of 5 integer and 26 fraction bits; what is below -31 counts as nothing.
    fraction, shift = math.frexp(min(scale * 2.0**26, 2.0**31 - 1))
    factor = math.floor(fraction * 2.0**31 + 0.5)
    if factor == 1 << 31:
        factor, shift = factor // 2, shift + 1
    furthest = min(math.floor(31 * 2.0 ** (26 - shift)), 255)
    sizes = {"ROWS": count // classes, "COUNT": classes, "FACTOR": factor, "SHIFT": shift, "FURTHEST": furthest}
    return _SOFTMAX.substitute(function=function, constants=constants(sizes))
