"""Ranges of the tensors between products, from calibration data passed through the float network."""

from __future__ import annotations

from collections.abc import Iterable

import keras
import numpy as np
from keras import ops

from axtrain.integers.lowering.steps import FlatModel
from axtrain.layers.statistics import Observer
from axtrain.quantisation import Quantisation
from axtrain.quantisers import calibrated_range

_BATCH = 64


def observed_ranges(
    model: FlatModel, names: Iterable[str], samples, quantisation: Quantisation
) -> dict[str, tuple[float, float]]:
    """(low, high) of the named tensors over the samples.

    Args:
        model: in float, as it was before folding.
        names: of tensors.
        samples: array (n, *input shape).
        quantisation: how a range comes from values; a moving average's data give their smallest and largest.

    Raises:
        ValueError: samples of another shape, none, or such that lead to values that are not finite.
    """
    samples = np.asarray(samples)
    expected = model.shapes[model.input]
    if samples.shape[1:] != expected or not len(samples):
        raise ValueError(
            f"`calibration` must hold samples of shape {expected}. Received: an array of shape {samples.shape}"
        )
    observers = {name: Observer() for name in names}
    last = {name: index for index, step in enumerate(model.steps) for name in step.inputs}
    for start in range(0, len(samples), _BATCH):
        held = {model.input: ops.convert_to_tensor(samples[start : start + _BATCH], keras.config.floatx())}
        for index, step in enumerate([None, *model.steps], start=-1):
            name = model.input if step is None else step.output
            if step is not None:
                held[name] = step.function(*(held[given] for given in step.inputs))
            if name in observers:
                observers[name].add(ops.convert_to_numpy(ops.cast(held[name], "float32")))
            for given in step.inputs if step is not None else ():
                if last[given] == index:
                    held.pop(given, None)
    method = "minmax" if quantisation.activation_range == "moving_average" else quantisation.activation_range
    found = {}
    for name, observer in observers.items():
        try:
            found[name] = calibrated_range(
                observer.samples, method=method, percentile=quantisation.percentile, symmetric=False
            )
        except ValueError as error:
            raise ValueError(f"The range of tensor {name!r} could not be calibrated: {error}") from error
    return found
