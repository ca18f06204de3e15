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

    def predict(self, data, params=None):
        """The model's outputs for an array, a data frame of features, or a dictionary of arrays by input.

        Args:
            data: array of the model's input shape, or a data frame whose columns are features; for several inputs a
                dictionary.
            params: accepted for MLflow's interface; there are none.
        """
        kinds = {tensor.name: tensor.dtype for tensor in getattr(self.model, "inputs", None) or ()}
        if isinstance(data, dict):
            given = {name: np.asarray(part, kinds.get(name, "float32")) for name, part in data.items()}
        else:
            given = np.asarray(data, next(iter(kinds.values()), "float32"))
        return self.model.predict(given, verbose=0)


def _load_pyfunc(path: str) -> Predictor:
    """MLflow's entry point.

    Args:
        path: the `.keras` file, or the folder that holds it.
    """
    from axtrain.loading import load_model

    found = Path(path)
    return Predictor(load_model(found if found.is_file() else found / "model.keras"))
