"""What the tests of the top floor share: a small network, unreliable hardware, an MLflow store and server."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import keras
import mlflow
import numpy as np
import pytest

import axtrain as ax
from axtrain.training.evaluation import accuracy

FEATURES, CLASSES = 6, 4


@pytest.fixture
def network():
    """A float classifier of 6 features, softmax over 4 classes."""
    keras.utils.set_random_seed(5)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((FEATURES,)),
            layers.Dense(16, activation="relu", name="hidden"),
            layers.Dense(CLASSES, activation="softmax", name="classes"),
        ],
        name="small",
    )


@pytest.fixture
def data(network):
    """150 samples with the network's own predictions as labels, so that its float accuracy is 1."""
    x = np.random.default_rng(8).normal(size=(150, FEATURES)).astype("float32")
    return x, np.asarray(network(x)).argmax(axis=-1)


@pytest.fixture
def make_noisy(network, data):
    """Function of a memory (or None) to the network on it."""

    def make(memory=None, **kwargs):
        return ax.convert(network, ax.Hardware(weight_memory=memory), calibration=data[0], **kwargs)

    return make


@pytest.fixture
def noisy(make_noisy):
    """The network with 5 % of its weight bits flipped, other cells on each chip."""
    return make_noisy(ax.memories.BitErrors(rate=0.05, fault="persistent"))


@pytest.fixture(scope="session")
def _store(tmp_path_factory, make_store):
    """The URI of one SQLite store for the whole session."""
    return make_store(tmp_path_factory.mktemp("mlflow") / "mlflow.db")


@pytest.fixture
def experiment(_store, tmp_path, monkeypatch, request):
    """An MLflow experiment of the test's own, its artifacts in tmp_path; gives the experiment's id."""
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(_store)
    name = request.node.nodeid
    identifier = mlflow.create_experiment(name, artifact_location=(tmp_path / "artifacts").as_uri())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", identifier)  # set_experiment sets it too, and would leave it
    mlflow.set_experiment(experiment_id=identifier)
    yield identifier
    while mlflow.active_run() is not None:
        mlflow.end_run()
    mlflow.tracking.fluent._active_experiment_id = None
    mlflow.set_tracking_uri(None)  # or the environment would not be asked in later tests


@pytest.fixture
def counted():
    """A metric that counts its calls, and after `stop` of them raises as Ctrl-C does."""

    class Counted:
        calls, stop = 0, None

        def __call__(self, y_true, y_pred):
            if self.calls == self.stop:
                raise KeyboardInterrupt
            self.calls += 1
            return accuracy(y_true, y_pred)

    return Counted()


def unused_port():
    """A loopback port on which nothing listens."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


class Server:
    """`mlflow server` on a free loopback port, everything of it in one folder."""

    def __init__(self, folder):
        self.folder, self.port, self.process = Path(folder), unused_port(), None
        self.uri = f"http://127.0.0.1:{self.port}"

    def start(self):
        command = [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)),
            *("--backend-store-uri", f"sqlite:///{self.folder}/server.db", "--workers", "1"),
            *("--serve-artifacts", "--artifacts-destination", str(self.folder / "artifacts")),
        ]
        kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        environment = {**kept, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        for _ in range(1200):
            if self.process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                    return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError(f"The server did not start:\n{(self.folder / 'server.log').read_text()[-2000:]}")

    def kill(self):
        self.signal(signal.SIGKILL)
        self.process.wait()

    def signal(self, number):
        """To the server and its workers."""
        os.killpg(self.process.pid, number)


@pytest.fixture
def nobody():
    """URI of a tracking server that is not there."""
    return f"http://127.0.0.1:{unused_port()}"


@pytest.fixture(scope="module")
def server(tmp_path_factory, make_store):
    """A real MLflow server."""
    running = Server(tmp_path_factory.mktemp("server"))
    make_store(running.folder / "server.db")
    running.start()
    yield running
    running.kill()
