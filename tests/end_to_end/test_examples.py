"""Every example, in its short form and a new process: it ends well and prints its figures."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SHARE = r"([01]\.\d+)"  # an accuracy
RESNET8 = (rf"^(?:float|exact, 8 bits|\S+) +{SHARE}(?: +{SHARE})? *$", 4)
# What an example's figures look like, and how many such lines there are at least.
FIGURES = {
    "01_quickstart.py": (rf"^(?:before|after): +accuracy {SHARE} \+- {SHARE} over \d+ chips", 2),
    "02_resnet8_cifar10.py": RESNET8,
    "03_voltage_curve.py": (rf"^0\.\d+ V, rate \S+: accuracy {SHARE}", 2),
    "04_voltage_sweep.py": (rf"^float: accuracy {SHARE}; required on the memory: {SHARE}", 1),
    "05_hardware_for_each_layer.py": (rf"^test images: exact multipliers {SHARE}, chosen ones {SHARE}$", 1),
    "06_active_search.py": (rf"^0 {{5,}}{SHARE}" + 5 * rf" +{SHARE}" + "$", 1),
    "07_one_known_chip.py": (rf"^(?:neither|this chip|chips in general) +{SHARE} +{SHARE} +{SHARE}$", 3),
    "08_datapath_traces.py": (rf"^(?:float|on the datapath|trained for it): +accuracy {SHARE}", 3),
    "09_pruned_and_clustered.py": (rf"^.{{34}} *[\d.]+ +\d+ +{SHARE} +{SHARE}$", 3),
    "10_deployed.py": (rf"^after it: {SHARE} in Keras, {SHARE} in C, 0 codes of [1-9]", 1),
}


def printed(name, folder, *options):
    environment = {**os.environ, "MPLBACKEND": "Agg", "MLFLOW_DISABLE_TELEMETRY": "true", "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment.pop("AXTRAIN_DATA", None)
    command = [sys.executable, EXAMPLES / name, "--smoke", *options]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def check(name, text):
    pattern, least = FIGURES[name]
    found = re.findall(pattern, text, flags=re.MULTILINE)
    assert len(found) >= least, text
    for figures in found:
        shares = [float(share) for share in (figures if isinstance(figures, tuple) else (figures,)) if share]
        assert shares and all(0 <= share <= 1 for share in shares), text


def test_every_example_is_among_them():
    assert {path.name for path in EXAMPLES.glob("[0-9]*.py")} == set(FIGURES)


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_an_example_prints_its_figures(name, tmp_path):
    if name == "10_deployed.py":
        pytest.importorskip("ai_edge_litert", reason="needs the extra `litert`")
        pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")
    check(name, printed(name, tmp_path))


@pytest.mark.slow
def test_resnet8_on_real_pictures(shared, tmp_path):
    check("02_resnet8_cifar10.py", printed("02_resnet8_cifar10.py", tmp_path, "--data", shared))
