"""LeNet-5 on MNIST with 30 workers of whom some straggle: Berrut's code beside repetition and no code."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from axtrain.coded import Berrut
from axtrain.coded.latency import Latency, ShiftedExponential
from axtrain.training.distributed import BerrutGradients, BerrutTrainer, InProcess, RayActors, Repetition, Trouble

WORKERS, STRAGGLERS, SLOWER = 30, (0, 5, 10), 8.0
SAMPLES, TESTED, BATCH, EPOCHS = 6_000, 2_000, 300, 4
SLEEP = 1.0  # seconds, of a straggling actor in each call


@dataclass(frozen=True)
class Straggling(Latency):
    """A time for each sample and an exponential tail; some calls take many times as long.

    Args:
        samples: of a worker in a step; the unit is the time of one.
        share: of calls that straggle.
    """

    samples: int
    share: float

    def draw(self, generator: np.random.Generator, size):
        """Times."""
        times = self.samples * (1.0 + generator.exponential(0.2, size))
        return times * np.where(generator.random(size) < self.share, SLOWER, 1.0)

    def share_within(self, deadline: float) -> float:
        """Of both kinds of calls."""
        usual = ShiftedExponential(self.samples, 5.0 / self.samples)
        straggling = usual.share_within(deadline / SLOWER)
        return (1 - self.share) * usual.share_within(deadline) + self.share * straggling


def schemes(stragglers: int) -> dict:
    """For each way its code and how many answers it waits for."""
    left = WORKERS - stragglers
    return {
        "Berrut, K = 6": (BerrutGradients(Berrut(6, WORKERS)), left),
        "Berrut, K = 10": (BerrutGradients(Berrut(10, WORKERS)), left),
        "repetition, 10 x 3": (Repetition(10, 3), left),
        "uncoded, dropped": (Repetition(WORKERS), left),
        "uncoded, all": (Repetition(WORKERS), WORKERS),
    }


def mnist(folder: Path | None):
    """Images with a channel, in 0 .. 1."""
    source = None if folder is None else folder / "data" / "mnist.npz"
    if source is not None and source.is_file():
        with np.load(source, allow_pickle=False) as arrays:
            parts = [arrays[key] for key in ("x_train", "y_train", "x_test", "y_test")]
    else:
        (x, y), (x_test, y_test) = keras.datasets.mnist.load_data()
        parts = [x, y, x_test, y_test]
    x, y, x_test, y_test = parts
    pixels = [part.reshape(-1, 28, 28, 1).astype("float32") / 255 for part in (x[:SAMPLES], x_test[:TESTED])]
    return (pixels[0], y[:SAMPLES].astype(int)), (pixels[1], y_test[:TESTED].astype(int))


def lenet5() -> keras.Model:
    """LeNet-5 with tanh, compiled with Adam."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(6, 5, padding="same", activation="tanh"),
            layers.AveragePooling2D(2),
            layers.Conv2D(16, 5, activation="tanh"),
            layers.AveragePooling2D(2),
            layers.Flatten(),
            layers.Dense(120, "tanh"),
            layers.Dense(84, "tanh"),
            layers.Dense(10, "softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


class Clock(keras.callbacks.Callback):
    """Accuracy on test images and the executor's time, a few times in each epoch."""

    def __init__(self, executor, data, every: int) -> None:
        super().__init__()
        self.executor, self.data, self.every, self.points, self.steps = executor, data, every, [], 0
        self.looking = 0.0

    def on_train_begin(self, logs=None) -> None:
        """Start the clock."""
        self.begun = self.executor.seconds

    def on_train_batch_end(self, batch, logs=None) -> None:
        """Look."""
        self.steps += 1
        if self.steps % self.every == 0:
            now = self.executor.seconds
            accuracy = self.model.evaluate(*self.data, verbose=0, batch_size=500, return_dict=True)["accuracy"]
            self.points.append((now - self.begun - self.looking, accuracy))
            self.looking += self.executor.seconds - now


def berrut(data: Path | None, smoke: bool) -> list[dict]:
    """Every way at every number of stragglers, on a simulated clock."""
    rows = []
    for stragglers in STRAGGLERS[:1] if smoke else STRAGGLERS:
        for name, (code, wait_for) in schemes(stragglers).items():
            executor = InProcess(latency=Straggling(BATCH // code.groups, stragglers / WORKERS), seed=1)
            rows.append(one_way(data, executor, name, code, wait_for, stragglers, EPOCHS, smoke))
    return rows


def berrut_on_actors(data: Path | None, stragglers: int, smoke: bool) -> list[dict]:
    """The same on processes of this machine, where stragglers sleep."""
    rows = []
    slow = [f"worker-{(7 * n) % WORKERS}" for n in range(stragglers)]
    asleep = [Trouble(name, "sleep", "gradient", steps=10**6, seconds=SLEEP) for name in slow]
    with RayActors(troubles=asleep) as executor:
        for name, (code, wait_for) in schemes(stragglers).items():
            # One step before the clock begins: processes start, functions are traced, late answers come in.
            x, y = mnist(data)[0]
            first = BerrutTrainer(lenet5(), executor=executor, code=code)
            first.fit(x[:BATCH], y[:BATCH], batch_size=BATCH, verbose=0)
            rows.append(one_way(data, executor, name, code, wait_for, stragglers, 1, smoke))
    return rows


def one_way(data, executor, name: str, code, wait_for: int, stragglers: int, epochs: int, smoke: bool) -> dict:
    """One training."""
    (x, y), test = mnist(data)
    if smoke:
        x, y, test, epochs = x[:600], y[:600], (test[0][:200], test[1][:200]), 1
    begun, before = time.perf_counter(), executor.bytes_moved
    trainer = BerrutTrainer(lenet5(), wait_for=wait_for, executor=executor, code=code)
    clock = Clock(executor, test, 1 if smoke else 4)
    trainer.fit(x, y, batch_size=BATCH, epochs=epochs, seed=0, verbose=0, callbacks=[clock])
    took = time.perf_counter() - begun
    print(f"{stragglers:>2} of {WORKERS}  {name:<20}{100 * clock.points[-1][1]:6.2f} %  {took:.0f} s", flush=True)
    return {
        "way": name, "stragglers": stragglers, "curve": clock.points, "bytes": executor.bytes_moved - before,
        "steps": clock.steps, "events": trainer.events,
    }  # fmt: skip
