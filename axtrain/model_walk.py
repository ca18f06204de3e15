"""Walking a Keras model: its layers at every depth, and each call of a layer with its shapes."""

from __future__ import annotations

import glob
from collections import Counter
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
    return (layer for layer, _ in _placed(model) if not isinstance(layer, keras.Model))


def labels(model: keras.Model) -> dict[int, str]:
    """What each of `all_layers` is known by in files, results and reports, by its `id`.

    The layer's name where nothing else in the model bears it; else its path, the names of the models that it lies in
    joined with "/", as in `left/proj`. No label begins with another one and "/".

    Raises:
        ValueError: two layers of one name in the same model.
    """
    placed = list(_placed(model))
    bearers = Counter(part.name for part, _ in placed)
    found = {
        id(part): path if bearers[part.name] > 1 else part.name
        for part, path in placed
        if not isinstance(part, keras.Model)
    }
    models = {path for part, path in placed if isinstance(part, keras.Model)}
    label, times = Counter(found.values()).most_common(1)[0] if found else ("", 0)
    twice = label if times > 1 else next(iter(models.intersection(found.values())), None)
    if twice is not None:
        raise ValueError(
            "Layers are told apart by their names and those of the models that they lie in; give each one of its own. "
            f"Received: two layers named {twice!r} in {model.name!r}"
        )
    return found


def exact_patterns(model: keras.Model) -> dict[int, str]:
    """For each of `all_layers`, by its `id`, the pattern that names it and no other layer."""
    return {id(part): f"/{glob.escape(path)}" for part, path in _placed(model) if not isinstance(part, keras.Model)}


def matching(model: keras.Model, pattern: str) -> list[keras.Layer]:
    """Those of `all_layers` that a name or pattern names.

    Args:
        model: whose layers.
        pattern: without a "/" it is held against the layers' names at every depth, so that it may name several; with
            one against their paths, as in `"left/proj"` or `"left/*"`. `"/proj"` is the layer of the outermost model.
    """
    by_path, wanted = "/" in pattern, pattern.removeprefix("/")
    called = [
        (part, path if by_path else part.name) for part, path in _placed(model) if not isinstance(part, keras.Model)
    ]
    return [part for part, name in called if name == wanted or fnmatchcase(name, wanted)]


def named(
    model: keras.Model, patterns: Sequence[str] | None, layers: Iterable[keras.Layer] | None = None
) -> list[keras.Layer]:
    """The layers that patterns name.

    Args:
        model: whose layers.
        patterns: as for `matching`; `None` takes all.
        layers: to choose from; default all of the model.

    Raises:
        ValueError: a pattern that names none of them.
    """
    known = list(all_layers(model) if layers is None else layers)
    if patterns is None:
        return known
    chosen: set[int] = set()
    for pattern in patterns:
        matches = {id(layer) for layer in matching(model, pattern)}.intersection(map(id, known))
        if not matches:
            told = labels(model)
            names = ", ".join(told[id(layer)] for layer in known)
            raise ValueError(f"`layers` names no layer of these: {names}. Received: {pattern!r}")
        chosen |= matches
    return [layer for layer in known if id(layer) in chosen]


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


def for_layers(model: keras.Model, default: Any, overrides: Mapping[str, Any], kind: type) -> dict[int, Any]:
    """What each layer gets, by its `id`: the default, or what the last matching override says.

    Args:
        model: whose layers.
        default: for all of them.
        overrides: by names or patterns, as for `matching`; `None` for nothing.
        kind: of what is given.

    Raises:
        TypeError: an override of another kind.
        ValueError: an override that names no layer, or two layers of one name in the same model.
    """
    told = labels(model)
    chosen = dict.fromkeys(told, default)
    for pattern, other in overrides.items():
        matches = [id(layer) for layer in matching(model, pattern)]
        if not matches:
            names = ", ".join(told.values())
            raise ValueError(f"`overrides` names no layer of the model. Its layers: {names}. Received: {pattern!r}")
        if not isinstance(other, (kind, type(None))):
            raise TypeError(f"`overrides` maps names to {kind.__name__} or None. Received: {pattern!r}: {other!r}")
        chosen.update(dict.fromkeys(matches, other))
    return chosen


def _placed(model) -> Iterator[tuple[keras.Layer, str]]:
    """Every layer and nested model once with its path, where it is met first; InputLayers left out."""
    seen: set[int] = set()

    def opened(model, inside: str):
        for layer in model.layers:
            if isinstance(layer, keras.layers.InputLayer) or id(layer) in seen:
                continue
            seen.add(id(layer))
            yield layer, inside + layer.name
            if isinstance(layer, keras.Model):
                yield from opened(layer, f"{inside}{layer.name}/")

    return opened(model, "")


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
