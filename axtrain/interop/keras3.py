"""Models of Keras 2 (`tf_keras`) as models of Keras 3, those that TensorFlow Model Optimization quantised too."""

from __future__ import annotations

import glob
import inspect
from typing import Any

import keras
import numpy as np

from axtrain.conversion import convert
from axtrain.hardware import Hardware
from axtrain.interop.keras2 import RENAMED
from axtrain.interop.learnt_ranges import activation, hardware_of, input_ranges, nodes
from axtrain.model_walk import all_layers, exact_patterns

_NAMES = {(kind, old): new for (kind, new), old in RENAMED.items()}
_DROPPED = ("batch_input_shape", "dtype", "seed")


def to_keras3(model: Any, calibration: Any = None) -> keras.Model:
    """The same network in Keras 3, not compiled, with the same weights and layer names.

    Layers that `tfmot` quantised by its default 8-bit scheme come back on the hardware that it emulates: an exact
    8-bit multiplier, affine activations, weights symmetric per channel of a Conv2D and per tensor of a Dense layer.
    Those with an `ApproximateQuantizeConfig` come back on its hardware. Both have the activation ranges that were
    learnt; `axtrain.convert` takes these on to other hardware, and `axtrain.strip` gives the plain model. Weights'
    ranges are those of the weights as they are, which `tfmot` would take in its next training step.

    Args:
        model: a `tf_keras` model, Sequential or Functional, of Keras's own layers. It is not changed.
        calibration: input samples for the ranges of layers on hardware behind which none was learnt; without them
            these follow their batches.

    Raises:
        ValueError: a subclassed model, an operation that is no layer, a layer or setting that Keras 3 does not have,
            or quantisers that no hardware here describes.
    """
    import tf_keras

    if not isinstance(model, tf_keras.Model) or not getattr(model, "_is_graph_network", False):
        raise ValueError(
            "Only built Sequential and Functional models of tf_keras can be taken to Keras 3. "
            f"Received: {type(model).__name__}"
        )
    found = plain_keras3(model)
    described = {inner.name: hardware for layer in model.layers if (inner := _inner(layer)) is not None
                 and (hardware := hardware_of(layer)) is not None}  # fmt: skip
    if not described:
        return found
    patterns = exact_patterns(found)
    outermost = {id(layer) for layer in found.layers}
    overrides: dict[str, Hardware | None] = {
        patterns[id(layer)]: described.get(layer.name) if id(layer) in outermost else None
        for layer in all_layers(found)
    }
    ranges = {f"/{glob.escape(name)}": bounds for name, bounds in input_ranges(model).items() if name in described}
    return convert(found, Hardware(), calibration, overrides=overrides, activation_ranges=ranges)


def _inner(layer: Any) -> Any:
    """The layer of the user's model; `None` for one that only quantises."""
    if hasattr(layer, "quantize_config"):
        return layer.layer
    return None if hasattr(layer, "quantizer") else layer


def plain_keras3(model: Any) -> keras.Model:
    """The structure and weights alone; the layers that only quantise are left out."""
    import tensorflow as tf
    import tf_keras

    made: dict[int, Any] = {}
    if isinstance(model, tf_keras.Sequential):
        layers = [_layer(layer, made) for layer in model.layers if _inner(layer) is not None]
        inputs = keras.Input(batch_shape=tuple(model.input_shape), dtype=model.inputs[0].dtype.name)
        found = keras.Sequential([inputs, *layers], name=model.name)
    else:
        tensors = {  # of Keras 2, all kept in the model's nodes, to those of Keras 3
            id(tensor): keras.Input(batch_shape=tuple(tensor.shape), dtype=tensor.dtype.name, name=layer.name)
            for tensor, layer in zip(model.inputs, model._input_layers, strict=True)
        }
        for node in nodes(model):
            arguments, options = tf.nest.map_structure(
                lambda part: tensors.get(id(part), part), (node.call_args, node.call_kwargs)
            )
            results = arguments[0]
            if _inner(node.layer) is not None:
                options = {name: value for name, value in options.items() if value is not None}
                results = _layer(node.layer, made)(*arguments, **options)
            pairs = zip(tf.nest.flatten(node.outputs), keras.tree.flatten(results), strict=True)
            tensors.update({id(old): new for old, new in pairs})
        structures = [tf.nest.map_structure(lambda tensor: tensors[id(tensor)], end)
                      for end in (model._nested_inputs, model._nested_outputs)]  # fmt: skip
        found = keras.Model(*structures, name=model.name)
    for layer in model.layers:
        if id(layer) in made and not isinstance(made[id(layer)], keras.Model):
            _copy_weights(layer, made[id(layer)])
    return found


def _copy_weights(old: Any, new: keras.layers.Layer) -> None:
    values = old.get_weights()
    if hasattr(old, "quantize_config"):  # its quantisers have weights too
        names = {weight.name for weight in new.weights} | {"depthwise_kernel"}
        values = [np.asarray(weight) for weight in old.weights if weight.name.split(":")[0].split("/")[-1] in names]
    new.set_weights(values)


def _layer(wrapped: Any, made: dict[int, Any]) -> Any:
    """One layer of Keras 3, its weights new."""
    import tf_keras

    if id(wrapped) in made:
        return made[id(wrapped)]
    layer = _inner(wrapped)
    if isinstance(layer, tf_keras.Model):
        made[id(wrapped)] = plain_keras3(layer)
        return made[id(wrapped)]
    name = type(layer).__name__
    kind, own = getattr(keras.layers, name, None), getattr(tf_keras.layers, name, None)
    if kind is None or type(layer) is not own:
        raise ValueError(
            "Keras 3 has no such layer; an operation between layers needs one such as tf_keras.layers.Add. "
            f"Received: {layer.name!r} of class {name}"
        )
    known = set(inspect.signature(kind.__init__).parameters) | {"name", "trainable"}
    if name.endswith("Transpose"):
        known.add("output_padding")  # Keras 3.10 takes it for its base, without naming it
    defaults = {}
    for base in reversed(own.__mro__[:-1]):  # some of a layer's settings are its base's
        signature = inspect.signature(vars(base).get("__init__", object.__init__))
        defaults.update({setting: parameter.default for setting, parameter in signature.parameters.items()})
    settings: dict[str, Any] = {"dtype": layer.dtype_policy.name}
    config = layer.get_config()
    if "activation" in config:
        own_activation = activation(layer)
        config["activation"] = own_activation and tf_keras.activations.serialize(own_activation)
    for setting, value in config.items():
        if setting.endswith("_initializer") or setting in _DROPPED:
            continue  # the weights are carried over, and dropout draws other numbers anyway
        value = value[0] if name == "BatchNormalization" and setting == "axis" and isinstance(value, list) else value
        new = _NAMES.get((name, setting), setting)
        if new in known:
            settings[new] = value
        elif value != defaults.get(setting, False) and value is not None:
            raise ValueError(
                f"Keras 3's {name} has no setting {setting!r}. Received: layer {layer.name!r}, {setting}={value!r}"
            )
    made[id(wrapped)] = kind(**settings)
    return made[id(wrapped)]
