"""Which loss a sensitivity is the sensitivity of: the model's own, or what its outputs and the labels say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from axtrain.training.evaluation import check_finite_outputs

_TINY = 1e-12  # keeps the logarithm of a probability of 0 finite
_KINDS = {
    "sparse_categorical_crossentropy": "categorical",
    "categorical_crossentropy": "categorical",
    "binary_crossentropy": "binary",
    "mean_squared_error": "squared",
}
_WAY_OUT = "Give loss=, a keras.losses.Loss, its name, or a function of (y_true, y_pred) to one figure per sample."


@dataclass(frozen=True, eq=False)
class ChosenLoss:
    """A loss, sample by sample, and its square roots where it is of a kind that has them.

    Attributes:
        function: of (labels, outputs) to one figure per sample.
        name: for tables.
        kind: `"categorical"`, `"binary"`, `"squared"`, or `None`.
        from_logits: whether the outputs are not yet probabilities.
    """

    function: Callable[[Any, Any], Any]
    name: str
    kind: str | None
    from_logits: bool

    def per_sample(self, y, outputs):
        """float32 (samples,).

        Raises:
            ValueError: the function gives no figure for each sample.
        """
        found = ops.cast(self.function(y, outputs), "float32")
        if len(found.shape) == 0:
            raise ValueError(
                f"A loss must give one figure per sample, so without reduction. {_WAY_OUT} "
                f"Received: a scalar from {self.name}"
            )
        return ops.mean(found, axis=tuple(range(1, len(found.shape)))) if len(found.shape) > 1 else found

    def width(self, network: keras.Model) -> int:
        """How many `roots` a sample has."""
        return 2 * network.output_shape[-1] if self.kind == "binary" else int(np.prod(network.output_shape[1:]))

    def roots(self, outputs):
        """f (samples, width) whose ``sum_k (df_k/dw)^2`` is a sample's Gauss-Newton curvature.

        Cross-entropy: ``sqrt(p_k) log p_k``, p_k before the logarithm held, so that it is Fisher's information
        under the network's own labels; squared error over K outputs: ``sqrt(2 / K) y_k``.
        """
        flat = ops.reshape(outputs, (ops.shape(outputs)[0], -1))
        if self.kind == "squared":
            return flat * (2.0 / flat.shape[-1]) ** 0.5
        if self.kind == "categorical":
            logs = ops.log_softmax(flat) if self.from_logits else ops.log(flat + _TINY)
            return ops.sqrt(ops.exp(ops.stop_gradient(logs))) * logs
        logits = flat if self.from_logits else ops.log(flat + _TINY) - ops.log(1 - flat + _TINY)
        logs = ops.concatenate([ops.log_sigmoid(logits), ops.log_sigmoid(-logits)], axis=-1)
        return ops.sqrt(ops.exp(ops.stop_gradient(logs)) / flat.shape[-1]) * logs


def chosen_loss(model: keras.Model, given, outputs: np.ndarray, y) -> ChosenLoss:
    """The loss that was given, else that the model was compiled with, else cross-entropy where the labels fit it.

    Args:
        model: compiled or not.
        given: a `keras.losses.Loss`, a name, a function, or `None`.
        outputs: of the model for some samples.
        y: labels of the same samples.

    Raises:
        ValueError: more than one output, outputs that are not finite, an unknown name, or no way to tell the loss.
    """
    if not hasattr(outputs, "shape"):
        raise ValueError(f"The loss of a model with several outputs is not known. Received: {type(outputs).__name__}")
    check_finite_outputs(outputs)
    loss = given
    if loss is None and model.compiled and isinstance(model.loss, (str, keras.losses.Loss)):
        loss = model.loss
    probabilities = bool((outputs >= 0).all() and (outputs <= 1 + 1e-6).all())
    summing = probabilities and bool(np.allclose(outputs.sum(axis=-1), 1, atol=1e-3))
    if loss is None:
        loss = _guessed(outputs, np.asarray(y), probabilities, summing)
    if isinstance(loss, str):
        name, loss = loss, keras.losses.get(loss)
    else:
        name = str(getattr(loss, "name", None) or getattr(loss, "__name__", type(loss).__name__))
    if not callable(loss):
        raise ValueError(f"`loss` must be a Keras loss or a function. Received: loss={loss!r}")
    function = loss.call if isinstance(loss, keras.losses.Loss) else loss
    kind = _KINDS.get({"mse": "mean_squared_error"}.get(name, name))
    return ChosenLoss(function, name, kind, not (summing if kind == "categorical" else probabilities))


def _guessed(outputs: np.ndarray, y: np.ndarray, probabilities: bool, summing: bool):
    """Cross-entropy where outputs and labels are of its shape."""
    classes = outputs.shape[-1]
    numbers = y.dtype.kind in "fiub" and outputs.ndim == 2 and bool(np.equal(y, np.floor(y)).all())
    if (
        numbers
        and classes > 1
        and y.shape in ((len(outputs),), (len(outputs), 1))
        and 0 <= y.min() <= y.max() < classes
    ):
        return keras.losses.SparseCategoricalCrossentropy(from_logits=not summing)
    if numbers and classes > 1 and y.shape == outputs.shape and (y.sum(axis=-1) == 1).all() and y.min() >= 0:
        return keras.losses.CategoricalCrossentropy(from_logits=not summing)
    if numbers and classes == 1 and y.size == len(outputs) and set(np.unique(y)) <= {0, 1}:
        return keras.losses.BinaryCrossentropy(from_logits=not probabilities)
    raise ValueError(
        f"The model is not compiled, and its outputs and labels are not those of a classifier. {_WAY_OUT} "
        f"Received: outputs {outputs.shape}, labels {y.shape} of dtype {y.dtype}"
    )
