"""Small integer networks of random codes, sizes and scales, of every kind of operation."""

import functools
import math

import numpy as np
from network_loops import multiplier

import axtrain as ax
from axtrain.integers.network import (
    NO_PADDING,
    Addition,
    IntegerNetwork,
    Pad,
    Padding,
    Pooling,
    Product,
    Rescale,
    Reshape,
    Softmax,
    Tensor,
)


@functools.lru_cache(maxsize=16)
def table_of(circuit):
    """The table over (activation code + 128, weight code + 128) of a multiplier."""
    codes = np.arange(-128, 128)
    if circuit.signed:
        return circuit.table[np.ix_(codes % 256, codes % 256)]
    return (np.sign(codes) * circuit.table[:, np.abs(codes)] - 128 * codes).astype(np.int32)


class Builder:
    """Adds operations one after another; each takes the last tensor, or those that are named."""

    def __init__(self, seed, shape, name="network"):
        self.rng = np.random.default_rng(seed)
        self.name, self.tensors, self.operations = name, {}, []
        self.input = self.last = self._tensor("input", shape)

    def finished(self):
        return IntegerNetwork(
            name=self.name,
            tensors=self.tensors,
            operations=tuple(self.operations),
            input=self.input,
            output=self.last,
        )

    @property
    def shape(self):
        return self.tensors[self.last].shape

    def _tensor(self, name, shape, scale=None, zero_point=None):
        scale = float(np.float32(self.rng.uniform(0.005, 0.05) if scale is None else scale))
        zero_point = int(self.rng.integers(-128, 128)) if zero_point is None else zero_point
        self.tensors[name] = Tensor(name=name, shape=tuple(shape), scale=scale, zero_point=zero_point)
        return name

    def _add(self, operation, shape, inputs=None, keep_scale=False, scale=None, zero_point=None, **options):
        inputs = inputs or (self.last,)
        source = self.tensors[inputs[0]]
        if keep_scale:
            scale, zero_point = source.scale, source.zero_point
        name = f"{operation.__name__.lower()}/{len(self.operations)}"
        output = self._tensor(name, shape, scale, zero_point)
        self.operations.append(operation(name=name.split("/")[0], inputs=inputs, output=output, **options))
        self.last = output
        return output

    def _product(self, kind, codes, terms, shape, circuit, relu, **options):
        source = self.tensors[self.last]
        channels = shape[-1]
        scale = self.rng.uniform(0.01, 0.05)
        # So that codes spread over their range and some saturate.
        typical = scale / (source.scale * math.sqrt(terms) * 90)
        weight_scale = (typical * self.rng.uniform(0.5, 2, channels)).astype(np.float32)
        zero_point = int(self.rng.integers(-128, 0 if relu else 100))
        real = [source.scale * float(each) / float(np.float32(scale)) for each in weight_scale]
        factor, shift = (np.array(each, np.int32) for each in zip(*map(multiplier, real), strict=True))
        return self._add(
            Product,
            shape,
            scale=scale,
            zero_point=zero_point,
            kind=kind,
            codes=codes.astype(np.int8),
            weight_scale=weight_scale,
            bias=self.rng.integers(-3000, 3000, channels).astype(np.int32),
            factor=factor,
            shift=shift,
            lowest=zero_point if relu else -128,
            table=None if circuit is None else table_of(circuit),
            multiplier=circuit,
            **options,
        )

    def dense(self, units, circuit=None, relu=False):
        codes = self.rng.integers(-127, 128, (self.shape[-1], units))
        shape, roundings = (*self.shape[:-1], units), int(self.rng.integers(1, 3))
        return self._product("dense", codes, len(codes), shape, circuit, relu, roundings=roundings)

    def conv(self, filters, window=(3, 3), circuit=None, relu=False, kind="conv2d", **options):
        shape, channels = self._convolved(window, **options), self.shape[-1]
        codes = self.rng.integers(-127, 128, (*window, channels, filters))
        terms, outputs = math.prod(window), filters
        if kind == "conv2d":
            terms *= channels
        else:
            outputs *= channels
        return self._product(kind, codes, terms, (*shape, outputs), circuit, relu, **options)

    def depthwise(self, per_channel, window=(3, 3), **options):
        return self.conv(per_channel, window, kind="depthwise_conv2d", **options)

    def _convolved(self, window, strides=(1, 1), dilation=(1, 1), padding=NO_PADDING):
        padded = self.shape[0] + padding.top + padding.bottom, self.shape[1] + padding.left + padding.right
        return tuple(
            (n - (k - 1) * d - 1) // s + 1 for n, k, d, s in zip(padded, window, dilation, strides, strict=True)
        )

    def pool(self, kind, window, strides, padding=NO_PADDING, lowest=-128):
        shape = (*self._convolved(window, strides, padding=padding), self.shape[2])
        options = {"window": window, "strides": strides, "padding": padding, "lowest": lowest}
        return self._add(Pooling, shape, keep_scale=True, kind=kind, **options)

    def global_average(self):
        height, width, channels = self.shape
        options = {"window": (height, width), "strides": (height, width)}
        self._add(Pooling, (1, 1, channels), keep_scale=True, kind="average", **options)
        return self.reshape(channels)

    def pad(self, *padding):
        padding = Padding(*padding)
        height, width, channels = self.shape
        shape = (height + padding.top + padding.bottom, width + padding.left + padding.right, channels)
        return self._add(Pad, shape, keep_scale=True, padding=padding)

    def reshape(self, *shape):
        return self._add(Reshape, shape, keep_scale=True)

    def flatten(self):
        return self.reshape(math.prod(self.shape))

    def rescale(self, lowest=-128, highest=127):
        source = self.tensors[self.last]
        scale = float(np.float32(source.scale * self.rng.uniform(0.6, 1.7)))
        zero_point = int(np.clip(source.zero_point + self.rng.integers(-20, 20), -128, 127))
        factor, shift = multiplier(source.scale / scale)
        options = {"factor": factor, "shift": shift, "lowest": lowest, "highest": highest}
        return self._add(Rescale, self.shape, scale=scale, zero_point=zero_point, **options)

    def add(self, first, second, relu=False):
        scales = [self.tensors[name].scale for name in (first, second)]
        twice = 2 * max(scales)
        scale = float(np.float32(max(scales) * self.rng.uniform(0.7, 2)))
        (f0, f1), (s0, s1) = zip(*(multiplier(each / twice) for each in scales), strict=True)
        factor, shift = multiplier(twice / (2**20 * scale))
        zero_point = int(self.rng.integers(-128, 128))
        options = {"factors": (f0, f1), "shifts": (s0, s1), "factor": factor, "shift": shift}
        options["lowest"] = zero_point if relu else -128
        shape = self.tensors[first].shape
        return self._add(Addition, shape, (first, second), scale=scale, zero_point=zero_point, **options)

    def softmax(self):
        return self._add(Softmax, self.shape, scale=1 / 256, zero_point=-128)


SAME = Padding(1, 1, 1, 1)
MORE_AT_THE_END = Padding(0, 1, 1, 2)


def convolutional(seed, circuit=None):
    """A residual block between strided, dilated, padded convolutions, pools and a softmax; odd sizes."""
    b = Builder(seed, (7, 9, 2), name=f"convolutional {seed}")
    b.conv(3, (3, 2), circuit=circuit, relu=True, strides=(1, 2), padding=MORE_AT_THE_END)
    first = b.rescale(lowest=-100, highest=90)
    b.conv(3, circuit=circuit, padding=SAME)
    b.add(b.last, first, relu=True)
    b.depthwise(2, (2, 3), circuit=circuit, dilation=(2, 1), padding=Padding(1, 1, 0, 2))
    b.pool("max", (2, 3), (1, 2), Padding(0, 1, 1, 1), lowest=-90)
    b.pad(1, 0, 2, 1)
    b.pool("average", (3, 2), (2, 1), Padding(1, 0, 0, 1))
    b.flatten()
    b.dense(5, circuit=circuit)
    b.softmax()
    return b.finished()


def dense(seed, circuit=None):
    """Layers on the last of two axes, then on a flat vector; ends in logits."""
    b = Builder(seed, (3, 11), name=f"dense-{seed}")
    b.dense(6, circuit=circuit, relu=True)
    b.reshape(2, 9)
    b.dense(4, circuit=circuit)
    b.flatten()
    b.dense(3)
    return b.finished()


def pooled(seed, circuit=None):
    """An image reshaped into another; a convolution of one pixel; a global mean; two branches of one tensor."""
    b = Builder(seed, (4, 6, 3), name=f"1 pooled {seed}")
    b.reshape(3, 4, 6)
    b.conv(4, (1, 1), circuit=circuit, strides=(2, 1))
    left = b.global_average()
    b.last = b.operations[1].output
    b.pool("max", (2, 2), (2, 2))
    b.add(left, b.global_average())
    b.add(b.last, b.last)
    return b.finished()


def inputs(network, count, seed=0):
    """Random codes, and as the last two samples the extremes."""
    codes = np.random.default_rng(seed).integers(-128, 128, (count, *network.tensors[network.input].shape))
    codes[-2], codes[-1] = -128, 127
    return codes.astype(np.int8)


CIRCUITS = {
    "exact": lambda: None,
    "drum4": lambda: ax.multipliers.get("drum4"),
    "signed drum4": lambda: ax.multipliers.get("drum4", signed=True),
    "mitchell": lambda: ax.multipliers.get("mitchell"),
    "signed kulkarni": lambda: ax.multipliers.get("kulkarni", signed=True),
}
