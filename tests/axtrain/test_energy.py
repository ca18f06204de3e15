"""Every term of the energy against numbers by hand, its scaling with each voltage, and sums that add up."""

import json
from dataclasses import fields, replace

import keras
import numpy as np
import pytest

import axtrain as ax
from axtrain.energy_estimate import exact_machine
from axtrain.layers.counts import Count, count
from axtrain.model_walk import calls

LAYERS, MEMORIES = keras.layers, ax.memories
MULTIPLY, SIGN, ADD, BIT = 0.2, 0.05 / 3, 0.1, 10 / 64  # pJ: 8-bit product, its sign, 32-bit sum, a bit on chip
PARTS = ("multiplications", "additions", "weights", "activations", "biases", "leakage")
NO_LEAK = ax.EnergyModel(leakage_share=0)


def model_of(shape, *layers):
    return keras.Sequential([keras.Input(shape), *layers])


def dense():
    """60 products, 60 weights, 10 inputs, 6 outputs, 6 biases."""
    return model_of((10,), LAYERS.Dense(6, name="dense"))


def convolution():
    return model_of((5, 4, 2), LAYERS.Conv2D(3, 2, name="conv"))


def powered(power):
    return ax.Multiplier(ax.multipliers.get("drum4").table, name="d", bits=8, signed=False, power=power)


# by hand


def test_a_dense_layer_by_hand():
    """8-bit product 0.002994791667 * 64 + 0.001041666667 * 8 = 0.2 pJ; 32-bit sum 0.1 pJ; 10 pJ for 64 bits."""
    (layer,) = ax.energy(dense(), ax.Hardware()).layers
    assert layer.multiplications == layer.additions == 60
    assert (layer.weights, layer.inputs, layer.outputs, layer.biases) == (60, 10, 6, 6)
    assert layer.multiply_pj == pytest.approx(60 * MULTIPLY)
    assert layer.add_pj == pytest.approx(60 * ADD)
    assert layer.weight_read_pj == pytest.approx(60 * 8 * BIT)
    assert layer.activation_read_pj == pytest.approx(10 * 8 * BIT)
    assert layer.activation_write_pj == pytest.approx(6 * 8 * BIT)
    assert layer.bias_read_pj == pytest.approx(6 * 16 * BIT)
    dynamic = 60 * (MULTIPLY + ADD) + BIT * (60 * 8 + 10 * 8 + 6 * 8 + 6 * 16)
    assert layer.leakage_pj == pytest.approx(0.1 * dynamic)
    assert layer.total_pj == pytest.approx(1.1 * dynamic)


def test_a_convolution_by_hand():
    """4 x 3 outputs of 3 filters, each sums 2 x 2 x 2 products."""
    (layer,) = ax.energy(convolution(), ax.Hardware(energy=NO_LEAK)).layers
    assert layer.multiplications == 4 * 3 * 3 * 8
    assert (layer.weights, layer.inputs, layer.outputs, layer.biases) == (24, 40, 36, 3)
    expected = 288 * (MULTIPLY + ADD) + BIT * (24 * 8 + 40 * 8 + 36 * 8 + 3 * 16)
    assert layer.total_pj == pytest.approx(expected)


def test_widths_and_power():
    quantisation = ax.Quantisation(activation_bits=6, weight_bits=4, bias_bits=12)
    hardware = ax.Hardware(multiplier=powered(0.3), quantisation=quantisation, energy=NO_LEAK)
    (layer,) = ax.energy(dense(), hardware).layers
    assert layer.multiply_pj == pytest.approx(60 * (0.3 * MULTIPLY + SIGN))  # the circuit stays 8 bits wide
    assert layer.weight_read_pj == pytest.approx(60 * 4 * BIT)
    assert layer.activation_read_pj == pytest.approx(10 * 6 * BIT)
    assert layer.activation_write_pj == pytest.approx(6 * 6 * BIT)
    assert layer.bias_read_pj == pytest.approx(6 * 12 * BIT)


@pytest.mark.parametrize(
    ("encodings", "signed"),
    [
        ({}, "weight"),
        ({"activations": "symmetric"}, "activation and weight"),
        ({"weight_encoding": "offset"}, ""),
        ({"activations": "symmetric", "weight_encoding": "offset"}, "activation"),
        ({"activations": "symmetric", "activation_encoding": "offset", "weight_encoding": "offset"}, ""),
    ],
)
def test_signs_beside_an_unsigned_circuit_are_paid(encodings, signed):
    """Once for each product that has an operand in sign and magnitude; a signed circuit of equal power is cheaper."""

    def spent(circuit, **energy):
        hardware = ax.Hardware(
            multiplier=circuit, quantisation=ax.Quantisation(**encodings), energy=replace(NO_LEAK, **energy)
        )
        return ax.energy(dense(), hardware)

    unsigned = powered(0.4)
    assert spent(unsigned).by_part["multiplications"] == pytest.approx(60 * (0.4 * MULTIPLY + SIGN * bool(signed)))
    assert any("d: unsigned, so the sign of each product" in line for line in spent(unsigned).assumptions) == bool(
        signed
    )
    assert spent(unsigned, sign_pj_per_bit=0).by_part["multiplications"] == pytest.approx(60 * 0.4 * MULTIPLY)
    assert spent(ax.multipliers.get("exact")).by_part["multiplications"] == pytest.approx(60 * MULTIPLY)


def test_a_signed_circuit_has_no_signs_beside_it():
    table = np.roll(ax.multipliers.get("exact", signed=True).table, 1, 0)
    circuit = ax.Multiplier(table, name="s", bits=8, signed=True, power=0.4)
    estimate = ax.energy(dense(), ax.Hardware(multiplier=circuit))
    assert estimate.by_part["multiplications"] == pytest.approx(60 * 0.4 * MULTIPLY)
    assert not any("sign of each" in line for line in estimate.assumptions)


def test_hardware_written_before_signs_were_counted(tmp_path):
    described = ax.Hardware(multiplier=powered(0.4)).to_dict()
    del described["energy"]["sign_pj_per_bit"]
    (tmp_path / "old.json").write_text(json.dumps(described))
    assert ax.Hardware.from_json(tmp_path / "old.json") == ax.Hardware(multiplier=powered(0.4))
    del described["energy"]["add_pj_per_bit"]
    (tmp_path / "old.json").write_text(json.dumps(described))
    with pytest.raises(ValueError, match=r"no energy\.add_pj_per_bit; null"):
        ax.Hardware.from_json(tmp_path / "old.json")


def test_a_layer_without_bias_reads_none():
    assert ax.energy(model_of((3,), LAYERS.Dense(2, use_bias=False)), ax.Hardware()).by_part["biases"] == 0


COUNTS = {
    "depthwise": ((6, 5, 3), LAYERS.DepthwiseConv2D(3, depth_multiplier=2), Count(4 * 3 * 6 * 9, 54, 90, 72, 6)),
    "conv1d": ((9, 2), LAYERS.Conv1D(3, 4, strides=2, padding="same"), Count(5 * 3 * 8, 24, 18, 15, 3)),
    # The widened image holds zeros, which are multiplied and not read.
    "transposed": (
        (4, 3, 2),
        LAYERS.Conv2DTranspose(3, 3, strides=2, padding="same"),
        Count(8 * 6 * 3 * 18, 54, 24, 8 * 6 * 3, 3),
    ),
    "einsum": (
        (4, 5),
        LAYERS.EinsumDense("btd,dhk->bhtk", output_shape=(2, 4, 3), bias_axes="hk"),
        Count(4 * 5 * 6, 30, 20, 24, 6),
    ),
    # Depthwise: 5 x 4 x (2 channels x 2), written and read again; pointwise to 3.
    "separable": (
        (5, 4, 2),
        LAYERS.SeparableConv2D(3, 3, padding="same", depth_multiplier=2),
        Count(20 * (36 + 12), 36 + 12, 40 + 80, 80 + 60, 3),
    ),
    "lstm": ((5, 3), LAYERS.LSTM(4), Count(5 * (48 + 64), 48 + 64, 5 * (3 + 4), 5 * 4, 16)),
    "gru": ((5, 3), LAYERS.GRU(4), Count(5 * (36 + 48), 36 + 48, 5 * (3 + 4), 5 * 4, 24)),
}


@pytest.mark.parametrize("case", COUNTS)
def test_counts_by_hand(case):
    shape, layer, expected = COUNTS[case]
    (call,) = calls(model_of(shape, layer))
    assert count(*call) == expected


def attention(**arguments):
    query, value = keras.Input((5, 6)), keras.Input((7, 4))
    layer = LAYERS.MultiHeadAttention(2, 3, value_dim=4, **arguments)
    return keras.Model([query, value], layer(query, value))


@pytest.mark.parametrize("use_bias", [True, False])
def test_attention_by_hand(use_bias):
    """5 queries of 6, 7 values of 4; 2 heads of 3 and 4."""
    (call,) = calls(attention(use_bias=use_bias))
    weights = 6 * 6 + 4 * 6 + 4 * 8 + 8 * 6
    scores = 2 * 5 * 7
    projected = 5 * 36 + 7 * 24 + 7 * 32 + 5 * 48
    inputs = 5 * 6 + 7 * 4 + 7 * 4  # of the projections of query, key and value
    inputs += 5 * 6 + 7 * 6  # queries and keys, of the scores
    inputs += scores + 7 * 8  # probabilities and values, of the combination
    inputs += 5 * 8  # of the output's projection
    outputs = 5 * 6 + 7 * 6 + 7 * 8 + scores + 5 * 8 + 5 * 6
    biases = 6 + 6 + 8 + 6 if use_bias else 0
    assert count(*call) == Count(projected + scores * (3 + 4), weights, inputs, outputs, biases)


def every_kind():
    """One layer of each kind, wired to one output each."""
    image, sequence = keras.Input((6, 6, 2)), keras.Input((5, 4))
    images = [
        LAYERS.Conv2D(3, 3),
        LAYERS.DepthwiseConv2D(3),
        LAYERS.Conv2DTranspose(2, 3, strides=2),
        LAYERS.SeparableConv2D(3, 3),
        LAYERS.Dense(3),
    ]
    sequences = [
        LAYERS.Conv1D(3, 2),
        LAYERS.LSTM(3),
        LAYERS.GRU(3),
        LAYERS.EinsumDense("btd,de->bte", (5, 3), bias_axes="e"),
    ]
    outputs = [layer(image) for layer in images] + [layer(sequence) for layer in sequences]
    attended = LAYERS.MultiHeadAttention(2, 3)(sequence, sequence)
    return keras.Model([image, sequence], [*outputs, attended])


def faulty():
    return ax.Hardware(
        multiplier=powered(0.4),
        weight_memory=MEMORIES.NearThresholdSRAM(voltage=0.5, protection=MEMORIES.SECDED()),
        activation_memory=MEMORIES.NearThresholdSRAM(voltage=0.7, nominal_voltage=0.9),
        bias_memory=MEMORIES.ApproximateDRAM(refresh_interval_s=1.0),
        datapath=ax.datapaths.TimingErrors.at_voltage(0.75),
    )


@pytest.mark.parametrize("hardware", [ax.Hardware(), faulty()], ids=["exact", "faulty"])
def test_all_kinds_of_layers_give_sums_that_add_up(hardware):
    model = every_kind()
    estimate = ax.energy(model, hardware)
    assert len(estimate.layers) == 10
    assert tuple(estimate.by_part) == PARTS
    assert sum(layer.total_pj for layer in estimate.layers) == pytest.approx(estimate.total_pj, rel=1e-12)
    assert sum(estimate.by_part.values()) == pytest.approx(estimate.total_pj, rel=1e-12)
    assert sum(estimate.reference_by_part.values()) == pytest.approx(estimate.reference_pj, rel=1e-12)
    for layer in (*estimate.layers, *estimate.reference_layers):
        assert all(spent > 0 for spent in layer.by_part.values()), layer.name
        assert sum(layer.by_part.values()) == pytest.approx(layer.total_pj, rel=1e-12)
    converted = ax.convert(model, hardware)
    assert ax.energy(converted).by_part == estimate.by_part  # the layers' own counts are the plain ones'


# voltages, protections, refresh


def hardware_at(part, voltage, **options):
    if part == "datapath":
        described = ax.datapaths.DroppedMACs(rate=0.0, voltage=voltage, nominal_voltage=1.0)
    else:
        described = MEMORIES.NearThresholdSRAM(voltage=voltage, **options)
    return ax.Hardware(**{part: described}, energy=NO_LEAK)


@pytest.mark.parametrize(
    ("part", "scaled"),
    [
        ("weight_memory", {"weights"}),
        ("activation_memory", {"activations"}),
        ("bias_memory", {"biases"}),
        ("datapath", {"multiplications", "additions"}),
    ],
)
def test_each_part_follows_the_square_of_its_own_voltage(part, scaled):
    nominal, low = (ax.energy(dense(), hardware_at(part, voltage)).by_part for voltage in (1.0, 0.6))
    assert nominal == pytest.approx(ax.energy(dense(), ax.Hardware(energy=NO_LEAK)).by_part)
    for name in PARTS:
        assert low[name] == pytest.approx(nominal[name] * (0.36 if name in scaled else 1))


def test_the_square_is_of_the_part_s_own_nominal_voltage():
    spent = ax.energy(dense(), hardware_at("weight_memory", 0.6, nominal_voltage=0.8)).by_part["weights"]
    assert spent == pytest.approx(60 * 8 * BIT * 0.5625)


def all_at(voltage, model=None):
    memory = MEMORIES.NearThresholdSRAM(voltage=voltage)
    datapath = ax.datapaths.DroppedMACs(rate=0.0, voltage=voltage, nominal_voltage=1.0)
    stores = dict.fromkeys(("weight_memory", "activation_memory", "bias_memory"), memory)
    return ax.Hardware(**stores, datapath=datapath, energy=model or ax.EnergyModel())


def test_leakage_grows_while_dynamic_energy_falls_so_there_is_a_minimum():
    voltages = np.linspace(0.4, 1.0, 61)
    estimates = [ax.energy(dense(), all_at(voltage)) for voltage in voltages.tolist()]
    leakage = np.array([estimate.by_part["leakage"] for estimate in estimates])
    total = np.array([estimate.total_pj for estimate in estimates])
    assert (np.diff(leakage) < 0).all()
    assert (np.diff(total - leakage) > 0).all()
    # E (V^2 + s V d(V)) by itself, on a fine grid.
    fine = np.linspace(0.36, 1, 100_001)
    law = fine**2 + 0.1 * fine * (fine / (fine - 0.35) ** 1.3) / (1 / 0.65**1.3)
    lowest = fine[law.argmin()]
    assert 0.4 < lowest < 0.55
    assert abs(voltages[total.argmin()] - lowest) <= 0.01
    assert total.min() == pytest.approx(law.min() * total[-1] / 1.1, rel=1e-3)


def test_leakage_by_hand():
    """At 0.5 V: 0.1 * 0.5 * d with d = 0.5 / 0.15^1.3 / (1 / 0.65^1.3)."""
    delay = 0.5 / 0.15**1.3 * 0.65**1.3
    estimate = ax.energy(dense(), all_at(0.5))
    dynamic = sum(estimate.by_part[part] for part in PARTS[:-1]) / 0.25
    assert estimate.by_part["leakage"] == pytest.approx(0.1 * 0.5 * delay * dynamic)
    carry = ax.datapaths.ILLUSTRATIVE_CHAIN  # has the same threshold and exponent
    assert delay == pytest.approx(carry.relative_delay(0.5))


def test_below_the_threshold_there_is_no_delay_law():
    with pytest.raises(ValueError, match=r"above the threshold, 0\.35 V.*voltage=0\.35"):
        ax.energy(dense(), all_at(0.35))
    assert ax.energy(dense(), all_at(0.35, NO_LEAK)).by_part["weights"] == pytest.approx(60 * 8 * BIT * 0.35**2)
    assert ax.energy(dense(), all_at(0.35, ax.EnergyModel(threshold_voltage=0.2))).by_part["leakage"] > 0


@pytest.mark.parametrize(
    ("protection", "cells"),
    [
        (MEMORIES.SECDED(data_bits=64), 9 / 8),
        (MEMORIES.SECDED(data_bits=32), 39 / 32),
        (MEMORIES.Parity(), 9 / 8),
        (MEMORIES.Triplication(), 3),
        (MEMORIES.RobustBits(count=2), 1),
        (MEMORIES.SignMasking(), 1),
    ],
)
@pytest.mark.parametrize("part", ["weight_memory", "activation_memory"])
def test_check_cells_are_paid_for(part, protection, cells):
    def spent(protection):
        memory = MEMORIES.BitErrors(rate=0.01, protection=protection)
        quantisation = ax.Quantisation(activations="symmetric")  # sign masking needs a sign
        return ax.energy(dense(), ax.Hardware(**{part: memory}, quantisation=quantisation)).by_part

    plain, protected = spent(None), spent(protection)
    name = "weights" if part == "weight_memory" else "activations"
    assert protected[name] == pytest.approx(plain[name] * cells)
    assert protected["leakage"] - plain["leakage"] == pytest.approx(0.1 * plain[name] * (cells - 1))


def test_the_decoder_is_paid_per_word():
    model = ax.EnergyModel(decoder_pj_per_word=0.5)
    memory = MEMORIES.NearThresholdSRAM(voltage=0.5, protection=MEMORIES.SECDED())
    spent = ax.energy(dense(), ax.Hardware(weight_memory=memory, energy=model)).by_part
    assert spent["weights"] == pytest.approx(60 * (9 * BIT + 0.5) / 4)
    robust = replace(memory, protection=MEMORIES.RobustBits())
    spent = ax.energy(dense(), ax.Hardware(weight_memory=robust, energy=model)).by_part
    assert spent["weights"] == pytest.approx(60 * 8 * BIT / 4)  # nothing to decode


def test_dynamic_memory_and_its_refresh():
    """20.3 pJ per bit, a fifth of it refresh at 64 ms; no leakage beside the refresh."""

    def spent(interval, **options):
        memory = MEMORIES.ApproximateDRAM(refresh_interval_s=interval, **options)
        return ax.energy(dense(), ax.Hardware(weight_memory=memory))

    assert spent(0.064).by_part["weights"] == pytest.approx(60 * 8 * 20.3)
    assert spent(0.64).by_part["weights"] == pytest.approx(60 * 8 * 20.3 * 0.82)
    assert spent(0.064, nominal_interval_s=0.032).by_part["weights"] == pytest.approx(60 * 8 * 20.3 * 0.9)
    assert spent(0.032).by_part["weights"] == pytest.approx(60 * 8 * 20.3 * 1.2)
    without = ax.energy(dense(), ax.Hardware()).by_part
    assert spent(0.64).by_part["leakage"] == pytest.approx(without["leakage"] - 0.1 * without["weights"])


# the reference


def test_the_reference_is_the_exact_machine():
    hardware = replace(faulty(), bias_memory=None)
    exact = exact_machine(hardware)
    assert exact.multiplier is exact.datapath is None
    assert exact.memories == {}
    assert (exact.activation_bits, exact.weight_bits) == (hardware.activation_bits, hardware.weight_bits)
    estimate = ax.energy(dense(), hardware)
    assert estimate.reference_pj == pytest.approx(ax.energy(dense(), ax.Hardware()).total_pj)
    assert estimate.saving == pytest.approx(1 - estimate.total_pj / estimate.reference_pj)
    assert 0 < estimate.saving < 1
    assert ax.energy(dense(), ax.Hardware()).saving == 0


def test_the_reference_keeps_the_widths():
    quantisation = ax.Quantisation(activation_bits=5, weight_bits=4)
    estimate = ax.energy(dense(), ax.Hardware(quantisation=quantisation))
    assert estimate.saving == 0


def test_the_reference_of_a_dynamic_memory_is_one_at_the_standard_interval():
    memory = MEMORIES.ApproximateDRAM(refresh_interval_s=10.0, nominal_interval_s=0.032, protection=MEMORIES.Parity())
    estimate = ax.energy(dense(), ax.Hardware(weight_memory=memory))
    assert estimate.reference_by_part["weights"] == pytest.approx(60 * 8 * 20.3)
    assert exact_machine(ax.Hardware(weight_memory=memory)).weight_memory.refresh_interval_s == 0.032


def test_a_reference_of_one_s_own():
    mine = ax.Hardware(multiplier=powered(0.5), name="last year's chip")
    estimate = ax.energy(dense(), ax.Hardware(multiplier=powered(0.5)), reference=mine)
    assert estimate.saving == 0
    assert "0.0 % less than on last year's chip" in str(estimate)
    worse = ax.energy(dense(), ax.Hardware(), reference=mine)
    assert worse.saving < 0
    assert f"{-100 * worse.saving:.1f} % more than" in str(worse)
    unknown = ax.energy(dense(), ax.Hardware(), reference=ax.Hardware(multiplier=ax.multipliers.get("roba")))
    assert any(line.startswith("of the reference: roba: no relative power known") for line in unknown.assumptions)


# constants and assumptions

ARITHMETIC = {"multiplications", "leakage"}
CHANGES = {
    "multiply_quadratic_pj": ARITHMETIC,
    "multiply_linear_pj": ARITHMETIC,
    "sign_pj_per_bit": ARITHMETIC,
    "add_pj_per_bit": {"additions", "leakage"},
    "accumulator_bits": {"additions", "leakage"},
    "weight_read_pj_per_bit": {"weights", "leakage"},
    "weight_reads": {"weights", "leakage"},
    "activation_read_pj_per_bit": {"activations", "leakage"},
    "activation_write_pj_per_bit": {"activations", "leakage"},
    "activation_reads": {"activations", "leakage"},
    "bias_read_pj_per_bit": set(),  # these biases lie in a dynamic memory
    "decoder_pj_per_word": {"weights", "leakage"},
    "dram_pj_per_bit": {"biases"},
    "dram_refresh_share": {"biases"},
    "leakage_share": {"leakage"},
    "threshold_voltage": {"leakage"},
    "alpha": {"leakage"},
}


@pytest.mark.parametrize("name", [item.name for item in fields(ax.EnergyModel)])
def test_replacing_a_constant_changes_its_part_and_no_other(name):
    hardware = faulty()
    value = getattr(hardware.energy, name)
    other = replace(hardware.energy, **{name: value + 1 if name in ("accumulator_bits",) else value * 1.1 + 0.01})
    before, after = (ax.energy(dense(), replace(hardware, energy=model)).by_part for model in (hardware.energy, other))
    assert {part for part in PARTS if before[part] != after[part]} == CHANGES[name]
    assert ax.Hardware.from_dict(replace(hardware, energy=other).to_dict()).energy == other


def test_biases_on_chip_follow_their_constant():
    one, two = (
        ax.energy(dense(), ax.Hardware(energy=ax.EnergyModel(bias_read_pj_per_bit=cost))).by_part["biases"]
        for cost in (1.0, 2.0)
    )
    assert (one, two) == (pytest.approx(6 * 16), pytest.approx(6 * 32))


def test_reads_multiply_the_traffic():
    model = ax.EnergyModel(weight_reads=3, activation_reads=2.5, leakage_share=0)
    (layer,) = ax.energy(dense(), ax.Hardware(energy=model)).layers
    assert layer.weight_read_pj == pytest.approx(3 * 60 * 8 * BIT)
    assert layer.activation_read_pj == pytest.approx(2.5 * 10 * 8 * BIT)
    assert layer.activation_write_pj == pytest.approx(6 * 8 * BIT)


@pytest.mark.parametrize("name", [item.name for item in fields(ax.EnergyModel)])
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "1", None, True])
def test_a_constant_that_is_none(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be .*Received: {name}="):
        ax.EnergyModel(**{name: value})


def test_constants_out_of_their_range():
    with pytest.raises(ValueError, match="whole number"):
        ax.EnergyModel(accumulator_bits=7.5)
    with pytest.raises(ValueError, match="0 to 1"):
        ax.EnergyModel(dram_refresh_share=1.1)


SAID = {
    "no relative power known": ax.Hardware(multiplier=ax.multipliers.get("roba")),
    "d: unsigned, so the sign of each product is handled beside the circuit, 0.0167 pJ": ax.Hardware(
        multiplier=powered(0.4)
    ),
    "reads of each weight per inference: 1, of": ax.Hardware(),
    "leakage is 10 % of": ax.Hardware(),
    "the weight memory has no voltage, so": ax.Hardware(weight_memory=MEMORIES.BitErrors(rate=0.1)),
    "the activation memory has no voltage, so": ax.Hardware(activation_memory=MEMORIES.BitErrors(rate=0.1)),
    "the datapath has no voltage, so": ax.Hardware(datapath=ax.datapaths.DroppedMACs(rate=0.1)),
    "the datapath has no voltages, so": ax.Hardware(datapath=ax.datapaths.DroppedMACs(rate=0.1, voltage=0.5)),
    "additions are counted at EnergyModel's accumulator_bits=32; the datapath's accumulators have 24": ax.Hardware(
        datapath=ax.datapaths.TimingErrors.at_voltage(0.75)
    ),
    "decoder of the bias memory's parity costs 0 pJ": ax.Hardware(
        bias_memory=MEMORIES.BitErrors(rate=0.1, protection=MEMORIES.Parity())
    ),
    "robust cells of the weight memory cost": ax.Hardware(
        weight_memory=MEMORIES.BitErrors(rate=0.1, protection=MEMORIES.RobustBits())
    ),
    "refresh is 20 % of an access to the weight memory": ax.Hardware(
        weight_memory=MEMORIES.ApproximateDRAM(refresh_interval_s=1.0)
    ),
}


@pytest.mark.parametrize("words", SAID)
def test_assumptions_in_use_are_listed_and_shown(words):
    estimate = ax.energy(dense(), SAID[words])
    assert sum(words in line for line in estimate.assumptions) == 1
    assert words in str(estimate)
    others = [line for line in ax.energy(dense(), ax.Hardware()).assumptions if words in line]
    assert len(others) == (SAID[words] == ax.Hardware())


def test_constants_of_one_s_own_are_no_assumptions():
    model = ax.EnergyModel(
        weight_reads=2,
        activation_reads=2,
        decoder_pj_per_word=0.1,
        dram_refresh_share=0.3,
        leakage_share=0.2,
        threshold_voltage=0.3,
        alpha=1.4,
    )
    assert ax.energy(dense(), ax.Hardware(energy=model)).assumptions == ()
    memory = MEMORIES.ApproximateDRAM(refresh_interval_s=1.0, protection=MEMORIES.Parity())
    assert ax.energy(dense(), ax.Hardware(weight_memory=memory, energy=model)).assumptions == ()
    partly = replace(model, alpha=1.3)
    assert "exponent 1.3" in ax.energy(dense(), ax.Hardware(energy=partly)).assumptions[0]
