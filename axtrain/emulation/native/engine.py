"""The native engine: any table on the CPU, by kernels that numba compiles for the processor at hand.

On TensorFlow alone, outside of XLA and of saved graphs; `axtrain.emulation.selection` takes another engine
elsewhere.
"""

from __future__ import annotations

import importlib.util
from functools import cached_property

import keras
import numpy as np

from axtrain.emulation.code_table import CodeTable
from axtrain.emulation.engine import Engine, register_engine
from axtrain.emulation.factorisation import exact_rank
from axtrain.emulation.geometry import Convolution, Dense

_MOST_CODES = 1 << 11  # a code times 32 is a word of 16 bits


@register_engine
class NativeEngine(Engine):
    """Bit-exact products of any table: look-ups of whole vectors, or products of 16-bit factors.

    Args:
        table: the products over the codes in use, at most 2,048 of each operand.

    Raises:
        ValueError: more codes.
    """

    name = "numba"
    fuses = True
    requires = "numba"
    without = "tables of high rank then take 9 to 24 times as long as float32 products, instead of 1.3 to 3.6"

    def __init__(self, table: CodeTable) -> None:
        super().__init__(table)
        if max(table.products.shape) > _MOST_CODES:
            raise ValueError(
                f"The native engine takes at most {_MOST_CODES} codes of an operand; use another engine. "
                f"Received: a table of {table.products.shape} codes"
            )

    @classmethod
    def obstacle(cls, table: CodeTable, device: str, *, axes: int = 2) -> str | None:
        """Why it cannot compute here; `None` where it can."""
        if device != "cpu":
            return "it runs on the CPU alone"
        if max(table.products.shape) > _MOST_CODES:
            return f"more than {_MOST_CODES} codes of an operand"
        if axes > 2:
            return "convolutions of more than two spatial axes"
        return native_obstacle()

    @classmethod
    def cost(cls, operation: str, table: CodeTable, device: str, *, terms: int | None = None) -> float:
        """Rows cost about as much for any table, factors less for few; nothing is cast or cut on the way."""
        return min(exact_rank(table) / 14, 1 / 8)

    @cached_property
    def products(self):
        """The kernels, prepared for the table; numba is imported with them."""
        from axtrain.emulation.native.products import NativeProducts

        return NativeProducts(self.table)

    def matmul(self, activations, weights):
        """int32 ``sum_k T[a_mk, w_kn]`` for codes of shape (..., K) and (K, N), or (..., M, K) and (..., K, N)."""
        return self._sums(Dense(), activations, weights)

    batched_matmul = matmul

    def conv(self, activations, weights, strides, dilation_rate):
        """int32 VALID convolution of codes (B, *space, C) with (*kernel, C, N)."""
        return self._sums(Convolution(tuple(strides), "valid", tuple(dilation_rate)), activations, weights)

    def depthwise_conv(self, activations, weights, strides, dilation_rate):
        """int32 VALID depthwise convolution of codes (B, *space, C) with (*kernel, C, multiplier)."""
        geometry = Convolution(tuple(strides), "valid", tuple(dilation_rate), depthwise=True)
        return self._sums(geometry, activations, weights)

    def layer(self, geometry, inputs, quantiser, weights, bias):
        """A whole layer in one call."""
        import tensorflow as tf

        from axtrain.emulation.native.elementwise import parameters
        from axtrain.emulation.native.weight_scales import weight_scales

        held = weights.kernel  # its own quantisation is then done on the way as well
        bounds = quantiser.bounds  # and so is what follows from the activations' range
        codes_of = quantiser.code_low, quantiser.code_high

        def call(values, scale, zero_point, codes, weight_scale, bias):
            if bounds is not None:
                scale, zero_point = parameters(
                    np.float32(scale), np.float32(zero_point), *codes_of, quantiser.symmetric
                )
            limits = (scale, zero_point, *codes_of)
            channels = len(bias)
            if held is None:
                each, scales = None, scale * np.broadcast_to(weight_scale.reshape(-1), (channels,))
            else:
                each = weight_scales(codes.reshape(-1, channels), held.limit, held.per_tensor)
                scales = scale * each
            return self._product(geometry, values, limits, codes, each, (np.ascontiguousarray(scales), bias))

        shape = _output_shape(geometry, inputs.shape, weights.codes.shape)
        bias = tf.zeros((shape[-1],)) if bias is None else bias
        read = (weights.codes, weights.scale) if held is None else (held.value, 0.0)
        operands = [inputs, *(bounds or quantiser[:2]), *read, bias]
        outputs = tf.numpy_function(call, operands, tf.float32, stateful=False)
        return tf.ensure_shape(outputs, shape)

    def _sums(self, geometry, activations, weights):
        import tensorflow as tf

        def call(values, codes):
            return self._product(geometry, values, None, codes, None, None)

        operands = [tf.cast(activations, tf.float32), tf.cast(weights, tf.float32)]
        sums = tf.numpy_function(call, operands, tf.int32, stateful=False)
        return tf.ensure_shape(sums, _output_shape(geometry, activations.shape, weights.shape))

    def _product(self, geometry, values, limits, codes, weight_scales, rescaled) -> np.ndarray:
        """One product in NumPy.

        Args:
            geometry: a `Dense` or `Convolution`.
            values: float32 activations, or their codes.
            limits: (scale, zero point, lowest code, highest code) of the activations; `None` where they are codes.
            codes: the weights', float32.
            weight_scales: (channels,), where `codes` are weights that are still to be quantised, else `None`.
            rescaled: (scales, biases) of float32 outputs; `None` for the int32 sums.
        """
        if isinstance(geometry, Dense) and codes.ndim > 2:
            lead, (length, units) = codes.shape[:-2], codes.shape[-2:]
            rows = values.reshape(-1, values.shape[-2], length)
            each = [
                self._product(geometry, a, limits, w, weight_scales, rescaled)
                for a, w in zip(rows, codes.reshape(-1, length, units), strict=True)
            ]
            kind = np.int32 if rescaled is None else np.float32
            return np.array(each, kind).reshape(*lead, rows.shape[1], units)
        from axtrain.emulation.native.products import Weights

        plan = self.products.plan(geometry, values.shape, codes.shape)
        places = plan.places
        scales = np.ones(places.channels, np.float32) if weight_scales is None else weight_scales
        matrix = np.ascontiguousarray(codes.reshape(places.terms, places.channels))
        outputs = plan(values, limits, Weights(matrix, np.ascontiguousarray(scales)), rescaled)
        if isinstance(geometry, Dense):
            return outputs.reshape(*values.shape[:-1], places.channels)
        return outputs.reshape(len(values), *places.sizes[2 - len(geometry.strides) :], places.channels)


def native_obstacle() -> str | None:
    """Why native kernels cannot run in the graph (or eagerly) at hand; `None` where they can."""
    if keras.backend.backend() != "tensorflow":
        return "the Keras backend is not TensorFlow"
    if importlib.util.find_spec("numba") is None:
        return "numba is not installed: pip install numba"
    # TensorFlow has no public question for these two.
    from tensorflow.python.framework import ops
    from tensorflow.python.ops import control_flow_util
    from tensorflow.python.saved_model import save_context

    if save_context.in_save_context():
        return "the graph is being saved"
    graph = ops.get_default_graph() if not ops.executing_eagerly_outside_functions() or ops.inside_function() else None
    if graph is not None and control_flow_util.GraphOrParentsInXlaContext(graph):
        return "the graph is compiled by XLA"
    return None


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
