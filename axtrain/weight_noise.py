"""The hardware's noise in units of the weights: what an active search weighs each weight's sensitivity by.

A memory that fails moves a stored word; a multiplier's error, seen from the sum it goes into, is that of a weight
that is off by a little. Both are variances of weights: ``s^2 = D_w^2 (V(b) + Var_a(E | b) / E[(a - z)^2])`` with b
the weight's code, D_w its step, V the variance of a read, E the multiplier's error and z the activation's zero point
(theory page, section 7).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import ops

from axtrain.layers import ApproximateLayer
from axtrain.layers.playing import HardwareProduct
from axtrain.layers.state import HardwareState
from axtrain.model_walk import named

WEIGHTINGS = ("hardware", "constant", "proportional")


@dataclass(frozen=True, eq=False)
class NoisyWeight:
    """A variable whose values the hardware, or an assumption, makes uncertain.

    Attributes:
        layer: the name of its layer.
        variable: the Keras variable, which stays as it is.
        product: on hardware, the product that it is the kernel of; else `None`.
        table: on hardware, float32 (weight codes,): the variance of each code, in squared weight steps.
        order: on hardware, `HardwareProduct.order`.
        proportional: without hardware, whether s = |w|, or s = 1.
    """

    layer: str
    variable: keras.Variable
    product: HardwareProduct | None = None
    table: np.ndarray | None = None
    order: np.ndarray | None = None
    proportional: bool = False

    def variance(self, value) -> Any:
        """``s^2`` for each weight, float32 of the variable's shape; no gradient passes.

        Args:
            value: the variable's value, a float32 tensor.
        """
        value = ops.stop_gradient(ops.cast(value, "float32"))
        if self.product is None:
            return ops.square(value) if self.proportional else ops.ones_like(value)
        arranged = self.product.arranged or (lambda kernel: kernel)
        kernel, state = arranged(value), self.product.state
        axes = self.product.geometry.summed_axes(len(kernel.shape))
        held = state.hardware.weight_codes(kernel, axes)
        index = ops.cast(held.codes, "int32") - state.hardware.code_table.weight_low
        found = ops.take(self.table, index) * ops.square(held.scale)
        if self.order is None:
            return found
        return ops.reshape(ops.take(ops.reshape(found, (-1,)), self.order), value.shape)


def noisy_weights(
    model: keras.Model, weighting: str | None = None, layers: Sequence[str] | None = None
) -> list[NoisyWeight]:
    """The trainable kernels that are noisy, with their variances.

    Args:
        model: from `convert`, or any other.
        weighting: `"hardware"`; `"constant"`, s = 1, or `"proportional"`, s = \\|w\\|, of every kernel; `None` is
            the hardware's where the model has hardware with errors, else constant.
        layers: names or patterns of the layers to take; `None` takes all.

    Raises:
        ValueError: an unknown weighting, a pattern that names no layer, hardware without errors, or a layer with an
            approximate multiplier that never saw calibration data.
    """
    if weighting not in (None, *WEIGHTINGS):
        raise ValueError(f"`weighting` must be None or one of {WEIGHTINGS}. Received: weighting={weighting!r}")
    chosen = named(model, layers)
    if weighting in (None, "hardware"):
        found = [noisy for layer in chosen for noisy in _of_hardware(layer)]
        if found or weighting == "hardware":
            return _some(found, "hardware whose multiplier or weight memory makes errors")
    proportional = weighting == "proportional"
    kernels = [
        NoisyWeight(layer.name, variable, proportional=proportional)
        for layer in chosen
        for variable in layer.trainable_variables
        if len(variable.shape) >= 2  # kernels and embeddings; no bias, no scale of a normalisation
    ]
    return _some(kernels, "trainable kernels")


def code_variance(state: HardwareState) -> np.ndarray:
    """The variance of each weight code on a product's hardware, in squared weight steps.

    Args:
        state: of the product; an approximate multiplier needs a calibrated one, for its activations' distribution.

    Returns:
        float32, (weight codes,), in the order of `Hardware.code_table`.

    Raises:
        ValueError: an approximate multiplier without calibration data, or a memory without a closed form.
    """
    hardware, table = state.hardware, state.hardware.code_table
    columns = table.products.shape[1]
    variance = np.zeros(columns)
    if hardware.weight_memory is not None and hardware.weight_memory.rate > 0:
        # Each word's own variance; that cells fail together changes what words do together.
        memory = replace(hardware.weight_memory, clustering=None)
        variance += memory.variance(np.arange(columns) + table.weight_low, hardware.weight_bits)
    if table.error.any():
        share, offset = activation_distribution(state)
        mean = share @ table.error
        variance += share @ (table.error - mean) ** 2 / (share @ offset**2)
    return variance.astype(np.float32)


def activation_distribution(state: HardwareState) -> tuple[np.ndarray, np.ndarray]:
    """How often each activation code occurred at calibration, and its distance from the code of zero.

    Returns:
        float64 arrays (activation codes,): shares that sum to 1, and a - z.

    Raises:
        ValueError: the state never saw calibration data.
    """
    share = ops.convert_to_numpy(state.activation_histogram).astype(np.float64)
    if share.sum() == 0:
        raise ValueError(
            "The size of a multiplier's error depends on the activations; convert with calibration=x_train[:512]. "
            f"Received: {state.name!r}, never calibrated"
        )
    table = state.hardware.code_table
    zero = float(ops.convert_to_numpy(state.activation_quantiser(ops.zeros((1,)), training=False).zero_point))
    return share / share.sum(), np.arange(len(share)) + table.activation_low - zero


def _of_hardware(layer) -> list[NoisyWeight]:
    if not isinstance(layer, ApproximateLayer) or layer.hardware is None or not layer.trainable:
        return []
    found = []
    for product in layer.products:
        if product.kernel is None:
            continue
        table = code_variance(product.state)
        if table.any():
            found.append(NoisyWeight(layer.name, product.weights, product, table, product.order()))
    return found


def _some(found: list[NoisyWeight], wanted: str) -> list[NoisyWeight]:
    if not found:
        raise ValueError(
            f"The sensitivity to nothing is 0: the chosen layers have no {wanted}. Give weighting='constant' or "
            "'proportional', other layers, or hardware with errors. Received: a model without"
        )
    return found
