"""From a Keras model to the same model on hardware, and back; the model given is never changed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import keras
import numpy as np
from keras import ops

from axtrain.emulation.table_gradient import DEFAULT_WINDOW
from axtrain.hardware import Hardware
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
from axtrain.layers.activation_pair import ActivationPairState
from axtrain.layers.einsum import equation_obstacle
from axtrain.layers.playing import STATISTICAL, Playing
from axtrain.layers.state import HardwareState
from axtrain.layers.statistics import Observer
from axtrain.model_walk import all_layers, is_graph
from axtrain.reporting import FLOAT_BY_DESIGN, ConversionReport, LayerReport
from axtrain.step_model import TrainingModel

_APPROXIMATE = {
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
_PLAIN = {approximate: plain for plain, approximate in _APPROXIMATE.items()}
_BATCH = 64


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
    it is and is listed in the report.

    Args:
        model: a built Sequential or Functional model. It is not changed.
        hardware: what to run on.
        calibration: input samples (an array, or what the model takes), from which activation ranges come.
            Without them a converted model keeps the ranges that it has, and the ranges of a plain model
            follow its batches (a moving average in training).
        overrides: hardware for single layers, by name or pattern (`"block3_*"`); `None` keeps a layer in
            float. The last match counts.
        activation_ranges: the (low, high) of single layers' inputs, by name, where they are known: they count before
            calibration data.
        strict: raise where a layer with products cannot be converted.
        fidelity: `"exact"`, `"calibrated"`, `"gaussian"` or `"float"`; `axtrain.set_fidelity` changes it later.
        engine: `None` chooses; `"low_rank"` or `"gather"` forces one.
        gradient: `"straight_through"`, or `"table"`: the smoothed slopes of the circuit's own table, for coarse
            circuits (theory page, section 3; docs/results/gradients.md shows where it wins).
        gradient_window: half window in codes over which `"table"` smooths.
        rank, residual: of the calibrated fidelity, as in `axtrain.set_fidelity`.

    Returns:
        a new model of the same class (of `with_bit_errors` and `with_sensitivity`: a plain Functional one);
        `conversion_report` on it says what became what.

    Raises:
        TypeError: not a Keras model, or not hardware.
        ValueError: an unknown option, a subclassed or unbuilt model, an override that matches no layer, a range of no
            layer with one product on hardware, or without low < high, calibration
            data that are not finite, or (strict) a layer that cannot be converted.

    Example:
        >>> import keras, numpy as np, axtrain as ax
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="out")])
        >>> noisy = ax.convert(model, ax.Hardware(), np.eye(4, dtype="float32"))
        >>> noisy.conversion_report.layers[0].became
        'ApproxDense'
    """
    _check_model(model)
    if not isinstance(hardware, Hardware):
        raise TypeError(f"`hardware` must be an axtrain.Hardware. Received: hardware={hardware!r}")
    chosen = _hardware_for_layers(model, hardware, overrides or {})
    if calibration is not None:
        _check_finite(calibration)
    elif fidelity in ("calibrated", "gaussian"):
        raise ValueError(
            f"The {fidelity} fidelity is fitted to calibration data; give calibration=x_train[:512]. "
            f"Received: fidelity={fidelity!r}, calibration=None"
        )
    played: dict[str, Any] = {"fidelity": fidelity, "engine": engine, "rank": rank, "residual": residual}
    played |= {"gradient": gradient, "gradient_window": gradient_window}
    Playing(**played)  # what is unknown is refused here; Keras would wrap it in a TypeError of its own
    converted = cloned(model, lambda layer: _converted(layer, chosen, played))
    copy_state(model, converted)
    known = _known_ranges(converted, activation_ranges or {})
    _lay_out(converted)
    report = _report(model, converted, chosen)
    if strict and report.skipped:
        listed = "; ".join(f"{layer.name} ({layer.was}): {layer.reason}" for layer in report.skipped)
        raise ValueError(
            f"strict=True, and these layers cannot run on the hardware: {listed}. Keep them in float with "
            "overrides={name: None}, or convert with strict=False"
        )
    for state, bounds in known.values():
        state.set_range(*bounds)
    if calibration is not None:
        _calibrate(converted, calibration, known)
    converted.conversion_report = report
    return converted


def _lay_out(model) -> None:
    """Gives each product's words their place in the memories, one after another in the model's order."""
    address = bias_address = 0
    for layer in all_layers(model):
        for name, product in zip(getattr(layer, "product_names", ()), getattr(layer, "products", ()), strict=True):
            product.state.address, product.state.bias_address = address, bias_address
            address += 0 if product.kernel is None else math.prod(product.kernel.shape)
            bias_address += math.prod(layer.biases[name].shape) if name in layer.biases else 0


def strip(model: keras.Model) -> keras.Model:
    """Plain Keras layers again, with the clean weights: a new model, not compiled.

    Args:
        model: a model from `convert`. It is not changed.

    Raises:
        TypeError, ValueError: not a Sequential or Functional model.
    """
    _check_model(model)
    plain = cloned(model, _stripped)
    copy_state(model, plain)
    return plain


def cloned(model: keras.Model, clone_function) -> keras.Model:
    """A new model of the layers that a function gives for each layer, at every depth; not compiled, unlike Keras's.

    A `TrainingModel` becomes a plain Functional one.

    Args:
        model: Sequential or Functional. It is not changed.
        clone_function: a function from a layer to its clone.
    """
    compiled = [part for part in model._flatten_layers() if isinstance(part, keras.Model) and part.compiled]
    try:
        for part in compiled:
            part.compiled = False  # else Keras compiles the clone, and it keeps metrics past its next `compile`
        clone = keras.models.clone_model(model, clone_function=clone_function, recursive=True)
    finally:
        for part in compiled:
            part.compiled = True
    _name_inputs(model, clone)
    if isinstance(clone, TrainingModel):
        return keras.Model(clone.input, clone.output, name=clone.name)
    return clone


def _name_inputs(model, clone) -> None:
    """Keras names the clone of an Input that was given no name after its tensor ("keras_tensor_12")."""
    for old, new in zip(model.layers, clone.layers, strict=True):
        if isinstance(old, keras.layers.InputLayer):
            new.name = old.name
        elif isinstance(old, keras.Model):
            _name_inputs(old, new)


def _check_model(model) -> None:
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a keras.Model. Received: {type(model).__name__}")
    nested = [layer for layer in model._flatten_layers() if isinstance(layer, keras.Model)]
    for part in nested:
        if not is_graph(part):
            raise ValueError(
                "A subclassed model hides its layers, so it cannot be rebuilt on hardware. Build it with the "
                "Functional API (keras.Model(inputs, outputs)), or use axtrain.layers in it directly. "
                f"Received: {type(part).__name__} named {part.name!r}"
            )
    if not model.built:
        raise ValueError(f"Build the model first: give it an Input, or call it once. Received: {model.name!r}")


def _hardware_for_layers(model, hardware, overrides) -> dict[str, Hardware | None]:
    names = [layer.name for layer in all_layers(model)]
    chosen: dict[str, Hardware | None] = dict.fromkeys(names, hardware)
    for pattern, described in overrides.items():
        matches = [name for name in names if fnmatchcase(name, pattern)]
        if not matches:
            raise ValueError(
                f"`overrides` names no layer of the model. Its layers: {', '.join(names)}. Received: {pattern!r}"
            )
        if described is not None and not isinstance(described, Hardware):
            raise TypeError(f"`overrides` maps names to Hardware or None. Received: {pattern!r}: {described!r}")
        chosen.update(dict.fromkeys(matches, described))
    return chosen


def _converted(layer, chosen, played):
    """The clone of one layer: approximate where it can be and is wanted, else the layer again."""
    hardware = chosen.get(layer.name)
    if hardware is None or _obstacle(layer) is not None:
        return _stripped(layer)
    config = _config(layer)
    kind = type(layer) if isinstance(layer, ApproximateLayer) else _APPROXIMATE[type(layer)]
    return kind.from_config({**config, **played, "hardware": hardware.to_dict(), "calibrated": False})


def another(layer):
    """A new layer of the same class and configuration."""
    return layer.__class__.from_config(_config(layer))


def _config(layer) -> dict[str, Any]:
    """The layer's configuration, with what Keras 3.10 leaves out of it."""
    config = layer.get_config()
    if isinstance(layer, keras.layers.Conv2DTranspose):
        config["output_padding"] = layer.output_padding
    return config


def _stripped(layer):
    if type(layer) not in _PLAIN:
        return another(layer)
    config = _config(layer)
    for name in ("hardware", "fidelity", "engine", "gradient", "gradient_window", "rank", "residual", "calibrated"):
        config.pop(name)
    return _PLAIN[type(layer)].from_config(config)


def _obstacle(layer) -> str | None:
    """Why a layer cannot run on hardware; `None` where it can."""
    if type(layer) not in _APPROXIMATE and not isinstance(layer, ApproximateLayer):
        return "no approximate counterpart"
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        return "data_format='channels_first'"
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


def copy_state(model, clone) -> None:
    """Weights layer by layer and frozen flags, containers first since they pass their flag down."""
    clone.trainable = model.trainable
    for old, new in zip(model.layers, clone.layers, strict=True):
        if isinstance(old, keras.Model):
            copy_state(old, new)
            continue
        new.trainable = old.trainable
        if isinstance(old, ApproximateLayer) or isinstance(new, ApproximateLayer):
            for source, target in zip(_keras_weights(old), _keras_weights(new), strict=True):
                target.assign(source)
            _copy_range(old, new)
            continue
        new.set_weights(old.get_weights())
        if hasattr(new, "finalize_state"):
            new.finalize_state()


def _keras_weights(layer) -> list:
    """The weights that the plain Keras layer has too, in its order: all but those of the hardware's states."""
    states = [part for part in layer._flatten_layers() if isinstance(part, HardwareState)]
    owned = {id(weight) for state in states for weight in state.weights}
    return [weight for weight in layer.weights if id(weight) not in owned]


def _copy_range(old, new) -> None:
    """A range is in real units, so it stays true on other hardware."""
    sources, targets = (getattr(layer, "products", ()) for layer in (old, new))
    for source, target in zip(sources, targets, strict=False):  # one of them may be a plain layer, without any
        if source.state.calibrated:
            for own, other in zip(_ranged(source.state), _ranged(target.state), strict=True):
                other.set_range(ops.convert_to_numpy(own.low), ops.convert_to_numpy(own.high))


def _ranged(state) -> tuple:
    """The states that hold a range: two where both operands are activations."""
    return (state, state.second) if isinstance(state, ActivationPairState) else (state,)


def _report(model, converted, chosen) -> ConversionReport:
    entries = []
    for old, new in zip(all_layers(model), all_layers(converted), strict=True):
        approximate = isinstance(new, ApproximateLayer) and new.hardware is not None
        weighted = bool(old.weights) and not isinstance(old, FLOAT_BY_DESIGN)
        reason = None
        if not approximate and weighted:
            reason = "kept in float by an override" if chosen[old.name] is None else _obstacle(old)
        entries.append(LayerReport(old.name, type(old).__name__, type(new).__name__, approximate, reason))
    return ConversionReport(tuple(entries), compile_dropped=bool(model.compiled))


def _known_ranges(model, ranges: Mapping[str, tuple[float, float]]) -> dict[int, tuple]:
    """(state, (low, high)) of the layers whose range is given, by the state's identity."""
    states = {
        layer.name: layer.products[0].state for layer in all_layers(model) if len(getattr(layer, "products", ())) == 1
    }
    for name, bounds in ranges.items():
        if name not in states:
            raise ValueError(
                "`activation_ranges` names layers on hardware with one product; these are "
                f"{', '.join(states) or 'none'}. Received: {name!r}"
            )
        low, high = bounds
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"A range needs low < high, both finite. Received: {name!r}: {bounds!r}")
    return {id(states[name]): (states[name], tuple(map(float, bounds))) for name, bounds in ranges.items()}


def _check_finite(calibration) -> None:
    for array in keras.tree.flatten(calibration):
        array = np.asarray(array)
        if array.size == 0:
            raise ValueError("`calibration` must hold at least one sample. Received: an empty array")
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            bad = int(array.size - np.isfinite(array).sum())
            raise ValueError(
                "`calibration` must be finite; remove the samples that hold NaN or infinity. "
                f"Received: {bad} of {array.size} values not finite"
            )


def _calibrate(model, calibration, known: dict[int, tuple]) -> None:
    """Passes the data through the float network, each hardware layer watching its own input."""
    products = [(layer, product) for layer in all_layers(model) for product in getattr(layer, "products", ())]
    for _, product in products:
        product.state.observer = Observer()
    try:
        count = len(keras.tree.flatten(calibration)[0])
        for start in range(0, count, _BATCH):
            batch: Any = keras.tree.map_structure(
                lambda array, start=start: ops.convert_to_tensor(np.asarray(array[start : start + _BATCH])), calibration
            )
            model(batch, training=False)
        samples = {id(product.state): _observed(product) for _, product in products}
    finally:
        for _, product in products:
            product.state.observer = None
    for layer, product in products:
        first, kernel = samples[id(product.state)]
        axes = product.geometry.summed_axes(len(kernel.shape))
        try:
            bounds = {"bounds": known[id(product.state)][1]} if id(product.state) in known else {}
            product.state.calibrate(first, kernel, axes, **bounds)
        except ValueError as error:
            raise ValueError(f"Layer {layer.name!r} could not be calibrated: {error}") from error
    for layer in all_layers(model):
        if isinstance(layer, ApproximateLayer) and layer.fidelity in STATISTICAL:
            layer.play_as(layer.playing)


def _observed(product) -> tuple:
    """Samples of a product's first operand, and its kernel or samples of the activations in the kernel's place."""
    state = product.state
    second = state.second.observer.samples if product.kernel is None else product.kernel
    return state.observer.samples, second
