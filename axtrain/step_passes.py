"""Forward passes of one training step: as Keras makes them, on a part of the batch, or at moved weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from axtrain.running_state import recurrent_states


class Passes:
    """The passes over one batch of a compiled model in training.

    The first, `whole`, is Keras's own, with its effects: moving averages, noise streams, metrics. `again` sees the
    model as it was before that pass, the same noise and dropout too, and leaves no trace.

    Args:
        model: compiled.
        x, y, sample_weight: the batch.
        fraction: what part of the batch `again` takes, from its start, at least one sample.
    """

    def __init__(self, model: keras.Model, x: Any, y: Any, sample_weight: Any, fraction: float) -> None:
        self.model, self.batch = model, (x, y, sample_weight)
        self.variables = list(model.trainable_variables)
        self.fraction = fraction
        moved = [*model.non_trainable_variables, *recurrent_states(model)]
        self._state = [(variable, tf.identity(variable.value)) for variable in moved]

    def whole(self) -> tuple[Any, Any]:
        """(outputs, loss) of the batch."""
        return self._run(*self.batch)

    def again(self, moved: Sequence[Any] | None = None) -> tuple[Any, Any]:
        """(outputs, loss) of the part of the batch.

        Args:
            moved: values for all of `variables`; `None` takes their own.
        """
        batch: tuple = self.batch
        if self.fraction < 1:
            count = ops.cast(ops.shape(keras.tree.flatten(batch[0])[0])[0], "float32") * self.fraction
            count = ops.maximum(ops.cast(ops.round(count), "int32"), 1)
            batch = tuple(
                None if part is None else keras.tree.map_structure(lambda array: array[:count], part) for part in batch
            )
        values = [] if moved is None else list(zip(self.variables, moved, strict=True))
        with keras.StatelessScope(state_mapping=[*self._state, *values], collect_losses=True):
            return self._run(*batch)

    def _run(self, x: Any, y: Any, sample_weight: Any) -> tuple[Any, Any]:
        outputs = self.model(x, training=True)
        loss = self.model.compute_loss(x=x, y=y, y_pred=outputs, sample_weight=sample_weight, training=True)
        return outputs, loss
