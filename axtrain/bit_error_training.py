"""Training on the sum of a clean and a perturbed gradient, as RandBET does (Stutz 2021)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from axtrain.controls import hardware_layers
from axtrain.copying import copy_of
from axtrain.registration import register
from axtrain.running_state import random_states, recurrent_states
from axtrain.step_model import TrainingModel


def with_bit_errors(
    model: keras.Model, *, clip_norm: float | None = 1.0, start_loss: float | None = None
) -> keras.Model:
    """The same network, whose `fit` follows ``g = grad L(w) + clip(grad L(w'))`` with w' the weights as read.

    Both gradients are of the same batch. w' has the faults that the hardware draws in training: fresh ones of a
    random memory, those of a new chip at every step, or of the one chip set by
    ``axtrain.set_chip(model, chip, training=True)``. A step costs two passes, of which the clean one alone moves
    what `fit` moves beside the weights: the moving averages of batch normalisation and of activation ranges, the state
    of stateful recurrent layers. The faulty one is normalised by its own batch, as any pass in training, and leaves no
    trace of it: averages over faults would shift the clean network. Weight clipping, the other half of
    the recipe, is `axtrain.WeightRange` (`axtrain.limit_weights` sets it everywhere). Source: theory page,
    section 5.

    Args:
        model: a model from `convert` whose hardware has a memory or datapath that fails. It is not changed.
        clip_norm: largest global norm of the perturbed gradient, so that a hopeless draw does not undo a step;
            `None` does not clip.
        start_loss: faults are left out until a batch's clean loss falls below this, once; `None` starts at once.

    Returns:
        a new Functional model with the same layers and weights, not compiled.

    Raises:
        ValueError: a model without failing hardware, or a limit that is not positive.

    Examples:
        >>> import keras, axtrain as ax
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
        >>> faulty = ax.Hardware(weight_memory=ax.memories.BitErrors(rate=0.01))
        >>> trained = ax.with_bit_errors(ax.convert(model, faulty), clip_norm=0.5)
        >>> trained.clip_norm
        0.5
    """
    if not any(layer.hardware.has_faults for layer in hardware_layers(model)):
        raise ValueError(
            "No layer of this model has hardware that fails, so there is nothing to perturb it with; convert it to a "
            f"Hardware with a memory or datapath. Received: {model.name!r}"
        )
    return copy_of(model, BitErrorTraining, clip_norm=clip_norm, start_loss=start_loss)


@register("BitErrorTraining")
class BitErrorTraining(TrainingModel):
    """A Functional model with the training step of `with_bit_errors`."""

    def __init__(self, *args, **kwargs) -> None:
        # Every Keras since 3.10 saves a Functional model of another class where its constructor has this signature.
        settings = {name: kwargs.pop(name, None) for name in ("clip_norm", "start_loss")}
        for setting, value in settings.items():
            if value is not None and not value > 0:
                raise ValueError(f"`{setting}` must be a positive number or None. Received: {setting}={value!r}")
        super().__init__(*args, **kwargs)
        self.clip_norm: float | None = settings["clip_norm"]
        self.start_loss: float | None = settings["start_loss"]
        self._started = self.add_weight(shape=(), initializer="zeros", trainable=False, name="started")
        if self.start_loss is None:
            self._started.assign(1.0)

    def train_step(self, data: Any) -> dict[str, Any]:
        """One step on one batch, with the metrics of the clean pass."""
        import tensorflow as tf

        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        variables = [variable.value for variable in self.trainable_variables]
        states = [product.state for layer in hardware_layers(self) for product in layer.products]
        strengths = [state.noise_strength.value * 1.0 for state in states]  # read now, not when they are put back
        for state in states:
            state.noise_strength.assign(0.0)
        carried = recurrent_states(self)
        begun = [ops.copy(variable.value) for variable in carried]
        with tf.GradientTape() as tape:
            outputs = self(x, training=True)
            loss = self.compute_loss(x=x, y=y, y_pred=outputs, sample_weight=sample_weight, training=True)
            scaled = self.optimizer.scale_loss(loss)
        clean = tape.gradient(scaled, variables)
        if self.start_loss is not None:
            below = ops.cast(loss < self.start_loss, "float32")
            self._started.assign(ops.maximum(self._started, below))
        # All but the random streams is put back after the second pass: averages and ranges are of the clean network.
        random = {id(variable) for variable in random_states(self)}
        moving = [*carried, *(one for one in self.non_trainable_variables if id(one) not in random)]
        moved = [ops.copy(variable.value) for variable in moving]
        for variable, value in zip(carried, begun, strict=True):
            variable.assign(value)
        for state, strength in zip(states, strengths, strict=True):
            state.noise_strength.assign(strength * self._started)
        with tf.GradientTape() as tape:
            read = self(x, training=True)
            perturbed_loss = self.compute_loss(x=x, y=y, y_pred=read, sample_weight=sample_weight, training=True)
            scaled = self.optimizer.scale_loss(perturbed_loss)
        perturbed = tape.gradient(scaled, variables)
        for variable, value in zip(moving, moved, strict=True):
            variable.assign(value)
        for state, strength in zip(states, strengths, strict=True):
            state.noise_strength.assign(strength)
        total = self._sum(clean, perturbed)
        self.optimizer.apply_gradients(zip(total, self.trainable_variables, strict=True))
        self._loss_tracker.update_state(loss, sample_weight=ops.shape(keras.tree.flatten(x)[0])[0])
        return self.compute_metrics(x, y, outputs, sample_weight=sample_weight)

    def _sum(self, clean: list, perturbed: list) -> list:
        share = self._started.value
        if self.clip_norm is not None:
            norm = ops.sqrt(sum(ops.sum(ops.square(g)) for g in perturbed if g is not None))
            norm = norm / self.optimizer.scale_loss(ops.ones(()))
            share = share * ops.minimum(1.0, self.clip_norm / ops.maximum(norm, 1e-12))
        pairs = zip(clean, perturbed, strict=True)
        return [a if b is None else b * share if a is None else a + b * share for a, b in pairs]

    def get_config(self) -> dict[str, Any]:
        """The network's, and the two limits."""
        return {**super().get_config(), "clip_norm": self.clip_norm, "start_loss": self.start_loss}
