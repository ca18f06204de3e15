"""TensorFlow Model Optimization, loaded without a trace, and training in it for Keras 3 models.

It accepts models of Keras 2 only, and importing it can flip `tf.keras` to Keras 2 for the whole process. Whoever needs
it here takes it from `library`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import keras
import numpy as np

from axtrain.cloning import another, cloned
from axtrain.interop.keras2 import copy_weights, to_keras2
from axtrain.model_walk import named

_KINDS = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv2DTranspose)


def library() -> ModuleType:
    """The library, with the process's `tf.keras` and environment as they were."""
    import tensorflow as tf

    getattr(tf.keras, "layers")  # noqa: B009 - resolved now, before the import below would choose Keras 2 for it
    before = os.environ.get("TF_USE_LEGACY_KERAS")
    try:
        import tensorflow_model_optimization as tfmot
    finally:
        if before is None:
            os.environ.pop("TF_USE_LEGACY_KERAS", None)
        else:
            os.environ["TF_USE_LEGACY_KERAS"] = before
    return tfmot


def chosen_layers(model: keras.Model, patterns: Sequence[str] | None) -> list[str]:
    """Names of the layers whose kernels are worked on.

    Raises:
        ValueError: models inside the model, a pattern that names no layer, or no layer with a kernel.
    """
    if any(isinstance(layer, keras.Model) for layer in model.layers):
        raise ValueError(f"Models inside models cannot be pruned or clustered. Received: {model.name!r}")
    found = named(model, patterns, (layer for layer in model.layers if isinstance(layer, _KINDS)))
    if not found:
        raise ValueError(f"This model has no dense layer and no convolution to work on. Received: {model.name!r}")
    return [layer.name for layer in found]


def translated(model: keras.Model, wrapped: Callable, chosen: Sequence[str]) -> Any:
    """The Keras 2 model, with what `wrapped` makes of the chosen layers in their places."""
    import tf_keras

    names = set(chosen)
    return tf_keras.models.clone_model(
        to_keras2(model), clone_function=lambda layer: wrapped(layer) if layer.name in names else layer
    )


def train(translated: Any, loss: Any, optimizer: str, learning_rate: float, **fit_options) -> None:
    """Trains a model of Keras 2.

    Args:
        translated: the model.
        loss: as `keras2_loss` gives it.
        optimizer: by its name.
        learning_rate: its.
        fit_options: for `fit`.
    """
    import tf_keras

    chosen = tf_keras.optimizers.get(optimizer)
    chosen.learning_rate = learning_rate
    translated.compile(chosen, loss)
    translated.fit(**fit_options)


def keras2_loss(model: keras.Model, loss: Any) -> Any:
    """A loss as Keras 2 has it.

    Args:
        model: whose own loss is taken where none is given.
        loss: a name, a `keras.losses.Loss`, or `None`.

    Raises:
        ValueError: no loss, or one that Keras 2 does not have.
    """
    import tf_keras

    if loss is None and model.compiled:
        loss = model.loss
    if isinstance(loss, str):
        return loss
    kind = getattr(tf_keras.losses, type(loss).__name__, None)
    if not isinstance(loss, keras.losses.Loss) or kind is None:
        raise ValueError(f"Give loss=, a name or one of keras.losses. Received: loss={loss!r}")
    return kind(**{name: value for name, value in loss.get_config().items() if name != "dtype"})


def returned(model: keras.Model, trained: Any) -> keras.Model:
    """A Keras 3 model like the first one with the trained weights of a Keras 2 model, not compiled."""
    found = cloned(model, another)
    copy_weights(trained, found)
    return found


def kernel_of(layer: keras.layers.Layer) -> np.ndarray:
    """A layer's kernel as an array."""
    return keras.ops.convert_to_numpy(layer.kernel)
