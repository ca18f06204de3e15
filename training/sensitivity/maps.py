"""Which layer can take which hardware: predicted from the float network's curvature, and measured bit-exactly."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import keras
import numpy as np

from axtrain.controls import hardware_layers
from axtrain.conversion import strip
from axtrain.hardware import Hardware
from axtrain.running_state import state_kept
from axtrain.training.evaluation import accuracy, chip_numbers, metric_name, progress, sample_count
from axtrain.training.search.assignments import Choices, calibration_data
from axtrain.training.sensitivity.cell_measurements import measured_cells
from axtrain.training.sensitivity.loss_choice import ChosenLoss, chosen_loss
from axtrain.training.sensitivity.loss_curvature import METHODS, LossSurface
from axtrain.training.sensitivity.prediction import disturbance, kernels, predicted_spread, products
from axtrain.training.sensitivity.results import SensitivityMap


def sensitivity(
    model: keras.Model,
    x,
    y=None,
    *,
    candidates: Sequence[Hardware] | None = None,
    loss: Any = None,
    probes: int = 8,
    seed: int = 0,
    batch_size: int = 128,
    measure: bool = True,
    chips: int = 4,
    metric: Callable[[Any, Any], float] = accuracy,
    method: str | None = None,
    calibration=None,
    reference: Hardware | None = None,
    folder: str | os.PathLike[str] | None = None,
    verbose: bool = True,
) -> SensitivityMap:
    """Predicts what each layer would cost on each hardware, and measures it bit-exactly.

    Predicted rise of the mean loss when one layer alone runs on a candidate, in inference, from the float network
    (theory page, section 7, with the multiplier's error split as in section 4)::

        L(w + mu, bias) - L(w) + 1/2 sum_i s_i^2 H_ii + 1/2 sum_n v_n C_n

    mu and bias are what the layer's errors come to on average, s^2 the variance of a stored weight, v that of the
    multiplier's error on an output (`axtrain.training.sensitivity.prediction`). It takes no account of an activation
    memory, a bias memory or a datapath; the measurement does. Measured: the same rise when `convert` puts that layer
    on the candidate and all others on the reference.

    Args:
        model: plain, or from `axtrain.convert`; it is not changed. Layers that it keeps in float stay in float.
        x, y: samples and labels, training data rather than test data; or a tuple (x, y) in place of both.
        candidates: `Hardware`, known by name; `None` takes those of the model's own layers.
        loss: a Keras loss, its name, or a function of (y_true, y_pred) to one figure per sample. `None` is the loss
            the model was compiled with, else the cross-entropy that fits labels and outputs.
        probes: random vectors for the curvature, at least 2.
        seed: of the probes and the chips.
        batch_size: samples per pass.
        measure: whether to measure too: one bit-exact pass over the data for each layer and candidate (and chip).
        chips: how many chips a candidate with faults is measured on.
        metric: function of (y_true, y_pred) to a number whose fall is measured beside the loss.
        method: of the curvature: `"gauss_newton"`, never negative and far less noisy, for cross-entropies and the
            squared error; `"hessian"`, Hutchinson's estimate, for any loss, with s^2 of each weight in place of v.
            `None` is the first where it is known.
        calibration: input samples for the activation ranges; `None` takes the first 512 of `x`.
        reference: what the other layers run on; `None` is the exact multiplier of the widest candidate, at nominal
            voltage.
        folder: keeps each measured cell as soon as it is known, so that the same call goes on after an interruption.
        verbose: show a progress bar.

    Returns:
        a `SensitivityMap`.

    Raises:
        TypeError: no Keras model, or candidates that are no `Hardware`.
        ValueError: bad numbers or data, no layer on hardware, a loss that cannot be told, or a memory without a
            closed form.

    Examples:
        >>> import keras, numpy as np, axtrain as ax
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax", name="out")])
        >>> x = np.random.default_rng(0).random((64, 4), "float32")
        >>> labels = model.predict(x, verbose=0).argmax(-1)
        >>> circuits = [ax.Hardware(multiplier=ax.multipliers.get(name)) for name in ("drum3", "drum6")]
        >>> found = ax.sensitivity(model, x, labels, candidates=circuits, verbose=False)
        >>> found.candidates, found.predicted.shape, found.curvature["out"].shape
        (('drum3', 'drum6'), (1, 2), (4, 3))
    """
    if y is None and isinstance(x, tuple) and len(x) == 2:
        x, y = x
    sample_count(x, y)
    if isinstance(probes, bool) or not isinstance(probes, int) or probes < 2:
        raise ValueError(f"`probes` must be an int >= 2. Received: probes={probes!r}")
    if method not in (None, *METHODS):
        raise ValueError(f"`method` must be None or one of {METHODS}. Received: method={method!r}")
    choices = Choices(
        model, _own(model) if candidates is None else candidates, calibration_data(x, calibration), reference
    )
    start = keras.tree.map_structure(lambda array: np.asarray(array[:batch_size]), x)
    with state_kept(choices.plain):
        outputs = choices.plain.predict_on_batch(start)
    chosen = chosen_loss(model, loss, outputs, y[:batch_size])
    method = method or ("hessian" if chosen.kind is None else "gauss_newton")
    if method == "gauss_newton" and chosen.kind is None:
        raise ValueError(
            "The Gauss-Newton curvature is known for cross-entropies and the squared error; use method='hessian'. "
            f"Received: loss {chosen.name!r}"
        )
    numbers = chip_numbers(seed, chips)
    # What can be refused is refused above, before anything is computed.
    parts, curvature = _predicted(choices, chosen, x, y, probes, seed, batch_size, method, verbose)
    measured: dict[str, Any] = {}
    if measure:
        options: dict[str, Any] = {"chips": numbers, "metric": metric, "batch_size": batch_size, "folder": folder}
        settings = {"seed": seed, "chips": chips, "batch_size": batch_size}
        measured = measured_cells(choices, chosen, x, y, settings=settings, verbose=verbose, **options)
    return SensitivityMap(
        layers=choices.layers,
        candidates=tuple(choices.candidates),
        curvature=curvature,
        method=method,
        loss=chosen.name,
        mean_part=parts[0],
        spread_part=parts[1],
        metric=metric_name(metric),
        **measured,
    )


def _own(model) -> list[Hardware]:
    """The different hardware of a model's layers."""
    found = list(dict.fromkeys(layer.hardware for layer in hardware_layers(model)))
    if not found:
        raise ValueError(f"A plain model has no hardware of its own; give candidates=[...]. Received: {model.name!r}")
    return found


def _predicted(choices, chosen: ChosenLoss, x, y, probes, seed, batch_size, method, verbose):
    """((mean part, spread part), curvature by kernel)."""
    network = strip(choices.plain)  # its own, since its activations will be replaced
    watched = choices.watched(choices.reference)
    found = kernels(watched, network)
    surface = LossSurface(network, found, chosen, x, y, batch_size)
    curves = surface.curvature(probes, seed, method)
    clean = surface.at()
    mean, spread = np.zeros((2, len(choices.layers), len(choices.candidates)))
    with closing(progress(list(choices.candidates.values()), "predicted", shown=verbose)) as shown:
        for column, hardware in enumerate(shown):
            disturbed = [
                disturbance(product, hardware, reached=kernel.owner is not None and method == "gauss_newton")
                for (_, _, product), kernel in zip(products(choices.watched(hardware)), found, strict=True)
            ]
            by_layer = predicted_spread(found, curves, disturbed)
            for row, layer in enumerate(choices.layers):
                spread[row, column] = by_layer.get(layer, 0.0)  # none where all operands are activations
                own = [index for index, kernel in enumerate(found) if kernel.layer == layer]
                moved = {index: disturbed[index].mean for index in own if disturbed[index].mean.any()}
                biases = {index: disturbed[index].outputs for index in own if disturbed[index].outputs.any()}
                if moved or biases:
                    mean[row, column] = surface.at(moved, biases) - clean
    return (mean, spread), {kernel.name: bent for kernel, bent in zip(found, curves.weights, strict=True)}
