"""Coded nodes on Ray's actors: time of a step, bytes moved, and the time to recover from a kill."""

from __future__ import annotations

import keras
import numpy as np
from sklearn.datasets import load_digits

from axtrain.coded import CodeNet, Replication, Uncoded
from axtrain.training.distributed import CodedTrainer, RayActors, Trouble


def nodes(smoke: bool) -> list[dict]:
    """Steps of a small network on actors, and a kill in the middle."""
    digits = load_digits()
    x, y = (digits.data / 16).astype("float32"), digits.target
    codes = {"CodeNet (1, 2, 1)": CodeNet(1, 2, 1), "copies x 3": Replication(3, 1, 2), "uncoded": Uncoded(1, 2)}
    rows = []
    for name, code in codes.items():
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Dense(64, "relu"), keras.layers.Dense(10, "softmax")]
        model = keras.Sequential([keras.Input((64,)), *layers])
        model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "sparse_categorical_crossentropy")
        steps, epochs = (15, 1) if smoke else (50, 6)  # a process takes seconds to start: many steps go on without it
        troubles = [] if name == "uncoded" else [Trouble("node-1", "kill", "forward", steps // 2)]
        with RayActors(troubles=troubles) as executor:
            trainer = CodedTrainer(model, code, executor)
            watch = Watch(trainer, executor)
            trainer.fit(x[: 32 * steps], y[: 32 * steps], epochs=epochs, verbose=0, callbacks=[watch])
        times = np.diff(watch.times)
        killed = next((i for i, alive in enumerate(watch.alive) if alive < code.nodes), None)
        later = [] if killed is None else range(killed, len(watch.alive))
        back = next((i for i in later if watch.alive[i] == code.nodes), None)
        row = {"code": name, "actors": code.nodes, "step_ms": 1e3 * float(np.median(times))}
        row["bytes_per_step"] = float(np.median(np.diff(watch.bytes)))
        row["recovery_s"] = None if killed is None or back is None else watch.times[back] - watch.times[killed - 1]
        row["recovery_steps"] = None if killed is None or back is None else back - killed + 1
        row["loss"] = float(watch.last)
        rows.append(row)
        print(row, flush=True)
    return rows


class Watch(keras.callbacks.Callback):
    """Time, bytes and nodes after each step."""

    def __init__(self, trainer, executor) -> None:
        super().__init__()
        self.trainer, self.executor, self.times, self.bytes, self.alive, self.last = trainer, executor, [], [], [], 0.0

    def on_train_batch_end(self, batch, logs=None) -> None:
        """Look."""
        self.times.append(self.executor.seconds)
        self.bytes.append(self.executor.bytes_moved)
        self.alive.append(self.trainer.nodes.alive)
        self.last = (logs or {}).get("loss", float("nan"))
