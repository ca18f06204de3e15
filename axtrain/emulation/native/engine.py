"""The native engine: any table of up to 256 activation codes on the CPU, by numba.

On TensorFlow alone, outside of XLA and of saved graphs; `axtrain.emulation.selection` takes another engine
elsewhere.
"""

from __future__ import annotations

from functools import lru_cache

import llvmlite.binding
import numpy as np
import tensorflow as tf

from axtrain.emulation.code_table import CodeTable
from axtrain.emulation.geometry import Convolution, Dense
from axtrain.emulation.native import kernels
from axtrain.emulation.native.buffers import Buffers
from axtrain.emulation.native.byte_permute import LANES
from axtrain.emulation.native.factor_bytes import factor_bytes
from axtrain.emulation.native.kept import KeptWeights
from axtrain.emulation.native.sums import PERMUTES, PRODUCTS, ROWS
from axtrain.emulation.native.table_bytes import TableBytes
from axtrain.emulation.native.threads import cores, parts, run
from axtrain.emulation.native.vector_loops import CHANNELS
from axtrain.emulation.native.weights import weight_factors, weight_offsets

_PARTS = 2  # parts for each core: who is late then holds up little
_SHARED_WEIGHTS = 1 << 16  # fewer weights than this are not worth a thread
_NO_QUANTISER = (1.0, 0.0, -512.0, 511.0)  # codes pass as they are


class NativeEngine:
    """Bit-exact products of any table by look-ups in registers (or, without AVX-512 VBMI, in memory).

    Args:
        table: the products over the codes in use, at most 256 activation codes.

    Raises:
        ValueError: more activation codes.
    """

    name = "numba"

    def __init__(self, table: CodeTable) -> None:
        self.table = table
        self.bytes = TableBytes(table)
        self._buffers = Buffers()
        self.factors = factor_bytes(table) if has_byte_permutes() else None
        self.how = PRODUCTS if self.factors is not None else PERMUTES if has_byte_permutes() else ROWS
        looked_up = np.empty((0, 256), np.uint8) if self.factors is None else self.factors.activation
        self._table = (self.how, self.bytes.planes, self.bytes.columns, looked_up)

    def __repr__(self) -> str:
        return f"NativeEngine(table={self.table.products.shape[0]}x{self.table.products.shape[1]}, {self.method})"

    @property
    def method(self) -> str:
        """How it makes products, in words."""
        return {PRODUCTS: "products of bytes", PERMUTES: "byte permutes", ROWS: "row tables"}[self.how]

    def matmul(self, activations, weights):
        """int32 ``sum_k T[a_mk, b_kn]`` for codes of shape (..., K) and (K, N), or (..., M, K) and (..., K, N)."""
        return self._sums(Dense(), activations, weights)

    def conv(self, activations, weights, strides, dilation_rate):
        """int32 VALID convolution of codes (B, *space, C) with (*kernel, C, N)."""
        return self._sums(Convolution(tuple(strides), "valid", tuple(dilation_rate)), activations, weights)

    def depthwise_conv(self, activations, weights, strides, dilation_rate):
        """int32 VALID depthwise convolution of codes (B, *space, C) with (*kernel, C, multiplier)."""
        geometry = Convolution(tuple(strides), "valid", tuple(dilation_rate), depthwise=True)
        return self._sums(geometry, activations, weights)

    def played(self, geometry, inputs, quantiser, weights, bias):
        """A whole layer in one call: ``s_a s_w (sum T[a, w] - z_a sum w) + bias``, float32.

        Args:
            geometry: a `Dense` or `Convolution`.
            inputs: float32 activations.
            quantiser: the activations' `Quantiser`; its zero point is corrected for exactly.
            weights: the weights' `Codes`.
            bias: float32, (N,), or `None`.
        """

        kept = KeptWeights(self._weights)

        def call(values, scale, zero_point, codes, weight_scale, bias):
            limits = (scale, zero_point, quantiser.code_low, quantiser.code_high)
            scales = np.broadcast_to(scale * weight_scale.reshape(-1), bias.shape)
            scales = np.ascontiguousarray(scales)
            return self._product(geometry, values, limits, codes, scales, bias, np.float32, kept)

        shape = _output_shape(geometry, inputs.shape, weights.codes.shape)
        bias = tf.zeros((shape[-1],)) if bias is None else bias
        operands = [inputs, quantiser.scale, quantiser.zero_point, weights.codes, weights.scale, bias]
        outputs = tf.numpy_function(call, operands, tf.float32, stateful=False)
        return tf.ensure_shape(outputs, shape)

    def _sums(self, geometry, activations, weights):
        def call(values, codes):
            return self._product(geometry, values, _NO_QUANTISER, codes, None, None, np.int32)

        operands = [tf.cast(activations, tf.float32), tf.cast(weights, tf.float32)]
        sums = tf.numpy_function(call, operands, tf.int32, stateful=False)
        return tf.ensure_shape(sums, _output_shape(geometry, activations.shape, weights.shape))

    def _product(self, geometry, values, limits, codes, scales, biases, kind, prepare=None) -> np.ndarray:
        """One product in NumPy; int32 sums, or float32 with the zero point corrected, rescaled and biased."""
        if kind is np.int32:
            scales = biases = np.zeros(int(np.prod(codes.shape[-2:])), np.float32)  # not used
        limits = tuple(np.float32(x) for x in limits)
        zero_point, prepare = int(limits[1]) if kind is np.float32 else 0, prepare or self._weights
        if isinstance(geometry, Dense):
            if codes.ndim > 2:
                return self._batched(values, limits, codes, scales, biases, kind, zero_point, prepare)
            return self._dense(values, limits, codes, scales, biases, kind, zero_point, prepare)
        return self._convolution(geometry, values, limits, codes, scales, biases, kind, zero_point, prepare)

    def _weights(self, codes, zero_point, taps):
        """What `sum_channels` takes of weight codes (K, N), K = taps * inputs."""
        length, units = codes.shape
        codes, lowest = np.ascontiguousarray(codes), self.table.weight_low
        base = np.empty(units, np.int32)
        shares = parts(units, cores() if codes.size >= _SHARED_WEIGHTS else 1, 16)
        if self.factors is None:
            offsets = np.empty((units, length + length % 2), np.int32)
            planes = self.bytes
            known = (codes, lowest, planes.zero_column, planes.centres, zero_point, offsets, base)
            run(weight_offsets, [(*known, share) for share in shares])
            return offsets, np.empty((0, 4), np.int8), base, 1
        rows = length * len(self.factors.weight)
        # Channels are taken CHANNELS at a time from any first one on.
        factors = np.zeros((units + CHANNELS, -(-rows // 4) * 4), np.int8)
        known = (codes, lowest, self.factors.weight, self.factors.base(), zero_point, taps, factors, base)
        run(weight_factors, [(*known, share) for share in shares])
        return np.empty((0, 2), np.int32), factors, base, self.factors.gain

    def _dense(self, values, limits, codes, scales, biases, kind, zero_point, prepare):
        weights = prepare(codes, zero_point, 1)
        lead, units = values.shape[:-1], codes.shape[1]
        values = np.ascontiguousarray(values).reshape(-1, codes.shape[0])
        whole, real = self._targets((len(values), units), kind)
        shared = (values, limits, self._table, weights, (scales, biases, whole, real))
        rows, channels = parts(len(values), _PARTS * cores(), LANES), [(0, units)]
        if len(rows) < cores():  # too few rows to share: share the output channels
            rows, channels = [(0, len(values))], parts(units, cores())
        run(kernels.dense, [(*shared, some, these) for some in rows for these in channels])
        return (whole if kind is np.int32 else real).reshape(*lead, units)

    def _targets(self, shape, kind) -> tuple[np.ndarray, np.ndarray]:
        """The arrays to write, int32 and float32, one of them empty."""
        target, empty = self._buffers.take(shape, kind), (0, shape[1])
        if kind is np.int32:
            return target, np.empty(empty, np.float32)
        return np.empty(empty, np.int32), target

    def _batched(self, values, limits, codes, scales, biases, kind, zero_point, prepare):
        lead, (length, units) = codes.shape[:-2], codes.shape[-2:]
        values, codes = values.reshape(-1, values.shape[-2], length), codes.reshape(-1, length, units)
        products = [
            self._dense(a, limits, b, scales, biases, kind, zero_point, prepare)
            for a, b in zip(values, codes, strict=True)
        ]
        return np.stack(products).reshape(*lead, values.shape[1], units)

    def _convolution(self, geometry, values, limits, codes, scales, biases, kind, zero_point, prepare):
        window, strides, dilation = codes.shape[:-2], geometry.strides, geometry.dilation_rate
        pads = geometry.pads(values.shape[1:-1], window)
        if max(window) == 1 and not np.any(pads):  # what the stride passes over is never needed
            values = values[(slice(None), *(slice(None, None, stride) for stride in strides))]
            strides = (1,) * len(strides)
        if len(window) == 1:  # one row of pixels
            window, strides, dilation, pads = (1, *window), (1, *strides), (1, *dilation), [(0, 0), *pads]
            values = values[:, None]
        padded = [size + sum(pad) for size, pad in zip(values.shape[1:3], pads, strict=True)]
        sizes = [(p - (k - 1) * d - 1) // s + 1 for p, k, d, s in zip(padded, window, dilation, strides, strict=True)]
        columns = codes.reshape(-1, codes.shape[-1])
        if geometry.depthwise:
            columns = codes.reshape(int(np.prod(window)), -1)
        batch, units = len(values), columns.shape[1]
        whole, real = self._targets((batch * sizes[0] * sizes[1], units), kind)
        weights = prepare(columns, zero_point, int(np.prod(window)))
        shared = (np.ascontiguousarray(values), limits, self._table, weights, (scales, biases, whole, real))
        depthwise = codes.shape[-1] if geometry.depthwise else 0
        shape = (tuple(window), strides, dilation, (pads[0][0], pads[1][0], *padded), tuple(sizes), depthwise)
        images, channels = parts(batch, _PARTS * cores()), [(0, units)]
        if len(images) < cores():
            images, channels = [(0, batch)], parts(units, cores())
        run(kernels.convolution, [(*shared, some, these, *shape) for some in images for these in channels])
        outputs = whole if kind is np.int32 else real
        space = sizes if values.ndim == 4 and len(geometry.strides) == 2 else sizes[1:]
        return outputs.reshape(batch, *space, units)


@lru_cache(maxsize=1)
def has_byte_permutes() -> bool:
    """Whether this CPU has the AVX-512 instructions that `byte_permute` is written in."""
    features = llvmlite.binding.get_host_cpu_features()
    return all(features.get(name) for name in ("avx512f", "avx512bw", "avx512vbmi", "avx512vnni"))


def _output_shape(geometry, inputs, kernel) -> list[int | None]:
    """The static shape of a product, `None` where it is open."""
    if isinstance(geometry, Dense):
        return [*inputs[:-1], kernel[-1]]
    window = kernel[:-2]
    space: list[int | None] = []
    for axis, size in enumerate(inputs[1:-1]):
        if size is None:
            space.append(None)
            continue
        one = Convolution(
            (geometry.strides[axis],), geometry.padding, (geometry.dilation_rate[axis],), geometry.depthwise
        )
        before, after = one.pads([size], [window[axis]])[0]
        reach = (window[axis] - 1) * geometry.dilation_rate[axis] + 1
        space.append((size + before + after - reach) // geometry.strides[axis] + 1)
    return [inputs[0], *space, kernel[-1] * (kernel[-2] if geometry.depthwise else 1)]
