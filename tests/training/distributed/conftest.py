"""Executors: this process, and Ray's actors where Ray is installed."""

import os

import keras
import numpy as np
import pytest

from axtrain.training.distributed import InProcess, RayActors


@pytest.fixture(scope="session")
def ray():
    """Ray on this machine, for all tests of a process."""
    found = pytest.importorskip("ray", reason="needs the extra `ray`")
    # Ray would kill actors for the memory that other tests and programs take from the machine.
    os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")
    with RayActors():  # starts it with our settings, and ends it
        yield found


@pytest.fixture(scope="session")
def processes(ray):
    """Actors that tests share: starting a process with TensorFlow takes longer than most of them."""
    with RayActors() as executor:
        yield executor


@pytest.fixture
def actors(processes):
    """A function of troubles that gives the shared actors."""

    def expecting(*troubles):
        processes.expect(troubles)
        return processes

    yield expecting
    for name in [name for name in processes._actors if not name.startswith("node-")]:
        processes.remove(name)  # each takes half a gigabyte


@pytest.fixture(params=["in_process", "ray"])
def make(request):
    """A function of troubles that gives an executor, closed at the end."""
    made = []
    if request.param == "ray":
        request.getfixturevalue("ray")

    def build(troubles=(), **options):
        kind = InProcess if request.param == "in_process" else RayActors
        made.append(kind(troubles=troubles, **(options if kind is InProcess else {})))
        return made[-1]

    yield build
    for executor in made:
        executor.close()


@pytest.fixture(scope="session")
def data():
    """64 samples of 6 features in 3 classes that can be told apart."""
    generator = np.random.default_rng(0)
    y = generator.integers(0, 3, 64)
    return (generator.standard_normal((64, 6)) + 2 * np.eye(3, 6)[y]).astype("float32"), y


@pytest.fixture
def network():
    """A compiled classifier."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(5, "tanh", name="hidden"), keras.layers.Dense(3, "softmax", name="out")]
    model = keras.Sequential([keras.Input((6,)), *layers])
    model.compile(keras.optimizers.SGD(0.2, momentum=0.9), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model
