"""Every card of the catalogue: it loads, comes back from JSON, says where it comes from, and runs a model."""

import json
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import keras
import numpy as np
import pytest

import axtrain as ax
from axtrain.catalogue import Card, card, get, names

CARDS = Path(ax.__file__).parent / "cards"
RATES = {1.213e-2, 3.977e-3, 1.214e-3, 1.552e-4, 1.262e-4, 4.07e-5, 1.31e-5}  # theory page, section 5
every_card = pytest.mark.parametrize("name", names())


def test_names_are_the_files_sorted():
    assert names() == tuple(sorted(path.stem for path in CARDS.glob("*.json")))
    assert len(names()) >= 18
    assert ax.catalogue.names is names


@every_card
def test_a_card_says_what_it_is(name):
    found = card(name)
    assert found.name == name
    assert found.sources or found.illustrative
    assert found.illustrative == ("illustrative" in found.title)
    assert len(found.title) < 60
    assert "energy" not in found.parts  # no invented figures


@every_card
def test_a_card_comes_back_from_json(name, tmp_path):
    described = json.loads((CARDS / f"{name}.json").read_text())
    found = Card.from_dict(described)
    assert found.to_dict() == described
    assert Card.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert hash(found) == hash(card(name))
    hardware = get(name)
    assert hardware.name == found.title
    hardware.to_json(tmp_path / "hardware.json")
    assert ax.Hardware.from_json(tmp_path / "hardware.json") == hardware


@every_card
def test_the_parts_are_whole(name):
    """A memory's or datapath's dictionary is all of `to_dict`, so that no later default changes what a card says."""
    hardware, parts = get(name).to_dict(), card(name).parts
    for part in ("weight_memory", "activation_memory", "bias_memory", "datapath"):
        assert parts.get(part) == hardware[part]


@every_card
def test_every_number_has_a_unit(name):
    def numbers(value, path):
        if isinstance(value, dict):
            return {found for key, item in value.items() for found in numbers(item, f"{path}.{key}")}
        if isinstance(value, list):
            return {found for item in value for found in numbers(item, path)}
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return {path} if number else set()

    found = {path for part, value in card(name).parts.items() for path in numbers(value, part)}
    shares = {path for path in found if path.endswith(("share_of_ones", "share_of_anti_cells"))}
    assert found - shares == set(card(name).units)


@every_card
@pytest.mark.eager
def test_a_card_converts_and_runs_a_model(name):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    x = np.random.default_rng(0).normal(size=(16, 6)).astype(np.float32)
    noisy = ax.convert(model, get(name), calibration=x)
    outputs = noisy.predict(x, verbose=0)
    assert outputs.shape == (16, 3)
    assert np.isfinite(outputs).all()
    assert ax.energy(noisy).total_pj > 0


def test_the_published_operating_points_are_those_of_the_theory_page():
    found = [get(name) for name in names() if name.startswith("neuralfuse")]
    assert {hardware.weight_memory.rate for hardware in found} == RATES
    assert {hardware.weight_memory.fault for hardware in found} == {"stuck"}
    assert {hardware.weight_memory.voltage for hardware in found} == {None}
    for name in names():
        if name.startswith("neuralfuse"):
            written = float(name.removeprefix("neuralfuse_ber_").replace("p", "."))
            assert get(name).weight_memory.rate == pytest.approx(written, rel=0.04)
            assert "2306.16869" in card(name).sources[0]


def test_illustrative_cards_are_the_illustrative_models():
    for voltage in (0.50, 0.56, 0.60):
        hardware = get(f"near_threshold_sram_{voltage:.2f}v".replace(".", "p"))
        assert hardware.weight_memory == ax.memories.NearThresholdSRAM(voltage=voltage)
    assert get("near_threshold_sram_secded_0p50v").weight_memory.protection == ax.memories.SECDED()
    assert get("near_threshold_sram_robust_bits_0p50v").weight_memory.protection == ax.memories.RobustBits(count=3)
    for interval, name in ((1.0, "approximate_dram_1s"), (10.0, "approximate_dram_10s")):
        assert get(name).weight_memory == ax.memories.ApproximateDRAM(refresh_interval_s=interval)
    assert get("near_threshold_datapath_0p75v").datapath == ax.datapaths.TimingErrors.at_voltage(0.75)


@pytest.mark.parametrize("name", ["drum4", "mitchell"])
def test_multipliers_have_no_invented_power(name):
    assert get(name).multiplier == ax.multipliers.get(name)
    assert get(name).multiplier.power is None
    assert not get(name).has_faults


def test_the_exact_machine_is_exact():
    hardware = get("exact_8bit")
    assert not hardware.has_faults
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5)])
    assert ax.energy(model, hardware).saving == 0


def test_the_secded_card_s_figure():
    """Of 72 cells at this rate two or more are faulty in 18 of 100 groups."""
    rate = get("near_threshold_sram_secded_0p50v").weight_memory.rate
    two_or_more = 1 - (1 - rate) ** 72 - 72 * rate * (1 - rate) ** 71
    assert round(100 * two_or_more) == 18
    assert "18 of 100" in card("near_threshold_sram_secded_0p50v").valid


def test_an_unknown_name_is_told_its_neighbours():
    with pytest.raises(ValueError, match=r"Did you mean 'drum4'\?.*Received: name='drum5'"):
        get("drum5")
    with pytest.raises(ValueError, match=r"No hardware of this name.*names\(\).*Received: name='\?'"):
        card("?")


@pytest.mark.parametrize("short", ["drum4", {"name": "drum4"}, {"name": "drum4", "bits": 6, "signed": True}])
def test_the_short_form_of_a_multiplier(short):
    described = replace(card("drum4"), parts={"multiplier": short, "quantisation": {"weight_bits": 4}})
    wanted = {} if isinstance(short, str) else {key: value for key, value in short.items() if key != "name"}
    assert described.hardware.multiplier == ax.multipliers.get("drum4", **wanted)
    assert described.hardware.quantisation == ax.Quantisation(weight_bits=4)


def test_bad_cards():
    good = card("drum4")
    for change, said in (
        ({"sources": ()}, "needs `sources`, or illustrative=true"),
        ({"illustrative": True}, "Say what is illustrative"),
        ({"parts": {"cache": 1}}, r"Received: \['cache'\]"),
        ({"title": ""}, "`title` of a card must be a text"),
        ({"units": None}, "`units` of a card must be a dict"),
    ):
        with pytest.raises(ValueError, match=said):
            replace(good, **change)
    for described in ({**good.to_dict(), "note": ""}, {"name": "x"}, []):
        with pytest.raises(ValueError, match="A card has just the entries"):
            Card.from_dict(described)
    assert {item.name for item in fields(Card)} - {"parts"} == set(good.to_dict()) - {"hardware"}


def test_the_catalogue_is_light():
    code = (
        "import sys, axtrain\n"
        "print(axtrain.catalogue.get('mitchell').multiplier.name)\n"
        "print(sorted({'tensorflow', 'keras', 'mlflow', 'scipy'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["mitchell", "[]"], done.stderr
