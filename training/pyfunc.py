"""The loader module that MLflow imports to serve a model logged by `axtrain.training.tracking.log_model`."""

from __future__ import annotations

from pathlib import Path

import numpy as np


class Predictor:
    """A Keras model behind MLflow's `predict`.

    Args:
        model: the loaded model.
    """

    def __init__(self, model) -> None:
        self.model = model

    def predict(self, data, params=None) -> np.ndarray:
        """The model's outputs for an array, or a data frame of features.

        Args:
            data: array of the model's input shape, or a data frame whose columns are features.
            params: accepted for MLflow's interface; there are none.
        """
        return self.model.predict(np.asarray(data, dtype="float32"), verbose=0)


def _load_pyfunc(path: str) -> Predictor:
    """MLflow's entry point.

    Args:
        path: the `.keras` file, or the folder that holds it.
    """
    from axtrain.loading import load_model

    found = Path(path)
    return Predictor(load_model(found if found.is_file() else found / "model.keras"))
