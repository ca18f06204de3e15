"""A dense layer with coded products."""

from __future__ import annotations

from typing import Any

from keras import ops

from axtrain.coded.layer import CodedLayer
from axtrain.registration import register


@register("CodedDense")
class CodedDense(CodedLayer):
    """`keras.layers.Dense` computed by unreliable nodes: products, update and stored weights are coded.

    Args:
        units: outputs.
        kwargs: as for `CodedLayer`.

    Examples:
        >>> import numpy as np
        >>> from axtrain.coded import CodedDense, CodeNet
        >>> layer = CodedDense(6, code=CodeNet(2, 2))
        >>> layer(np.ones((3, 4), "float32")).shape, layer.kernel.shape
        (TensorShape([3, 6]), TensorShape([4, 6]))
    """

    def __init__(self, units: int, **kwargs) -> None:
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape: tuple) -> None:
        """Make the coded kernel for inputs of that shape."""
        self._build(input_shape[-1], self.units)
        self.built = True

    def call(self, inputs: Any) -> Any:
        """``activation(x W + b)``."""
        leading = ops.shape(inputs)[1:-1]
        y = self._products(ops.reshape(inputs, (-1, inputs.shape[-1])) if leading else inputs)
        if leading:
            y = ops.reshape(y, (-1, *leading, self.units))
        return self._activated(y)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """The input's, with `units` last."""
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {**super().get_config(), "units": self.units}
