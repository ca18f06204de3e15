"""NaN and infinity have no code: what makes a file, an integer network or a figure of weights refuses them here."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from axtrain.model_walk import all_layers, labels


def check_finite(name: str, values: Any) -> np.ndarray:
    """Weights as an array, before codes are made of them that something else than a layer's output is told by.

    Args:
        name: what they are, as the error says it.
        values: an array, tensor or variable.

    Raises:
        ValueError: NaN or infinity among them.
    """
    array = ops.convert_to_numpy(values)
    if np.issubdtype(array.dtype, np.integer) or array.dtype == bool:
        return array
    bad = array.size - np.count_nonzero(np.isfinite(array.astype(np.float32)))
    if bad:
        raise ValueError(
            f"The weights and ranges of {name} must be finite: no code stands for NaN or infinity. Load the weights "
            "from before training diverged, or train and calibrate again. "
            f"Received: {bad} of {array.size} values NaN or infinite"
        )
    return array


def check_finite_weights(model: keras.Model) -> None:
    """Refuse a model with a weight or an activation range that is not finite.

    Raises:
        ValueError: that names the layer and its variable.
    """
    told = labels(model)
    for layer in all_layers(model):
        for variable in layer.weights:
            check_finite(f"layer {told[id(layer)]!r} ({variable.name})", variable)
