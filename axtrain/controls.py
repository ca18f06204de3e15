"""The dials of a converted model: fidelity, chip, noise strength."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import keras

from axtrain.constraints import WeightRange
from axtrain.layers import ApproximateLayer
from axtrain.layers.playing import FIDELITIES, STATISTICAL
from axtrain.model_walk import all_layers, named

# Of the calibrated fidelity, with their defaults.
_OPTIONS = {"rank": None, "residual": "auto"}


def hardware_layers(model: keras.Model) -> Iterator[ApproximateLayer]:
    """The layers of the model that run on hardware, in its order, nested models opened."""
    for layer in all_layers(model):
        if isinstance(layer, ApproximateLayer) and layer.hardware is not None:
            yield layer


def set_fidelity(model: keras.Model, fidelity: str, **options) -> None:
    """Sets how every hardware layer plays its hardware; compiled functions are made anew at next use.

    The model, its weights and its optimizer stay: one may train on one fidelity and evaluate on another. An
    error model is fitted to the operand distributions kept at calibration and to the weights as they are now, so
    it needs no data.

    Args:
        model: a model from `convert`.
        fidelity: `"exact"` (bit-exact), `"calibrated"` (the error's best rank-r fit, a bias, matched noise) or
            `"gaussian"` (bias and matched noise alone: `"calibrated"` at rank 0), which two need calibration data;
            `"float"`, the network without its hardware, neither rounded nor faulty.
        options: of `"calibrated"`: `rank`, an int >= 0 or `None` for the default, and `residual`: `"normal"`,
            `"mixture"` (noise of the shape measured at calibration), `"none"`, or `"auto"`, the mixture where sums
            are short and it fits better. An option not given has its default. For accuracies take rank 8: lower ones
            were several points off for coarse circuits (docs/results/fidelity.md).

    Raises:
        ValueError: an unknown fidelity or option, no hardware layer, or a statistical fidelity on a layer never
            calibrated.

    Examples:
        >>> import keras, numpy as np, axtrain as ax
        >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(2)])
        >>> hardware = ax.Hardware(multiplier=ax.multipliers.get("mitchell"))
        >>> noisy = ax.convert(model, hardware, np.random.default_rng(0).random((256, 64), "float32"))
        >>> ax.set_fidelity(noisy, "calibrated", rank=2)
        >>> noisy.layers[0].fidelity_report[0].rank
        2
    """
    layers = _required(model)
    known = _OPTIONS if fidelity == "calibrated" else ()
    unknown = sorted(set(options) - set(known))
    if unknown and fidelity in FIDELITIES:
        raise ValueError(
            f"Unknown options of fidelity {fidelity!r}. Known: {', '.join(known) or 'none'}. Received: {unknown}"
        )
    chosen = {**_OPTIONS, **options, "fidelity": fidelity}
    playing = [replace(layer.playing, **chosen) for layer in layers]  # raises before anything has changed
    for layer in layers:
        if fidelity in STATISTICAL and not all(product.state.is_fitted for product in layer.products):
            raise ValueError(
                f"The {fidelity} fidelity is fitted to calibration data; convert with calibration=x_train[:512]. "
                f"Received: layer {layer.name!r} without a fit"
            )
    for layer, played in zip(layers, playing, strict=True):
        layer.play_as(played)
    model.train_function = model.test_function = model.predict_function = None


def set_chip(model: keras.Model, chip: int, *, training: bool = False) -> None:
    """Makes the model run on chip number `chip`: its faulty cells, and its own stream of random faults.

    Args:
        model: a model from `convert`.
        chip: an int >= 0; the same number is the same chip.
        training: whether training meets this one chip at every step, and fits the weights to it (MATIC, Kim 2018);
            by default it meets a new chip at every step, and the weights learn to live on any.

    Raises:
        ValueError: not such an int, or no hardware layer.
    """
    if not isinstance(chip, int) or isinstance(chip, bool) or not 0 <= chip < 1 << 31:
        raise ValueError(f"`chip` must be an int from 0 to 2^31 - 1. Received: chip={chip!r}")
    for layer in _required(model):
        for product in layer.products:
            if product.state.trains_on_chip != training:
                product.state.trains_on_chip = training
                model.train_function = None  # traced with the other
    put_on_chip(model, chip)


def put_on_chip(model: keras.Model, chip: int) -> None:
    """Gives every seed the state of that chip; what training meets stays as it is."""
    for index, layer in enumerate(hardware_layers(model)):
        for number, product in enumerate(layer.products):
            name = f"{index}:{layer.name}" + (f":{number}" if number else "")
            place = zlib.crc32(name.encode()) >> 1  # fits a signed 32-bit word
            for generator in product.state.generators.values():
                generator.state.assign([chip, place])


def set_noise_strength(model: keras.Model, strength: float, layers: Sequence[str] | None = None) -> None:
    """Multiplies every fault rate by `strength`, from 0 (clean memory) to 1 (as described).

    A variable on each layer: compiled functions stay valid.

    Args:
        model: a model with hardware layers.
        strength: the factor.
        layers: names or patterns of the layers to set; `None` sets all.

    Raises:
        ValueError: outside [0, 1], no hardware layer, or a pattern that names none.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"`strength` must lie in [0, 1]. Received: strength={strength!r}")
    for layer in named(model, layers, _required(model)):
        for product in layer.products:
            product.state.noise_strength.assign(strength)


def limit_weights(model: keras.Model, limit: float) -> None:
    """Puts the constraint `WeightRange(limit)` on every trainable weight of the hardware layers.

    Weights beyond the limit are clipped at once, and after every step of training.

    Raises:
        ValueError: a limit that is not positive, or no hardware layer.
    """
    constraint = WeightRange(limit)
    for layer in _required(model):
        for variable in layer.trainable_variables:
            variable.constraint = constraint
            variable.assign(constraint(variable.value))
    model.train_function = None  # traced without it


def _required(model: keras.Model) -> list[ApproximateLayer]:
    layers = list(hardware_layers(model))
    if not layers:
        raise ValueError(f"No layer of this model runs on hardware; use axtrain.convert. Received: {model.name!r}")
    return layers
