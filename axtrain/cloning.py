"""New models of the same layers: structure, weights, and the ranges that stay true."""

from __future__ import annotations

import warnings
from types import FunctionType
from typing import Any

import keras
from keras import ops

from axtrain.layers import ApproximateLayer
from axtrain.layers.activation_pair import ActivationPairState
from axtrain.layers.state import HardwareState
from axtrain.step_model import TrainingModel


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


def another(layer):
    """A new layer of the same class and configuration."""
    config = config_of(layer)
    if isinstance(layer, keras.layers.Lambda):
        return layer.__class__(**config)  # `from_config` takes a function for one that was read from a file
    return layer.__class__.from_config(config)


def config_of(layer) -> dict[str, Any]:
    """The layer's configuration, with what Keras 3.10 leaves out of it.

    Functions stand in it themselves: one that Keras does not know by name could not be made again from what it writes.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The object being serialized includes a `lambda`")  # it is put back below
        config = layer.get_config()
    for name in config:
        for function in (getattr(layer, name, None), getattr(layer, f"_{name}", None)):
            if isinstance(function, FunctionType):
                config[name] = function
    if hasattr(layer, "output_padding"):
        config["output_padding"] = layer.output_padding
    return config


def copy_state(model, clone) -> None:
    """Weights layer by layer and frozen flags, containers first since they pass their flag down."""
    clone.trainable = model.trainable
    for old, new in zip(model.layers, clone.layers, strict=True):
        if isinstance(old, keras.Model):
            copy_state(old, new)
            continue
        new.trainable = old.trainable
        if isinstance(old, ApproximateLayer) or isinstance(new, ApproximateLayer):
            for source, target in zip(keras_weights(old), keras_weights(new), strict=True):
                target.assign(source)
            _copy_range(old, new)
            continue
        new.set_weights(old.get_weights())
        if hasattr(new, "finalize_state"):
            new.finalize_state()


def keras_weights(layer) -> list:
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
