"""A Keras network of dense layers as its parts: what a node without Keras's training loop computes with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from axtrain.training.distributed.losses import loss_name, loss_option, one_hot

_ENDINGS = {
    "sparse_categorical_crossentropy": "softmax",
    "categorical_crossentropy": "softmax",
    "binary_crossentropy": "sigmoid",
    "mean_squared_error": "linear",
}
"""For each loss the activation of the last layer whose derivative with it is the difference from the target."""


@dataclass(frozen=True)
class DenseLayer:
    """One layer.

    Attributes:
        name: Keras's.
        inputs, outputs: of its kernel.
        activation: by name.
        use_bias: whether it has one; it is a last input row of the coded kernel.
    """

    name: str
    inputs: int
    outputs: int
    activation: str
    use_bias: bool

    @property
    def rows(self) -> int:
        """Of the kernel with its bias."""
        return self.inputs + self.use_bias

    def operand(self, x: np.ndarray) -> np.ndarray:
        """The input with a one for the bias."""
        return np.concatenate([x, np.ones_like(x[:, :1])], axis=1) if self.use_bias else x


@dataclass(frozen=True)
class DenseStack:
    """Layers, and the loss at their end.

    Attributes:
        layers: from the input.
        loss: by Keras's name.
    """

    layers: tuple[DenseLayer, ...]
    loss: str

    @classmethod
    def of(cls, model: keras.Model) -> DenseStack:
        """Of a compiled model: a chain of Dense, Flatten, Activation and Input layers.

        Raises:
            ValueError: other layers, activations or losses, or a model that is not compiled.
        """
        if not model.compiled or model.loss is None:
            raise ValueError("Compile the model first: its loss and optimizer are what it is trained with.")
        found: list[DenseLayer] = []
        for layer in model.layers:
            if isinstance(layer, (keras.layers.InputLayer, keras.layers.Flatten)):
                continue
            if isinstance(layer, keras.layers.Activation) and found and found[-1].activation == "linear":
                found[-1] = replace(found[-1], activation=_activation(layer))
            elif type(layer) is keras.layers.Dense and layer.kernel_regularizer is None:
                inputs, outputs = layer.kernel.shape
                found.append(DenseLayer(layer.name, inputs, outputs, _activation(layer), layer.use_bias))
            else:
                raise ValueError(
                    "A network on coded nodes is a chain of Dense and Flatten layers without regularizers. "
                    f"Received: {layer.name!r}, a {type(layer).__name__}"
                )
        loss = loss_name(model.loss)
        for option in ("from_logits", "label_smoothing"):
            if loss_option(model.loss, option):
                raise ValueError(f"Coded nodes know no losses with {option}. Received: {model.loss!r}")
        wanted = _ENDINGS.get(loss)
        if not found or found[-1].activation != wanted or "softmax" in (one.activation for one in found[:-1]):
            known = ", ".join(f"{name} after {last}" for name, last in _ENDINGS.items())
            raise ValueError(f"Losses are: {known}. Received: {loss} after {found[-1].activation if found else None}")
        return cls(tuple(found), loss)

    def error(self, outputs: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
        """The loss of a batch, and its derivative with respect to the last layer's sums."""
        batch = len(outputs)
        if self.loss == "sparse_categorical_crossentropy":
            y = one_hot(y, outputs.shape[1])
        y = np.asarray(y, outputs.dtype).reshape(outputs.shape)
        if self.loss == "mean_squared_error":
            return float(np.mean(np.square(outputs - y))), 2 * (outputs - y) / outputs.size
        likely = np.clip(outputs, 1e-7, 1 - 1e-7)
        if self.loss == "binary_crossentropy":
            each = y * np.log(likely) + (1 - y) * np.log(1 - likely)
            return float(-each.mean()), (outputs - y) / outputs.size
        return float(-(y * np.log(likely)).sum() / batch), (outputs - y) / batch


def activate(name: str, sums: np.ndarray) -> np.ndarray:
    """An activation by its name."""
    return _ACTIVATIONS[name][0](sums)


def derivative(name: str, outputs: np.ndarray) -> Any:
    """Of an activation, from its outputs."""
    found = _ACTIVATIONS[name][1]
    if found is None:
        raise ValueError(f"The derivative of {name} is taken with its loss.")
    return found(outputs)


def _softmax(sums: np.ndarray) -> np.ndarray:
    shares = np.exp(sums - sums.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def _sigmoid(sums: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * sums))


_ACTIVATIONS: dict[str, tuple[Callable, Callable | None]] = {
    "linear": (lambda s: s, lambda y: np.ones_like(y)),
    "relu": (lambda s: np.maximum(s, 0), lambda y: (y > 0).astype(y.dtype)),
    "tanh": (np.tanh, lambda y: 1 - y * y),
    "sigmoid": (_sigmoid, lambda y: y * (1 - y)),
    "softmax": (_softmax, None),  # last only, with its loss
}


def _activation(layer: Any) -> str:
    name = keras.activations.serialize(layer.activation)
    if name not in _ACTIVATIONS:
        raise ValueError(f"Layer {layer.name!r}: activations are {', '.join(_ACTIVATIONS)}. Received: {name!r}")
    return name
