"""Our hardware in TensorFlow Model Optimization's own pipeline: a `QuantizeConfig` and a `QuantizeScheme`.

A layer of Keras 2 that carries `ApproximateQuantizeConfig` sums its products on the hardware, by the same code as the
layers of Keras 3 (`axtrain.layers.playing.play`).
"""

from __future__ import annotations

from functools import partial
from typing import Any

from axtrain.emulation.table_gradient import DEFAULT_WINDOW
from axtrain.hardware import Hardware
from axtrain.interop.keras2_product import KERNELS, OnHardware, kernel_name
from axtrain.interop.library import library
from axtrain.layers.playing import STATISTICAL, Playing
from axtrain.layers.registry import LAYERS

tfmot = library()
import tf_keras  # noqa: E402 - once the library is there

_PARTS: Any = tfmot.quantization.keras


@tf_keras.utils.register_keras_serializable("axtrain")
class ApproximateQuantizeConfig(_PARTS.QuantizeConfig):
    """A Dense, Conv1D, Conv2D or DepthwiseConv2D layer of `tf_keras` on a `Hardware`, for `quantize_annotate_layer`.

    Forward: inputs become codes under a range that follows the batches in training (a moving average with the
    `Quantisation`'s momentum), weights are read from a memory of the layer's own as codes, faults and all, and the sums
    of products are those of the multiplier, bit for bit (the exact fidelity). Gradient: straight through to the clean
    weights, or the table's slopes. Outputs are not quantised: the next layer on hardware quantises its inputs. The
    statistical fidelities are fitted to calibration data, which this pipeline does not pass: they are played in Keras 3
    alone.

    The wrapper keeps range, chip and noise strength among its weights (`hardware_low`, `hardware_chip_seed`,
    `hardware_noise_strength`, ...). Save as `.h5` or in the TensorFlow format (`tfmot`'s own models do not load from
    `.keras`); before loading, import this class and enter `tfmot.quantization.keras.quantize_scope()`.
    `axtrain.interop.tfmot.to_keras3` takes the trained model to Keras 3, on its hardware and with its ranges.

    Args:
        hardware: an `axtrain.Hardware`, or its `to_dict()`.
        fidelity: `"exact"`, or `"float"`, the plain float product.
        engine: `None` chooses; a name forces one, as in `axtrain.convert`.
        gradient: `"straight_through"` or `"table"`.
        gradient_window: half window in codes over which `"table"` smooths.

    Raises:
        TypeError: not hardware.
        ValueError: an unknown option, a statistical fidelity, or (when applied) a layer that hardware does not play.

    Examples:
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
        return [(getattr(layer, kernel_name(layer)), OnHardware(self.hardware, self.playing))]

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


class _Registry(_PARTS.QuantizeRegistry):
    """Which layers are on hardware, which stay as they are, and which are not supported."""

    def __init__(self, made: Any) -> None:
        self.made = made

    def supports(self, layer) -> bool:
        """False for layers with products that only Keras 3 has on hardware."""
        on_hardware = {kind.__name__ for kind in LAYERS}
        return type(layer).__name__ in KERNELS or type(layer).__name__ not in on_hardware

    def get_quantize_config(self, layer):
        """On hardware where the layer has a kernel, else as it is."""
        return self.made() if type(layer).__name__ in KERNELS else _no_quantisation()


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
