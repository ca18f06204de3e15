"""Keras callbacks: a schedule for the noise, and MLflow."""

from __future__ import annotations

from collections.abc import Callable

import keras

from axtrain.controls import hardware_layers, set_noise_strength
from axtrain.training.tracking import MLflow

__all__ = ["MLflow", "NoiseSchedule"]


class NoiseSchedule(keras.callbacks.Callback):
    """Moves the strength of every fault rate during training, then sets it back to 1.

    The strength is a variable on each layer, so compiled functions stay valid.

    Args:
        schedule: function of the epoch (an int from 0) to a strength in [0, 1]; or a number of epochs over
            which the strength rises linearly, reaching 1 in the last of them.

    Raises:
        ValueError: not such a function or number; at the start of `fit` a model with no hardware layer.

    Example:
        >>> import axtrain as ax
        >>> [round(ax.callbacks.NoiseSchedule(4).schedule(epoch), 2) for epoch in range(5)]
        [0.25, 0.5, 0.75, 1.0, 1.0]
    """

    def __init__(self, schedule: Callable[[int], float] | int) -> None:
        super().__init__()
        if isinstance(schedule, int) and not isinstance(schedule, bool) and schedule >= 1:
            epochs = schedule
            self.schedule: Callable[[int], float] = lambda epoch: min(1.0, (epoch + 1) / epochs)
        elif callable(schedule):
            self.schedule = schedule
        else:
            raise ValueError(
                "`schedule` must be a function of the epoch or a positive number of epochs. "
                f"Received: schedule={schedule!r}"
            )

    def on_train_begin(self, logs=None) -> None:
        """Refuses a model on which there is nothing to schedule."""
        if not any(layer.hardware.has_faults for layer in hardware_layers(self.model)):
            raise ValueError(
                "No layer of this model has a memory or datapath that fails, so there is no noise to schedule. "
                f"Received: {self.model.name!r}"
            )

    def on_epoch_begin(self, epoch, logs=None) -> None:
        """Sets this epoch's strength."""
        set_noise_strength(self.model, float(self.schedule(epoch)))

    def on_train_end(self, logs=None) -> None:
        """Evaluation is at full strength again."""
        set_noise_strength(self.model, 1.0)
