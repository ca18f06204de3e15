"""What a Keras loss is called, how it was set, and the labels of a sparse one."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np


def loss_name(loss: Any) -> str:
    """Keras's name of a loss, however it was given: `mean_squared_error`, `categorical_crossentropy` and so on."""
    found = keras.losses.get(loss)
    name = str(getattr(found, "name", None) or getattr(found, "__name__", repr(loss)))
    return {"mse": "mean_squared_error"}.get(name, name)


def loss_option(loss: Any, name: str) -> Any:
    """An argument of a loss, such as `from_logits`; `None` where it has none."""
    found = keras.losses.get(loss)
    return found.get_config().get(name) if isinstance(found, keras.losses.Loss) else None


def one_hot(labels: Any, classes: int) -> np.ndarray:
    """Class numbers as rows, float64 (samples, classes).

    Raises:
        ValueError: labels that are not the whole numbers from 0 to classes - 1.
    """
    numbers = np.asarray(labels).reshape(-1)
    known = np.isin(numbers, np.arange(classes))
    if not known.all():
        raise ValueError(
            f"Labels must be class numbers from 0 to {classes - 1}, as the model has {classes} outputs. "
            f"Received: {numbers[~known][:3].tolist()} among {numbers.size} labels"
        )
    return np.eye(classes)[numbers.astype(np.int64)]
