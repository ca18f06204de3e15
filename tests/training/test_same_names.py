"""Layers of one name in different sub-models: what is measured, drawn and logged tells them apart."""

import json

import keras
import numpy as np
import pytest
from towers import X, products, towers

import axtrain as ax
from axtrain.training.plots import weights_figure
from axtrain.training.search.assignments import Choices
from axtrain.training.sensitivity.prediction import kernels
from axtrain.training.sweep.sweeping import _playable
from axtrain.training.tracking.content import of_hardware

HARDWARE = ax.Hardware(multiplier=ax.multipliers.get("mitchell"))
CANDIDATES = [ax.Hardware(multiplier=ax.multipliers.get(name), name=name) for name in ("drum3", "mitchell")]


@pytest.fixture(scope="module")
def model():
    return towers()


@pytest.fixture(scope="module")
def noisy(model):
    return ax.convert(model, HARDWARE, X)


def test_a_weight_picture_shows_the_layer_that_is_named(model, noisy):
    figure = weights_figure(model, noisy, "right/proj")
    assert figure.axes[0].get_xlabel() == "weight code of right/proj"
    before = next(one for one in figure.axes[0].patches if "before" in one.get_label()).get_data().values
    after = next(one for one in figure.axes[0].patches if "after" in one.get_label()).get_data().values
    np.testing.assert_array_equal(before, after)  # of the other layer of this name they would differ
    with pytest.raises(ValueError, match="left/proj, right/proj, proj"):
        weights_figure(model, noisy, "both")


def test_a_run_is_told_which_hardware_each_has(model):
    mixed = ax.convert(model, HARDWARE, X, overrides={"left/proj": CANDIDATES[0]})
    told = json.loads(of_hardware(mixed).files["hardware_of_layers.json"])
    assert sorted(told.values()) == [["left/proj"], ["right/proj", "proj"]]


def test_sensitivity_and_choices_are_of_each_layer(model):

    choices = Choices(ax.convert(model, HARDWARE, overrides={"/proj": None}), CANDIDATES, X)
    assert choices.layers == ("left/proj", "right/proj")  # the outermost model's stays in float, and it alone
    made = choices.converted({"left/proj": "mitchell", "right/proj": "drum3"})
    played = choices.play({"left/proj": "mitchell", "right/proj": "drum3"})
    for one in (made, played):
        assert [layer.hardware.name for layer in products(one)[:2]] == ["mitchell", "drum3"]
    assert choices.costs["total"].shape == (2, 2)
    assert (choices.costs["total"][0] == choices.costs["total"][1]).all() and choices.costs["total"].all()
    found = kernels(choices.watched(choices.reference), choices.plain)
    assert [kernel.name for kernel in found] == ["left/proj", "right/proj"]
    assert [kernel.variable is layer.kernel for kernel, layer in zip(found, products(choices.plain), strict=False)] == [
        True,
        True,
    ]


def test_a_sweep_on_other_hardware_keeps_in_float_what_was(model):
    partly = ax.convert(model, HARDWARE, overrides={"/proj": None})
    assert [type(one).__name__ for one in products(_playable(partly, HARDWARE))] == [
        "ApproxDense",
        "ApproxDense",
        "Dense",
    ]


def test_a_sensitivity_map_has_a_row_for_each(model):
    labels = np.arange(len(X)) % 3
    options = {"candidates": CANDIDATES[:1], "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True)}
    found = ax.sensitivity(model, X, labels, **options, probes=2, measure=False, verbose=False)
    assert found.layers == ("left/proj", "right/proj", "proj") == tuple(found.curvature)
    assert len(np.unique(found.predicted)) == 3
