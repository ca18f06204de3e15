"""The dials of a converted model: fidelity, chip, noise strength."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import replace

import keras

from axtrain.layers import ApproximateLayer
from axtrain.model_walk import all_layers


def hardware_layers(model: keras.Model) -> Iterator[ApproximateLayer]:
    """The layers of the model that run on hardware, in its order, nested models opened."""
    for layer in all_layers(model):
        if isinstance(layer, ApproximateLayer) and layer.hardware is not None:
            yield layer


def set_fidelity(model: keras.Model, fidelity: str) -> None:
    """Sets how every hardware layer plays its hardware; compiled functions are made anew at next use.

    Args:
        model: a model from `convert`.
        fidelity: `"exact"` (bit-exact) or `"gaussian"` (bias and matched noise; needs calibration data).

    Raises:
        ValueError: an unknown fidelity, no hardware layer, or `"gaussian"` on a layer never calibrated.
    """
    layers = _required(model)
    for layer in layers:
        fitted = all(keras.ops.convert_to_numpy(product.state.fitted) for product in layer.products)
        if fidelity == "gaussian" and not fitted:
            raise ValueError(
                "The gaussian fidelity is fitted to calibration data; convert with calibration=x_train[:512]. "
                f"Received: layer {layer.name!r} without a fit"
            )
    for layer in layers:
        layer.playing = replace(layer.playing, fidelity=fidelity)
    model.train_function = model.test_function = model.predict_function = None


def set_chip(model: keras.Model, chip: int) -> None:
    """Makes the model run on chip number `chip`: its faulty cells, and its own stream of random faults.

    Args:
        model: a model from `convert`.
        chip: an int >= 0; the same number is the same chip.

    Raises:
        ValueError: not such an int, or no hardware layer.
    """
    if not isinstance(chip, int) or isinstance(chip, bool) or not 0 <= chip < 1 << 31:
        raise ValueError(f"`chip` must be an int from 0 to 2^31 - 1. Received: chip={chip!r}")
    for index, layer in enumerate(_required(model)):
        for number, product in enumerate(layer.products):
            name = f"{index}:{layer.name}" + (f":{number}" if number else "")
            place = zlib.crc32(name.encode()) >> 1  # fits a signed 32-bit word
            for generator in product.state.generators.values():
                generator.state.assign([chip, place])


def set_noise_strength(model: keras.Model, strength: float) -> None:
    """Multiplies every fault rate by `strength`, from 0 (clean memory) to 1 (as described).

    A variable on each layer: compiled functions stay valid.

    Raises:
        ValueError: outside [0, 1], or no hardware layer.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"`strength` must lie in [0, 1]. Received: strength={strength!r}")
    for layer in _required(model):
        for product in layer.products:
            product.state.noise_strength.assign(strength)


def _required(model: keras.Model) -> list[ApproximateLayer]:
    layers = list(hardware_layers(model))
    if not layers:
        raise ValueError(f"No layer of this model runs on hardware; use axtrain.convert. Received: {model.name!r}")
    return layers
