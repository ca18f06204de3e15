"""Our hardware in TensorFlow Model Optimization's own pipeline: a `QuantizeConfig` and a `QuantizeScheme`.

A layer of Keras 2 that carries `ApproximateQuantizeConfig` sums its products on the hardware, by the same code as the
layers of Keras 3 (`axtrain.layers.playing.play`).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import tensorflow as tf

from axtrain.conversion import _APPROXIMATE
from axtrain.emulation.geometry import Convolution, Dense
from axtrain.emulation.table_gradient import DEFAULT_WINDOW
from axtrain.hardware import Hardware
from axtrain.interop.library import library
from axtrain.layers.playing import STATISTICAL, Playing, play
from axtrain.layers.state import HardwareState

tfmot = library()
import tf_keras  # noqa: E402 - after the library, whose import decides nothing any more

_PARTS = tfmot.quantization.keras
_KERNELS = {"Dense": "kernel", "Conv1D": "kernel", "Conv2D": "kernel", "DepthwiseConv2D": "depthwise_kernel"}
_KEPT = ("low", "high", "seen", "noise_strength")
PREFIX = "hardware_"


@tf_keras.utils.register_keras_serializable("axtrain")
class ApproximateQuantizeConfig(_PARTS.QuantizeConfig):
    """A Dense, Conv1D, Conv2D or DepthwiseConv2D layer of `tf_keras` on a `Hardware`, for `quantize_annotate_layer`.

    Forward: inputs become codes under a range that follows the batches in training (a moving average with the
    `Quantisation`'s momentum), weights are read from their memory as codes, faults and all, and the sums of products
    are those of the multiplier, bit for bit (the exact fidelity). Gradient: straight through to the clean weights, or
    the table's slopes. Outputs are not quantised: the next layer on hardware quantises its inputs. The statistical
    fidelities are fitted to calibration data, which this pipeline does not pass: they are played in Keras 3 alone.

    Args:
        hardware: an `axtrain.Hardware`, or its `to_dict()`.
        fidelity: `"exact"`, or `"float"`, the plain float product.
        engine: `None` chooses; a name forces one, as in `axtrain.convert`.
        gradient: `"straight_through"` or `"table"`.
        gradient_window: half window in codes over which `"table"` smooths.

    Raises:
        TypeError: not hardware.
        ValueError: an unknown option, a statistical fidelity, or (when applied) a layer that hardware does not play.

    Example:
        >>> import axtrain as ax
        >>> from axtrain.interop.tfmot import ApproximateQuantizeConfig
        >>> config = ApproximateQuantizeConfig(ax.Hardware(multiplier=ax.multipliers.get("drum4")))
        >>> config.hardware.circuit.name
        'drum4'
    """

    def __init__(
        self,
        hardware: Hardware,
        fidelity: str = "exact",
        engine: str | None = None,
        gradient: str = "straight_through",
        gradient_window: int = DEFAULT_WINDOW,
    ) -> None:
        if isinstance(hardware, dict):
            hardware = Hardware.from_dict(hardware)
        if not isinstance(hardware, Hardware):
            raise TypeError(f"`hardware` must be an axtrain.Hardware. Received: hardware={hardware!r}")
        if fidelity in STATISTICAL:
            raise ValueError(
                f"The {fidelity} fidelity is fitted to calibration data, which this pipeline does not pass; use "
                f"fidelity='exact' here, or axtrain.convert in Keras 3. Received: fidelity={fidelity!r}"
            )
        self.hardware = hardware
        self.playing = Playing(fidelity=fidelity, engine=engine, gradient=gradient, gradient_window=gradient_window)

    def get_weights_and_quantizers(self, layer):
        """The kernel; its quantiser gives the layer its hardware."""
        return [(getattr(layer, _kernel_name(layer)), _OnHardware(self.hardware, self.playing))]

    def get_activations_and_quantizers(self, layer):
        """None: the layer quantises its inputs itself."""
        return []

    def set_quantize_weights(self, layer, quantize_weights):
        """Nothing: the layer keeps its clean kernel and reads codes from it."""
        return

    def set_quantize_activations(self, layer, quantize_activations):
        """Nothing."""
        return

    def get_output_quantizers(self, layer):
        """None: the next layer on hardware quantises its inputs."""
        return []

    def get_config(self):
        """The arguments as plain data."""
        played = {"fidelity": self.playing.fidelity, "engine": self.playing.engine}
        played |= {"gradient": self.playing.gradient, "gradient_window": self.playing.gradient_window}
        return {"hardware": self.hardware.to_dict(), **played}


class _OnHardware(_PARTS.quantizers.Quantizer):
    """Makes the state of a wrapped layer's hardware and gives the layer its product; the kernel passes unchanged."""

    def __init__(self, hardware: Hardware, playing: Playing) -> None:
        self.hardware, self.playing = hardware, playing

    @tf.autograph.experimental.do_not_convert
    def build(self, tensor_shape, name, layer):
        """Called by the wrapper with itself as `layer`; what is to be saved becomes the wrapper's."""
        with tf.init_scope():
            state = HardwareState(self.hardware, name=f"{layer.layer.name}_hardware")
            state.build()
        kept = {name: getattr(state, name) for name in _KEPT}
        kept |= {name: generator.state for name, generator in state.generators.items()}
        for name, variable in kept.items():
            setattr(layer, PREFIX + name, variable.value)
        layer.hardware_product = _Product(layer.layer, state, self.playing)
        layer.layer.call = layer.hardware_product.call
        return {}

    def __call__(self, inputs, training, weights, **kwargs):
        return inputs

    def get_config(self):
        """Nothing: the `QuantizeConfig` makes it anew."""
        return {}


class _Product:
    """A Keras 2 layer's forward pass on hardware."""

    def __init__(self, layer: Any, state: HardwareState, playing: Playing) -> None:
        self.layer, self.state, self.playing = layer, state, playing
        self.kernel = getattr(layer, _kernel_name(layer))
        self.geometry = _geometry(layer)

    @tf.autograph.experimental.do_not_convert
    def call(self, inputs, training=None):
        """In place of the layer's own."""
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


class _Registry(_PARTS.QuantizeRegistry):
    """Which layers are on hardware, which stay as they are, and which are not supported."""

    def __init__(self, made: Any) -> None:
        self.made = made

    def supports(self, layer) -> bool:
        """False for layers with products that only Keras 3 plays on hardware."""
        plays = {kind.__name__ for kind in _APPROXIMATE}
        return type(layer).__name__ in _KERNELS or type(layer).__name__ not in plays

    def get_quantize_config(self, layer):
        """On hardware where the layer has a kernel, else as it is."""
        return self.made() if type(layer).__name__ in _KERNELS else _no_quantisation()


class _AsItIs(_PARTS.QuantizeLayoutTransform):
    """Our layers quantise their own inputs, so no layer needs to be moved or added."""

    def apply(self, model, layer_quantize_map):
        """Both as they are."""
        return model, layer_quantize_map


class ApproximateQuantizeScheme(_PARTS.QuantizeScheme):
    """Every annotated layer on a `Hardware`, for ``quantize_apply(annotated, scheme=...)``.

    Dense, Conv1D, Conv2D and DepthwiseConv2D layers get an `ApproximateQuantizeConfig`; layers without products stay as
    they are; others that have products (recurrent, separable, attention) make `quantize_apply` raise.

    Args:
        hardware, options: as for `ApproximateQuantizeConfig`.

    Raises:
        TypeError, ValueError: as there.
    """

    def __init__(self, hardware: Hardware, **options) -> None:
        self._made = partial(ApproximateQuantizeConfig, hardware, **options)
        self._made()  # what is wrong is refused here

    def get_layout_transformer(self):
        """Leaves the model as it is."""
        return _AsItIs()

    def get_quantize_registry(self):
        """Gives each layer its config."""
        return _Registry(self._made)


def _no_quantisation():
    from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
        default_8bit_quantize_configs as configs,
    )

    return configs.NoOpQuantizeConfig()


def _kernel_name(layer: Any) -> str:
    kind = type(layer).__name__
    if kind not in _KERNELS:
        raise ValueError(
            f"Only {', '.join(_KERNELS)} layers of Keras 2 run on hardware; annotate the others with tfmot's own "
            f"configs or leave them. Received: {layer.name!r} of class {kind}"
        )
    return _KERNELS[kind]


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
