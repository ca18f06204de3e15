"""Loading saved models in a process that has not used axtrain yet."""

from __future__ import annotations

import os

import keras

# Each registers its classes under their public names; Keras does not import the module of a class that it meets.
import axtrain.bit_error_training
import axtrain.constraints
import axtrain.layers
import axtrain.sensitivity_training
import axtrain.weight_regularizers  # noqa: F401


def load_model(path: str | os.PathLike[str], **kwargs) -> keras.Model:
    """`keras.saving.load_model` with every axtrain class registered; ranges, chips and noise streams resume.

    Args:
        path: a `.keras` file.
        kwargs: as for `keras.saving.load_model`.

    Raises:
        ValueError: as `keras.saving.load_model`, which refuses unknown classes and unsafe content.
    """
    return keras.saving.load_model(os.fspath(path), **kwargs)
