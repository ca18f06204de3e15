"""Which layer of Keras becomes which approximate one, and back."""

from __future__ import annotations

import keras

from axtrain.cloning import another, config_of
from axtrain.layers import (
    ApproxConv1D,
    ApproxConv2D,
    ApproxConv2DTranspose,
    ApproxDense,
    ApproxDepthwiseConv2D,
    ApproxEinsumDense,
    ApproxGRU,
    ApproximateLayer,
    ApproxLSTM,
    ApproxMultiHeadAttention,
    ApproxSeparableConv2D,
)
from axtrain.layers.einsum import equation_obstacle

APPROXIMATE = {
    keras.layers.Dense: ApproxDense,
    keras.layers.Conv1D: ApproxConv1D,
    keras.layers.Conv2D: ApproxConv2D,
    keras.layers.DepthwiseConv2D: ApproxDepthwiseConv2D,
    keras.layers.SeparableConv2D: ApproxSeparableConv2D,
    keras.layers.Conv2DTranspose: ApproxConv2DTranspose,
    keras.layers.EinsumDense: ApproxEinsumDense,
    keras.layers.MultiHeadAttention: ApproxMultiHeadAttention,
    keras.layers.LSTM: ApproxLSTM,
    keras.layers.GRU: ApproxGRU,
}
PLAIN = {approximate: plain for plain, approximate in APPROXIMATE.items()}


def approximate_layer(layer, chosen, played):
    """The clone of one layer: approximate where it can be and is wanted (by its `id`), else the layer again."""
    hardware = chosen.get(id(layer))
    if hardware is None or obstacle(layer) is not None:
        return plain_layer(layer)
    config = config_of(layer)
    kind = type(layer) if isinstance(layer, ApproximateLayer) else APPROXIMATE[type(layer)]
    return kind.from_config({**config, **played, "hardware": hardware.to_dict(), "calibrated": False})


def plain_layer(layer):
    """The clone of one layer without hardware."""
    if type(layer) not in PLAIN:
        return another(layer)
    config = config_of(layer)
    for name in ("hardware", "fidelity", "engine", "gradient", "gradient_window", "rank", "residual", "calibrated"):
        config.pop(name)
    return PLAIN[type(layer)].from_config(config)


def obstacle(layer) -> str | None:
    """Why a layer cannot run on hardware; `None` where it can."""
    if type(layer) not in APPROXIMATE and not isinstance(layer, ApproximateLayer):
        return "no approximate counterpart"
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        return "data_format='channels_first'"
    if layer.compute_dtype == "float64":
        return "dtype float64; hardware computes in float32 outside its integers"
    if getattr(layer, "groups", 1) != 1:
        return f"groups={layer.groups}"
    for part in layer._flatten_layers():  # attention's projections are layers of their own
        if getattr(part, "lora_enabled", False):
            return "LoRA is enabled; merge it first"
        if getattr(part, "quantization_mode", None):
            return f"already quantised by Keras ({part.quantization_mode})"
    if isinstance(layer, keras.layers.EinsumDense):
        return equation_obstacle(layer.equation)
    return None
