"""Convolutions on approximate hardware."""

from __future__ import annotations

import keras

from axtrain.emulation.geometry import Convolution
from axtrain.layers.base import ApproximateLayer
from axtrain.layers.counts import depthwise, kernel_layer
from axtrain.layers.registry import register_layer
from axtrain.registration import register


class _Convolution(ApproximateLayer):
    """Padding with the zero-point code, which real zero is; a circuit need not give 0 for it."""

    _depthwise = False

    def _check_supported(self) -> None:
        super()._check_supported()
        if getattr(self, "groups", 1) != 1:
            raise ValueError(
                "Grouped convolutions are not played on hardware; use ApproxDepthwiseConv2D or groups=1. "
                f"Received: groups={self.groups}"
            )

    @property
    def _geometry(self) -> Convolution:
        return Convolution(tuple(self.strides), self.padding, tuple(self.dilation_rate), self._depthwise)


@register("ApproxConv1D")
class ApproxConv1D(_Convolution, keras.layers.Conv1D):
    """`keras.layers.Conv1D` on a `Hardware`; arguments as there, and `hardware`, `fidelity`, `engine`.

    Padding, also causal, contributes ``M[zero point, w]``. Formulas and gradient: `ApproximateLayer`.

    Raises:
        ValueError: with hardware, `data_format="channels_first"` or `groups` other than 1.
    """


@register("ApproxConv2D")
class ApproxConv2D(_Convolution, keras.layers.Conv2D):
    """`keras.layers.Conv2D` on a `Hardware`; arguments as there, and `hardware`, `fidelity`, `engine`.

    Padding contributes ``M[zero point, w]``, which is not 0 for every circuit. Formulas and gradient:
    `ApproximateLayer`.

    Raises:
        ValueError: with hardware, `data_format="channels_first"` or `groups` other than 1.
    """


@register("ApproxDepthwiseConv2D")
class ApproxDepthwiseConv2D(_Convolution, keras.layers.DepthwiseConv2D):
    """`keras.layers.DepthwiseConv2D` on a `Hardware`; arguments as there, and `hardware`, `fidelity`, `engine`.

    One weight scale for each input channel and multiplier. Formulas and gradient: `ApproximateLayer`.

    Raises:
        ValueError: with hardware, `data_format="channels_first"`.
    """

    _depthwise = True


register_layer(keras.layers.Conv1D, ApproxConv1D, count=kernel_layer)
register_layer(keras.layers.Conv2D, ApproxConv2D, count=kernel_layer, lowering="conv2d")
register_layer(keras.layers.DepthwiseConv2D, ApproxDepthwiseConv2D, count=depthwise, lowering="depthwise_conv2d")
