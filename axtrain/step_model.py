"""What our models with a training step of their own have in common."""

from __future__ import annotations

import keras


class TrainingModel(keras.Model):
    """Base of Functional models that `with_bit_errors` and `with_sensitivity` give.

    What they train with belongs to the model and not to its layers: `axtrain.convert` and `axtrain.strip`, which
    build the layers anew, give a plain Functional model in their place. It is no weight of the network either:
    `summary` does not count it, `get_weights` has it not; `variables` has, and it is saved.
    """

    @property
    def weights(self):
        """The layers' weights."""
        own = {id(variable) for variable in self._non_trainable_variables}
        return [weight for weight in super().weights if id(weight) not in own]
