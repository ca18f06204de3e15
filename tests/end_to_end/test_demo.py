"""`axtrain demo`: the job of the README, in a new process and an empty folder, and (slow) at full length."""

import json
import os
import re
import subprocess
import sys

import fresh
import mlflow
import numpy as np
import pytest

import axtrain as ax

# MLflow's own, once per process, while `mlflow.pyfunc` is imported:
pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """What `python -m axtrain demo --smoke` said and left behind: (finished process, its folder)."""
    folder, home = tmp_path_factory.mktemp("work"), tmp_path_factory.mktemp("home")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("TF_", "MLFLOW_"))}
    environment = {**kept, "HOME": str(home), "COLUMNS": "80", "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [sys.executable, "-m", "axtrain", "demo", "--smoke"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True), folder


@pytest.fixture
def store(smoke):
    """The MLflow store that the demo chose, and its one run."""
    before = mlflow.get_tracking_uri()
    database = smoke[1] / "mlflow.db"  # older MLflows chose a folder
    mlflow.set_tracking_uri(f"sqlite:///{database}" if database.is_file() else (smoke[1] / "mlruns").as_uri())
    (run,) = mlflow.search_runs(experiment_names=["axtrain demo"], output_format="list")
    yield run
    mlflow.set_tracking_uri(before)


def rows(text):
    """Cells of the table's rows."""
    cells = [
        [cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if line.startswith("│")
    ]
    return {(name, where): figures for name, where, *figures in cells}


def test_it_ends_well_and_silently(smoke):
    done, folder = smoke
    assert done.returncode == 0, done.stderr
    of_tensorflow = re.compile(r"(WARNING: All log|I0000 .* (service|device_compiler)\.)")  # 2.18 says what XLA does
    assert [line for line in done.stderr.splitlines() if not of_tensorflow.match(line)] == []
    assert {path.name for path in folder.iterdir()} - {"mlflow.db"} == {"axtrain_demo", "mlruns"}
    assert {path.name for path in (folder / "axtrain_demo").iterdir()} == {
        "export",
        "chips.png",
        "command.json",
        "figures.json",
        "hardware.json",
    }


def test_the_lines_fit_a_terminal_of_80_columns(smoke):
    done, _ = smoke
    too_long = [line for line in done.stdout.splitlines() if len(line) > 80]
    assert all(line.startswith("  runs:") for line in too_long)


def test_the_table_has_its_three_rows(smoke, store):
    figures = store.data.metrics
    table = rows(smoke[0].stdout)
    assert list(table) == [
        ("conventional", "float, no faults"),
        ("conventional", "hardware, 3 chips"),
        ("trained for it", "hardware, 3 chips"),
    ]
    assert table["conventional", "float, no faults"][0] == f"{100 * figures['clean']:.2f}"
    for key, name in (("before", "conventional"), ("after", "trained for it")):
        shown = [float(cell) for cell in table[name, "hardware, 3 chips"]]
        expected = [100 * figures[f"{key}.{what}"] for what in ("mean", "std", "worst")]
        assert shown == pytest.approx(expected, abs=0.0051)


def test_the_export_verifies_and_its_accuracy_is_the_logged_one(smoke, store):
    folder = smoke[1] / "axtrain_demo"
    written = ax.read_export(folder / "export")
    assert list(written.integers) == ["conv1", "conv2", "conv3", "classes"]
    accuracy = written.manifest["accuracy"]
    assert accuracy["mean"] == store.data.metrics["after.mean"]
    assert accuracy["worst"] == store.data.metrics["after.worst"]
    assert accuracy["mean"] == np.mean(accuracy["accuracies"])
    hardware = ax.Hardware.from_json(folder / "hardware.json")
    assert all(ax.Hardware.from_dict(entry["hardware"]) == hardware for entry in written.manifest["layers"])


def test_the_exported_model_gives_the_accuracy_again(smoke):
    """The export is proof: its model on the same chips of the same data gives the manifest's figures."""
    from axtrain.training.demo import digits

    written = ax.read_export(smoke[1] / "axtrain_demo" / "export")
    _, (x, y) = digits()
    measured = ax.evaluate(written.model(), x, y, chips=3, seed=0, verbose=False)
    assert measured.to_dict() == written.manifest["accuracy"]


def test_the_plot_is_a_png(smoke):
    assert (smoke[1] / "axtrain_demo" / "chips.png").read_bytes().startswith(PNG)


def test_the_store_has_the_run_with_both_models(smoke, store):
    assert (store.info.run_name, store.info.status) == ("demo", "FINISHED")
    assert store.info.run_id in smoke[0].stdout
    models = mlflow.search_logged_models([store.info.experiment_id], output_format="list")
    assert {model.name for model in models} == {"conventional", "resilient"}
    assert {model.source_run_id for model in models} == {store.info.run_id}
    assert store.data.params["hardware.multiplier"] == "broken_array_5_9"
    assert store.data.params["hardware.voltage"] == "0.5"
    names = {item.path for item in mlflow.MlflowClient().list_artifacts(store.info.run_id)}
    assert names >= {"hardware.json", "chips.png", "before_chips.json", "after_chips.json", "export"}
    assert f"{100 * store.data.metrics['energy_saving']:.1f} % less" in " ".join(smoke[0].stdout.split())


def test_a_folder_in_the_way_is_refused_before_anything_is_trained(tmp_path):
    (tmp_path / "out" / "export").mkdir(parents=True)
    (tmp_path / "out" / "export" / "thesis.txt").write_text("mine")
    code = "from axtrain.__main__ import main; main()"
    done = fresh.run(code, "demo", "--smoke", "--out", "out", cwd=tmp_path)
    assert done.returncode == 1
    assert "1/5" not in done.stdout
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert done.stderr.startswith("Error: Not overwriting")
    assert (tmp_path / "out" / "export" / "thesis.txt").read_text() == "mine"


@pytest.mark.slow
def test_training_for_the_hardware_makes_the_network_resilient(tmp_path, monkeypatch, capsys):
    from axtrain.training.demo import run_demo

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "")  # the demo chooses its experiment for the process
    monkeypatch.setattr(mlflow.tracking.fluent, "_active_experiment_id", None)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    try:
        result = run_demo(tmp_path / "demo", chips=20, seed=0)
    finally:
        mlflow.set_tracking_uri(before)
    n = 20
    assert len(result.before.accuracies) == len(result.after.accuracies) == n
    gain = result.after.mean - result.before.mean
    standard_error = np.sqrt((result.before.std**2 + result.after.std**2) / n)
    with capsys.disabled():
        print(json.dumps({"clean": result.clean, "before": str(result.before), "after": str(result.after)}, indent=1))
        print(f"gain {gain:.4f} = {gain / standard_error:.1f} standard errors; energy {result.saving:.3f}")
    assert gain > 5 * standard_error
    assert result.after.worst > result.before.worst
    assert result.clean > 0.95
    assert result.saving > 0.3
