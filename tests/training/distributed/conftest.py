"""Executors: this process, and Ray's actors where Ray is installed."""

import contextlib
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
    os.environ.setdefault("RAY_worker_niceness", "0")  # or other tests would go before those that wait for actors
    with RayActors():  # starts it with our settings, and ends it
        yield found


class Pool(RayActors):
    """Actors whose processes serve one test after another: a new one imports TensorFlow for seconds.

    A worker takes a process that is free, with nothing left of what it was. Where none is free, as when all are at work
    and one of them was killed, Ray starts one.
    """

    def __init__(self, size):
        super().__init__()
        self._free = []
        for number in range(size):
            self.place(f"new-{number}", dict)
        self.end()

    def place(self, name, factory, *args):
        if name not in self._actors and self._free:
            self._actors[name] = self._free.pop()
        super().place(name, factory, *args)

    def begin(self, troubles):
        """For a test, in which these go wrong."""
        self.expect(troubles)
        self._moved = 0
        return self

    def end(self):
        """Takes the processes back when they have done what they were asked, and forgets the dead."""
        for name, actor in list(self._actors.items()):
            try:
                self._ray.get(actor.process.remote(), timeout=120)
            except self._ray.exceptions.RayActorError:
                self.remove(name)
            else:
                self._free.append(self._actors.pop(name))


@pytest.fixture(scope="session")
def pool(ray):
    """As many processes as most tests have workers."""
    with Pool(4) as executor:
        yield executor
        for actor in executor._free:
            ray.kill(actor)


@pytest.fixture
def actors(pool):
    """A function of troubles that gives an executor of real actors."""
    yield lambda *troubles: pool.begin(troubles)
    pool.end()


@pytest.fixture(params=["in_process", "ray"])
def make(request):
    """A function of troubles that gives an executor of each kind, ended after the test."""
    if request.param == "ray":
        actors = request.getfixturevalue("actors")
        yield lambda troubles=(): actors(*troubles)
        return
    with contextlib.ExitStack() as made:
        yield lambda troubles=(): made.enter_context(InProcess(troubles=troubles))


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
