"""A Keras network's outputs and their Jacobian with respect to all weights, where a worker is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from axtrain.training.distributed.losses import loss_name, loss_option, one_hot

MOST_WEIGHTS = 20_000
"""A dense system of more takes gigabytes."""


class LinearisedModel:
    """Outputs and Jacobian as a function of weights and samples; to another process goes a copy of the model.

    Args:
        model: compiled with a mean squared error, or a cross-entropy from logits.

    Raises:
        ValueError: another loss, or more weights than a dense system takes.
    """

    def __init__(self, model: keras.Model) -> None:
        name, from_logits = loss_name(model.loss), bool(loss_option(model.loss, "from_logits"))
        self.is_entropy = name in ("sparse_categorical_crossentropy", "categorical_crossentropy")
        if (self.is_entropy and not from_logits) or (not self.is_entropy and name != "mean_squared_error"):
            raise ValueError(
                "The partial surrogate linearises the network inside a mean squared error, or a categorical "
                "cross-entropy with from_logits=True and a last layer without softmax; for others use "
                f"surrogate='full'. Received: {name}"
            )
        count = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
        if count > MOST_WEIGHTS:
            raise ValueError(
                f"The partial surrogate solves a dense system of all weights, at most {MOST_WEIGHTS}; use "
                f"surrogate='full'. Received: {count} weights"
            )
        self.is_sparse = name.startswith("sparse")
        self.weight = 1.0 if self.is_entropy else 1.0 / int(np.prod(model.output_shape[1:]))  # of a sample's sum
        self.model = keras.models.clone_model(model)
        self._function: Callable | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_function": None}

    def __call__(self, weights: list, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Outputs, shape (samples, outputs), and Jacobian, shape (samples * outputs, weights), in float64."""
        if self._function is None:
            self._function = self._built()
        outputs, jacobian = self._function(weights, x)
        return outputs.numpy().astype(np.float64), jacobian.numpy().astype(np.float64)

    def targets(self, y: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """What the outputs should be, in their shape."""
        if self.is_sparse:
            return one_hot(y, outputs.shape[1])
        return np.asarray(y, np.float64).reshape(outputs.shape)

    def _built(self) -> Callable:
        import tensorflow as tf

        model = self.model

        @tf.function(reduce_retracing=True)
        def linearised(weights, x):
            variables = model.trainable_variables
            for variable, value in zip(variables, weights, strict=True):
                variable.assign(value)
            with tf.GradientTape() as tape:
                outputs = model(x, training=False)
                flat = tf.reshape(outputs, [-1])
            parts = tape.jacobian(flat, [variable.value for variable in variables])
            rows = tf.shape(flat)[0]
            return tf.reshape(outputs, [tf.shape(outputs)[0], -1]), tf.concat(
                [tf.reshape(part, [rows, -1]) for part in parts], axis=1
            )

        return linearised
