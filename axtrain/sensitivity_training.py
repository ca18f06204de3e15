"""Training that searches for weights which tolerate errors: the loss and a penalty on the sensitivity to them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from axtrain.copying import copy_of
from axtrain.layers.chip import NoiseStream
from axtrain.noise_models.random_numbers import uniform
from axtrain.penalties import Penalty, penalty_from_dict
from axtrain.registration import register
from axtrain.step_model import TrainingModel
from axtrain.weight_noise import NoisyWeight, noisy_weights


def with_sensitivity(model: keras.Model, penalty: Penalty) -> keras.Model:
    """The same network, whose `fit` follows the loss and a penalty on its sensitivity to weight errors.

    It fits as before, with any optimizer, on any data; the penalty's value, before its `strength`, is in the logs
    as `sensitivity`. On a model from `convert` the forward pass has the hardware's noise as well: AxTrain's active
    and passive methods together. Source: theory page, section 7.

    Args:
        model: Sequential or Functional, plain or from `convert`. It is not changed.
        penalty: `OutputSensitivity`, `LossGradient` or `Curvature`.

    Returns:
        a new Functional model with the same layers and weights, not compiled. Its `penalty_strength` is a variable
        that schedules may change.

    Raises:
        TypeError: not a penalty.
        ValueError: a model with a training step of its own, or weights that the penalty has no noise for.

    Examples:
        >>> import keras, numpy as np, axtrain as ax
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
        >>> active = ax.with_sensitivity(model, ax.OutputSensitivity(strength=0.01))
        >>> active.compile("sgd", "mse")
        >>> sorted(active.fit(np.ones((4, 8)), np.ones((4, 3)), verbose=0).history)
        ['loss', 'sensitivity']
    """
    if not isinstance(penalty, Penalty):
        raise TypeError(f"`penalty` must be one such as axtrain.OutputSensitivity. Received: penalty={penalty!r}")
    if type(penalty).gradients is Penalty.gradients:
        raise TypeError(f"`penalty` must have a method `gradients`. Received: penalty={penalty!r}")
    own = type(model).train_step
    if own not in (keras.Model.train_step, SensitivityTraining.train_step):
        raise ValueError(
            "This model has a training step of its own, which the penalty's would replace; give the model that it was "
            f"made from. Received: a {type(model).__name__}"
        )
    noisy_weights(model, penalty.weighting, penalty.layers)  # raises here rather than at the first step
    return copy_of(model, SensitivityTraining, penalty=penalty)


@register("SensitivityTraining")
class SensitivityTraining(TrainingModel):
    """A Functional model with the training step of `with_sensitivity`; without a penalty, Keras's own."""

    train_function: Any

    def __init__(self, *args, **kwargs) -> None:
        # Every Keras since 3.10 saves a Functional model of another class where its constructor has this signature.
        penalty = kwargs.pop("penalty", None)
        super().__init__(*args, **kwargs)
        self.penalty: Penalty | None = penalty_from_dict(penalty) if isinstance(penalty, dict) else penalty
        if self.penalty is None:
            return
        self.penalty_strength = self._own("penalty_strength", self.penalty.strength, "float32")
        self._steps = self._own("steps", 0, "int64")
        self._probes = NoiseStream(0)
        self._sensitivity = keras.metrics.Mean(name="sensitivity")
        self._penalised = True  # static: which of the two compiled steps is traced
        self._noisy: list[NoisyWeight] = []

    def _own(self, name: str, value: float, dtype: str):
        constant = keras.initializers.Constant(value)
        return self.add_weight(
            name=name, shape=(), initializer=constant, trainable=False, dtype=dtype, autocast=False,
            aggregation="only_first_replica",
        )  # fmt: skip

    def make_train_function(self, force: bool = False):
        """Compiles the step; with `every` > 1 two of them, taken in turn, without a branch inside either.

        Raises:
            ValueError: `every` > 1 where Keras runs several steps in one call.
        """
        if self.penalty is not None and (force or self.train_function is None):
            # Not in the step: the hardware's tables are worked out from what calibration left in variables.
            self._noisy = noisy_weights(self, self.penalty.weighting, self.penalty.layers)
        if self.penalty is None or self.penalty.every == 1:
            super().make_train_function(force=force)
            return
        if self.steps_per_execution != 1:
            raise ValueError(
                "A penalty on every k-th step is chosen between steps; compile with steps_per_execution=1, or use "
                f"every=1. Received: every={self.penalty.every}, steps_per_execution={self.steps_per_execution}"
            )
        self._step = int(ops.convert_to_numpy(self._steps))
        if self.train_function is not None and not force:
            return
        functions = []
        for _ in range(2):
            super().make_train_function(force=True)
            functions.append(self.train_function)

        def train_function(iterator):
            self._penalised = self._step % self.penalty.every == 0
            self._step += 1
            return functions[self._penalised](iterator)

        self.train_function = train_function

    def train_step(self, data: Any) -> dict[str, Any]:
        """One step on one batch."""
        if self.penalty is None:
            return super().train_step(data)
        self._steps.assign(self._steps + 1)
        results = self._penalised_step(data, self.penalty) if self._penalised else super().train_step(data)
        return {**results, "sensitivity": self._sensitivity.result()}

    def _penalised_step(self, data: Any, penalty: Penalty) -> dict[str, Any]:
        import tensorflow as tf

        from axtrain.penalty_gradients import PenalisedLoss
        from axtrain.step_passes import Passes

        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        penalised = PenalisedLoss(
            passes=Passes(self, x, y, sample_weight, penalty.fraction),
            penalty=penalty,
            noisy=self._noisy,
            strength=self.penalty_strength.value * penalty.every,
            signs=self._signs,
            scaled=self.optimizer.scale_loss,
            replicas=replicas,
        )
        gradients, outputs, loss, value = penalised.gradients()
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        count = ops.shape(keras.tree.flatten(x)[0])[0]
        self._loss_tracker.update_state(loss * replicas, sample_weight=count)
        self._sensitivity.update_state(value)
        return self.compute_metrics(x, y, outputs, sample_weight=sample_weight)

    def _signs(self, shape) -> Any:
        return 2.0 * ops.round(uniform(tuple(shape), self._probes)) - 1.0

    def get_metrics_result(self) -> dict[str, Any]:
        """The metrics but the sensitivity, which is measured in training alone."""
        results = super().get_metrics_result()
        results.pop("sensitivity", None)
        return results

    def save_own_variables(self, store) -> None:
        """The strength, the count of steps and the probes' stream, which Keras would leave out."""
        super().save_own_variables(store)
        if self.penalty is not None:
            store["probes"] = ops.convert_to_numpy(self._probes.state)

    def load_own_variables(self, store) -> None:
        """Reads what `save_own_variables` wrote."""
        kept = {name: np.asarray(store[name]) for name in store.keys()}  # noqa: SIM118 (a store is no dict)
        if "probes" in kept:
            self._probes.state.assign(kept.pop("probes"))
        super().load_own_variables(kept)

    def get_config(self) -> dict[str, Any]:
        """The network's, and the penalty's."""
        return {**super().get_config(), "penalty": None if self.penalty is None else self.penalty.to_dict()}
