"""A second model like the first one: layers, weights, hardware and its state, with another way to train."""

from __future__ import annotations

import keras

from axtrain.cloning import another, cloned, copy_state
from axtrain.layers import ApproximateLayer
from axtrain.model_walk import all_layers


def copy_of(model: keras.Model, kind: type[keras.Model] = keras.Model, **settings) -> keras.Model:
    """A Functional model of class `kind` with copies of the model's layers; not compiled.

    Args:
        model: Sequential or Functional.
        kind: its constructor takes `inputs, outputs, name` and the settings.
        settings: for the constructor.
    """
    clone = cloned(model, another)
    copy_state(model, clone)
    for old, new in zip(all_layers(model), all_layers(clone), strict=True):
        if isinstance(old, ApproximateLayer) and old.hardware is not None:
            for source, target in zip(old.products, new.products, strict=True):
                kept: dict = {}
                source.state.save_own_variables(kept)
                target.state.load_own_variables(kept)
    graph = getattr(clone, "_functional", None) or clone  # a Sequential model keeps its graph inside
    return kind(graph.input, graph.output, name=model.name, **settings)
