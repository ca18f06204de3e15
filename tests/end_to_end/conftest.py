"""Files to work on, and a store of one's own."""

import shutil

import keras
import mlflow
import numpy as np
import pytest

import axtrain as ax


@pytest.fixture(scope="session")
def _files(tmp_path_factory):
    """model.keras, noisy.keras, hardware.json and data.npz, made once."""
    folder = tmp_path_factory.mktemp("files")
    keras.utils.set_random_seed(2)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(12, activation="relu", name="hidden"),
            layers.Dense(3, activation="softmax", name="classes"),
        ]
    )
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (180, 6)).astype("uint8")
    y = np.asarray(model(x.astype("float32") / 255)).argmax(-1)
    np.savez(folder / "data.npz", x_train=x[:100], y_train=y[:100], x_test=x[100:], y_test=y[100:, None])
    hardware = ax.Hardware(
        multiplier=ax.multipliers.get("drum4"),
        weight_memory=ax.memories.BitErrors(rate=0.02, fault="persistent"),
    )
    hardware.to_json(folder / "hardware.json")
    model.save(folder / "model.keras")
    ax.convert(model, hardware, calibration=x[:100].astype("float32") / 255).save(folder / "noisy.keras")
    return folder


@pytest.fixture
def files(_files, tmp_path, monkeypatch):
    """The four files in a working folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(_files, tmp_path, dirs_exist_ok=True)


@pytest.fixture
def store(tmp_path, monkeypatch, make_store):
    """MLflow's store in tmp_path."""
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(make_store(tmp_path / "mlflow.db"))
    monkeypatch.setattr(mlflow.tracking.fluent, "_active_experiment_id", None)
    yield
    while mlflow.active_run() is not None:
        mlflow.end_run()
    mlflow.set_tracking_uri(before)
