"""From a Keras model to the same model with coded layers, and back."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from axtrain.cloning import another, cloned
from axtrain.coded.code import Code
from axtrain.coded.convolutional import CodedConv2D
from axtrain.coded.dense import CodedDense
from axtrain.coded.faults import SoftErrors
from axtrain.coded.layer import CodedLayer
from axtrain.coded.model import CodedModel
from axtrain.model_walk import all_layers, check_model, for_layers, labels

_CODED: dict[type, Any] = {keras.layers.Dense: CodedDense, keras.layers.Conv2D: CodedConv2D}
_SHARED = ("name", "trainable", "dtype", "activation", "use_bias", "kernel_initializer", "bias_initializer")
_OWN = {CodedDense: ("units",), CodedConv2D: ("filters", "kernel_size", "strides", "padding", "dilation_rate")}


def convert(
    model: keras.Model,
    code: Code,
    faults: SoftErrors | None = None,
    *,
    overrides: dict[str, Code | None] | None = None,
    adversarial: bool = False,
    checkpoint_every: int | str | None = "auto",
    allow_reencode: bool = False,
) -> CodedModel:
    """The same network with coded Dense and Conv2D layers: a new model with the same names and weights, not compiled.

    Args:
        model: a built Sequential or Functional model. It is not changed.
        code: for every layer. Under mixed precision coded layers compute in their variables' float32, since rounding
            in 16 bits would hide errors.
        faults: what goes wrong in them; `None` for nothing.
        overrides: codes for single layers, by name or pattern (`"block3_*"`); `None` keeps a layer as it is. The last
            match counts. Names and paths as in `axtrain.convert`.
        adversarial: trust only corrections that are right whatever the errors are: up to half the redundancy.
            Otherwise all but one of the redundant results may be wrong, if their errors are independent.
        checkpoint_every: steps between two checkpoints in memory, to which an error beyond correction goes back;
            `auto` chooses it from the rate of errors, `None` never goes back.
        allow_reencode: with an optimizer that is not linear, decode, update and encode at every step.

    Returns:
        a Functional model whose `fit` logs what was detected, corrected, regenerated, rolled back and missed.

    Raises:
        TypeError: not a model, not a code, not faults.
        ValueError: a subclassed or unbuilt model, a layer with options that coded layers do not have, an override
            that matches no layer, no layer to code, a dtype that cannot decode the code.

    Examples:
        >>> import keras, axtrain as ax
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(6, name="out")])
        >>> coded = ax.coded.convert(model, ax.coded.CodeNet(rows=2, columns=2, errors=1))
        >>> coded.layers[-1].code.nodes
        12
    """
    check_model(model)
    if not isinstance(code, Code):
        raise TypeError(f"`code` must be one of axtrain.coded's codes. Received: code={code!r}")
    if not isinstance(faults, (SoftErrors, type(None))):
        raise TypeError(f"`faults` must be axtrain.coded.SoftErrors or None. Received: faults={faults!r}")
    codes = _codes(model, code, overrides or {})
    first = _fed_by_inputs(model)

    def clone(layer):
        chosen = codes.get(id(layer))
        if chosen is None:
            return another(layer)
        return _coded(layer, chosen, faults, adversarial, layer is not first)

    converted = cloned(model, clone)
    _copy(model, converted)
    graph = getattr(converted, "_functional", None) or converted
    settings = {"checkpoint_every": checkpoint_every, "allow_reencode": allow_reencode}
    return CodedModel(graph.input, graph.output, name=model.name, **settings)


def strip(model: keras.Model) -> keras.Model:
    """Plain Keras layers again, with the decoded weights: a new model, not compiled.

    Args:
        model: a model from `convert`. It is not changed.

    Raises:
        ValueError: more of a layer's shards are wrong than its code corrects.
    """
    check_model(model)
    plain = cloned(model, lambda layer: _plain(layer) if isinstance(layer, CodedLayer) else another(layer))
    _copy(model, plain)
    return plain


def _codes(model: keras.Model, code: Code, overrides: dict[str, Code | None]) -> dict[int, Code | None]:
    """The code of each layer that can have one, by the layer's `id`."""
    chosen = for_layers(model, code, overrides, Code)
    kinds = (*_CODED, *_CODED.values())
    found = {id(layer): chosen[id(layer)] for layer in all_layers(model) if type(layer) in kinds}
    if not any(found.values()):
        known = ", ".join(labels(model).values())
        raise ValueError(f"This model has no Dense or Conv2D layer to code. Its layers: {known}")
    return found


def _fed_by_inputs(model: keras.Model) -> keras.layers.Layer | None:
    """A layer whose input is the model's own: nobody needs its gradient."""
    first = next((layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)), None)
    return first if type(first) in _CODED else None


def _coded(layer: Any, code: Code, faults: SoftErrors | None, adversarial: bool, input_gradient: bool) -> CodedLayer:
    if isinstance(layer, CodedLayer):
        return type(layer).from_config(
            {**layer.get_config(), "code": code, "faults": faults, "adversarial": adversarial}
        )
    for option in ("kernel_constraint", "bias_constraint", "bias_regularizer", "activity_regularizer"):
        if getattr(layer, option, None) is not None:
            raise ValueError(
                f"Layer {layer.name!r} has a {option}, which acts on single weights and would leave the code. Remove "
                f"it, or keep the layer as it is with overrides={{{layer.name!r}: None}}. Received: {option}"
            )
    if getattr(layer, "groups", 1) != 1 or getattr(layer, "data_format", "channels_last") != "channels_last":
        raise ValueError(
            f"Layer {layer.name!r}: coded convolutions have one group and channels last. Keep it as it is with "
            f"overrides={{{layer.name!r}: None}}. Received: groups={layer.groups}, data_format={layer.data_format!r}"
        )
    kind, config = _CODED[type(layer)], layer.get_config()
    taken = {name: config[name] for name in (*_SHARED, "kernel_regularizer", *_OWN[kind])}
    if layer.compute_dtype not in ("float32", "float64"):
        taken["dtype"] = layer.variable_dtype  # half-precision rounding would hide what errors do
    settings = {"code": code, "faults": faults, "adversarial": adversarial, "input_gradient": input_gradient}
    return kind.from_config({**taken, **settings})


def _plain(layer: CodedLayer) -> keras.layers.Layer:
    config = layer.get_config()
    kind: Any = next(plain for plain, coded in _CODED.items() if isinstance(layer, coded))
    return kind.from_config({name: config[name] for name in (*_SHARED, "kernel_regularizer", *_OWN[type(layer)])})


def _copy(model: keras.Model, clone: keras.Model) -> None:
    """Weights of both ways, layer by layer."""
    clone.trainable = model.trainable
    for old, new in zip(model.layers, clone.layers, strict=True):
        if isinstance(old, keras.Model):
            _copy(old, new)
        elif isinstance(new, CodedLayer):
            new.set_kernel(ops.convert_to_tensor(old.kernel), old.bias)
            new.trainable = old.trainable
        elif isinstance(old, CodedLayer):
            matrix = ops.convert_to_numpy(old.corrected_matrix())
            kernel = matrix[:-1] if old.use_bias else matrix
            new.set_weights([kernel.reshape(old.kernel.shape), *([matrix[-1]] if old.use_bias else [])])
            new.trainable = old.trainable
        else:
            new.trainable = old.trainable
            new.set_weights(old.get_weights())
