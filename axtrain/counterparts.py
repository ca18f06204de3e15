"""Which layer of Keras becomes which approximate one, and back."""

from __future__ import annotations

from axtrain.cloning import another, config_of
from axtrain.layers import ApproximateLayer
from axtrain.layers.registry import registered


def approximate_layer(layer, chosen, played):
    """The clone of one layer: approximate where it can be and is wanted (by its `id`), else the layer again."""
    hardware = chosen.get(id(layer))
    if hardware is None or obstacle(layer) is not None:
        return plain_layer(layer)
    config = config_of(layer)
    described = {**config, **played, "hardware": hardware.to_dict(), "calibrated": False}
    return _approximate_class(layer).from_config(described)


def plain_layer(layer):
    """The clone of one layer without hardware.

    Raises:
        ValueError: an approximate layer of which nobody knows what it is without hardware.
    """
    if not isinstance(layer, ApproximateLayer):
        return another(layer)
    entry, kind = registered(layer), type(layer)
    if entry is None:
        raise ValueError(_unknown(layer, "its Keras layer is not registered"))
    if kind.call is not entry.approximate_class.call:
        raise ValueError(_unknown(layer, f"it has a `call` of its own, and {entry.keras_class.__name__} another"))
    config = config_of(layer)
    for name in ("hardware", "fidelity", "engine", "gradient", "gradient_window", "rank", "residual", "calibrated"):
        config.pop(name)
    try:
        return entry.keras_class.from_config(config)
    except TypeError as error:
        raise ValueError(_unknown(layer, f"{entry.keras_class.__name__} cannot be made of its config")) from error


def obstacle(layer) -> str | None:
    """Why a layer cannot run on hardware; `None` where it can."""
    approximate = _approximate_class(layer)
    if approximate is None:
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
    return approximate.obstacle(layer)


def _approximate_class(layer) -> type[ApproximateLayer] | None:
    if isinstance(layer, ApproximateLayer):
        return type(layer)
    entry = registered(layer)
    return None if entry is None else entry.approximate_class


def _unknown(layer, reason: str) -> str:
    kind = type(layer).__name__
    return (
        f"What layer {layer.name!r} is without hardware is not known: {reason}. Give "
        f"axtrain.register_layer(keras_class, {kind}) the plain layer that {kind} is mixed with. Received: {kind}"
    )
