"""Walking a Keras model: its layers at every depth, and each call of a layer with its shapes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import keras


class Call(NamedTuple):
    """One use of a layer in a model's graph; shapes hold `None` where open."""

    layer: keras.Layer
    input_shape: tuple
    output_shape: tuple


def is_graph(model) -> bool:
    """Whether the model's layers and their wiring are known: Sequential, Functional, or a subclass of it."""
    functional = keras.src.models.functional.Functional
    return isinstance(model, (keras.Sequential, functional))


def all_layers(model: keras.Model) -> Iterator[keras.Layer]:
    """Every layer once, nested models opened, in the model's order; InputLayers left out."""
    seen: set[int] = set()
    for layer in _layers(model):
        if id(layer) not in seen:
            seen.add(id(layer))
            yield layer


def named(layers: Iterable[keras.Layer], patterns: Sequence[str] | None) -> list[keras.Layer]:
    """Those of the layers whose names match.

    Args:
        layers: to choose from.
        patterns: names or patterns, such as `"block3_*"`; `None` takes all.

    Raises:
        ValueError: a pattern that names none of them.
    """
    known = list(layers)
    if patterns is None:
        return known
    for pattern in patterns:
        if not any(fnmatchcase(layer.name, pattern) for layer in known):
            names = ", ".join(layer.name for layer in known)
            raise ValueError(f"`layers` names no layer of these: {names}. Received: {pattern!r}")
    return [layer for layer in known if any(fnmatchcase(layer.name, pattern) for pattern in patterns)]


def check_model(model: keras.Model) -> None:
    """Refuse what cannot be built again from its layers.

    Raises:
        TypeError: not a Keras model.
        ValueError: a subclassed model, or one that is not built.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a keras.Model. Received: {type(model).__name__}")
    nested = [layer for layer in model._flatten_layers() if isinstance(layer, keras.Model)]
    for part in nested:
        if not is_graph(part):
            raise ValueError(
                "A subclassed model hides its layers, so it cannot be rebuilt on hardware. Build it with the "
                "Functional API (keras.Model(inputs, outputs)), or use axtrain.layers in it directly. "
                f"Received: {type(part).__name__} named {part.name!r}"
            )
    if not model.built:
        raise ValueError(f"Build the model first: give it an Input, or call it once. Received: {model.name!r}")


def for_layers(model: keras.Model, default: Any, overrides: Mapping[str, Any], kind: type) -> dict[str, Any]:
    """What each layer gets, by its name: the default, or what the last matching override says.

    Args:
        model: whose layers.
        default: for all of them.
        overrides: by names or patterns, such as `"block3_*"`; `None` for nothing.
        kind: of what is given.

    Raises:
        TypeError: an override of another kind.
        ValueError: an override that names no layer.
    """
    names = [layer.name for layer in all_layers(model)]
    chosen = dict.fromkeys(names, default)
    for pattern, other in overrides.items():
        matches = [name for name in names if fnmatchcase(name, pattern)]
        if not matches:
            raise ValueError(
                f"`overrides` names no layer of the model. Its layers: {', '.join(names)}. Received: {pattern!r}"
            )
        if not isinstance(other, (kind, type(None))):
            raise TypeError(f"`overrides` maps names to {kind.__name__} or None. Received: {pattern!r}: {other!r}")
        chosen.update(dict.fromkeys(matches, other))
    return chosen


def _layers(model) -> Iterator[keras.Layer]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _layers(layer)
        elif not isinstance(layer, keras.layers.InputLayer):
            yield layer


def calls(model: keras.Model) -> Iterator[Call]:
    """Every call of every layer; a shared layer comes once per use, nested models are opened.

    A model that is not a graph gives each layer once, with the shape it was built for.
    """
    functional = getattr(model, "_functional", None) or model
    if not hasattr(functional, "_nodes_by_depth"):
        for layer in all_layers(model):
            shape = layer.get_build_config()["input_shape"]
            yield Call(layer, tuple(shape), tuple(layer.compute_output_shape(shape)))
        return
    for depth in sorted(functional._nodes_by_depth, reverse=True):
        for node in functional._nodes_by_depth[depth]:
            layer = node.operation
            if isinstance(layer, keras.Model):
                yield from calls(layer)
            elif isinstance(layer, keras.Layer) and not isinstance(layer, keras.layers.InputLayer):
                yield Call(layer, tuple(node.input_tensors[0].shape), tuple(node.output_tensors[0].shape))
