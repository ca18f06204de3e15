"""The product of a layer of Keras 2 on hardware, played by the same code as that of a layer of Keras 3."""

from __future__ import annotations

import zlib
from functools import partial
from typing import Any

import tensorflow as tf

from axtrain.emulation.geometry import Convolution, Dense
from axtrain.hardware import Hardware
from axtrain.interop.library import library
from axtrain.layers.playing import Playing, play
from axtrain.layers.state import HardwareState

_PARTS: Any = library().quantization.keras
KERNELS = {"Dense": "kernel", "Conv1D": "kernel", "Conv2D": "kernel", "DepthwiseConv2D": "depthwise_kernel"}
_KEPT = ("low", "high", "seen", "noise_strength")


class OnHardware(_PARTS.quantizers.Quantizer):
    """Makes the state of a wrapped layer's hardware and gives the layer its product; the kernel passes unchanged."""

    def __init__(self, hardware: Hardware, playing: Playing) -> None:
        self.hardware, self.playing = hardware, playing

    @tf.autograph.experimental.do_not_convert
    def build(self, tensor_shape, name, layer):
        """Called by the wrapper with itself as `layer`; what is to be saved becomes the wrapper's."""
        with tf.init_scope():
            state = HardwareState(self.hardware, name=f"{layer.layer.name}_hardware")
            state.build()
            place = (
                zlib.crc32(layer.name.encode()) >> 1
            )  # else every layer's cells would fail alike; fits 32 bits signed
            for generator in state.generators.values():
                generator.state.assign([0, place])
        kept = {name: getattr(state, name) for name in _KEPT}
        kept |= {name: generator.state for name, generator in state.generators.items()}
        for name, variable in kept.items():
            setattr(layer, f"hardware_{name}", variable.value)
        layer.hardware_product = _Product(layer.layer, state, self.playing)
        layer.layer.call = layer.hardware_product.call
        return {}

    def __call__(self, inputs, training, weights, **kwargs):
        """The kernel itself."""
        return inputs

    def get_config(self):
        """Nothing: the `QuantizeConfig` makes it anew."""
        return {}


class _Product:
    """A Keras 2 layer's forward pass on hardware."""

    def __init__(self, layer: Any, state: HardwareState, playing: Playing) -> None:
        self.layer, self.state, self.playing = layer, state, playing
        self.kernel = getattr(layer, kernel_name(layer))
        self.geometry = _geometry(layer)

    def call(self, inputs, training=None):
        """In place of the layer's own; the wrapper reads from its signature that it wants `training`."""
        return self._routed(inputs, training)

    @tf.autograph.experimental.do_not_convert
    def _routed(self, inputs, training):
        training = False if training is None else training
        if not isinstance(training, tf.Tensor):
            return self._outputs(inputs, bool(training))
        known = tf.get_static_value(training)
        if known is not None:
            return self._outputs(inputs, bool(known))
        return tf.cond(training, partial(self._outputs, inputs, True), partial(self._outputs, inputs, False))

    def _outputs(self, inputs, training: bool):
        layer = self.layer
        bias = tf.convert_to_tensor(layer.bias) if layer.use_bias else None
        operands = tf.cast(inputs, tf.float32), tf.convert_to_tensor(self.kernel)
        outputs = play(self.state, self.geometry, *operands, self.playing, training, bias)
        outputs = tf.cast(outputs, layer.compute_dtype)
        return outputs if layer.activation is None else layer.activation(outputs)


def kernel_name(layer: Any) -> str:
    """The attribute of a Keras 2 layer that is its kernel.

    Raises:
        ValueError: a layer that is not played on hardware here.
    """
    kind = type(layer).__name__
    if kind not in KERNELS:
        raise ValueError(
            f"Only {', '.join(KERNELS)} layers of Keras 2 run on hardware; annotate the others with tfmot's own "
            f"configs or leave them. Received: {layer.name!r} of class {kind}"
        )
    return KERNELS[kind]


def _geometry(layer: Any) -> Any:
    kind = type(layer).__name__
    if kind == "Dense":
        return Dense()
    if layer.data_format != "channels_last" or (layer.groups != 1 and kind != "DepthwiseConv2D"):
        raise ValueError(
            "Convolutions on hardware have data_format='channels_last' and groups=1. Received: layer "
            f"{layer.name!r}, data_format={layer.data_format!r}, groups={layer.groups}"
        )
    return Convolution(tuple(layer.strides), layer.padding, tuple(layer.dilation_rate), kind == "DepthwiseConv2D")
