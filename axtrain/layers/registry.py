"""Which layer of Keras has which approximate one: conversion, stripping, energy and integers all ask here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from axtrain.integers.network import PRODUCT_KINDS
from axtrain.layers.base import ApproximateLayer

Lowering = str | Callable[[keras.layers.Layer], tuple[str, Any]]


@dataclass(frozen=True, kw_only=True)
class RegisteredLayer:
    """What `register_layer` was given."""

    keras_class: type[keras.layers.Layer]
    approximate_class: type[ApproximateLayer]
    count: Callable | None = None
    lowering: Lowering | None = None


LAYERS: dict[type, RegisteredLayer] = {}


def register_layer(
    keras_class: type[keras.layers.Layer],
    approximate_class: type[ApproximateLayer],
    *,
    count: Callable | None = None,
    lowering: Lowering | None = None,
) -> None:
    """Adds a layer: `convert` puts it on hardware, `strip` takes it back, and all that reads models knows it.

    Both classes must be known to Keras too (`keras.saving.register_keras_serializable`), so that saved models load.

    Args:
        keras_class: the plain layer. Its subclasses are layers of their own: they may compute something else.
        approximate_class: the same on hardware, a subclass of `axtrain.layers.ApproximateLayer` (or of one of the
            approximate layers) and of `keras_class`. It takes the arguments of both. Without hardware it computes what
            `keras_class` does.
        count: a function of (built layer, input shape, output shape), both with the batch axis, to the
            `axtrain.layers.counts.Count` of one call for one sample, for the energy; `None` takes that of the nearest
            registered class that `keras_class` is a subclass of. Where there is none, `energy` refuses the layer.
        lowering: how `integer_network` computes the layer: `"dense"`, `"conv2d"` or `"depthwise_conv2d"` where it is
            ``activation(sums + bias)`` of its one product of that kind, or a function of the plain layer to (kind, g)
            where it is ``activation(g (sums + bias))``, g one factor or one for each output channel; `activation`,
            `use_bias` and `bias` are attributes of the layer. `None` where it has no form in integers.

    Raises:
        TypeError: not such classes, or a `count` or `lowering` of another kind.
        ValueError: another approximate layer is registered for `keras_class`, or an unknown kind of product.

    Examples:
        >>> import keras, axtrain as ax
        >>> class Head(keras.layers.Dense):
        ...     "A layer of your own."
        >>> class ApproxHead(ax.layers.ApproxDense, Head):
        ...     "The same on hardware."
        >>> ax.register_layer(Head, ApproxHead, lowering="dense")
        >>> model = keras.Sequential([keras.Input((4,)), Head(2)])
        >>> ax.convert(model, ax.Hardware()).conversion_report.layers[0].became
        'ApproxHead'
    """
    if not _is_layer(keras_class) or issubclass(keras_class, ApproximateLayer):
        raise TypeError(
            f"`keras_class` must be a subclass of keras.layers.Layer without hardware. Received: {keras_class!r}"
        )
    if not _is_layer(approximate_class) or not issubclass(approximate_class, ApproximateLayer):
        raise TypeError(
            "`approximate_class` must be a subclass of axtrain.layers.ApproximateLayer. "
            f"Received: approximate_class={approximate_class!r}"
        )
    if _plain_class(approximate_class) is not keras_class:
        raise TypeError(
            "`approximate_class` must be a subclass of `keras_class` too, and of no narrower Keras layer: class "
            f"{approximate_class.__name__}(ApproximateLayer, {keras_class.__name__}). "
            f"Received: one of {_plain_class(approximate_class).__name__}"
        )
    if count is not None and not callable(count):
        raise TypeError(f"`count` must be a function, or None. Received: count={count!r}")
    if not (lowering is None or isinstance(lowering, str) or callable(lowering)):
        raise TypeError(f"`lowering` must be a str, a function, or None. Received: lowering={lowering!r}")
    if isinstance(lowering, str) and lowering not in PRODUCT_KINDS:
        raise ValueError(f"`lowering` must be one of {PRODUCT_KINDS}. Received: lowering={lowering!r}")
    held = LAYERS.get(keras_class)
    if held is not None and _named(held.approximate_class) != _named(approximate_class):  # a notebook's cell run again
        raise ValueError(
            f"Another approximate layer is registered for {keras_class.__name__}: {held.approximate_class.__name__}. "
            f"Subclass {keras_class.__name__} for your own. Received: approximate_class={approximate_class.__name__}"
        )
    LAYERS[keras_class] = RegisteredLayer(
        keras_class=keras_class, approximate_class=approximate_class, count=count, lowering=lowering
    )


def registered(layer: keras.layers.Layer) -> RegisteredLayer | None:
    """What is registered for a layer, or for the plain layer that an approximate one is mixed with."""
    return LAYERS.get(_plain_class(type(layer)))


def counting(layer: keras.layers.Layer) -> Callable | None:
    """The function that counts a layer's products: of the nearest of its classes that has one."""
    found = (LAYERS[kind].count for kind in type(layer).__mro__ if kind in LAYERS)
    return next((count for count in found if count is not None), None)


def lowered(layer: keras.layers.Layer) -> tuple[str, np.ndarray | None] | None:
    """(kind of integer product, float64 factor of its outputs or `None`) of a plain layer; `None` where it has no such.

    Raises:
        ValueError: the function of `lowering` gave something else.
    """
    entry = registered(layer)
    if entry is None or entry.lowering is None:
        return None
    kind, gain = (entry.lowering, None) if isinstance(entry.lowering, str) else entry.lowering(layer)
    if kind not in PRODUCT_KINDS:
        raise ValueError(
            f"`lowering` must give one of {PRODUCT_KINDS} and a factor for layer {layer.name!r}. Received: {kind!r}"
        )
    return kind, None if gain is None else np.asarray(gain, np.float64)


def _plain_class(kind: type) -> type:
    """The class itself; of an approximate one the first of its classes that is a Keras layer and not approximate."""
    return next(
        base for base in kind.__mro__ if issubclass(base, keras.layers.Layer) and not issubclass(base, ApproximateLayer)
    )


def _is_layer(kind) -> bool:
    return isinstance(kind, type) and issubclass(kind, keras.layers.Layer)


def _named(kind: type) -> tuple[str, str]:
    return kind.__module__, kind.__qualname__
