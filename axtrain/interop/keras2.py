"""Keras 3 models as models of Keras 2 (`tf_keras`), which TensorFlow Model Optimization works on, and their way back.

Structure and weights are carried over and the outputs compared: a layer that Keras 2 computes otherwise is an error,
never a silent difference.
"""

from __future__ import annotations

import inspect
from typing import Any

import keras
import numpy as np

from axtrain.cloning import another, cloned, config_of
from axtrain.layers import ApproximateLayer
from axtrain.model_walk import all_layers, is_graph

RENAMED = {("LeakyReLU", "negative_slope"): "alpha"}  # by Keras 3
_TOLERANCE = 1e-4  # of the largest output


def to_keras2(model: keras.Model) -> Any:
    """The same network in `tf_keras`, not compiled, with the same weights and layer names.

    Args:
        model: Sequential or Functional, of Keras's own layers, on no hardware. It is not changed.

    Returns:
        a `tf_keras.Model`.

    Raises:
        ValueError: a subclassed model or layer, one on hardware, a setting that Keras 2 does not have, or outputs that
            differ.
    """
    if not is_graph(model):
        raise ValueError(
            f"Only Sequential and Functional models can be taken to Keras 2. Received: {type(model).__name__}"
        )
    for layer in all_layers(model):
        if isinstance(layer, ApproximateLayer):
            raise ValueError(
                f"Layers on hardware are of Keras 3; take axtrain.strip(model) first. Received: layer {layer.name!r}"
            )
    translated = _translated(model)
    copy_weights(model, translated)
    _compare(model, translated)
    return translated


def copy_weights(source: Any, target: Any) -> None:
    """Weights of all layers from one model to another of the same structure, either of Keras 2 or 3, by their paths.

    Raises:
        ValueError: a layer that the other lacks, or weights of other shapes.
    """
    layers = _flat(target)
    for path, layer in _flat(source).items():
        if not layer.weights:
            continue
        if path not in layers:
            raise ValueError(f"The other model lacks the layer {path!r}. Received: layers {sorted(layers)}")
        values, other = layer.get_weights(), layers[path]
        shapes = [tuple(value.shape) for value in values], [tuple(weight.shape) for weight in other.weights]
        if shapes[0] != shapes[1]:
            raise ValueError(f"Weights of {path!r} differ. Received: shapes {shapes[0]} and {shapes[1]}")
        other.set_weights(values)


def _flat(model, inside: str = "") -> dict[str, Any]:
    """Layers that are no models, at every depth, by the names of the models that they lie in and their own."""
    found: dict[str, Any] = {}
    for layer in model.layers:
        opened = hasattr(layer, "layers") and not hasattr(layer, "layer")
        path = f"{inside}{layer.name}"
        found |= _flat(layer, f"{path}/") if opened else {path: layer}
    return found


def _translated(model: keras.Model) -> Any:
    """The structure alone."""
    import tf_keras

    if isinstance(model, keras.Sequential):
        layers = [tf_keras.Input(batch_shape=tuple(model.input_shape), dtype=model.inputs[0].dtype)]
        return tf_keras.Sequential([*layers, *(_layer(layer) for layer in model.layers)], name=model.name)
    calls: list[tuple] = []

    def recorded(layer, *arguments, **options):
        outputs = layer(*arguments, **options)
        calls.append((layer, arguments, options, outputs))
        return outputs

    # Keras gives the calls of a Functional model in order while it clones it, and nowhere else in public.
    clone = keras.models.clone_model(model, clone_function=_cloned, call_function=recorded)
    names = {id(layer.output): layer.name for layer in clone.layers if isinstance(layer, keras.layers.InputLayer)}
    found: dict[int, Any] = {}  # tensors of Keras 3, all kept in `calls`, to those of Keras 2
    for tensor in clone.inputs:
        found[id(tensor)] = tf_keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=names[id(tensor)])
    made: dict[int, Any] = {}
    for layer, arguments, options, outputs in calls:
        if not isinstance(layer, keras.layers.Layer):
            raise ValueError(
                "An operation between layers has no counterpart in Keras 2; use a layer such as keras.layers.Add. "
                f"Received: {layer.name!r}"
            )
        if id(layer) not in made:
            made[id(layer)] = _layer(layer)
        arguments, options = keras.tree.map_structure(lambda part: found.get(id(part), part), (arguments, options))
        results = made[id(layer)](*arguments, **options)
        pairs = zip(keras.tree.flatten(outputs), keras.tree.flatten(results), strict=True)
        found.update({id(old): new for old, new in pairs})
    inputs = keras.tree.map_structure(lambda tensor: found[id(tensor)], clone.input)
    return tf_keras.Model(
        inputs, keras.tree.map_structure(lambda tensor: found[id(tensor)], clone.output), name=model.name
    )


def _cloned(layer: keras.layers.Layer) -> keras.layers.Layer:
    return cloned(layer, another) if isinstance(layer, keras.Model) else another(layer)


def _layer(layer: keras.layers.Layer) -> Any:
    """One layer of Keras 2, its weights new."""
    import tf_keras

    if isinstance(layer, keras.Model):
        return _translated(layer)
    kind = getattr(tf_keras.layers, type(layer).__name__, None)
    if kind is None or type(layer) is not getattr(keras.layers, type(layer).__name__, None):
        raise ValueError(f"Keras 2 has no such layer. Received: {layer.name!r} of class {type(layer).__name__}")
    known = set(inspect.signature(kind.__init__).parameters) | {"name", "trainable", "dtype"}
    defaults = inspect.signature(type(layer).__init__).parameters
    settings = {}
    for name, value in config_of(layer).items():
        name = RENAMED.get((type(layer).__name__, name), name)
        if name.endswith("_initializer"):
            continue  # the weights are carried over
        if name == "dtype":
            value = value["config"]["name"] if isinstance(value, dict) else value
        if name in known:
            settings[name] = value
        elif name == "seed" or name.endswith("_shape"):
            continue  # dropout draws other numbers anyway; shapes are found again
        elif value != (defaults[name].default if name in defaults else False) and value is not None:
            # What Keras 3 has added asks for nothing at its default.
            raise ValueError(
                f"Keras 2's {type(layer).__name__} has no setting {name!r}. Received: layer {layer.name!r}, "
                f"{name}={value!r}"
            )
    return kind(**settings)


def _compare(model: keras.Model, translated: Any) -> None:
    """Both on the same two samples; integers are 0 and 1, which every embedding has."""
    rng = np.random.default_rng(0)
    inputs = []
    for tensor in model.inputs:
        size = (2, *(length or 8 for length in tensor.shape[1:]))
        drawn = rng.normal(size=size) if "float" in tensor.dtype else rng.integers(0, 2, size)
        inputs.append(drawn.astype(tensor.dtype))
    given: Any = inputs if len(inputs) > 1 else inputs[0]
    pairs = zip(keras.tree.flatten(model(given)), keras.tree.flatten(translated(given)), strict=True)
    for old, new in pairs:
        ours, theirs = keras.ops.convert_to_numpy(old), np.asarray(new)
        largest = np.abs(ours).max()
        if not np.allclose(ours, theirs, rtol=0, atol=_TOLERANCE * max(largest, 1e-6)):
            raise ValueError(
                "Keras 2 computes something else with these layers and weights. Received: outputs that differ by "
                f"{np.abs(ours - theirs).max():g}, where the largest is {largest:g}"
            )
