"""Which optimizers keep a code: those whose update is linear in weights and gradients, found by superposition."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

_STEPS = 6
_CLIPS = ("clipnorm", "global_clipnorm", "clipvalue")


def keeps_codes(optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether the optimizer's steps on ``a w + b w'`` with ``a g + b g'`` are ``a`` and ``b`` times those on each.

    SGD with momentum, Nesterov, weight decay, moving averages and accumulation are linear; Adam, RMSprop and all that
    divide by a running size are not. Clipping by a norm is one common factor, so it is left to `clip_factor`;
    clipping by value is not linear.

    Args:
        optimizer: built or not; it is not changed.
    """
    config = optimizer.get_config()
    if config.get("clipvalue") is not None:
        return False
    config.update({name: None for name in _CLIPS}, learning_rate=0.1)
    drawn = np.random.default_rng(0).standard_normal((2, _STEPS + 1, 5)).astype("float32")
    mixed = 0.7 * drawn[0] - 1.9 * drawn[1]
    first, second, both = (_after(type(optimizer), config, values) for values in (*drawn, mixed))
    return bool(np.allclose(both, 0.7 * first - 1.9 * second, rtol=1e-3, atol=1e-4))


def _after(kind: type[keras.optimizers.Optimizer], config: dict[str, Any], values: np.ndarray) -> np.ndarray:
    """Weights that started at the first row, after a step with each other row as the gradient."""
    optimizer = kind.from_config(dict(config))
    variable = keras.Variable(values[0])
    optimizer.build([variable])
    for gradient in values[1:]:
        optimizer.apply([ops.convert_to_tensor(gradient)], [variable])
    return ops.convert_to_numpy(variable)


def refuse(optimizer: keras.optimizers.Optimizer) -> None:
    """Raise for an optimizer that does not keep codes.

    Raises:
        ValueError: always, saying how to mend it.
    """
    raise ValueError(
        f"{type(optimizer).__name__} is not linear in the gradients, so updating coded weights with it would leave the "
        "code. Use keras.optimizers.SGD (momentum, nesterov, weight_decay, use_ema, clipnorm and global_clipnorm are "
        "fine, clipvalue is not), or convert with allow_reencode=True: weights are then decoded, updated and encoded "
        f"at every step, and errors in the update are not caught. Received: optimizer={optimizer.name!r}"
    )


@contextlib.contextmanager
def clipping_left_out(optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
    """Within it the optimizer does not clip: the norm of coded gradients counts parities too."""
    kept = {name: getattr(optimizer, name) for name in _CLIPS}
    for name in _CLIPS:
        setattr(optimizer, name, None)
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(optimizer, name, value)


def clipped(optimizer: keras.optimizers.Optimizer, gradients: list, plain: list) -> list:
    """Gradients clipped by the norms of the plain ones, as the optimizer is set.

    Args:
        optimizer: with `clipnorm`, `global_clipnorm` or `clipvalue`, or none.
        gradients: to be scaled; coded, or plain where nothing is coded.
        plain: the same gradients, decoded: their norms count.
    """
    if optimizer.global_clipnorm is not None:
        total = ops.sqrt(sum(ops.sum(ops.square(gradient)) for gradient in plain))
        factor = optimizer.global_clipnorm / ops.maximum(total, optimizer.global_clipnorm)
        return [gradient * ops.cast(factor, gradient.dtype) for gradient in gradients]
    if optimizer.clipnorm is not None:
        norms = [ops.sqrt(ops.sum(ops.square(gradient))) for gradient in plain]
        limit = optimizer.clipnorm
        return [g * ops.cast(limit / ops.maximum(n, limit), g.dtype) for g, n in zip(gradients, norms, strict=True)]
    if optimizer.clipvalue is not None:
        return [ops.clip(gradient, -optimizer.clipvalue, optimizer.clipvalue) for gradient in gradients]
    return gradients
