"""One network on any choice of hardware for each layer: played, converted, and what each choice costs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import keras
import numpy as np
from keras import ops

from axtrain.controls import hardware_layers
from axtrain.conversion import convert, strip
from axtrain.energy_estimate import energy, exact_machine
from axtrain.hardware import Hardware
from axtrain.layers.activation_pair import ActivationPairState
from axtrain.model_walk import all_layers, exact_patterns, labels
from axtrain.noise_models import multipliers

_SAMPLES = 512  # of the data, where no calibration data are given


class Choices:
    """The network whose layers each take one of several `Hardware`.

    Ranges come from the calibration data through the float network, so a layer's do not depend on what the other
    layers run on: they are found once for each way of coding, and an assignment is set in no time.

    Args:
        model: plain, or from `convert`: then its layers in float stay in float. It is not changed.
        candidates: `Hardware`; each is known by its name.
        calibration: input samples.
        reference: what a layer runs on that an assignment leaves out; `None` is the exact machine of the widest
            candidate.

    Raises:
        TypeError: no Keras model, or candidates that are no `Hardware`.
        ValueError: no candidates, two of one name, or no layer that runs on hardware.
    """

    def __init__(self, model: keras.Model, candidates: Sequence[Hardware], calibration, reference=None) -> None:
        if not isinstance(model, keras.Model):
            raise TypeError(f"`model` must be a keras.Model. Received: {type(model).__name__}")
        self.candidates = named(candidates)
        widest = max(self.candidates.values(), key=lambda one: one.activation_bits + one.weight_bits)
        self.reference = exact_machine(widest) if reference is None else reference
        self.calibration = calibration
        on_hardware, patterns = {id(layer) for layer in hardware_layers(model)}, exact_patterns(model)
        self.plain = strip(model)
        self._floating: dict[str, Hardware | None] = {
            patterns[id(layer)]: None for layer in all_layers(model) if on_hardware and id(layer) not in on_hardware
        }
        self._watched: dict[str, keras.Model] = {}
        self.played = convert(self.plain, self.reference, overrides=self._floating)
        self._layers = list(hardware_layers(self.played))
        told, patterns = labels(self.played), exact_patterns(self.played)
        self.layers = tuple(told[id(layer)] for layer in self._layers)
        self._patterns = {told[id(layer)]: patterns[id(layer)] for layer in self._layers}
        if not self.layers:
            raise ValueError(f"No layer of this model can run on hardware. Received: {model.name!r}")
        self.play({})

    def watched(self, hardware: Hardware) -> keras.Model:
        """The network on the exact machine that codes numbers as `hardware` does, calibrated."""
        circuit, quantisation = hardware.circuit, hardware.quantisation
        bits = circuit.activation_bits, circuit.weight_bits
        coded = Hardware(
            multiplier=multipliers.get("exact", bits=bits if bits[0] != bits[1] else bits[0], signed=circuit.signed),
            quantisation=replace(quantisation, activations=hardware.activations),
        )
        key = json.dumps(coded.to_dict(), sort_keys=True)
        if key not in self._watched:
            self._watched[key] = convert(self.plain, coded, calibration=self.calibration, overrides=self._floating)
        return self._watched[key]

    def play(self, assignment: Mapping[str, str]) -> keras.Model:
        """Puts the layers of `played` on their hardware, bit-exactly; the others on the reference."""
        for index, (layer, chosen) in enumerate(zip(self._layers, self.hardware_of(assignment), strict=True)):
            if assignment and layer.hardware is chosen:
                continue
            source = list(hardware_layers(self.watched(chosen)))[index]
            for part in layer._flatten_layers():  # its states, and layers of its own such as attention's projections
                if hasattr(part, "hardware"):
                    part.hardware = chosen
            for own, other in zip(layer.products, source.products, strict=True):
                for state, ranged in zip(_ranged(own.state), _ranged(other.state), strict=True):
                    state.set_range(ops.convert_to_numpy(ranged.low), ops.convert_to_numpy(ranged.high))
        self.played.predict_function = None  # traced with other hardware
        return self.played

    def hardware_of(self, assignment: Mapping[str, str]) -> list[Hardware]:
        """Each layer's, in the order of `layers`."""
        return [self.candidates.get(assignment.get(name, ""), self.reference) for name in self.layers]

    def converted(self, assignment: Mapping[str, str]) -> keras.Model:
        """A new model from `convert`, calibrated, that plays what `play` does."""
        overrides = {self._patterns[name]: self.candidates[choice] for name, choice in assignment.items()}
        return convert(
            self.plain, self.reference, calibration=self.calibration, overrides={**self._floating, **overrides}
        )

    @cached_property
    def costs(self) -> dict[str, np.ndarray]:
        """`"total"` and `"multipliers"`: float64 (layers, candidates), pJ per inference of each layer on each."""
        tables = [self._cost(candidate) for candidate in self.candidates.values()]
        return {kind: np.array([one[kind] for one in tables]).T for kind in ("total", "multipliers")}

    @cached_property
    def reference_cost(self) -> dict[str, float]:
        """The same of all layers on the reference, in pJ."""
        return {kind: float(np.sum(spent)) for kind, spent in self._cost(self.reference).items()}

    def _cost(self, hardware: Hardware) -> dict[str, list[float]]:
        spent = {kind: dict.fromkeys(self.layers, 0.0) for kind in ("total", "multipliers")}
        for layer in energy(self.plain, hardware).layers:
            if layer.name in spent["total"]:  # a layer used twice comes twice
                spent["total"][layer.name] += layer.total_pj
                spent["multipliers"][layer.name] += layer.multiply_pj
        return {kind: list(found.values()) for kind, found in spent.items()}


def calibration_data(x, calibration) -> Any:
    """What was given, else the first samples of the data."""
    return keras.tree.map_structure(lambda array: array[:_SAMPLES], x) if calibration is None else calibration


def named(candidates: Sequence[Hardware]) -> dict[str, Hardware]:
    """The candidates by name: their own, or that of the multiplier with the weight memory's voltage or rate.

    Raises:
        TypeError: not `Hardware`.
        ValueError: none, or two of one name.
    """
    if isinstance(candidates, (Hardware, str, Mapping)):
        raise TypeError(f"`candidates` must be a list of axtrain.Hardware. Received: {type(candidates).__name__}")
    found: dict[str, Hardware] = {}
    for candidate in candidates:
        if not isinstance(candidate, Hardware):
            raise TypeError(f"`candidates` must be a list of axtrain.Hardware. Received: {candidate!r} in it")
        name = hardware_name(candidate)
        if name in found:
            raise ValueError(f"Candidates are told apart by name; give Hardware(name=...). Received: {name!r} twice")
        found[name] = candidate
    if not found:
        raise ValueError(f"`candidates` must hold at least one axtrain.Hardware. Received: {candidates!r}")
    return found


def hardware_name(hardware: Hardware) -> str:
    """Its own name, or that of the multiplier with the weight memory's voltage or error rate."""
    if hardware.name is not None:
        return hardware.name
    memory = hardware.weight_memory
    if memory is None:
        return hardware.circuit.name
    level = f"rate {memory.rate:.2g}" if memory.voltage is None else f"{memory.voltage:g} V"
    return f"{hardware.circuit.name} at {level}"


def _ranged(state) -> tuple:
    """The states that hold a range: two where both operands are activations."""
    return (state, state.second) if isinstance(state, ActivationPairState) else (state,)
