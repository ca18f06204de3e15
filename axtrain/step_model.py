"""What our models with a training step of their own have in common."""

from __future__ import annotations

import keras


class TrainingModel(keras.Model):
    """Base of Functional models that `with_bit_errors` and `with_sensitivity` give.

    What they train with belongs to the model and not to its layers: `axtrain.convert` and `axtrain.strip`, which
    build the layers anew, give a plain Functional model in their place.
    """
