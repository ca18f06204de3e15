"""From a Keras model to the same model on hardware, and back; the model given is never changed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras

from axtrain.calibrating import calibrate, calibration_samples, known_ranges
from axtrain.cloning import cloned, copy_state
from axtrain.coded.conversion import strip as decoded
from axtrain.coded.layer import CodedLayer
from axtrain.counterparts import approximate_layer, obstacle, plain_layer
from axtrain.emulation.table_gradient import DEFAULT_WINDOW
from axtrain.hardware import Hardware
from axtrain.layers import ApproximateLayer
from axtrain.layers.playing import Playing
from axtrain.model_walk import all_layers, check_model, for_layers, labels
from axtrain.reporting import FLOAT_BY_DESIGN, ConversionReport, LayerReport

_BY_OVERRIDE = "kept in float by an override"


def convert(
    model: keras.Model,
    hardware: Hardware,
    calibration=None,
    *,
    overrides: dict[str, Hardware | None] | None = None,
    activation_ranges: Mapping[str, tuple[float, float]] | None = None,
    strict: bool = False,
    fidelity: str = "exact",
    engine: str | None = None,
    gradient: str = "straight_through",
    gradient_window: int = DEFAULT_WINDOW,
    rank: int | None = None,
    residual: str = "auto",
) -> keras.Model:
    """The same network on `hardware`: a new model with the same names and weights, not compiled.

    Dense, EinsumDense, Conv1D, Conv2D, Conv2DTranspose, DepthwiseConv2D, SeparableConv2D, MultiHeadAttention,
    LSTM and GRU layers become their approximate counterparts at every depth of nested models; all else stays as
    it is and is listed in the report. `axtrain.register_layer` adds layers.

    Args:
        model: a built Sequential or Functional model. It is not changed.
        hardware: what to run on.
        calibration: input samples, from which activation ranges come: arrays as the model takes them, `(x, y)`, or
            batches of either (a `tf.data.Dataset`, a generator), of which the first 4096 samples are taken.
            Without them a converted model keeps the ranges that it has, and the ranges of a plain model
            follow its batches (a moving average in training).
        overrides: hardware for single layers, by name or pattern (`"block3_*"`); `None` keeps a layer in
            float. The last match counts. A name reaches every layer that bears it, in nested models too; what holds
            a "/" is held against paths: `"left/proj"`, `"left/*"`, `"/proj"` for the outermost model's own.
        activation_ranges: the (low, high) of single layers' inputs, by name or pattern as in `overrides`, where they
            are known: they count before calibration data.
        strict: raise where a layer with products cannot be converted.
        fidelity: `"exact"`, `"calibrated"`, `"gaussian"` or `"float"`; `axtrain.set_fidelity` changes it later.
        engine: `None` chooses the cheapest; a name (`"numba"`, `"low_rank"`, `"gather"`) forces one.
        gradient: `"straight_through"`, or `"table"`: the smoothed slopes of the circuit's own table, for coarse
            circuits (theory page, section 3; docs/results/gradients.md shows where it wins).
        gradient_window: half window in codes over which `"table"` smooths.
        rank, residual: of the calibrated fidelity, as in `axtrain.set_fidelity`.

    Returns:
        a new model of the same class (of `with_bit_errors` and `with_sensitivity`: a plain Functional one);
        `conversion_report` on it says what became what.

    Raises:
        TypeError: not a Keras model, or not hardware.
        ValueError: an unknown option, a subclassed or unbuilt model, two layers of one name in the same model, an
            override that matches no layer, a range of no layer with one product on hardware, or without low < high,
            calibration data that are not finite, no layer that can be converted or (strict) one that cannot.

    Examples:
        >>> import keras, numpy as np, axtrain as ax
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="out")])
        >>> noisy = ax.convert(model, ax.Hardware(), np.eye(4, dtype="float32"))
        >>> noisy.conversion_report.layers[0].became
        'ApproxDense'
    """
    check_model(model)
    if not isinstance(hardware, Hardware):
        raise TypeError(f"`hardware` must be an axtrain.Hardware. Received: hardware={hardware!r}")
    chosen = for_layers(model, hardware, overrides or {}, Hardware)
    if calibration is not None:
        calibration = calibration_samples(model, calibration)
    elif fidelity in ("calibrated", "gaussian"):
        raise ValueError(
            f"The {fidelity} fidelity is fitted to calibration data; give calibration=x_train[:512]. "
            f"Received: fidelity={fidelity!r}, calibration=None"
        )
    played: dict[str, Any] = {"fidelity": fidelity, "engine": engine, "rank": rank, "residual": residual}
    played |= {"gradient": gradient, "gradient_window": gradient_window}
    Playing(**played)  # what is unknown is refused here; Keras would wrap it in a TypeError of its own
    converted = cloned(model, lambda layer: approximate_layer(layer, chosen, played))
    copy_state(model, converted)
    known = known_ranges(converted, activation_ranges or {})
    _lay_out(converted)
    report = _report(model, converted, chosen)
    if strict and report.skipped:
        listed = "; ".join(f"{layer.name} ({layer.was}): {layer.reason}" for layer in report.skipped)
        raise ValueError(
            f"strict=True, and these layers cannot run on the hardware: {listed}. Keep them in float with "
            "overrides={name: None}, or convert with strict=False"
        )
    elsewhere = [layer for layer in report.skipped if layer.reason != _BY_OVERRIDE]
    if elsewhere and not report.converted:
        listed = "; ".join(f"{layer.name} ({layer.was}): {layer.reason}" for layer in elsewhere)
        raise ValueError(f"No layer of this model can run on the hardware. Received: {listed}")
    for state, bounds in known.values():
        state.set_range(*bounds)
    if calibration is not None:
        calibrate(converted, calibration, known)
    converted.conversion_report = report
    return converted


def strip(model: keras.Model) -> keras.Model:
    """Plain Keras layers again, with the clean weights: a new model, not compiled.

    Args:
        model: a model from `convert`, or from `axtrain.coded.convert`. It is not changed.

    Raises:
        TypeError, ValueError: not a Sequential or Functional model.
        ValueError: an approximate layer of which nobody said what it is without hardware (`axtrain.register_layer`).
        ValueError: more of a coded layer's shards are wrong than its code corrects.
    """
    check_model(model)
    if any(isinstance(layer, CodedLayer) for layer in all_layers(model)):
        model = decoded(model)
    plain = cloned(model, plain_layer)
    copy_state(model, plain)
    return plain


def _lay_out(model) -> None:
    """Gives each product's words their place in the memories, one after another in the model's order."""
    address = bias_address = 0
    for layer in all_layers(model):
        for name, product in zip(getattr(layer, "product_names", ()), getattr(layer, "products", ()), strict=True):
            product.state.address, product.state.bias_address = address, bias_address
            address += 0 if product.kernel is None else math.prod(product.kernel.shape)
            bias_address += math.prod(layer.biases[name].shape) if name in layer.biases else 0


def _report(model, converted, chosen) -> ConversionReport:
    entries, told = [], labels(model)
    for old, new in zip(all_layers(model), all_layers(converted), strict=True):
        approximate = isinstance(new, ApproximateLayer) and new.hardware is not None
        weighted = bool(old.weights) and not isinstance(old, FLOAT_BY_DESIGN)
        reason = None
        if not approximate and weighted:
            reason = _BY_OVERRIDE if chosen[id(old)] is None else obstacle(old)
        entries.append(LayerReport(told[id(old)], type(old).__name__, type(new).__name__, approximate, reason))
    return ConversionReport(tuple(entries), compile_dropped=bool(model.compiled))
