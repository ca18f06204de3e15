"""What a user installs: wheel and source distribution, built, looked into, and used from outside the checkout."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
BUILD = "from setuptools import build_meta; import sys; print(getattr(build_meta, 'build_' + sys.argv[1])(sys.argv[2]))"


def run(*command, **options):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


def built(kind, source, folder):
    """Builds what pip would build, with the setuptools at hand."""
    folder.mkdir(exist_ok=True)
    return folder / run(sys.executable, "-c", BUILD, kind, folder, cwd=source).splitlines()[-1]


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """(wheel, sdist) of a copy of the checkout, so that no build folder is left in it."""
    version = metadata.version("setuptools")
    if int(version.split(".")[0]) < 77:
        pytest.skip(f"a build needs setuptools >= 77.0.1, which the test extra has; here is {version}")
    folder = tmp_path_factory.mktemp("built")
    generated = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__")
    source = shutil.copytree(ROOT, folder / "source", symlinks=True, ignore=generated)
    return built("wheel", source, folder / "dist"), built("sdist", source, folder / "dist")


@pytest.fixture(scope="module")
def installed(distributions, tmp_path_factory):
    """A bare virtual environment with the wheel in it and nothing else: its site-packages."""
    place = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", "--without-pip", place / "venv")
    [site] = (place / "venv").glob("lib/python*/site-packages")
    run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", site, distributions[0])
    return site


def sources():
    """Every module of the three floors, by its path in the package."""
    for folder, place in (("axtrain", ""), ("noise_models", "noise_models/"), ("training", "training/")):
        for path in (ROOT / folder).rglob("*.py*"):
            inner = path.relative_to(ROOT / folder)
            linked = folder == "axtrain" and inner.parts[0] in ("noise_models", "training")
            if path.suffix in (".py", ".pyi") and not linked:
                yield f"axtrain/{place}{inner.as_posix()}"


def test_the_wheel_holds_the_package_once_and_nothing_else(distributions):
    names = zipfile.ZipFile(distributions[0]).namelist()
    assert len(names) == len(set(names))
    own = {name for name in names if not name.split("/")[0].endswith(".dist-info")}
    cards = {f"axtrain/cards/{path.name}" for path in (ROOT / "axtrain" / "cards").glob("*.json")}
    assert len(cards) > 10
    page = {f"axtrain/training/report/{name}" for name in ("page.css", "page.html.jinja")}
    assert own == {*sources(), "axtrain/py.typed", *cards, *page}
    assert [name for name in names if name.endswith("licenses/LICENSE")]
    [about] = [name for name in names if name.endswith("METADATA")]
    text = zipfile.ZipFile(distributions[0]).read(about).decode()
    assert "License-Expression: Apache-2.0" in text and "Requires-Python: <3.14,>=3.10" in text


def test_the_source_distribution_builds_the_same_wheel(distributions, tmp_path):
    with tarfile.open(distributions[1]) as archive:
        assert not [name for name in archive.getnames() if Path(name).is_absolute() or ".." in Path(name).parts]
        archive.extractall(tmp_path)  # our own, just built
    [source] = tmp_path.iterdir()
    assert (source / "LICENSE").is_file() and (source / "README.md").is_file()
    again = built("wheel", source, tmp_path / "dist")
    assert set(zipfile.ZipFile(again).namelist()) == set(zipfile.ZipFile(distributions[0]).namelist())


FIRST_STEPS = """
import sys, pathlib
import axtrain as ax
assert pathlib.Path(ax.__file__).is_relative_to(sys.argv[1]), ax.__file__
for name in ax.__all__:
    getattr(ax, name)
import keras, numpy as np
rng = np.random.default_rng(0)
x, y = rng.normal(size=(64, 8)).astype("float32"), rng.integers(0, 3, 64)
model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
hardware = ax.Hardware(multiplier=ax.multipliers.get("drum4"), weight_memory=ax.memories.BitErrors(rate=0.01))
noisy = ax.convert(model, hardware, x)
noisy.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
noisy.fit(x, y, verbose=0)
noisy.save("noisy.keras")
outputs = noisy.predict(x, verbose=0)
assert np.isfinite(outputs).all()
ax.set_chip(noisy, 3)
assert ax.load_model("noisy.keras").get_layer(index=0).hardware == hardware
print("fine")
"""


def test_it_works_from_anywhere(installed, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(installed), "TF_CPP_MIN_LOG_LEVEL": "3"}
    options = {"cwd": tmp_path, "env": environment}
    assert run(sys.executable, "-c", FIRST_STEPS, installed, **options).endswith("fine\n")
    assert "drum4" in run(sys.executable, installed / "bin" / "axtrain", "multipliers", "list", **options)
    assert "drum4" in run(sys.executable, "-m", "axtrain", "multipliers", "list", **options)


TYPED = """
import keras
import numpy as np
import axtrain as ax
from axtrain.training.evaluation import Evaluation

hardware: ax.Hardware = ax.Hardware(
    multiplier=ax.multipliers.get("drum4"), weight_memory=ax.memories.NearThresholdSRAM(voltage=0.56)
)
model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
noisy = ax.convert(model, hardware, np.ones((4, 8), np.float32), overrides={"dense": None})
active = ax.with_sensitivity(noisy, ax.OutputSensitivity(strength=1e-3, layers=("dense",)))
result: Evaluation = ax.evaluate(active, np.ones((4, 8)), np.zeros(4), chips=3)
mean: float = result.mean
error: float = ax.multipliers.get("drum4").metrics().mre
flips: float = ax.datapaths.DroppedMACs(rate=0.1).rate
schedule = ax.callbacks.NoiseSchedule(4)
hardware.to_json("hardware.json")
"""
MISTAKES = {
    'ax.Hardware(multiplier="drum4")': "arg-type",
    "ax.Hardware(voltage=0.5)": "call-arg",
    'ax.OutputSensitivity("strong")': "arg-type",
    "ax.multiplier": "attr-defined",
    "ax.evaluate(active, 1, 2).median": "attr-defined",
}


def test_type_checkers_read_the_installed_types(installed, tmp_path):
    """A user's script passes, and each of its mistakes is found: the public names are not all `Any`."""
    pytest.importorskip("mypy", reason="mypy, which the dev extra has, is absent")
    interpreter = installed.parents[2] / "bin" / "python"
    command = (sys.executable, "-m", "mypy", "--python-executable", interpreter, "--ignore-missing-imports")
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}
    options = {"cwd": tmp_path, "env": environment}
    (tmp_path / "user.py").write_text(TYPED)
    assert "Success" in run(*command, "--strict", "--implicit-reexport", "user.py", **options)
    (tmp_path / "user.py").write_text(TYPED + "\n".join(MISTAKES))
    done = subprocess.run([str(part) for part in (*command, "user.py")], capture_output=True, text=True, **options)
    found = [line.rsplit("[", 1)[-1].rstrip("]") for line in done.stdout.splitlines() if ": error:" in line]
    assert found == list(MISTAKES.values()), done.stdout
    # As in pyproject.toml: for 3.10 mypy takes a starred tuple in brackets, a[(0, *b)], for syntax of 3.11.
    run(*command, "--python-version", "3.11", "-p", "axtrain", **options)
