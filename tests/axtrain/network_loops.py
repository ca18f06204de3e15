"""Integer networks by plain loops over Python's own integers: one sample, one number at a time.

Independent of the library's runner: LiteRT's arithmetic is written again here, in exact fractions where it can be.
"""

from fractions import Fraction
from math import floor

import numpy as np

from axtrain.integers.network import Addition, Pad, Pooling, Product, Rescale, Reshape, Softmax


def run(network, sample, *, keep=False):
    """Codes of the output (or of all tensors) for one sample's codes."""
    values = {network.input: np.asarray(sample, np.int64).reshape(network.tensors[network.input].shape)}
    for operation in network.operations:
        values[operation.output] = step(network, operation, values)
    return values if keep else values[network.output]


def step(network, operation, values):
    """Codes that one operation gives, from those of the tensors that it reads."""
    inputs = [values[name] for name in operation.inputs]
    source, target = network.tensors[operation.inputs[0]], network.tensors[operation.output]
    return _FUNCTIONS[type(operation)](operation, inputs, source, target, network).reshape(target.shape)


def requantised(value, factor, shift):
    """Shifted left within 32 bits, then round(x factor / 2^31), halves up, then by 2^-shift, halves away from 0."""
    value, factor, shift = int(value), int(factor), int(shift)
    shifted = (value * 2 ** max(shift, 0) + 2**31) % 2**32 - 2**31
    high = min(floor(Fraction(shifted * factor, 2**31) + Fraction(1, 2)), 2**31 - 1)
    return half_away(Fraction(high, 2 ** max(-shift, 0)))


def requantised_once(value, factor, shift):
    """round(x factor 2^(shift - 31)), halves up, within 32 bits."""
    found = floor(Fraction(int(value) * int(factor), 2 ** (31 - int(shift))) + Fraction(1, 2))
    return max(-(2**31), min(2**31 - 1, found))


def half_away(value):
    return floor(value + Fraction(1, 2)) if value >= 0 else -floor(-value + Fraction(1, 2))


def _clamped(value, operation):
    return max(operation.lowest, min(operation.highest, value))


def _product(product, inputs, source, target, network):
    (x,), z = inputs, source.zero_point

    def term(code, weight):
        code, weight = int(code), int(weight)
        found = code * weight if product.table is None else int(product.table[code + 128, weight + 128])
        return found - z * weight

    def finished(total, channel):
        total += int(product.bias[channel])
        assert -(2**31) <= total < 2**31
        rule = requantised_once if product.roundings == 1 else requantised
        code = target.zero_point + rule(total, product.factor[channel], product.shift[channel])
        return _clamped(code, product)

    if product.kind == "dense":
        rows, (terms, units) = x.reshape(-1, product.codes.shape[0]), product.codes.shape
        sums = [[sum(term(row[k], product.codes[k, n]) for k in range(terms)) for n in range(units)] for row in rows]
        return np.array([[finished(total, n) for n, total in enumerate(row)] for row in sums])
    top, bottom, left, right = product.padding
    x = np.pad(x, [(top, bottom), (left, right), (0, 0)], constant_values=z)
    kh, kw = product.codes.shape[:2]
    out = np.zeros(target.shape, np.int64)
    for row, column, n in np.ndindex(*target.shape):
        total = 0
        for i, j in np.ndindex(kh, kw):
            y = row * product.strides[0] + i * product.dilation[0]
            pixel = x[y, column * product.strides[1] + j * product.dilation[1]]
            if product.kind == "conv2d":
                total += sum(term(pixel[c], product.codes[i, j, c, n]) for c in range(len(pixel)))
            else:
                c, m = divmod(n, product.codes.shape[3])
                total += term(pixel[c], product.codes[i, j, c, m])
        out[row, column, n] = finished(total, n)
    return out


def _addition(addition, inputs, source, target, network):
    zeros = [network.tensors[name].zero_point for name in addition.inputs]
    out = []
    for pair in zip(*(x.reshape(-1) for x in inputs), strict=True):
        total = sum(
            requantised((int(code) - zero) * 2**20, factor, shift)
            for code, zero, factor, shift in zip(pair, zeros, addition.factors, addition.shifts, strict=True)
        )
        out.append(_clamped(target.zero_point + requantised(total, addition.factor, addition.shift), addition))
    return np.array(out)


def _pooling(pooling, inputs, source, target, network):
    (x,) = inputs
    out = np.zeros(target.shape, np.int64)
    for row, column, c in np.ndindex(*out.shape):
        y, left = row * pooling.strides[0] - pooling.padding.top, column * pooling.strides[1] - pooling.padding.left
        seen = x[max(y, 0) : y + pooling.window[0], max(left, 0) : left + pooling.window[1], c].reshape(-1).tolist()
        found = max(seen) if pooling.kind == "max" else half_away(Fraction(sum(seen), len(seen)))
        out[row, column, c] = _clamped(found, pooling)
    return out


def _pad(pad, inputs, source, target, network):
    top, bottom, left, right = pad.padding
    return np.pad(inputs[0], [(top, bottom), (left, right), (0, 0)], constant_values=source.zero_point)


def _rescale(rescale, inputs, source, target, network):
    codes = inputs[0].reshape(-1)
    found = [requantised(code - source.zero_point, rescale.factor, rescale.shift) for code in codes]
    return np.array([_clamped(target.zero_point + value, rescale) for value in found])


def _softmax(softmax, inputs, source, target, network):
    rows = inputs[0].reshape(-1, source.shape[-1])
    return np.array([_softmax_row(row.tolist(), source.scale) for row in rows])


def _high(a, b):
    """round(a b / 2^31), halves up, of either sign; gemmlowp's for a negative product rounds the same way."""
    return min(floor(Fraction(a * b, 2**31) + Fraction(1, 2)), 2**31 - 1)


def _by_power(value, exponent):
    return half_away(Fraction(value, 2**exponent))


def _softmax_row(codes, scale):
    """gemmlowp's arithmetic; names of its functions in the comments."""
    factor, shift = multiplier(min(scale * 2.0**26, 2.0**31 - 1))
    furthest = floor(31 * 2.0**26 / 2.0**shift)
    differences = [code - max(codes) for code in codes]
    shares = [_exp(requantised(d, factor, shift)) if d >= -furthest else None for d in differences]
    total = sum(_by_power(share, 12) for share in shares if share is not None)
    headroom = 32 - total.bit_length()
    reciprocal = _one_over_one_plus(total * 2**headroom - 2**31)
    return [
        -128
        if share is None
        else min(max(_by_power(_high(reciprocal, share), 12 - headroom + 31 - 8) - 128, -128), 127)
        for share in shares
    ]


def _exp(value):  # exp_on_negative_values, 5 integer bits
    if value == 0:
        return 2**31 - 1
    near = value % 2**24 - 2**24
    x = near * 32 + 2**28
    x2 = _high(x, x)
    x3, x4 = _high(x2, x), _high(x2, x2)
    polynomial = x + _by_power(_high(_by_power(x4, 2) + x3, 715827883) + x2, 1)
    result = 1895147668 + _high(1895147668, polynomial)
    constants = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)
    for power, constant in enumerate(constants):
        if ((near - value) >> (24 + power)) & 1:
            result = _high(result, constant)
    return result


def _one_over_one_plus(value):  # one_over_one_plus_x_for_x_in_0_1
    half = half_away(Fraction(value + 2**31 - 1, 2))
    x = 1515870810 + _high(half, -1010580540)
    for _ in range(3):
        x += max(-(2**31), min(2**31 - 1, _high(x, 2**29 - _high(half, x)) * 4))
    return min(x * 2, 2**31 - 1)


def multiplier(real):
    """(factor, shift) of a real multiplier: gemmlowp's QuantizeMultiplier."""
    if real == 0:
        return 0, 0
    shift = 0
    fraction = Fraction(real)
    while fraction >= 1:
        fraction, shift = fraction / 2, shift + 1
    while fraction < Fraction(1, 2):
        fraction, shift = fraction * 2, shift - 1
    factor = half_away(fraction * 2**31)
    return (factor // 2, shift + 1) if factor == 2**31 else (factor, shift)


_FUNCTIONS = {
    Product: _product,
    Addition: _addition,
    Pooling: _pooling,
    Pad: _pad,
    Rescale: _rescale,
    Reshape: lambda operation, inputs, *_: inputs[0],
    Softmax: _softmax,
}
