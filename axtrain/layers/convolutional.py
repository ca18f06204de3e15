"""Convolutions on approximate hardware."""

from __future__ import annotations

import keras
from keras import ops

from axtrain.emulation.operations import pad_same
from axtrain.layers.base import ApproximateLayer
from axtrain.registration import register


class _Convolution(ApproximateLayer):
    """Padding with the zero-point code, which real zero is; a circuit need not give 0 for it."""

    def _check_supported(self) -> None:
        super()._check_supported()
        if getattr(self, "groups", 1) != 1:
            raise ValueError(
                "Grouped convolutions are not played on hardware; use ApproxDepthwiseConv2D or groups=1. "
                f"Received: groups={self.groups}"
            )

    @property
    def _padding(self) -> str:
        return "valid" if self.padding == "causal" else self.padding

    def _causal(self, a, zero_point):
        if self.padding != "causal":
            return a
        return ops.pad(a - zero_point, self._compute_causal_padding()) + zero_point

    def _float_product(self, a, w):
        return ops.conv(
            self._causal(a, 0.0),
            w,
            strides=list(self.strides),
            padding=self._padding,
            dilation_rate=self.dilation_rate,
            data_format="channels_last",
        )

    def _padded(self, a_codes, zero_point):
        a_codes = self._causal(a_codes, zero_point)
        if self.padding != "same":
            return a_codes
        return pad_same(a_codes, self.kernel_size, self.strides, self.dilation_rate, zero_point)

    def _code_product(self, engine, a_codes, w_codes, zero_point):
        return engine.conv(self._padded(a_codes, zero_point), w_codes, self.strides, self.dilation_rate)


@register("ApproxConv1D")
class ApproxConv1D(_Convolution, keras.layers.Conv1D):
    """`keras.layers.Conv1D` on a `Hardware`; arguments as there, and `hardware`, `fidelity`, `engine`.

    Padding, also causal, contributes ``M[zero point, w]``. Formulas and gradient: `ApproximateLayer`.

    Raises:
        ValueError: with hardware, `data_format="channels_first"` or `groups` other than 1.
    """

    _summed_axes = (0, 1)


@register("ApproxConv2D")
class ApproxConv2D(_Convolution, keras.layers.Conv2D):
    """`keras.layers.Conv2D` on a `Hardware`; arguments as there, and `hardware`, `fidelity`, `engine`.

    Padding contributes ``M[zero point, w]``, which is not 0 for every circuit. Formulas and gradient:
    `ApproximateLayer`.

    Raises:
        ValueError: with hardware, `data_format="channels_first"` or `groups` other than 1.
    """

    _summed_axes = (0, 1, 2)


@register("ApproxDepthwiseConv2D")
class ApproxDepthwiseConv2D(_Convolution, keras.layers.DepthwiseConv2D):
    """`keras.layers.DepthwiseConv2D` on a `Hardware`; arguments as there, and `hardware`, `fidelity`, `engine`.

    One weight scale for each input channel and multiplier. Formulas and gradient: `ApproximateLayer`.

    Raises:
        ValueError: with hardware, `data_format="channels_first"`.
    """

    _summed_axes = (0, 1)
    _operation = "depthwise"

    def _float_product(self, a, w):
        return ops.depthwise_conv(
            a,
            w,
            strides=self.strides,
            padding=self.padding,
            dilation_rate=self.dilation_rate,
            data_format="channels_last",
        )

    def _code_product(self, engine, a_codes, w_codes, zero_point):
        return engine.depthwise_conv(self._padded(a_codes, zero_point), w_codes, self.strides, self.dilation_rate)
