"""Gradients of a Keras model at a worker: the model is sent once, its function is traced where it is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from axtrain.training.distributed.losses import loss_name, loss_option


class GradientFunction:
    """The gradient of a compiled model's loss, as a function of weights and a batch.

    Workers of one process share it; to another process goes a copy of the model.

    Args:
        model: compiled, without state besides its trained weights. Not changed.
        one_hot: take a loss of class numbers for coded targets too: its like for one-hot ones.

    Raises:
        ValueError: a model that is not compiled, or with state, such as batch normalisation's.
    """

    def __init__(self, model: keras.Model, *, one_hot: bool = False) -> None:
        if not model.compiled or model.loss is None:
            raise ValueError("Compile the model first: its loss and optimizer are what it is trained with.")
        kept = [v.path for v in model.non_trainable_variables if "seed_generator" not in v.path]
        if kept:
            raise ValueError(
                "Workers send gradients only, and this model has state that training changes besides. Use layer or "
                f"group normalisation in the place of batch normalisation. Received: {', '.join(kept)}"
            )
        loss = keras.losses.get(model.loss)
        if one_hot and loss_name(loss) == "sparse_categorical_crossentropy":
            loss = keras.losses.CategoricalCrossentropy(from_logits=bool(loss_option(loss, "from_logits")))
        self.model = keras.models.clone_model(model)
        self.loss = keras.losses.serialize(loss)
        self.shapes = [tuple(variable.shape) for variable in model.trainable_variables]
        self._function: Callable | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_function": None}

    def __call__(self, weights: list, x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
        """The mean loss of a batch, and its gradient with respect to all weights, one after another."""
        if self._function is None:
            self._function = self._built()
        loss, gradient = self._function(weights, x, y)
        return float(loss), gradient.numpy()

    def parts(self, flat: np.ndarray) -> list[np.ndarray]:
        """A flat gradient as one for each variable."""
        ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes])[:-1]
        return [part.reshape(shape) for part, shape in zip(np.split(flat, ends), self.shapes, strict=True)]

    def _built(self) -> Callable:
        import tensorflow as tf

        model, loss = self.model, keras.losses.get(self.loss)

        @tf.function(reduce_retracing=True)
        def gradient(weights, x, y):
            for variable, value in zip(model.trainable_variables, weights, strict=True):
                variable.assign(value)
            with tf.GradientTape() as tape:
                value = tf.reduce_mean(loss(y, model(x, training=True)))
            found = tape.gradient(value, [variable.value for variable in model.trainable_variables])
            return value, tf.concat([tf.reshape(part, [-1]) for part in found], 0)

        return gradient


class GradientWorker:
    """A worker that gives gradients; it keeps nothing from step to step.

    Args:
        function: a `GradientFunction`.
    """

    def __init__(self, function: GradientFunction) -> None:
        self.function = function

    def ready(self, step: int, inputs: Any = ()) -> tuple[Any, Any]:
        """Says that it is there."""
        return None, None

    def gradient(self, step: int, weights: list, x: np.ndarray, y: np.ndarray, inputs: Any = ()) -> tuple[Any, Any]:
        """Loss as the note, gradient as the value."""
        return self.function(weights, x, y)
