"""The command line as a user meets it: in process by click's runner, where imports matter in a new one."""

import json
import os
import subprocess
import sys

import keras
import mlflow
import numpy as np
import pytest
from shell import axtrain, fine, refused

import axtrain as ax
from axtrain.controls import hardware_layers
from axtrain.training.data_files import load_split


def in_new_process(*arguments, cwd, **environment):
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("TF_", "MLFLOW_"))}
    return subprocess.run(arguments, cwd=cwd, env={**kept, **environment}, capture_output=True, text=True)


LIGHT = """
import sys
from axtrain.training.command_line import main
try:
    main(sys.argv[1:], prog_name="axtrain")
except SystemExit as ended:
    assert ended.code == 0, ended.code
heavy = {"tensorflow", "keras", "mlflow", "sklearn", "matplotlib", "pandas"} & set(sys.modules)
assert not heavy, heavy
"""


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["report", "--help"], ["multipliers", "drum4"]])
def test_light_commands_load_nothing_heavy(arguments, tmp_path):
    done = in_new_process(sys.executable, "-c", LIGHT, *arguments, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_module_help(tmp_path):
    done = in_new_process(sys.executable, "-m", "axtrain", "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: axtrain [OPTIONS] COMMAND")
    for command in ("demo", "multipliers", "evaluate", "train", "export", "report"):
        assert f"  {command} " in done.stdout


def test_version():
    assert ax.__version__ in fine("--version")


# multipliers


def test_multipliers_lists_every_family():
    text = fine("multipliers")
    for name in ax.multipliers.names():
        assert f" {name} " in text


def test_signed_multipliers_of_six_bits():
    text = fine("multipliers", "--bits", 6, "--signed")
    assert " exact " in text
    assert " drum4 " in text
    assert " drum7 " not in text  # wider than the operands


@pytest.mark.parametrize("bits", [6, 8])
def test_one_multiplier(bits):
    text = fine("multipliers", "drum4", "--bits", bits)
    (row,) = [line.split() for line in text.splitlines() if line.split()[:1] == ["drum4"]]
    metrics = ax.multipliers.get("drum4", bits=bits).metrics()
    assert float(row[1]) == pytest.approx(100 * metrics.mre, abs=0.005)
    assert float(row[2]) == pytest.approx(metrics.mae, abs=0.05)
    assert float(row[3]) == metrics.wce
    assert float(row[4]) == pytest.approx(metrics.bias, abs=0.05)
    assert float(row[5]) == pytest.approx(100 * metrics.ep, abs=0.005)
    assert float(row[6]) == pytest.approx(100 * metrics.nmed, abs=0.0005)
    assert row[7] == "-"
    assert "source: Hashemi" in text


def test_a_table_file(tmp_path):
    ax.multipliers.get("truncated4").save(tmp_path / "mine.npy")
    text = fine("multipliers", tmp_path / "mine.npy")
    (row,) = [line.split() for line in text.splitlines() if line.split()[:1] == ["mine"]]
    assert float(row[3]) == ax.multipliers.get("truncated4").metrics().wce


def test_multipliers_that_are_none(tmp_path):
    assert "Did you mean" in refused("multipliers", "drun4")
    assert "operands of 6" in refused("multipliers", "drum7", "--bits", 6)
    assert "missing.npy" in refused("multipliers", "missing.npy")
    np.save(tmp_path / "small.npy", np.zeros((4, 4), "int64"))
    assert "Received" in refused("multipliers", tmp_path / "small.npy")


# evaluate


@pytest.mark.eager
def test_evaluate_writes_what_it_prints(files):
    text = fine("evaluate", "noisy.keras", "--data", "data.npz", "--chips", 3, "--scale", 255, "--json", "out/r.json")
    report = json.loads((files / "out" / "r.json").read_text())
    x, y = load_split("data.npz", "test", 255)
    measured = ax.evaluate(ax.load_model("noisy.keras"), x, y, chips=3, verbose=False)
    assert report == measured.to_dict()
    assert str(measured) in text
    assert measured.std > 0


@pytest.mark.eager
def test_evaluate_takes_the_seed(files):
    for seed, name in ((4, "a.json"), (4, "b.json"), (5, "c.json")):
        command = (
            "evaluate",
            "noisy.keras",
            "--data",
            "data.npz",
            "--chips",
            3,
            "--scale",
            255,
            "--json",
            name,
        )
        fine(*command, "--seed", seed)
    first, again, other = (json.loads((files / f"{name}.json").read_text())["accuracies"] for name in "abc")
    assert first == again != other


@pytest.mark.eager
def test_evaluate_puts_a_plain_model_on_hardware(files):
    plain = fine("evaluate", "model.keras", "--data", "data.npz", "--scale", 255, "--chips", 2)
    assert "accuracy 1.0000, measured in float: no layer runs on hardware" in plain
    assert "chips" not in plain
    common = ("--data", "data.npz", "--scale", 255, "--chips", 2, "--json")
    fine("evaluate", "model.keras", "--hardware", "hardware.json", *common, "converted.json")
    fine("evaluate", "noisy.keras", *common, "saved.json")
    converted, saved = (json.loads((files / name).read_text()) for name in ("converted.json", "saved.json"))
    assert converted == saved
    assert converted["mean"] < 1


@pytest.mark.eager
def test_evaluate_takes_a_name_of_the_catalogue(files):
    common = ("--data", "data.npz", "--scale", 255, "--chips", 2, "--json")
    name = "near_threshold_sram_0p50v"
    fine("hardware", "show", name, "--out", "written.json")
    fine("evaluate", "model.keras", "--hardware", name, *common, "named.json")
    fine("evaluate", "model.keras", "--hardware", "written.json", *common, "file.json")
    named, file = (json.loads((files / report).read_text()) for report in ("named.json", "file.json"))
    assert named == file


@pytest.mark.eager
def test_a_file_goes_before_a_name(files):
    (files / "drum4").write_bytes((files / "hardware.json").read_bytes())
    common = ("--data", "data.npz", "--scale", 255, "--chips", 2, "--json")
    fine("evaluate", "model.keras", "--hardware", "drum4", *common, "a.json")
    fine("evaluate", "model.keras", "--hardware", "hardware.json", *common, "b.json")
    assert (files / "a.json").read_text() == (files / "b.json").read_text()


def test_hardware_that_is_neither_file_nor_name(files):
    result = axtrain("evaluate", "model.keras", "--data", "data.npz", "--hardware", "drun4")
    assert result.exit_code == 2
    assert "No file 'drun4'" in result.stderr
    assert "'drum4'" in result.stderr
    assert axtrain("train", "model.keras", "o.keras", "--data", "data.npz", "--hardware", ".").exit_code == 2


# hardware


@pytest.mark.parametrize("arguments", [["hardware", "--help"], ["hardware", "list"], ["hardware", "show", "drum4"]])
def test_the_catalogue_s_commands_load_nothing_heavy(arguments, tmp_path):
    done = in_new_process(sys.executable, "-c", LIGHT, *arguments, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_the_list_of_hardware():
    rows = {line.split()[0]: line.split() for line in fine("hardware", "list").splitlines() if line.strip()}
    listed = json.loads(fine("hardware", "list", "--json"))
    assert [entry["name"] for entry in listed] == list(ax.catalogue.names())
    for entry in listed:
        card = ax.catalogue.card(entry["name"])
        assert entry == {key: getattr(card, key) for key in ("name", "title", "description", "illustrative")}
        assert rows[card.name][-1] == ("yes" if card.illustrative else "no")


def test_hardware_in_full(tmp_path):
    name = "near_threshold_sram_secded_0p50v"
    card, text = ax.catalogue.card(name), " ".join(fine("hardware", "show", name).split())
    for said in (card.title, card.description, card.valid, *card.sources, *card.illustrative_parts, "data_bits: bits"):
        assert " ".join(said.split()) in text
    assert '"kind": "secded"' in text
    assert json.loads(fine("hardware", "show", name, "--json")) == card.to_dict()


def test_hardware_written(files):
    text = fine("hardware", "show", "mitchell", "--out", "new/mitchell.json")
    assert "Wrote new/mitchell.json" in text
    assert ax.Hardware.from_json("new/mitchell.json") == ax.catalogue.get("mitchell")
    both = fine("hardware", "show", "mitchell", "--json", "--out", "again.json")
    assert json.loads(both)["name"] == "mitchell"
    assert ax.Hardware.from_json("again.json") == ax.catalogue.get("mitchell")


def test_hardware_that_is_not_there():
    line = refused("hardware", "show", "neuralfuse_ber_1p2")
    assert "Did you mean 'neuralfuse_ber_1p2e-" in line


# train


def train(*arguments):
    return (
        "train",
        "model.keras",
        "out.keras",
        "--data",
        "data.npz",
        "--epochs",
        2,
        "--scale",
        255,
        *arguments,
    )


# MLflow's own, once per process, while `mlflow.pyfunc` is imported:
@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")
def test_train_with_anneal_and_mlflow(files, store):
    text = fine(*train("--hardware", "hardware.json", "--anneal", 2, "--mlflow", "--learning-rate", 0.01))
    assert "Wrote out.keras" in text
    trained, start = ax.load_model("out.keras"), ax.load_model("noisy.keras")
    assert not np.array_equal(trained.get_layer("hidden").kernel, start.get_layer("hidden").kernel)
    for layer in hardware_layers(trained):
        assert layer.hardware == ax.Hardware.from_json("hardware.json")
        assert float(layer.hardware_state.noise_strength) == 1
    (run,) = mlflow.search_runs(output_format="list")
    assert f"go on with --run-id {run.info.run_id}" in text
    assert run.info.status == "FINISHED"
    assert run.data.params["epochs"] == "2"
    assert run.data.params["hardware.multiplier"] == "drum4"
    assert {"loss", "accuracy"} <= set(run.data.metrics)


@pytest.mark.eager
def test_train_takes_a_name_of_the_catalogue(files):
    fine(*train("--hardware", "near_threshold_sram_0p56v"))
    for layer in hardware_layers(ax.load_model("out.keras")):
        assert layer.hardware == ax.catalogue.get("near_threshold_sram_0p56v")


@pytest.mark.eager
def test_train_again_with_the_same_seed_gives_the_same_weights(files):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        fine(
            "train",
            "noisy.keras",
            f"{name}.keras",
            "--data",
            "data.npz",
            "--epochs",
            1,
            "--scale",
            255,
            "--seed",
            seed,
        )
    first, again, other = (ax.load_model(f"{name}.keras").get_layer("hidden").kernel.numpy() for name in "abc")
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.eager
def test_what_train_wrote_can_be_measured_and_exported(files):
    fine(*train("--hardware", "hardware.json"))
    fine("evaluate", "out.keras", "--data", "data.npz", "--chips", 2, "--scale", 255)
    fine("export", "out.keras", "deploy")
    assert list(ax.read_export("deploy").integers) == ["hidden", "classes"]


def test_a_training_that_fails_is_tracked_as_failed(files, store, monkeypatch):
    class Broken(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise ValueError("stop")

    monkeypatch.setattr("axtrain.training.jobs.improving.NoiseSchedule", lambda epochs: Broken())
    result = axtrain(*train("--hardware", "hardware.json", "--mlflow", "--anneal", 2))
    # What nobody said that it received is a fault of the program, and shows where.
    assert isinstance(result.exception, ValueError) and str(result.exception) == "stop"
    assert "a fault of axtrain, not of what it was given" in result.stderr
    assert [run.info.status for run in mlflow.search_runs(output_format="list")] == ["FAILED"]
    assert not (files / "out.keras").exists()


# export


def test_export_and_overwrite(files):
    text = fine("export", "noisy.keras", "deploy")
    assert "Wrote 2 layers to" in text
    for name in ("model.keras", "integers.npz"):
        assert name in text
    written = ax.read_export(files / "deploy")
    assert [entry["name"] for entry in written.manifest["layers"]] == ["hidden", "classes"]
    assert "there already" in refused("export", "noisy.keras", "deploy")


def test_export_of_formats(files):
    pytest.importorskip("ai_edge_litert")
    exact = ax.Hardware(quantisation=ax.Quantisation.litert())
    x = np.load("data.npz")["x_train"].astype("float32") / 255
    ax.convert(ax.load_model("model.keras"), exact, x).save("exact.keras")
    options = ("--format", "litert", "--format", "saved_model", "--scale", 255)
    text = fine("export", "exact.keras", "deploy", *options, "--data", "data.npz", "--chips", 2)
    assert "model.tflite" in text
    assert "saved_model/saved_model.pb" in text
    assert "as they were exported" in fine("verify", "deploy")
    assert "calibration=x_train" in refused("export", "exact.keras", "other", *options)
    approximate = refused("export", "noisy.keras", "other", *options, "--data", "data.npz", "--chips", 2)
    assert "no multiplication but the exact one" in approximate
    assert not (files / "other").exists()
    fine("export", "noisy.keras", "deploy", "--overwrite")
    (files / "other").mkdir()
    (files / "other" / "thesis.txt").write_text("mine")
    assert "no export" in refused("export", "noisy.keras", "other", "--overwrite")
    assert (files / "other" / "thesis.txt").read_text() == "mine"


def test_export_without_hardware(files):
    assert "No layer of this model runs on hardware" in refused("export", "model.keras", "deploy")
    assert not (files / "deploy").exists()


# bad input


def test_bad_data(files):
    np.savez("missing.npz", x_test=np.zeros((3, 6)))
    (files / "text.npz").write_text("x_test")
    (files / "broken.npz").write_bytes((files / "data.npz").read_bytes()[:300])
    np.save("array.npy", np.zeros((3, 6)))
    np.savez("lengths.npz", x_test=np.zeros((3, 6)), y_test=np.zeros(4))
    np.savez("empty.npz", x_test=np.zeros((0, 6)), y_test=np.zeros(0))
    np.savez("nan.npz", x_test=np.full((2, 6), np.nan), y_test=np.zeros(2))
    np.savez("words.npz", x_test=np.array(["a", "b"]), y_test=np.zeros(2))

    line = refused("evaluate", "noisy.keras", "--data", "missing.npz")
    assert "must hold y_test. Received: x_test" in line
    for name in ("text.npz", "broken.npz", "array.npy"):
        line = refused("evaluate", "noisy.keras", "--data", name)
        assert name in line
        assert ".npz" in line
        assert "pickle" not in line
    assert "Received: 3 and 4" in refused("evaluate", "noisy.keras", "--data", "lengths.npz")
    assert "must hold samples" in refused("evaluate", "noisy.keras", "--data", "empty.npz")
    assert "must be finite. Received: 12 values" in refused("evaluate", "noisy.keras", "--data", "nan.npz")
    assert "words.npz" in refused("evaluate", "noisy.keras", "--data", "words.npz")


@pytest.mark.parametrize("scale", [0, -1, "nan", "inf"])
def test_a_scale_that_is_none(files, scale):
    assert "scale" in refused("evaluate", "noisy.keras", "--data", "data.npz", "--scale", scale)


def test_samples_of_another_shape(files):
    fits = {"x_test": np.zeros((3, 6, 1)), "y_test": np.zeros(3, int)}  # Keras drops a last axis of 1
    np.savez("deep.npz", **fits)
    fine("evaluate", "noisy.keras", "--data", "deep.npz", "--chips", 1)
    np.savez("wide.npz", x_test=np.zeros((3, 9)), y_test=np.zeros(3, int), x_train=np.zeros((3, 9)))
    assert "9" in refused("evaluate", "noisy.keras", "--data", "wide.npz")
    assert "9" in refused("evaluate", "model.keras", "--data", "wide.npz", "--hardware", "hardware.json")


def test_broken_hardware(files):
    command = ("evaluate", "model.keras", "--data", "data.npz", "--hardware")
    for name, content in (
        ("half.json", '{"format": '),
        ("list.json", "[1]"),
        ("other.json", '{"format": "x"}'),
    ):
        (files / name).write_text(content)
        assert refused(*command, name)
    assert "half.json cannot be read as a description of hardware" in refused(*command, "half.json")
    assert "Not a hardware description" in refused(*command, "other.json")
    described = json.loads((files / "hardware.json").read_text())
    described["quantisation"]["percentile"] = 3
    (files / "percentile.json").write_text(json.dumps(described))
    assert "percentile=3" in refused(*command, "percentile.json")


def test_train_without_hardware_or_with_a_wrong_suffix(files):
    assert "give --hardware FILE.json" in refused(*train())
    line = refused("train", "noisy.keras", "out.h5", "--data", "data.npz")
    assert "written as .keras" in line
    assert not list(files.glob("out*"))


def test_labels_that_do_not_fit_the_model(files):
    with np.load("data.npz") as arrays:
        np.savez("high.npz", **{**arrays, "y_train": np.full(100, 7)})
        np.savez("one_hot.npz", **{**arrays, "y_train": np.eye(3)[arrays["y_train"]]})
        np.savez("half.npz", **{**arrays, "y_train": arrays["y_train"] / 2})
        np.savez("words.npz", **{**arrays, "y_train": arrays["y_train"].astype(str)})
    for name in ("high.npz", "one_hot.npz", "half.npz", "words.npz"):
        line = refused("train", "noisy.keras", "out.keras", "--data", name, "--epochs", 1)
        assert "label" in line.lower()
    assert not (files / "out.keras").exists()


def test_a_file_that_is_no_model(files):
    (files / "text.keras").write_text("no model")
    for command in (("evaluate", "text.keras", "--data", "data.npz"), ("export", "text.keras", "deploy")):
        assert "text.keras" in refused(*command)


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "absent.keras", "--data", "absent.npz"],
        ["evaluate"],
        ["demo", "--chips", "1"],
        ["multipliers", "--bits", "11"],
        ["nonsense"],
    ],
)
def test_usage_errors_are_clicks_own(files, arguments):
    result = axtrain(*arguments)
    assert result.exit_code == 2
    assert "Error: " in result.stderr
    assert "Traceback" not in result.output
