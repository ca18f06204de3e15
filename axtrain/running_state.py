"""What running a model changes beside its outputs, and putting it back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import keras
import numpy as np


def recurrent_states(model: keras.Model) -> list:
    """The variables of stateful recurrent layers that carry over from one batch to the next.

    Keras counts them neither as weights nor as non-trainable variables.
    """
    carried = [
        getattr(layer, "states", None)  # of Bidirectional those of both its layers, which come once more themselves
        for layer in model._flatten_layers()
        if getattr(layer, "stateful", False)
    ]
    states = [state for state in keras.tree.flatten(carried) if isinstance(state, keras.Variable)]
    return list({id(state): state for state in states}.values())


def random_states(model: keras.Model) -> list:
    """The variables of all seed generators."""
    return [generator.state for layer in model._flatten_layers() for generator in layer._seed_generators]


@contextmanager
def state_kept(model: keras.Model) -> Iterator[Callable[[], None]]:
    """Puts back what running the model moves: the states of its seed generators and of stateful recurrent layers.

    Args:
        model: of any kind.

    Yields:
        a function of nothing that puts it back at once, so that several runs begin alike.
    """
    variables = [*random_states(model), *recurrent_states(model)]
    before = [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]

    def put_back() -> None:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)

    try:
        yield put_back
    finally:
        put_back()
