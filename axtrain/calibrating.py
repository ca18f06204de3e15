"""Activation ranges and error statistics from samples, when a model is converted."""

from __future__ import annotations

import math
from collections.abc import Mapping
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


def check_finite(calibration) -> None:
    """Raises ValueError for no samples, or values that are not finite."""
    for array in keras.tree.flatten(calibration):
        array = np.asarray(array)
        if array.size == 0:
            raise ValueError("`calibration` must hold at least one sample. Received: an empty array")
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            bad = int(array.size - np.isfinite(array).sum())
            raise ValueError(
                "`calibration` must be finite; remove the samples that hold NaN or infinity. "
                f"Received: {bad} of {array.size} values not finite"
            )


def calibrate(model, calibration, known: dict[int, tuple]) -> None:
    """Passes the data through the float network, each hardware layer watching its own input."""
    products = [(layer, product) for layer in all_layers(model) for product in getattr(layer, "products", ())]
    for _, product in products:
        product.state.observer = Observer()
    try:
        count = len(keras.tree.flatten(calibration)[0])
        with state_kept(model):
            for start in range(0, count, _BATCH):
                batch: Any = keras.tree.map_structure(
                    lambda array, start=start: ops.convert_to_tensor(np.asarray(array[start : start + _BATCH])),
                    calibration,
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


def _observed(product) -> tuple:
    """Samples of a product's first operand, and its kernel or samples of the activations in the kernel's place."""
    state = product.state
    second = state.second.observer.samples if product.kernel is None else product.kernel
    return state.observer.samples, second
