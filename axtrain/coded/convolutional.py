"""A convolution with coded products, computed from patches."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from axtrain.coded.layer import CodedLayer
from axtrain.registration import register


@register("CodedConv2D")
class CodedConv2D(CodedLayer):
    """`keras.layers.Conv2D` computed by unreliable nodes, as one matrix product of its patches.

    Args:
        filters, kernel_size, strides, padding, dilation_rate: as for `keras.layers.Conv2D`, channels last.
        kwargs: as for `CodedLayer`.

    Raises:
        ValueError: strides and dilation above 1 together.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = (1, 1),
        padding: str = "valid",
        dilation_rate: Any = (1, 1),
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        # Keras reads and checks these.
        plain = keras.layers.Conv2D(filters, kernel_size, strides, padding, dilation_rate=dilation_rate)
        self.filters, self.kernel_size, self.strides = filters, plain.kernel_size, plain.strides
        self.padding, self.dilation_rate = plain.padding, plain.dilation_rate

    def build(self, input_shape: tuple) -> None:
        """Make the coded kernel for inputs of that shape."""
        self._channels = input_shape[-1]
        height, width = self.kernel_size
        self._build(height * width * self._channels, self.filters)
        self.built = True

    def _kernel_shape(self, inputs: int, outputs: int) -> tuple[int, ...]:
        return *self.kernel_size, self._channels, outputs

    def call(self, inputs: Any) -> Any:
        """The convolution, bias and activation."""
        patches = ops.image.extract_patches(
            inputs, self.kernel_size, self.strides, self.dilation_rate, self.padding, data_format="channels_last"
        )
        _, rows, columns, size = patches.shape
        y = self._products(ops.reshape(patches, (-1, size)))
        return self._activated(ops.reshape(y, (-1, rows, columns, self.filters)))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """As the Keras layer's."""
        plain = keras.layers.Conv2D(
            self.filters, self.kernel_size, self.strides, self.padding, dilation_rate=self.dilation_rate
        )
        return plain.compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        own = ("filters", "kernel_size", "strides", "padding", "dilation_rate")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}
