"""Counts by hand, energies by formula, and a summary that says what the defaults decided."""

import io

import keras
import numpy as np
import pytest
from rich.console import Console

import axtrain as ax
from axtrain.model_walk import calls

LAYERS = keras.layers


def small():
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            LAYERS.Conv2D(4, 3, strides=2, padding="same", name="conv"),
            LAYERS.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise"),
            LAYERS.BatchNormalization(),
            LAYERS.Flatten(),
            LAYERS.Dense(5, name="head"),
        ],
        name="small",
    )


def test_multiplications_counted_by_hand():
    estimate = ax.energy(small(), ax.Hardware())
    counts = {layer.name: layer.multiplications for layer in estimate.layers}
    assert counts == {"conv": 4 * 4 * 4 * 27, "depthwise": 2 * 2 * 8 * 9, "head": 32 * 5}


def test_energy_by_the_formula():
    """8-bit multiplication 0.002994791667 * 64 + 0.001041666667 * 8 = 0.2 pJ; 32-bit addition 0.1 pJ."""
    circuit = ax.Multiplier(ax.multipliers.get("drum4").table, name="d", bits=8, signed=False, power=0.3)
    memory = ax.memories.NearThresholdSRAM(voltage=0.5, nominal_voltage=1.0)
    model = keras.Sequential([keras.Input((10,)), LAYERS.Dense(6)])
    estimate = ax.energy(model, ax.Hardware(multiplier=circuit, weight_memory=memory))
    products, read = 60, 60 * 8 * 10 / 64
    assert estimate.total_pj == pytest.approx(products * (0.3 * 0.2 + 0.1) + read * 0.25, rel=1e-6)
    assert estimate.reference_pj == pytest.approx(products * (0.2 + 0.1) + read, rel=1e-6)
    assert estimate.saving == pytest.approx(1 - estimate.total_pj / estimate.reference_pj)
    against = ax.energy(model, ax.Hardware(multiplier=circuit), reference=ax.Hardware(multiplier=circuit))
    assert against.saving == 0


def test_unknown_power_is_said_and_counted_as_exact():
    model = keras.Sequential([keras.Input((4,)), LAYERS.Dense(2)])
    estimate = ax.energy(model, ax.Hardware(multiplier=ax.multipliers.get("roba")))
    assert estimate.saving == 0
    assert "roba: no relative power known" in estimate.assumptions[0]


def test_a_shared_layer_is_counted_per_call_and_nested_models_are_opened():
    shared = LAYERS.Dense(4, name="shared")
    inner = keras.Sequential([keras.Input((4,)), LAYERS.Dense(3, name="inside")], name="inner")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, inner(shared(shared(inputs))))
    assert [call.layer.name for call in calls(model)] == ["shared", "shared", "inside"]
    assert sum(layer.multiplications for layer in ax.energy(model, ax.Hardware()).layers) == 16 + 16 + 12
    noisy = ax.convert(model, ax.Hardware(), np.ones((4, 4), np.float32))
    assert ax.energy(noisy).total_pj == ax.energy(model, ax.Hardware()).total_pj


def test_energy_needs_hardware_and_sizes():
    with pytest.raises(ValueError, match="No layer of this model multiplies"):
        ax.energy(small())
    wide = keras.Sequential([keras.Input((None, None, 1)), LAYERS.Conv2D(1, 3)])
    with pytest.raises(ValueError, match="fixed input shape"):
        ax.energy(wide, ax.Hardware())


def test_summary_tells_every_default():
    x = np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype(np.float32)
    circuit, memory = ax.multipliers.get("kulkarni"), ax.memories.BitErrors(rate=0.001)
    hardware = ax.Hardware(multiplier=circuit, weight_memory=memory)
    noisy = ax.convert(small(), hardware, x, overrides={"depthwise": None})
    text = io.StringIO()
    result = ax.summary(noisy, console=Console(file=text, width=100))
    assert [layer.name for layer in result.layers] == ["conv", "head"]
    assert result.skipped == ("depthwise",)
    assert result.energy.total_pj == ax.energy(noisy).total_pj
    printed = " ".join(text.getvalue().split())
    for said in ("conv", "head", "kulkarni", "8 bits affine", "99.99 %", "sign_magnitude", "BER 0.001", "32 bits"):
        assert said in printed
    assert "In float: depthwise" in printed
    assert result.layers[0].activation_range[0] < 0 < result.layers[0].activation_range[1]


def test_summary_of_a_plain_model_and_of_open_sizes():
    plain = ax.summary(small(), console=Console(file=io.StringIO()))
    assert (plain.layers, plain.energy) == ((), None)
    assert plain.skipped == ("conv", "depthwise", "head")
    wide = keras.Sequential([keras.Input((None, None, 1)), LAYERS.Conv2D(1, 3, name="conv")])
    noisy = ax.convert(wide, ax.Hardware())
    result = ax.summary(noisy, console=Console(file=io.StringIO()))
    assert result.energy is None
    assert result.layers[0].activations.endswith("a moving average of the batches")
