"""An einsum of activations with a kernel on approximate hardware."""

from __future__ import annotations

import keras
from keras import ops

from axtrain.emulation.geometry import Dense
from axtrain.layers.base import ApproximateLayer
from axtrain.layers.counts import einsum
from axtrain.layers.equations import EinsumProduct, equation_obstacle
from axtrain.layers.playing import play
from axtrain.layers.registry import register_layer
from axtrain.registration import register


@register("ApproxEinsumDense")
class ApproxEinsumDense(ApproximateLayer, keras.layers.EinsumDense):
    """`keras.layers.EinsumDense` whose product runs on a `Hardware`.

    The axes that inputs and kernel share are summed over and merged to one, the kernel's own axes are the
    output channels, each with a weight scale of its own, and all other axes are rows: one product as in
    `ApproxDense`. Formulas and gradient: `ApproximateLayer`.

    Args:
        args, kwargs: as for `keras.layers.EinsumDense`, and those of `ApproximateLayer`.

    Raises:
        TypeError, ValueError: arguments of the wrong kind; with hardware, an equation that is no such product:
            an axis repeated or summed out of one operand, or a batch axis that the kernel has too.

    Examples:
        >>> import axtrain as ax
        >>> layer = ax.layers.ApproxEinsumDense("btd,dhk->bthk", (None, 2, 3), hardware=ax.Hardware())
        >>> layer.build((None, 5, 8))
        >>> layer.multiplications_per_output
        8
    """

    _geometry = Dense()

    @classmethod
    def obstacle(cls, layer) -> str | None:
        """An equation that is not one matrix product."""
        return equation_obstacle(layer.equation)

    def _check_supported(self) -> None:
        reason = self.obstacle(self)
        if reason is not None:
            raise ValueError(
                f"Hardware plays an equation that is one matrix product of inputs and kernel, and {reason}. Use "
                f"hardware=None to keep the layer in float. Received: equation={self.equation!r}"
            )

    def call(self, inputs, training=None):
        """The layer on its hardware; the plain Keras layer without one or while calibration data passes."""
        if self.hardware is None:
            return super().call(inputs)
        kernel = ops.convert_to_tensor(self._product_kernel)
        rows = self._product_inputs(inputs)
        sums = play(self.hardware_state, self._geometry, rows, kernel, self.playing, bool(training))
        outputs = self._restored(sums, inputs)
        if self.use_bias:  # its axes may be those of rows too
            outputs = outputs + self.hardware_state.read_bias(ops.convert_to_tensor(self.bias), bool(training))
        outputs = ops.cast(outputs, self.compute_dtype)
        return outputs if self.activation is None else self.activation(outputs)

    def accumulator(self, inputs):
        """The int32 accumulators after the exact zero-point correction, before rescaling and bias.

        Args:
            inputs: as for the layer.

        Returns:
            int32 tensor of the output's shape.

        Raises:
            ValueError: the layer has no hardware.
        """
        return self._restored(super().accumulator(inputs), inputs)

    @property
    def use_bias(self) -> bool:
        """Whether there is a bias; `EinsumDense` has no argument of that name."""
        return self.bias_axes is not None

    def _arranged(self, kernel):
        return EinsumProduct.parse(self.equation).second_matrix(kernel)

    def _product_inputs(self, inputs):
        return self._product(inputs).first_matrix(ops.cast(inputs, "float32"))

    def _product(self, inputs) -> EinsumProduct:
        return EinsumProduct.parse(self.equation).of_rank(len(inputs.shape))

    def _restored(self, matrix, inputs):
        return self._product(inputs).restored(matrix, ops.shape(inputs), self.kernel.shape)


register_layer(keras.layers.EinsumDense, ApproxEinsumDense, count=einsum)
