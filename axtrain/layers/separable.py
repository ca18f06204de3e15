"""A depthwise convolution and a pointwise one after it, both on approximate hardware."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from axtrain.emulation.geometry import Convolution
from axtrain.layers.counts import separable
from axtrain.layers.playing import HardwareProduct, play
from axtrain.layers.registry import register_layer
from axtrain.layers.several import SeveralProducts
from axtrain.registration import register


@register("ApproxSeparableConv2D")
class ApproxSeparableConv2D(SeveralProducts, keras.layers.SeparableConv2D):
    """`keras.layers.SeparableConv2D` on a `Hardware`; arguments as there, and those of `ApproximateLayer`.

    Two products: ``d = depthwise(x)``, one weight scale for each channel and multiplier, padded with the
    zero-point code; then ``y = pointwise(d) + bias``, d quantised anew with a range of its own. Between them
    an accelerator holds d in memory as codes. Formulas and gradient of each: `ApproximateLayer`.

    Raises:
        TypeError, ValueError: arguments of the wrong kind; with hardware, `data_format="channels_first"`.

    Examples:
        >>> import axtrain as ax
        >>> layer = ax.layers.ApproxSeparableConv2D(4, 3, hardware=ax.Hardware())
        >>> layer.product_names
        ('depthwise', 'pointwise')
    """

    _names = ("depthwise", "pointwise")

    def build(self, input_shape) -> None:
        """Builds the Keras layer and the states of both products."""
        super().build(input_shape)
        self._build_states()

    def call(self, inputs, training=None):
        """Both products on the hardware; the plain Keras layer without one."""
        if self.hardware is None:
            return super().call(inputs)
        outputs = ops.cast(inputs, "float32")
        for product in self.products:
            kernel = ops.convert_to_tensor(product.kernel)
            outputs = play(product.state, product.geometry, outputs, kernel, self.playing, bool(training))
        if self.use_bias:
            outputs = outputs + self.pointwise_state.read_bias(ops.convert_to_tensor(self.bias), bool(training))
        outputs = ops.cast(outputs, self.compute_dtype)
        return outputs if self.activation is None else self.activation(outputs)

    @property
    def products(self) -> tuple[HardwareProduct, ...]:
        """The depthwise and the pointwise product; empty without hardware."""
        if self.hardware is None:
            return ()
        depthwise = Convolution(tuple(self.strides), self.padding, tuple(self.dilation_rate), depthwise=True)
        pointwise = Convolution((1, 1), "valid", (1, 1))
        return (
            HardwareProduct(self.hardware_state, depthwise, self.depthwise_kernel),
            HardwareProduct(self.pointwise_state, pointwise, self.pointwise_kernel),
        )

    @property
    def biases(self) -> dict[str, Any]:
        """The bias, added to the pointwise sums."""
        return {"pointwise": self.bias} if self.use_bias else {}

    @property
    def activated_product(self) -> str | None:
        """The pointwise one."""
        return "pointwise" if type(self).call is ApproxSeparableConv2D.call else None


register_layer(keras.layers.SeparableConv2D, ApproxSeparableConv2D, count=separable)
