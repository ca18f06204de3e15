"""Where training put the weights, drawn on the errors that the multiplier makes with each of them."""

from __future__ import annotations

from collections.abc import Iterable

import keras
import numpy as np
from keras import ops
from matplotlib.figure import Figure

from axtrain.controls import hardware_layers
from axtrain.finite import check_finite
from axtrain.layers import ApproximateLayer
from axtrain.layers.playing import HardwareProduct
from axtrain.model_walk import all_layers, labels
from axtrain.noise_models import picture_style as style


def weights_figure(
    before: keras.Model | None, after: keras.Model, layer: str | None = None, *, width: float = style.WIDTH
) -> Figure:
    """How often each weight code occurs before and after training, on the multiplier's expected error with it.

    The error of code b is ``E_a[E(a, b)^2] / E[a^2]`` in squared weight steps, over the activation codes of the layer's
    calibration (all alike where it saw none), as in `axtrain.MultiplierError` (theory page, section 7). The title says
    what it comes to over the weights.

    Args:
        before: the model as it was: converted, or the plain one with the same layers; `None` draws `after` alone.
        after: a converted model; its hardware and ranges count.
        layer: name of the layer to draw, or its path where another one bears the name too; `None` takes the one with
            the most weights.
        width: of the picture in inches.

    Returns:
        a matplotlib figure; nothing is shown or kept open.

    Raises:
        ValueError: no such layer on hardware, none with weights, or a layer in `before` that does not match.

    Examples:
        >>> import keras, numpy as np, axtrain as ax
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="out")])
        >>> noisy = ax.convert(model, ax.Hardware(multiplier=ax.multipliers.get("drum4")), np.ones((2, 4), "float32"))
        >>> ax.plots.weights_figure(model, noisy).axes[0].get_xlabel()
        'weight code of out'
    """
    label, chosen = _layer(after, layer)
    products = [product for product in chosen.products if product.kernel is not None]
    codes, error = _profile(products)
    held = {"after": _counts(products, [product.kernel for product in products])}
    if before is not None:
        held = {"before": _counts(products, _kernels_before(before, label, products)), **held}
    figure, (axes,) = style.panels(width, 4.4)
    second = style.second_axis(axes, "squared error [squared weight steps]", style.VERMILLION)
    look = {"color": style.VERMILLION, "alpha": 0.22, "linewidth": 0}
    second.fill_between(codes, error, step="mid", **look, label=f"error of {chosen.hardware.circuit.name}")
    second.set_ylim(0, 1.05 * error.max() or 1)
    edges = np.append(codes, codes[-1] + 1) - 0.5
    for when, counts in held.items():
        share, last = 100 * counts / counts.sum(), when == "after"
        look = {"color": style.AFTER, "linewidth": 1.2} if last else {"color": style.MUTED, "alpha": 0.45, "fill": True}
        axes.stairs(share, edges, **look, label=f"{when} training" if before is not None else "weights")
    axes.set_xlabel(f"weight code of {label}")
    axes.set_ylabel(f"share of {held['after'].sum():,} weights [%]")
    axes.set_ylim(bottom=0)
    means = [f"{counts @ error / counts.sum():.3g}" for counts in held.values()]
    said = " before training, ".join(means) + " after" * (len(means) > 1)
    style.title(figure, f"{label}: mean squared error of a weight {said}")
    style.legend_below(figure, 3)
    return figure


def _layer(model: keras.Model, name: str | None) -> tuple[str, ApproximateLayer]:
    """A layer with weights on hardware, and what it is known by."""
    told = labels(model)
    weighted = {
        told[id(layer)]: layer
        for layer in hardware_layers(model)
        if any(product.kernel is not None for product in layer.products)
    }
    if not weighted:
        raise ValueError(f"No layer with weights runs on hardware; use axtrain.convert. Received: {model.name!r}")
    if name is None:
        return max(weighted.items(), key=lambda one: _size(one[1]))
    if name not in weighted:
        raise ValueError(f"`layer` must be one of {', '.join(weighted)}. Received: layer={name!r}")
    return name, weighted[name]


def _size(layer: ApproximateLayer) -> int:
    return sum(int(np.prod(product.kernel.shape)) for product in layer.products if product.kernel is not None)


def _profile(products: list[HardwareProduct]) -> tuple[np.ndarray, np.ndarray]:
    """The weight codes, and the expected squared error of each; of several products the mean."""
    errors = []
    for state in (product.state for product in products):
        table = state.hardware.code_table
        seen = state.is_fitted
        share = ops.convert_to_numpy(state.activation_histogram).astype(np.float64) if seen else None
        share = np.ones(len(table.activation_codes)) if share is None or not share.any() else share
        energy = share @ table.activation_codes.astype(np.float64) ** 2
        errors.append(share @ table.error.astype(np.float64) ** 2 / (energy or 1.0))
    low = products[0].state.hardware.code_table.weight_low
    return low + np.arange(len(errors[0])), np.mean(errors, axis=0)


def _counts(products: list[HardwareProduct], kernels: Iterable) -> np.ndarray:
    """How many weights have each code of `_profile`."""
    hardware = products[0].state.hardware
    table = hardware.code_table
    total = np.zeros(table.products.shape[1], np.int64)
    for product, kernel in zip(products, kernels, strict=True):
        kernel = ops.convert_to_tensor(check_finite(f"product {product.state.name!r}", kernel))
        held = hardware.weight_codes(kernel, product.geometry.summed_axes(len(kernel.shape)))
        codes = ops.convert_to_numpy(held.codes).astype(np.int64).ravel()
        total += np.bincount(codes - table.weight_low, minlength=len(total))
    return total


def _kernels_before(model: keras.Model, layer: str, products: list[HardwareProduct]) -> list:
    told = labels(model)
    found = next((one for one in all_layers(model) if told[id(one)] == layer), None)
    if isinstance(found, ApproximateLayer):
        kernels = [product.kernel for product in found.products if product.kernel is not None]
    else:  # a layer of several kernels keeps them in ways of its own
        kernel = getattr(found, "kernel", None)
        kernels = [kernel] if len(products) == 1 and kernel is not None else []
    shapes = [tuple(kernel.shape) for kernel in kernels]
    if shapes != [tuple(product.kernel.shape) for product in products]:
        raise ValueError(
            f"`before` must hold a layer {layer!r} like that of `after`; convert it too where the layer has "
            f"several kernels. Received: {'no such layer' if found is None else f'kernels of shapes {shapes}'}"
        )
    return kernels
