"""Keras callbacks: schedules for the noise and for a penalty, zeros that stay, and MLflow."""

from __future__ import annotations

from collections.abc import Callable

import keras

from axtrain.controls import hardware_layers, set_noise_strength
from axtrain.training.tracking import MLflow

__all__ = ["KeepZeros", "MLflow", "NoiseSchedule", "PenaltySchedule"]


class NoiseSchedule(keras.callbacks.Callback):
    """Moves the strength of every fault rate during training, then sets it back to 1.

    The strength is a variable on each layer, so compiled functions stay valid. Each epoch's is in the logs as
    `noise_strength`, for the history and for the callbacks that come after this one.

    Args:
        schedule: function of the epoch (an int from 0) to a strength in [0, 1]; or a number of epochs over
            which the strength rises linearly, reaching 1 in the last of them.

    Raises:
        ValueError: not such a function or number; at the start of `fit` a model with no hardware layer.

    Examples:
        >>> import axtrain as ax
        >>> [round(ax.callbacks.NoiseSchedule(4).schedule(epoch), 2) for epoch in range(5)]
        [0.25, 0.5, 0.75, 1.0, 1.0]
    """

    def __init__(self, schedule: Callable[[int], float] | int) -> None:
        super().__init__()
        self.schedule = _of_epochs(schedule)

    def on_train_begin(self, logs=None) -> None:
        """Refuses a model on which there is nothing to schedule."""
        if not any(layer.hardware.has_faults for layer in hardware_layers(self.model)):
            raise ValueError(
                "No layer of this model has a memory or datapath that fails, so there is no noise to schedule. "
                f"Received: {self.model.name!r}"
            )

    def on_epoch_begin(self, epoch, logs=None) -> None:
        """Sets this epoch's strength."""
        self._strength = float(self.schedule(epoch))
        set_noise_strength(self.model, self._strength)

    def on_epoch_end(self, epoch, logs=None) -> None:
        """Logs it, as Keras's own schedules log the learning rate."""
        if logs is not None:
            logs["noise_strength"] = self._strength

    def on_train_end(self, logs=None) -> None:
        """Evaluation is at full strength again."""
        set_noise_strength(self.model, 1.0)


class PenaltySchedule(keras.callbacks.Callback):
    """Moves the strength of a penalty during training, then sets it back to the penalty's own.

    The strength is a variable of the model, so compiled functions stay valid.

    Args:
        schedule: function of the epoch (an int from 0) to a factor >= 0 of the penalty's `strength`; or a number of
            epochs over which the factor rises linearly, reaching 1 in the last of them.

    Raises:
        ValueError: not such a function or number; at the start of `fit` a model without a penalty.
    """

    def __init__(self, schedule: Callable[[int], float] | int) -> None:
        super().__init__()
        self.schedule = _of_epochs(schedule)

    def on_train_begin(self, logs=None) -> None:
        """Refuses a model without a penalty."""
        if getattr(self.model, "penalty", None) is None:
            raise ValueError(
                "This model has no penalty to schedule; make it with axtrain.with_sensitivity. "
                f"Received: {self.model.name!r}"
            )

    def on_epoch_begin(self, epoch, logs=None) -> None:
        """Sets this epoch's strength."""
        self.model.penalty_strength.assign(self.model.penalty.strength * float(self.schedule(epoch)))

    def on_train_end(self, logs=None) -> None:
        """The penalty's own again."""
        self.model.penalty_strength.assign(self.model.penalty.strength)


class KeepZeros(keras.callbacks.Callback):
    """Weights of kernels that are 0 when training begins stay 0: pruned models stay pruned.

    They are set back after every step, whatever the optimizer's momentum did to them.
    """

    def on_train_begin(self, logs=None) -> None:
        """Remembers where the zeros are."""
        kernels = (variable for variable in self.model.trainable_variables if len(variable.shape) >= 2)
        self._kept = [(kernel, keras.ops.cast(keras.ops.not_equal(kernel, 0), kernel.dtype)) for kernel in kernels]

    def on_train_batch_end(self, batch, logs=None) -> None:
        """Puts them back."""
        for kernel, kept in self._kept:
            kernel.assign(kernel * kept)


def _of_epochs(schedule: Callable[[int], float] | int) -> Callable[[int], float]:
    if isinstance(schedule, int) and not isinstance(schedule, bool) and schedule >= 1:
        return lambda epoch: min(1.0, (epoch + 1) / schedule)
    if callable(schedule):
        return schedule
    raise ValueError(
        f"`schedule` must be a function of the epoch or a positive number of epochs. Received: schedule={schedule!r}"
    )
