"""Layers of one name in different sub-models: every file, figure and option tells them apart."""

import io
import json
import re

import keras
import numpy as np
import pytest
from rich.console import Console
from towers import X, products, tower, towers

import axtrain as ax
from axtrain.integers.c_code.source import write_c
from axtrain.integers.memory.image import read_memory, write
from axtrain.model_walk import exact_patterns, labels, matching, named

LABELS = ["left/proj", "right/proj", "proj"]
HARDWARE = ax.Hardware(multiplier=ax.multipliers.get("mitchell"), weight_memory=ax.memories.BitErrors(rate=1e-3))
CANDIDATES = [ax.Hardware(multiplier=ax.multipliers.get(name), name=name) for name in ("drum3", "mitchell")]


@pytest.fixture(scope="module")
def model():
    return towers()


@pytest.fixture(scope="module")
def noisy(model):
    return ax.convert(model, HARDWARE, X)


def codes(layer):
    return np.array(layer.hardware.weight_codes(layer.kernel, (0,)).codes)


def test_labels_are_names_where_these_tell_layers_apart_and_paths_where_not(model):
    assert list(labels(model).values()) == ["left/proj", "right/proj", "both", "proj"]
    assert list(labels(tower("left")).values()) == ["proj"]
    inputs = keras.Input(
        (6,)
    )  # a layer that bears a sub-model's name: "left/proj" must be no product of a layer "left"
    inner = keras.Model(inputs, keras.layers.Dense(4, name="left")(inputs), name="inner")
    beside = keras.Model(inputs, inner(inputs) + tower("left")(inputs))
    assert "inner/left" in labels(beside).values() and "left" not in labels(beside).values()


def test_a_shared_sub_model_is_met_once():
    shared, inputs = tower("shared"), [keras.Input((6,)), keras.Input((6,))]
    model = keras.Model(inputs, keras.layers.Add(name="sum")([shared(one) for one in inputs]))
    assert list(labels(model).values()) == ["proj", "sum"]


def test_two_layers_of_one_name_in_the_same_model_are_refused():
    inputs = keras.Input((6,))
    first, second = keras.layers.Dense(4, name="first"), keras.layers.Dense(4, name="second")
    model = keras.Model(inputs, second(first(inputs)))
    second.name = "first"
    with pytest.raises(ValueError, match="two layers named 'first'"):
        ax.convert(model, HARDWARE, X)


def test_patterns_take_names_at_every_depth_or_paths(model):
    left, right, head = products(model)
    assert matching(model, "proj") == [left, right, head] == named(model, ["pro*"])
    assert matching(model, "left/proj") == [left] == matching(model, "left/*")
    assert matching(model, "/proj") == [head]
    assert matching(model, "left") == []
    assert [matching(model, exact_patterns(model)[id(one)]) for one in (left, right, head)] == [[left], [right], [head]]
    with pytest.raises(ValueError, match="left/proj, right/proj, both, proj"):
        named(model, ["other"])


def test_an_export_holds_the_codes_of_each(noisy, tmp_path):
    written = ax.export(noisy, tmp_path / "out", formats=("memory",))
    assert list(written.integers) == [entry["name"] for entry in written.manifest["layers"]] == LABELS
    in_memory = read_memory(tmp_path / "out")
    assert list(in_memory) == LABELS
    for label, layer in zip(LABELS, products(noisy), strict=True):
        np.testing.assert_array_equal(written.integers[label]["codes"], codes(layer))
        np.testing.assert_array_equal(in_memory[label], codes(layer))


def test_an_export_that_lost_layers_is_not_read(noisy, tmp_path):
    ax.export(noisy, tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    for entry in manifest["layers"]:
        entry["name"] = "proj"
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="Export again"):
        ax.read_export(tmp_path / "out")


def test_the_integer_network_its_c_source_and_its_memory_hold_the_weights_of_each(model, tmp_path):
    on_hardware = ax.convert(model, ax.Hardware(quantisation=ax.Quantisation.litert()), X)
    network = ax.integer_network(on_hardware, X)
    own = {operation.name: operation.codes for operation in network.operations if hasattr(operation, "codes")}
    assert list(own) == LABELS
    write(on_hardware, network, tmp_path)
    in_memory = read_memory(tmp_path)
    source = "".join(path.read_text() for path in write_c(network, tmp_path))
    for label, layer in zip(LABELS, products(on_hardware), strict=True):
        np.testing.assert_array_equal(own[label], codes(layer))
        np.testing.assert_array_equal(in_memory[label], codes(layer))
    arrays = re.findall(r"static const \w+ (\w+)\[", source)
    assert len(set(arrays)) == len(arrays)
    assert all(any(f"_{label}_" in f"_{name}" for name in arrays) for label in ("left_proj", "right_proj"))
    addresses = {
        entry["name"]: entry["address"] for entry in json.loads((tmp_path / "weights.json").read_text())["layers"]
    }
    assert addresses == {"left/proj": 0, "right/proj": 24, "proj": 48}


def test_ranges_and_overrides_reach_what_they_name(model):
    ranges = {"proj": (-1, 1), "right/proj": (-2, 2)}
    found = ax.convert(
        model,
        HARDWARE,
        X,
        activation_ranges=ranges,
        overrides={"proj": CANDIDATES[0], "/proj": CANDIDATES[1], "both": None},
    )
    assert [float(layer.products[0].state.high.numpy()) for layer in products(found)] == [1, 2, 1]
    assert [layer.hardware.name for layer in products(found)] == ["drum3", "drum3", "mitchell"]
    alone = ax.convert(model, HARDWARE, overrides={"left/proj": None})
    assert [one.name for one in alone.conversion_report.skipped] == ["left/proj"]
    assert [type(layer).__name__ for layer in products(alone)] == ["Dense", "ApproxDense", "ApproxDense"]


def test_noise_strength_is_set_by_path(noisy):
    ax.set_noise_strength(noisy, 0.5, layers=["left/proj"])
    assert [float(layer.hardware_state.noise_strength.numpy()) for layer in products(noisy)] == [0.5, 1, 1]
    ax.set_noise_strength(noisy, 1.0)


def test_summary_energy_and_their_pictures_have_a_row_for_each(noisy):
    summary = ax.summary(noisy, console=Console(file=io.StringIO()))
    assert [layer.name for layer in summary.layers] == LABELS
    assert [layer.name for layer in summary.energy.layers] == LABELS
    bars = summary.energy.plot().axes[0]
    assert [text.get_text() for text in bars.get_yticklabels()] == LABELS


def test_codes_reach_what_they_name_and_the_optimizer_keeps_each_ones_own(model):
    code = ax.coded.CodeNet(rows=2, columns=2, errors=1)
    coded = ax.coded.convert(model, code, overrides={"right/proj": None})
    assert [type(one).__name__ for one in products(coded)] == ["CodedDense", "Dense", "CodedDense"]
    coded = ax.coded.convert(model, code)
    coded.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    coded._build_optimizer()
    slots = [coded._slots(layer.coded_kernel) for layer in products(coded)]
    assert [len(own) for own in slots] == [1, 1, 1]
    assert len({id(slot) for own in slots for slot in own}) == 3
    for layer, own in zip(products(coded), slots, strict=True):
        index = next(i for i, v in enumerate(coded.optimizer._trainable_variables) if v is layer.coded_kernel)
        assert own[0] is coded.optimizer.momentums[index]


def test_only_the_layer_at_the_input_does_without_a_gradient_of_it():
    inputs = keras.Input((6,))
    stem = keras.layers.Dense(6, name="proj")(inputs)
    coded = ax.coded.convert(keras.Model(inputs, tower("left")(stem)), ax.coded.CodeNet(rows=2, columns=2, errors=1))
    assert [layer.input_gradient for layer in products(coded)] == [False, True]


def test_keras_2_gets_the_weights_of_each(model):
    from axtrain.interop.keras2 import to_keras2
    from axtrain.interop.keras3 import to_keras3

    back = to_keras3(to_keras2(model))
    for own, other in zip(products(model), products(back), strict=True):
        np.testing.assert_array_equal(own.kernel, other.kernel)
