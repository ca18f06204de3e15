"""Accuracy and energy at every supply voltage, on the same chips, and the lowest voltage that is good enough."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import keras
import numpy as np

from axtrain.controls import hardware_layers, set_chip
from axtrain.conversion import convert
from axtrain.copying import copy_of
from axtrain.energy_estimate import energy
from axtrain.hardware import Hardware
from axtrain.model_walk import all_layers, exact_patterns
from axtrain.noise_models.datapath import ILLUSTRATIVE_CHAIN, CarryChain
from axtrain.running_state import state_kept
from axtrain.training.evaluation import (
    Evaluation,
    accuracy,
    as_pipeline,
    chip_numbers,
    figure,
    leaves_nothing_to_chance,
    metric_name,
    progress,
    sample_count,
)
from axtrain.training.kept_figures import KeptFigures, fingerprint
from axtrain.training.sweep.operating_points import at, by_noise_strength, swept
from axtrain.training.sweep.results import Sweep, SweepPoint


def sweep(
    model: keras.Model,
    x,
    y=None,
    *,
    voltages: Sequence[float] | np.ndarray | None = None,
    rates: Sequence[float] | np.ndarray | None = None,
    chips: int = 20,
    seed: int = 0,
    metric: Callable[[Any, Any], float] = accuracy,
    batch_size: int = 128,
    hardware: Hardware | None = None,
    reference: Hardware | None = None,
    chain: CarryChain = ILLUSTRATIVE_CHAIN,
    folder: str | os.PathLike[str] | None = None,
    verbose: bool = True,
) -> Sweep:
    """Measures a model on the same chips at every supply voltage (or error rate), with the energy of each.

    At a voltage every memory that has one is set to it, and a datapath that `chain` gave is made anew at it; all
    else stays, and `notes` says what. The chips of one seed are those of `axtrain.evaluate`, and a chip's faults
    at a voltage are among those at any lower one, so the points are paired and their differences hold little chance.
    Each point is what `evaluate` measures on the model converted for that voltage, exactly; `fault_free` is what the
    first chip gives at noise strength 0. Where hashed cells of
    one rate are swept, one compiled function serves all points; other hardware is compiled for each.

    Args:
        model: a model from `axtrain.convert`, of any fidelity; it is not changed. Noise strength is taken as 1.
        x, y: test samples and labels; or a tuple (x, y) in place of both.
        voltages: in volts, in any order, each once.
        rates: error rates for memories whose `rate` is an argument, such as `BitErrors`, in place of voltages.
        chips, seed, metric, batch_size: as for `axtrain.evaluate`.
        hardware: plays every hardware layer, bit-exactly, in place of its own; ranges stay. A plain model is
            converted to it, with the ranges of each batch.
        reference: as for `axtrain.energy`.
        chain: that the datapath's `at_voltage` was made from.
        folder: keeps each chip's figure as soon as it is known, so that the same call goes on after an
            interruption; more voltages or chips may be added later. A metric is known by its name only.
        verbose: show a progress bar.

    Returns:
        a `Sweep`.

    Raises:
        ValueError: nothing to sweep, voltages that the hardware does not take, bad data or numbers, or a folder
            that holds another sweep.

    Examples:
        >>> import keras, numpy as np, axtrain as ax
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="out")])
        >>> x = np.random.default_rng(0).random((64, 4), "float32")
        >>> hardware = ax.Hardware(weight_memory=ax.memories.NearThresholdSRAM(voltage=0.6))
        >>> noisy = ax.convert(model, hardware, x)
        >>> labels = noisy.predict(x, verbose=0).argmax(-1)
        >>> result = ax.sweep(noisy, x, labels, voltages=(0.4, 0.9), chips=3, verbose=False)
        >>> result.voltages, result.points[0].evaluation.worst
        ((0.9, 0.4), 1.0)
    """
    if y is None and isinstance(x, tuple) and len(x) == 2:
        x, y = x
    values, by_rate = _values(voltages, rates), voltages is None
    numbers, count = chip_numbers(seed, chips), sample_count(x, y)
    played = _playable(model, hardware)
    layers = list(hardware_layers(played))
    points, notes = _operating_points(layers, values, by_rate, chain)
    for state in _states(layers):
        state.noise_strength.assign(1.0)
    settings = {"seed": seed, "batch_size": batch_size, "chain": repr(chain)}
    settings |= {} if folder is None else fingerprint(played, x, y, metric)
    names = [*(f"{'rate' if by_rate else 'voltage'}_{value!r}" for value in values), "fault_free"]
    kept = KeptFigures(folder, names, settings, lambda count: chip_numbers(seed, count), shares=metric is accuracy)
    costs = [_cost(played, layers, point, reference) for point in points]
    certain = [leaves_nothing_to_chance(layers, point) for point in points]
    needed = [*(numbers[:1] if sure else numbers for sure in certain), numbers[:1]]
    cells = [(index, chip) for index, drawn in enumerate(needed) for chip in drawn if chip not in kept.found[index]]
    prepare = _preparation(played, layers, points)
    given = as_pipeline(x, batch_size, len(cells))
    current = None
    shown = progress(cells, f"{len(values)} points, {chips} chips", shown=verbose and len(cells) > 1)
    with state_kept(played) as put_back, closing(shown):
        for index, chip in shown:
            if index != current:
                prepare(index)
                current = index
            put_back()
            set_chip(played, chip)
            predicted = played.predict(**given, verbose=0)
            kept.add(
                index, chip, figure(metric, y, predicted, played, f"chip {chip}, {names[index].replace('_', ' ')}")
            )
    *measured, (fault_free, *_) = (
        np.resize([kept.found[index][chip] for chip in drawn], chips) for index, drawn in enumerate(needed)
    )
    in_float = all(layer.fidelity == "float" for layer in layers)
    return Sweep(
        points=tuple(
            SweepPoint(
                evaluation=Evaluation(figures.astype(np.float64), seed, count, metric_name(metric), sure, in_float),
                voltage=None if by_rate else value,
                rate=max((memory.rate for part in point for memory in swept(part, by_rate).values()), default=None),
                **cost,
            )
            for value, point, figures, sure, cost in zip(values, points, measured, certain, costs, strict=True)
        ),
        notes=notes,
        fault_free=float(fault_free),
    )


def _values(voltages, rates) -> list[float]:
    """The mildest first: falling voltages, rising rates."""
    if (voltages is None) == (rates is None):
        raise ValueError(f"Give `voltages` or `rates`. Received: voltages={voltages!r}, rates={rates!r}")
    name, given = ("rates", rates) if voltages is None else ("voltages", voltages)
    array = np.asarray(given)
    numbers = array.ndim == 1 and len(array) and array.dtype.kind in "fiu" and np.isfinite(array).all()
    if not numbers or len(np.unique(array)) < len(array):
        raise ValueError(f"`{name}` must be a list of different finite numbers, at least one. Received: {given!r}")
    return sorted(array.astype(np.float64).tolist(), reverse=rates is None)


def _playable(model, hardware: Hardware | None) -> keras.Model:
    """A copy of the model to play on, on other hardware if it is given."""
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a keras.Model. Received: {type(model).__name__}")
    layers = list(hardware_layers(model))
    if hardware is None:
        if not layers:
            raise ValueError(f"No layer of this model runs on hardware; use axtrain.convert. Received: {model.name!r}")
        return copy_of(model)
    others = [layer.name for layer in layers if layer.fidelity != "exact"]
    if others:
        raise ValueError(
            "A statistical fidelity is fitted to hardware and data: axtrain.convert to `hardware` with calibration "
            f"data, and sweep that. Received: `hardware`, and layers {others} of such a fidelity"
        )
    patterns = exact_patterns(model)
    floating = [patterns[id(layer)] for layer in all_layers(model) if layers and layer not in layers]
    return copy_of(convert(model, hardware, overrides=dict.fromkeys(floating)))


def _operating_points(layers, values: list[float], by_rate: bool, chain: CarryChain):
    """For each value the hardware of every layer, and notes on what stays; raises where a value does not fit."""
    notes: dict[str, None] = {}
    points = [[at(layer.hardware, value, by_rate, chain, notes) for layer in layers] for value in values]
    if all(part is layer.hardware for part, layer in zip(points[0], layers, strict=True)):
        by_voltage = "memory with a voltage, nor a datapath of `chain`"
        wanted = "memory with a rate of its own, such as BitErrors" if by_rate else by_voltage
        raise ValueError(f"Nothing to sweep: no layer has a {wanted}. Received: {'; '.join(notes) or 'no memory'}")
    if any(not state.calibrated and not float(state.seen) for state in _states(layers)):
        notes["activation ranges are each batch's own; convert with calibration data to fix them"] = None
    return points, tuple(notes)


def _states(layers) -> list:
    return [product.state for layer in layers for product in layer.products]


def _set(layers, point) -> None:
    for layer, hardware in zip(layers, point, strict=True):
        for part in layer._flatten_layers():  # its states, and layers of its own such as attention's projections
            if hasattr(part, "hardware"):
                part.hardware = hardware


def _cost(played, layers, point, reference) -> dict[str, float]:
    _set(layers, point)
    try:
        spent = energy(played, reference=reference)
    except ValueError:  # sizes left open
        return {}
    return {"energy_pj": spent.total_pj, "saving": spent.saving}


def _preparation(played, layers, points) -> Callable[[int], None]:
    """Return a function of a point's index that puts the model on it, by the noise strength alone where that is enough.

    The index after the last point's is the hardware without faults: that of any point, at noise strength 0.
    """
    scaled = [found for found in map(by_noise_strength, zip(*points, strict=True)) if found is not None]
    if len(scaled) == len(layers):
        _set(layers, [hardware for hardware, _ in scaled])

    def prepare(index: int) -> None:
        if index == len(points):
            for state in _states(layers):
                state.noise_strength.assign(0.0)
        elif len(scaled) < len(layers):
            _set(layers, points[index])
            played.predict_function = None  # traced with the other hardware
        else:
            for layer, (_, strengths) in zip(layers, scaled, strict=True):
                for state in _states([layer]):
                    state.noise_strength.assign(strengths[index])

    return prepare
