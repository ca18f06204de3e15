"""Activation ranges and error statistics from samples, when a model is converted."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from axtrain.layers import ApproximateLayer
from axtrain.layers.playing import STATISTICAL
from axtrain.layers.statistics import Observer
from axtrain.model_walk import all_layers, labels, matching
from axtrain.running_state import state_kept

_BATCH = 64
_MOST = 4096  # samples taken of batches, which may have no end (chosen here)


def known_ranges(model, ranges: Mapping[str, tuple[float, float]]) -> dict[int, tuple]:
    """(state, (low, high)) of the layers whose range is given, by the state's identity; the last match counts."""
    found: dict[int, tuple] = {}
    for name, bounds in ranges.items():
        states = [layer.products[0].state for layer in matching(model, name) if _has_one_product(layer)]
        if not states:
            told = labels(model)
            known = ", ".join(told[id(layer)] for layer in all_layers(model) if _has_one_product(layer))
            raise ValueError(
                "`activation_ranges` names layers on hardware with one product; these are "
                f"{known or 'none'}. Received: {name!r}"
            )
        low, high = bounds
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"A range needs low < high, both finite. Received: {name!r}: {bounds!r}")
        found.update({id(state): (state, (float(low), float(high))) for state in states})
    return found


def _has_one_product(layer) -> bool:
    return len(getattr(layer, "products", ())) == 1


def calibration_samples(model: keras.Model, calibration: Any) -> Any:
    """Calibration data as arrays in the structure of the model's inputs.

    Args:
        model: that they are for.
        calibration: what `fit` takes: arrays in the structure of the inputs; `(x, y)` or `(x, y, sample_weight)`, of
            which x counts; or batches of either: a `tf.data.Dataset`, a generator, a `keras.utils.PyDataset`, of which
            the first samples are taken until there are 4096.

    Raises:
        TypeError: something else.
        ValueError: no samples, not as many arrays as inputs, arrays of different lengths, values that are not finite.
    """
    if _is_batches(calibration):
        samples = _gathered(model, calibration)
    else:
        samples = keras.tree.map_structure(_as_array, _inputs_of(model, calibration))
    if isinstance(samples, (list, tuple)) and len(samples) == 1:
        samples = samples[0]  # Keras warns of a structure that is not the model's
    arrays = keras.tree.flatten(samples)
    lengths = {len(array) for array in arrays}
    if len(arrays) != len(model.inputs) or len(lengths) > 1:
        raise ValueError(
            f"`calibration` must hold one array for each of {len(model.inputs)} inputs, all of the same length. "
            f"Received: arrays of shapes {[array.shape for array in arrays]}"
        )
    for array in arrays:
        if array.size == 0:
            raise ValueError("`calibration` must hold at least one sample. Received: an empty array")
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            bad = int(array.size - np.isfinite(array).sum())
            raise ValueError(
                "`calibration` must be finite; remove the samples that hold NaN or infinity. "
                f"Received: {bad} of {array.size} values not finite"
            )
    return samples


def _is_batches(calibration: Any) -> bool:
    structure = isinstance(calibration, (list, tuple, dict)) or hasattr(calibration, "shape")
    return not structure and (hasattr(calibration, "__iter__") or hasattr(calibration, "__getitem__"))


def _gathered(model: keras.Model, batches: Any) -> Any:
    """The first samples of batches, put together."""
    found, count = [], 0
    for batch in batches if hasattr(batches, "__iter__") else map(batches.__getitem__, range(len(batches))):
        found.append(keras.tree.map_structure(_as_array, _inputs_of(model, batch)))
        count += len(keras.tree.flatten(found[-1])[0])
        if count >= _MOST:
            break
    if not found:
        raise ValueError("`calibration` must hold at least one sample. Received: no batch")
    return keras.tree.map_structure(lambda *parts: np.concatenate(parts)[:_MOST], *found)


def _inputs_of(model: keras.Model, given: Any) -> Any:
    """x of `(x, y)` or `(x, y, sample_weight)`; anything else as it is."""
    if isinstance(given, tuple) and len(given) in (1, 2, 3):
        first = len(keras.tree.flatten(given[0]))
        if first == len(model.inputs) and (first > 1 or len(given) != len(model.inputs)):
            return given[0]
    return given


def _as_array(values: Any) -> np.ndarray:
    array = np.asarray(keras.ops.convert_to_numpy(values) if hasattr(values, "dtype") else values)
    if array.ndim == 0:
        raise TypeError(
            "`calibration` must be samples, such as x_train[:512], a tf.data.Dataset or a generator of batches. "
            f"Received: {type(values).__name__} in it"
        )
    return array


def calibrate(model, calibration, known: dict[int, tuple]) -> None:
    """Passes `calibration_samples` through the float network, each hardware layer watching its own input."""
    products = [(layer, product) for layer in all_layers(model) for product in getattr(layer, "products", ())]
    for _, product in products:
        product.state.observer = Observer()
    try:
        with state_kept(model):
            for rows in _rows(model, len(keras.tree.flatten(calibration)[0])):
                batch: Any = keras.tree.map_structure(
                    lambda array, rows=rows: ops.convert_to_tensor(array[rows]), calibration
                )
                model(batch, training=False)
        samples = {id(product.state): _observed(product) for _, product in products}
    finally:
        for _, product in products:
            product.state.observer = None
    for layer, product in products:
        first, kernel = samples[id(product.state)]
        axes = product.geometry.summed_axes(len(kernel.shape))
        try:
            bounds = {"bounds": known[id(product.state)][1]} if id(product.state) in known else {}
            product.state.calibrate(first, kernel, axes, **bounds)
        except ValueError as error:
            raise ValueError(f"Layer {layer.name!r} could not be calibrated: {error}") from error
    for layer in all_layers(model):
        if isinstance(layer, ApproximateLayer) and layer.fidelity in STATISTICAL:
            layer.play_as(layer.playing)


def _rows(model: keras.Model, count: int) -> Iterator[slice]:
    """The samples of each batch; where the model has a batch size of its own, the last batch begins before its end."""
    fixed = {one.shape[0] for one in model.inputs} - {None}
    size = min(fixed, default=_BATCH)
    if fixed and count < size:
        raise ValueError(
            f"The model takes batches of {size}, so `calibration` must hold at least as many samples. Received: {count}"
        )
    for start in range(0, count, size):
        first = min(start, count - size) if fixed else start
        yield slice(first, first + size)


def _observed(product) -> tuple:
    """Samples of a product's first operand, and its kernel or samples of the activations in the kernel's place."""
    state = product.state
    second = state.second.observer.samples if product.kernel is None else product.kernel
    return state.observer.samples, second
