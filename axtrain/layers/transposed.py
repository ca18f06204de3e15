"""A transposed convolution on approximate hardware, run as an ordinary convolution of a widened image."""

from __future__ import annotations

import keras
from keras import ops

from axtrain.emulation.geometry import Convolution, padded
from axtrain.layers.base import ApproximateLayer
from axtrain.layers.counts import transposed
from axtrain.layers.registry import register_layer
from axtrain.registration import register


@register("ApproxConv2DTranspose")
class ApproxConv2DTranspose(ApproximateLayer, keras.layers.Conv2DTranspose):
    """`keras.layers.Conv2DTranspose` on a `Hardware`; arguments as there, and those of `ApproximateLayer`.

    Models an accelerator that runs it as an ordinary convolution: the image is widened with ``stride - 1``
    zeros between neighbours and a border of zeros, then convolved at stride 1 with the flipped kernel. Real zero
    has the code of the zero point, so each inserted zero contributes ``M[zero point, w]``, which is not 0 for
    every circuit, just as padding does; they count as multiplications in `axtrain.energy`, and calibration sees
    them as the circuit does. One weight scale for each filter. Formulas and gradient: `ApproximateLayer`.

    Raises:
        TypeError, ValueError: arguments of the wrong kind; with hardware, `data_format="channels_first"`.

    Examples:
        >>> import axtrain as ax
        >>> layer = ax.layers.ApproxConv2DTranspose(2, 3, strides=2, hardware=ax.Hardware())
        >>> layer.build((None, 4, 4, 1))
        >>> tuple(layer.compute_output_shape((None, 4, 4, 1)))
        (None, 9, 9, 2)
    """

    @property
    def _geometry(self) -> Convolution:
        return Convolution((1, 1), "valid", tuple(self.dilation_rate))

    def _arranged(self, kernel):
        """(*window, channels, filters), the window flipped."""
        return ops.swapaxes(ops.flip(ops.flip(kernel, axis=0), axis=1), -1, -2)  # Keras 3.10 flips one at a time

    def get_config(self):
        """The Keras layer's, the padding of its output, which Keras 3.10 leaves out, and the hardware as plain data."""
        return {**super().get_config(), "output_padding": self.output_padding}

    def _product_inputs(self, inputs):
        image = widened(ops.cast(inputs, "float32"), self.strides)
        extra = self.output_padding or (None, None)
        axes = zip(self.kernel_size, self.strides, self.dilation_rate, extra, strict=True)
        return padded(image, [border(self.padding, *axis) for axis in axes], 0.0)


register_layer(keras.layers.Conv2DTranspose, ApproxConv2DTranspose, count=transposed)


def widened(image, strides):
    """A float32 image (B, *space, C) with ``stride - 1`` zeros between neighbours along each spatial axis."""
    for axis, stride in enumerate(strides, start=1):
        if stride == 1:
            continue
        sizes = list(ops.shape(image))
        pads = [(0, 0)] * (len(sizes) + 1)
        pads[axis + 1] = (0, stride - 1)
        image = ops.pad(ops.expand_dims(image, axis + 1), pads)
        sizes[axis] = sizes[axis] * stride
        image = ops.reshape(image, sizes)[(slice(None),) * axis + (slice(None, 1 - stride),)]
    return image


def border(padding: str, window: int, stride: int, dilation: int, extra: int | None) -> tuple[int, int]:
    """Zeros (before, after) a widened axis, which make Keras's output of it.

    With the effective window ``e = (k - 1) d + 1`` and the output's size ``O = (I - 1) s + beyond``: before it
    ``e - 1 - p``, p what SAME padding of the convolution that is transposed puts there (0 for VALID), and after
    it as much as makes the output O (derived; sizes as in Keras).

    Args:
        padding: `"valid"` or `"same"`.
        window, stride, dilation: of this axis.
        extra: Keras's `output_padding` of this axis, `None` for its default.
    """
    size = (window - 1) * dilation + 1
    if padding == "valid":
        beyond = size + (max(stride - size, 0) if extra is None else extra)
        taken = 0
    else:
        beyond = stride if extra is None else size % 2 + extra
        taken = max(size - beyond, 0) // 2
    before = size - 1 - taken
    return before, beyond + size - 2 - before
