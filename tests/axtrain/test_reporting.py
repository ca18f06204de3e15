"""Counts by hand, and a summary that says what the defaults decided. Energies by formula: test_energy.py."""

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


def test_unknown_power_is_said_and_counted_as_exact():
    model = keras.Sequential([keras.Input((4,)), LAYERS.Dense(2)])
    without_signs = ax.EnergyModel(sign_pj_per_bit=0)
    estimate = ax.energy(model, ax.Hardware(multiplier=ax.multipliers.get("roba"), energy=without_signs))
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
    assert " ".join(str(result.energy).split()) in printed
    for part in ("multiplications", "additions", "weights", "activations", "biases", "leakage"):
        assert f"{part} {result.energy.by_part[part] / 1e3:.4g} nJ" in printed
    assert result.layers[0].activation_range[0] < 0 < result.layers[0].activation_range[1]


def test_summary_of_a_plain_model_and_of_open_sizes():
    plain = ax.summary(small(), console=Console(file=io.StringIO()))
    assert (plain.layers, plain.energy) == ((), None)
    assert plain.skipped == ("conv", "depthwise", "head")
    wide = keras.Sequential([keras.Input((None, None, 1)), LAYERS.Conv2D(1, 3, name="conv")])
    noisy = ax.convert(wide, ax.Hardware())
    text = io.StringIO()
    result = ax.summary(noisy, console=Console(file=text, width=300))
    assert result.energy is None
    assert "No energy estimate: Counting products needs fixed sizes" in text.getvalue()
    assert result.layers[0].activations.endswith("a moving average of the batches")


def test_summary_names_every_part_that_fails():
    memories = ax.memories
    hardware = ax.Hardware(
        weight_memory=memories.NearThresholdSRAM(voltage=0.5, protection=memories.SECDED()),
        activation_memory=memories.BitErrors(rate=0.002),
        bias_memory=memories.ApproximateDRAM(refresh_interval_s=1.0),
        datapath=ax.datapaths.TimingErrors.at_voltage(0.75),
    )
    model = keras.Sequential([keras.Input((3,)), LAYERS.Dense(2, name="head")])
    text = io.StringIO()
    result = ax.summary(ax.convert(model, hardware), console=Console(file=text, width=100))
    (layer,) = result.layers
    assert layer.memory == "0.5 V, BER 0.011, persistent, twos_complement, secded protection"
    assert layer.activation_memory == "BER 0.002, random, unsigned"
    assert layer.bias_memory == "BER 0.00011, stuck, twos_complement"
    assert layer.accumulation == "by a datapath that fails (timing_errors at 0.75 V)"
    printed = " ".join(text.getvalue().split())
    for words in (layer.memory, layer.activation_memory, layer.bias_memory, layer.accumulation):
        assert words in printed


def test_summary_says_why_there_is_no_energy():
    low = ax.Hardware(weight_memory=ax.memories.NearThresholdSRAM(voltage=0.35))
    text = io.StringIO()
    model = keras.Sequential([keras.Input((3,)), LAYERS.Dense(2)])
    result = ax.summary(ax.convert(model, low), console=Console(file=text, width=300))
    assert result.energy is None
    assert "No energy estimate: Leakage follows a delay law" in text.getvalue()
