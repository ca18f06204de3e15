"""What each layer costs alone on each candidate, in loss: the figures that a search adds up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np

from axtrain.training.search.assignments import Choices
from axtrain.training.sensitivity.maps import sensitivity as map_sensitivity
from axtrain.training.sensitivity.results import SensitivityMap

_AFFORDABLE = 400  # passes over the samples; chosen here: some minutes for a small network
_CHIPS = 4  # that a candidate with faults is measured on alone
_CLEAR = 2.0  # standard errors above which a measured rise is taken in place of the predicted one


def layer_rises(
    model: keras.Model,
    x,
    y,
    choices: Choices,
    *,
    sensitivity: SensitivityMap | None,
    measure: bool | None,
    samples: int,
    folder,
    **options: Any,
) -> tuple[np.ndarray, str]:
    """Rise of the loss of each layer on each candidate alone, >= 0, and where it came from in words.

    Rounded to 4 significant digits, so that sums of floats in another order decide nothing.

    Args:
        model, x, y, measure, samples: as for `axtrain.search`.
        choices: the network and its candidates.
        sensitivity: of these layers and candidates; `None` makes it.
        folder: of the search, or `None`.
        options: for `axtrain.sensitivity`.

    Raises:
        ValueError: a sensitivity of other layers or candidates.
    """
    if sensitivity is None:
        faulty = [hardware.has_faults for hardware in choices.candidates.values()]
        passes = len(choices.layers) * sum(_CHIPS if one else 1 for one in faulty)
        sensitivity = map_sensitivity(
            model,
            keras.tree.map_structure(lambda array: array[:samples], x),
            y[:samples],
            candidates=list(choices.candidates.values()),
            measure=passes <= _AFFORDABLE if measure is None else measure,
            chips=_CHIPS,
            calibration=choices.calibration,
            reference=choices.reference,
            folder=None if folder is None else Path(folder) / "sensitivity",
            **options,
        )
    elif (sensitivity.layers, sensitivity.candidates) != (choices.layers, tuple(choices.candidates)):
        raise ValueError(
            f"`sensitivity` must be of the layers {choices.layers} and candidates {tuple(choices.candidates)}, in this "
            f"order. Received: {sensitivity.layers} and {sensitivity.candidates}"
        )
    predicted = np.maximum(sensitivity.predicted, 0)
    if sensitivity.measured is None or sensitivity.measured_error is None:
        return _rounded(predicted), f"predicted ({sensitivity.method})"
    noise = _CLEAR * sensitivity.measured_error
    unclear = np.minimum(predicted, np.maximum(sensitivity.measured, 0) + noise)
    rises = np.where(sensitivity.measured > noise, sensitivity.measured, unclear)
    return _rounded(rises), "measured where above noise, else predicted"


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.array([[float(f"{value:.3e}") for value in row] for row in values])
