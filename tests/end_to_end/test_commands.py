"""The commands that search, sweep, verify and import, and what they share: a TOML file, Ctrl-C, JSON."""

import inspect
import json
import os
import signal

import fresh
import keras
import numpy as np
import pytest
from shell import axtrain, fine, refused

import axtrain as ax
from axtrain.controls import hardware_layers
from axtrain.training.data_files import load_split
from axtrain.training.sweep.results import Sweep
from axtrain.training.training_state import TrainingState, place_of

DATA = ("--data", "data.npz", "--scale", 255)


# multipliers and hardware


@pytest.mark.parametrize("suffix", [".npy", ".csv"])
def test_an_imported_table_is_hardware_for_the_other_commands(files, suffix):
    table = ax.multipliers.get("truncated5")
    table.save(f"mine{suffix}")
    facts = ("--name", "my_circuit", "--power", 0.4, "--source", "our lab")
    assert "Wrote new/mine.json" in fine("multipliers", "import", f"mine{suffix}", "new/mine.json", *facts)
    found = ax.Hardware.from_json("new/mine.json").multiplier
    np.testing.assert_array_equal(found.table, table.table)
    assert (found.name, found.power, found.source) == ("my_circuit", 0.4, "our lab")
    fine("evaluate", "model.keras", *DATA, "--hardware", "new/mine.json", "--chips", 1)
    fine("multipliers", "import", f"mine{suffix}", "again.npz")
    assert ax.Multiplier.load("again.npz", signed=False).metrics() == table.metrics()


def test_a_table_in_another_convention_is_imported_by_those_who_insist(files):
    np.save("words.npy", ax.multipliers.get("exact", signed=True).table & 0xFFFF)
    assert "table.astype(np.int16)" in refused("multipliers", "import", "words.npy", "words.json", "--signed")
    fine("multipliers", "import", "words.npy", "words.json", "--signed", "--no-check")
    assert ax.Hardware.from_json("words.json").multiplier.table.max() > 32767


def test_multipliers_for_machines_and_as_a_picture(files):
    listed = json.loads(fine("multipliers", "list", "--json", "--bits", 4))
    assert {entry["name"] for entry in listed} >= {"exact", "mitchell", "drum3"}
    (one,) = json.loads(fine("multipliers", "show", "drum4", "--json", "--plot", "pictures/drum4.png"))
    metrics = ax.multipliers.get("drum4").metrics()
    assert (one["mae"], one["wce"], one["nmed"]) == (metrics.mae, metrics.wce, metrics.nmed)
    assert (files / "pictures" / "drum4.png").read_bytes().startswith(b"\x89PNG")


def test_hardware_from_a_testers_counts(files):
    voltages = np.array([0.45, 0.5, 0.55, 0.6])
    failures = [50_000, 6_000, 450, 20]
    rows = "".join(f"{voltage},{count},1000000\n" for voltage, count in zip(voltages, failures, strict=True))
    (files / "chip.csv").write_text("voltage,failures,cells\n" + rows)
    text = fine("hardware", "fit", "chip.csv", "chip.json", "--voltage", 0.5, "--plot", "chip.png")
    memory = ax.Hardware.from_json("chip.json").weight_memory
    expected = ax.fit_curve(ax.Readings.from_csv("chip.csv")).curve(0.5)
    assert memory.rate == pytest.approx(expected, rel=1e-9)
    assert f"{memory.rate:.3g} of the bits fail" in text
    assert (files / "chip.png").stat().st_size > 1000
    assert "voltage" in refused("hardware", "fit", "data.npz", "x.json", "--voltage", 0.5).lower()


# summary, sweep, search


def test_summary_of_a_file(files):
    text = fine("summary", "model.keras", "--hardware", "hardware.json", *DATA)
    assert "hidden" in text and "drum4" in text
    fine("summary", "noisy.keras")


def test_a_sweep_goes_on_where_it_was(files, monkeypatch):
    command = ("sweep", "noisy.keras", *DATA, "--rates", "0.001,0.02", "--chips", 3, "--out", "swept")
    text = fine(*command)
    figures = json.loads((files / "swept" / "sweep.json").read_text())
    x, y = load_split("data.npz", "test", 255)
    expected = ax.sweep(ax.load_model("noisy.keras"), x, y, rates=[0.001, 0.02], chips=3, verbose=False)
    assert figures == json.loads(json.dumps(expected.to_dict()))
    assert expected.table().splitlines()[0] in text
    assert (files / "swept" / "sweep.png").exists() and (files / "swept" / "sweep.csv").exists()

    def fails(*arguments, **options):
        raise AssertionError("measured again")

    monkeypatch.setattr(keras.Model, "predict", fails)
    fine(*command)


def test_a_sweep_finds_the_lowest_voltage(files):
    sram = ax.Hardware(weight_memory=ax.memories.NearThresholdSRAM(voltage=0.6))
    sram.to_json("sram.json")
    command = ("sweep", "model.keras", *DATA, "--hardware", "sram.json", "--voltages", "0.45,0.9", "--chips", 2)
    *_, said = fine(*command, "--accuracy", 0.5).splitlines()
    points = Sweep.from_dict(json.loads((files / "axtrain_sweep" / "sweep.json").read_text())).points
    (point,) = [point for point in points if f": {point.voltage:g} V (error rate {point.rate:.3g}): " in said]
    assert said.startswith("lowest voltage for an accuracy of 0.5: ")
    assert f": {point.evaluation}; {point.energy_pj / 1e3:.4g} nJ per inference" in said
    assert "judged by the mean; without faults it is " in said
    assert "judged by 50 % of the chips" in fine(*command, "--accuracy", 0.5, "--yield", 0.5)
    assert "No safe voltage found" in refused(*command, "--voltages", 0.45, "--accuracy", 1, "--worst")
    kept = Sweep.from_dict(json.loads((files / "axtrain_sweep" / "sweep.json").read_text()))
    assert (kept.requirement.worst, kept.operating_point) == (True, None)
    assert "--worst" in json.loads((files / "axtrain_sweep" / "command.json").read_text())["command"]
    assert "give one" in refused(*command, "--confident")
    rates = ("sweep", "noisy.keras", *DATA, "--rates", "0.0001", "--chips", 1, "--out", "rates", "--accuracy", 0.5)
    said = fine(*rates)
    assert "highest error rate for an accuracy of 0.5: error rate 0.0001: accuracy " in said
    assert "it is the highest that was swept, higher ones were not measured" in said
    assert "numbers with commas" in axtrain(*command[:-4], "--voltages", "low").stderr
    assert "Received" in refused("sweep", "noisy.keras", *DATA, "--chips", 2)  # neither voltages nor rates


def test_a_search_writes_the_chosen_model(files):
    for name in ("exact", "broken_array_2_4"):
        ax.Hardware(multiplier=ax.multipliers.get(name), name=name).to_json(f"{name}.json")
    candidates = ("--candidate", "exact.json", "--candidate", "broken_array_2_4.json")
    options = ("--budget", 1.0, "--confirm", 2, "--chips", 1, "--out", "found")
    fine("search", "model.keras", *DATA, *candidates, *options)
    chosen = ax.load_model("found/model.keras")
    assert {layer.hardware.multiplier.name for layer in hardware_layers(chosen)} == {"broken_array_2_4"}
    assert json.loads((files / "found" / "search.json").read_text())["budget"] == 1.0
    assert (files / "found" / "search.png").exists()


def test_a_run_is_kept_and_shown(files):
    """Every command leaves what `report` reads, and what it was asked."""
    options = ("--epochs", 2, "--anneal", 2, "--json", "run/training.json")
    fine("train", "noisy.keras", "run/after.keras", *DATA, *options)
    fine("evaluate", "run/after.keras", *DATA, "--chips", 2, "--json", "run/after.json")
    fine("sweep", "run/after.keras", *DATA, "--rates", "0.001,0.02", "--chips", 2, "--out", "run/swept")
    kept = json.loads((files / "run" / "training.json").read_text())
    assert kept["trainings"]["after"]["noise_strength"] == [0.5, 1.0]
    assert len(kept["trainings"]["after"]["loss"]) == 2
    asked = "axtrain train noisy.keras run/after.keras --data data.npz --epochs 2 --anneal 2 --scale 255.0"
    assert kept["command"]["command"].endswith(f"{asked.removeprefix('axtrain ')} --json run/training.json")
    asked = json.loads((files / "run" / "swept" / "command.json").read_text())
    assert "sweep run/after.keras --data data.npz --rates 0.001,0.02 --out run/swept" in asked["command"]
    assert asked["settings"]["seed"] == "0"  # also what was left as it is
    assert asked["versions"]["axtrain"] == ax.__version__
    fine("report", "run", "--out", "page.html")
    page = (files / "page.html").read_text()
    measured = json.loads((files / "run" / "after.json").read_text())
    mean = 100 * measured["mean"]
    for expected in (f"{mean:.2f}<small> %", "after: mean of 2 chips", "2.0e-02", "noisy.keras", "Sweep of the error"):
        assert expected in page


# a training that is killed


def stops(name, steps):
    """What a callback does when a step begins: sends this process a signal, at the one that is given."""
    left = [steps]

    def step(callback, batch, logs=None):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), getattr(signal, name))

    return step


STOPPED = f"""
import os, signal, sys
from axtrain.training.command_line import main
from axtrain.training.training_state import TrainingState
{inspect.getsource(stops)}
TrainingState.on_train_batch_begin = stops("SIGKILL", int(sys.argv[1]))
main(sys.argv[2:])
"""


@pytest.fixture
def ctrl_c():
    """As in a terminal: test processes that others started ignore it, and then it stays ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.slow  # test_axtrainer.py kills one
def test_a_killed_training_ends_with_the_same_weights(files, monkeypatch):
    """By SIGKILL in the second epoch, then by Ctrl-C in the third; 7 steps each, the last of 4 samples."""
    options = ("--hardware", "hardware.json", *DATA, "--batch-size", 16, "--anneal", 3)
    fine("train", "model.keras", "whole.keras", *options, "--epochs", 4, "--json", "whole.json")
    checkpoint = ("--checkpoint", "kept", "--save-every", 3, "--json", "again.json", "--epochs")
    command = [str(part) for part in ("train", "model.keras", "again.keras", *options, *checkpoint)]

    killed = fresh.run(STOPPED, "12", *command, "3")
    place = place_of(files / "kept" / "training.npz")
    assert (killed.returncode, place["epoch"], place["step"]) == (-signal.SIGKILL, 1, 3), killed.stderr

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(TrainingState, "on_train_batch_begin", stops("SIGINT", 4 + 5), raising=False)
    interrupted = axtrain(*command, 4)  # more epochs than before
    place = place_of(files / "kept" / "training.npz")
    assert (interrupted.exit_code, place["epoch"], place["step"]) == (130, 2, 5)  # the step is done to its end
    assert "Interrupted" in interrupted.stderr and "Traceback" not in interrupted.output
    assert signal.getsignal(signal.SIGINT) is before
    assert not (files / "again.keras").exists()

    assert "a different data" in refused(*command, 4, "--scale", 100)
    assert "longer training" in refused(*command, 1)
    fine(*command, 4)
    for one, other in zip(*(ax.load_model(f"{name}.keras").weights for name in ("whole", "again")), strict=True):
        np.testing.assert_array_equal(one, other)
    whole, again = (json.loads((files / f"{name}.json").read_text())["trainings"][name] for name in ("whole", "again"))
    assert whole.keys() == again.keys()
    for name, figures in whole.items():
        assert figures == pytest.approx(again[name], rel=1e-5)
    assert "--checkpoint" in refused("train", "model.keras", "other.keras", *options, "--save-every", 3)


# export and verify


def test_verify_says_whether_files_and_accuracy_are_as_exported(files):
    fine("export", "noisy.keras", "deploy", *DATA, "--chips", 3)
    assert "files are as they were exported" in fine("verify", "deploy")
    assert "each chip as exported" in fine("verify", "deploy", *DATA)
    assert "scale the same" in refused("verify", "deploy", "--data", "data.npz", "--scale", 90)
    with (files / "deploy" / "integers.npz").open("ab") as file:
        file.write(b"more")
    assert "sha256 differs" in refused("verify", "deploy")


def test_verify_an_export_that_states_no_accuracy(files):
    fine("export", "noisy.keras", "deploy")
    assert "states no accuracy" in fine("verify", "deploy", *DATA)


# what all of them share


def test_options_from_a_file(files):
    (files / "axtrain.toml").write_text(
        '[evaluate]\ndata = "data.npz"\nscale = 255\nchips = 4\njson = "a.json"\n[hardware.list]\njson = true\n'
    )
    fine("--config", "axtrain.toml", "evaluate", "noisy.keras")
    assert len(json.loads((files / "a.json").read_text())["accuracies"]) == 4
    fine("--config", "axtrain.toml", "evaluate", "noisy.keras", "--chips", 2)
    assert len(json.loads((files / "a.json").read_text())["accuracies"]) == 2
    assert json.loads(fine("--config", "axtrain.toml", "hardware", "list"))


@pytest.mark.parametrize(
    "text, said",
    [
        ("[evaluate]\nchip = 3\n", "'chip'"),
        ("[evalute]\nchips = 3\n", "'evalute'"),
        ("chips = 3\n", "'chips'"),
        ("[evaluate\n", "cannot be read as a TOML file"),
    ],
)
def test_a_key_that_means_nothing_is_an_error(files, text, said):
    (files / "bad.toml").write_text(text)
    result = axtrain("--config", "bad.toml", "evaluate", "noisy.keras", *DATA)
    assert result.exit_code == 2
    assert said in result.stderr and "bad.toml" in result.stderr


def test_ctrl_c_says_what_is_kept(files, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(keras.Model, "predict", interrupted)
    result = axtrain("evaluate", "noisy.keras", *DATA)
    assert result.exit_code == 130
    assert "Interrupted" in result.stderr and "Traceback" not in result.output


def test_no_command_replaces_an_input_or_what_another_wrote(files):
    """The model beside which results are written, a picture of one's own, and files named twice by mistake."""
    kept = {path: path.read_bytes() for path in files.rglob("*") if path.is_file()}
    (files / "sweep.png").write_bytes(b"a picture of my own")
    search = ("search", "model.keras", *DATA, "--candidate", "exact_8bit", "--chips", 2)
    assert "Not overwriting an input" in refused(*search, "--out", ".")
    sweep = ("sweep", "noisy.keras", *DATA, "--rates", "0.001", "--chips", 1)
    assert "choose another --out" in refused(*sweep, "--out", ".")
    assert (files / "sweep.png").read_bytes() == b"a picture of my own"
    train = ("train", "noisy.keras", "noisy.keras", *DATA, "--epochs", 1)
    for command in (train, ("evaluate", "noisy.keras", *DATA, "--json", "data.npz")):
        assert "Not overwriting an input; give another name" in refused(*command)
    fine(*sweep, "--out", "swept")
    fine(*sweep, "--out", "swept")  # its own files
    record = json.loads((files / "swept" / "command.json").read_text())
    assert record.pop("files") == ["command.json", "sweep.csv", "sweep.json", "sweep.png"]
    (files / "swept" / "command.json").write_text(json.dumps(record))
    fine(*sweep, "--out", "swept")  # and those of an earlier version, whose records list nothing
    assert "neither" not in refused("sweep", "noisy.keras", *DATA, "--out", "nothing")
    assert not (files / "nothing").exists()
    fine("export", "noisy.keras", "deploy")
    within = refused("export", "deploy/model.keras", "deploy", "--overwrite")
    assert "would replace a file that it reads" in within
    (files / "deploy" / "notes.txt").write_text("mine")
    assert "1 in the folder are none of them: notes.txt" in fine("verify", "deploy")
    assert "move them away" in refused("export", "noisy.keras", "deploy", "--overwrite")
    assert {path: path.read_bytes() for path in kept} == kept
