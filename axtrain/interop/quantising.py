"""Quantisation-aware training by TensorFlow Model Optimization; the ranges that it learns come back on hardware."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from axtrain.conversion import convert
from axtrain.hardware import Hardware
from axtrain.interop.keras2 import to_keras2
from axtrain.interop.keras3 import plain_keras3, to_keras3
from axtrain.interop.library import keras2_loss, library, train
from axtrain.model_walk import all_layers, named

_SAMPLES = 512  # for ranges to start from, and for the error models of the statistical fidelities (chosen here)


def quantize_aware(
    model: keras.Model,
    x: Any,
    y: Any,
    *,
    hardware: Hardware | None = None,
    layers: Sequence[str] | None = None,
    epochs: int = 2,
    batch_size: int = 32,
    optimizer: str = "adam",
    learning_rate: float = 1e-4,
    loss: Any = None,
    verbose: Any = 0,
) -> keras.Model:
    """Trains a network for 8-bit integers by `tfmot`, and returns it on hardware with the ranges that it learnt.

    `tfmot.quantization.keras.quantize_model` with its default 8-bit scheme. Its activation ranges start from the data
    (`tfmot` starts at -6 .. 6 and moves by 0.1 % a step). Batch normalisation stays a layer of its own behind the
    convolution, as `tfmot` has it while it trains: it quantises the convolution's kernel as it is, not a folded one.

    Outputs equal those of the `tfmot` model to the rounding of float32, its weights' ranges brought up to the trained
    weights, where every quantised tensor is the input of a layer on hardware, past layers that only move values. The
    quantisers of other tensors (the network's output, summands, averages) are left out: there outputs differ by the
    rounding that these did, half a step each.

    Args:
        model: a plain Keras 3 model, Sequential or Functional, without models inside. It is not changed.
        x, y: training samples and labels, arrays.
        hardware: what the returned model runs on, starting from the learnt ranges; `None` is what `tfmot` emulates:
            an exact 8-bit multiplier, affine activations, weights symmetric per channel of a Conv2D and per tensor
            of a Dense layer.
        layers: names or patterns of the layers to quantise; `None` is all. Others stay in float.
        epochs, batch_size, optimizer, learning_rate, verbose: of the training; the optimizer by its name.
        loss: a name or a `keras.losses.Loss`; `None` is what the model was compiled with.

    Returns:
        a new Keras 3 model on hardware, not compiled. `axtrain.convert` takes it, ranges and all, to other hardware;
        `axtrain.strip` gives the plain network with the trained weights.

    Raises:
        TypeError: not hardware.
        ValueError: a model that Keras 2 or the 8-bit scheme cannot take, a pattern that names no layer, or no loss.
    """
    if hardware is not None and not isinstance(hardware, Hardware):
        raise TypeError(f"`hardware` must be an axtrain.Hardware or None. Received: hardware={hardware!r}")
    loss = keras2_loss(model, loss)
    trained = quantised(model, layers)
    _start_ranges(trained, x[:_SAMPLES])
    train(trained, loss, optimizer, learning_rate, x=x, y=y, epochs=epochs, batch_size=batch_size, verbose=verbose)
    found = to_keras3(trained, x[:_SAMPLES])
    if hardware is None:
        return found
    states = {layer.name: getattr(layer, "hardware_state", None) for layer in all_layers(found)}
    ranges = {name: (float(state.low.value), float(state.high.value)) for name, state in states.items() if state}
    in_float: dict[str, Hardware | None] = {name: None for name, state in states.items() if not state}
    return convert(found, hardware, x[:_SAMPLES], overrides=in_float, activation_ranges=ranges)


def quantised(model: keras.Model, layers: Sequence[str] | None = None) -> Any:
    """The Keras 2 model with the quantisers of the default 8-bit scheme, not trained.

    Args:
        model: as for `quantize_aware`.
        layers: likewise.

    Raises:
        ValueError: likewise.
    """
    import tf_keras

    quantisation = library().quantization.keras
    if any(isinstance(layer, keras.Model) for layer in model.layers):
        raise ValueError(f"Models inside models cannot be quantised by tfmot. Received: {model.name!r}")
    names = {layer.name for layer in named(model, layers)}
    translated = to_keras2(model)
    try:
        annotated = tf_keras.models.clone_model(
            translated,
            clone_function=lambda layer: quantisation.quantize_annotate_layer(layer) if layer.name in names else layer,
        )
        return quantisation.quantize_apply(annotated)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            "tfmot's 8-bit scheme does not take this model; leave out what it does not know with layers=[...]. "
            f"Received: {error}"
        ) from error


def _start_ranges(model: Any, x: Any) -> None:
    """Sets each activation quantiser to the range of what it would quantise in the float network."""
    plain = plain_keras3(model)
    parts = [layer for layer in plain.layers if not isinstance(layer, keras.layers.InputLayer)]
    ends = [part for layer in parts for part in (keras.tree.flatten(layer.input)[0], layer.output)]
    values = keras.Model(plain.inputs, ends).predict(x, verbose=0)
    met = {layer.name: values[2 * i : 2 * i + 2] for i, layer in enumerate(parts)}
    for layer in model.layers:
        if hasattr(layer, "quantizer_vars"):
            _set(layer.quantizer_vars, x)
        elif hasattr(layer, "quantize_config"):
            before, after = met[layer.layer.name]
            _set(getattr(layer, "_output_quantizer_vars", None), after)
            for activation in layer._quantize_activations:
                _set(getattr(activation, "_post_activation_vars", None), after)
                if hasattr(activation, "_pre_activation_vars"):
                    linear = plain.get_layer(layer.layer.name)
                    linear.activation = None
                    _set(activation._pre_activation_vars, keras.ops.convert_to_numpy(linear(before)))


def _set(variables: dict[str, Any] | None, values: Any) -> None:
    if variables is not None:
        variables["min_var"].assign(min(float(np.min(values)), 0.0))
        variables["max_var"].assign(max(float(np.max(values)), 0.0))
