"""What hardware would cost a float network in loss, layer by layer, without playing it.

An error of the hardware is split into what comes back at every use and what scatters (theory page, sections 4, 7):

- a multiplier's ``E(a, b) = delta(b) (a - z) + c(b) + R``, the regression on the activation code a (z its zero point)
  under the activations' distribution: a weight that is off by ``mu = D_w delta(b)``, a bias ``D_a D_w sum_k c(b_k)``
  of each output channel, and R, which scatters from output to output with
  ``v_n = (D_a D_w)^2 sum_k Var_a(R | b_kn)``;
- a memory's: a mean error of the weight, and a variance ``s^2`` of it, the same wherever the weight is used.

Predicted rise ``L(w + mu, bias) - L(w) + 1/2 sum_i s_i^2 H_ii + 1/2 sum_n v_n C_n``: what comes back is played on the
float network in one pass, which holds ``mu'g + 1/2 mu'H mu`` and all further orders, and costs less than them; what
scatters is taken to second order, H_ii the loss's curvature along a weight and C_n along one output of channel n,
summed over all its positions. Derived. ResNet-8 of MLPerf Tiny on 512 images of CIFAR-10, 10 layers on 16 EvoApprox
circuits and 3 error rates, 126 cells with a measured rise above 0.003: Spearman 0.98, Pearson of logarithms 0.98. With
slopes through the origin alone, all else as s^2 of the weights, and Hutchinson's H (8 probes): 0.89 and 0.93; that
takes errors that differ from position to position for errors of one weight, and sees no bias.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from axtrain.cloning import keras_weights
from axtrain.controls import hardware_layers
from axtrain.finite import check_finite
from axtrain.hardware import Hardware
from axtrain.layers.playing import HardwareProduct
from axtrain.model_walk import all_layers, labels
from axtrain.weight_noise import activation_distribution


class Disturbance(NamedTuple):
    """What hardware does to one product, in the network's own units.

    Attributes:
        mean: mu, float32 of the kernel variable's shape.
        variance: s^2 of a memory, the same shape.
        outputs: bias of each output channel, float32 (channels,).
        scatter: v of each output channel, likewise.
        scattered: v spread over the weights, ``D_w^2 Var_a(R | b) / E[(a - z)^2]``, of the variable's shape: for a
            product whose outputs cannot be reached.
    """

    mean: np.ndarray
    variance: np.ndarray
    outputs: np.ndarray
    scatter: np.ndarray
    scattered: np.ndarray


def disturbance(product: HardwareProduct, hardware: Hardware, reached: bool) -> Disturbance:
    """What `hardware` does to a product.

    Args:
        product: of a calibrated layer that codes numbers as `hardware` does.
        hardware: its multiplier and weight memory count; activation memory and datapath do not.
        reached: whether the product's outputs can be given a bias. If not, the slope is that of the regression through
            the origin, ``delta(b) = E[E (a - z)] / E[(a - z)^2]``, and what it leaves all counts as scatter.

    Raises:
        ValueError: a memory without a closed form, or weights that are not finite.
    """
    state, table = product.state, hardware.code_table
    axes = product.geometry.summed_axes(len(product.kernel.shape))
    kernel = check_finite(f"product {state.name!r}", product.kernel)
    held = hardware.weight_codes(ops.convert_to_tensor(kernel), axes)
    codes, step = (ops.convert_to_numpy(found).astype(np.float64) for found in (held.codes, held.scale))
    place = codes.astype(int) - table.weight_low
    share, offset = activation_distribution(state)
    slope, constant, left, size = _regression(share, offset, _of_codes(table, state, len(share)), reached)
    mean, variance = slope[place], np.zeros(codes.shape)
    if hardware.weight_memory is not None and hardware.weight_memory.rate > 0:
        memory = replace(hardware.weight_memory, clustering=None)  # what words do each, not together
        mean = mean + memory.expected(codes.astype(int), hardware.weight_bits) - codes
        variance = memory.variance(codes.astype(int), hardware.weight_bits)
    scale = step.reshape(-1) * float(ops.convert_to_numpy(state.activation_quantiser(ops.zeros((1,)), False).scale))
    return Disturbance(
        _as_variable(product, mean * step),
        _as_variable(product, variance * step**2),
        (constant[place].sum(axis=axes).reshape(-1) * scale).astype(np.float32),
        (left[place].sum(axis=axes).reshape(-1) * scale**2).astype(np.float32),
        _as_variable(product, left[place] / size * step**2),
    )


def _regression(share, offset, error, with_constant: bool):
    """Of the errors of each weight code on the activation: slope, constant, what is left, and E[(a - z)^2]."""
    centre, size = share @ offset, share @ offset**2
    spread = size - centre**2 if with_constant else size
    if spread <= 1e-9 * size or size == 0:  # activations that never change have no slope
        slope = np.zeros(error.shape[1])
    else:
        slope = (share * (offset - (centre if with_constant else 0))) @ error / spread
    rest = error - np.outer(offset, slope)
    constant = share @ rest if with_constant else np.zeros(error.shape[1])
    return slope, constant, share @ (rest - constant) ** 2, size or 1.0


def _of_codes(table, state, rows: int) -> np.ndarray:
    """The table's errors for the activation codes that the state counted."""
    first = state.hardware.code_table.activation_low - table.activation_low
    return table.error[first : first + rows].astype(np.float64)


def _as_variable(product: HardwareProduct, values: np.ndarray) -> np.ndarray:
    """Of the product's kernel, in the shape and order of the layer's own variable."""
    order, values = product.order(), np.asarray(values, np.float32)
    return values if order is None else values.reshape(-1)[order].reshape(tuple(product.weights.shape))


@dataclass(frozen=True, eq=False)
class Kernel:
    """One product's kernel: in the layer that watched the data, and in the float network.

    Attributes:
        name: of the layer, with the product's name where there are several.
        layer: of the layer alone.
        variable: of the float network.
        owner: the part of the float network whose outputs before the activation are the product's; `None` where
            they cannot be reached.
        channels: how many output channels it has.
    """

    name: str
    layer: str
    variable: keras.Variable
    owner: keras.layers.Layer | None
    channels: int


def kernels(watched: keras.Model, plain: keras.Model) -> list[Kernel]:
    """The kernels of all products, in the order of `products`."""
    told, placed = labels(watched), {}
    twins: dict[int, keras.Variable] = {}
    for layer, other in zip(all_layers(watched), all_layers(plain), strict=True):
        placed[told[id(layer)]] = layer, other
        twins |= {id(variable): twin for variable, twin in zip(keras_weights(layer), other.weights, strict=True)}
    found = []
    for label, name, product in products(watched):
        layer, other = placed[label]
        shape, axes = product.kernel.shape, product.geometry.summed_axes(len(product.kernel.shape))
        found.append(
            Kernel(
                name=f"{label}/{name}" if name else label,
                layer=label,
                variable=twins[id(product.weights)],
                owner=other if name == layer.activated_product else None,
                channels=math.prod(size for axis, size in enumerate(shape) if axis not in axes),
            )
        )
    return found


def products(watched: keras.Model) -> list[tuple[str, str, HardwareProduct]]:
    """(what the layer is known by, product's name, product) of all products with a kernel."""
    told = labels(watched)
    return [
        (told[id(layer)], name, product)
        for layer in hardware_layers(watched)
        for name, product in zip(layer.product_names, layer.products, strict=True)
        if product.kernel is not None
    ]


def predicted_spread(kernels: Sequence[Kernel], curves: Any, disturbances: Sequence[Disturbance]) -> dict[str, float]:
    """``1/2 sum s^2 H_ii + 1/2 sum v C`` by layer.

    Args:
        kernels: as `kernels` gives them.
        curves: `Curvature`.
        disturbances: one for each kernel.
    """
    total: dict[str, float] = {}
    for index, (kernel, disturbed) in enumerate(zip(kernels, disturbances, strict=True)):
        bent, channel = curves.weights[index], curves.outputs[index]
        rise = 0.5 * float(np.sum(disturbed.variance * bent, dtype=np.float64))
        if channel is None:
            rise += 0.5 * float(np.sum(disturbed.scattered * bent, dtype=np.float64))
        else:
            rise += 0.5 * float(np.sum(disturbed.scatter * channel, dtype=np.float64))
        total[kernel.layer] = total.get(kernel.layer, 0.0) + rise
    return total
