"""Past one machine: planned steps beside measured ones on actors of this machine, then plans up to thousands of nodes.

What a call costs here is fitted on two codes and tried on the others. Prints the tables of `docs/scaling.md`.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).resolve().parent))

import keras
import numpy as np

from axtrain.coded import CodeNet, GeneralizedPolyDot, Replication
from axtrain.training.distributed import CodedTrainer, RayActors
from axtrain.training.distributed.scaling import Machine, berrut_step, coded_step, network_step

SIZES, BATCH = (64, 256, 10), 128
MEASURED = {
    "copies x 2": Replication(2),
    "PolyDot (2, 1), P = 5": GeneralizedPolyDot(2, 1),
    "CodeNet (1, 2, 1)": CodeNet(1, 2, 1),
    "CodeNet (2, 2, 1)": CodeNet(2, 2, 1),
}
FITTED = ("copies x 2", "CodeNet (1, 2, 1)")


class Times(keras.callbacks.Callback):
    """When each step ended."""

    def __init__(self, executor) -> None:
        super().__init__()
        self.executor, self.at = executor, []

    def on_train_batch_end(self, batch, logs=None) -> None:
        """Look at the clock."""
        self.at.append(self.executor.seconds)


def measured(code, steps: int) -> float:
    """Median seconds of a step on actors."""
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense
    model = keras.Sequential([keras.Input((SIZES[0],)), dense(SIZES[1], "relu"), dense(SIZES[2], "softmax")])
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "sparse_categorical_crossentropy")
    generator = np.random.default_rng(0)
    x = generator.standard_normal((BATCH * steps, SIZES[0])).astype("float32")
    with RayActors() as executor:
        times = Times(executor)
        trainer = CodedTrainer(model, code, executor)
        trainer.fit(x, generator.integers(0, 10, len(x)), batch_size=BATCH, verbose=0, callbacks=[times])
    return float(np.median(np.diff(times.at)[5:]))


def here(steps: int) -> None:
    """Planned and measured on this machine."""
    cores = os.cpu_count() or 1
    machine = Machine(speed=5e10, bandwidth=5e9, latency=0.0, overhead=0.0, jitter=0.0, cores=cores)
    found = {name: measured(code, steps) for name, code in MEASURED.items()}
    # Everything beside products and bytes is calls: rounds x nodes / cores of them, and messages read from memory.
    rows, wanted = [], []
    for name in FITTED:
        cost = coded_step(MEASURED[name], SIZES, BATCH, machine)
        stages = 2 * len(SIZES) - 1
        rows.append([stages * cost.nodes / cores, cost.messages * cost.nodes / cores])
        wanted.append(found[name] - cost.seconds)
    overhead, latency = np.maximum(np.linalg.lstsq(np.array(rows), np.array(wanted), rcond=None)[0], 0.0)
    fitted = replace(machine, overhead=float(overhead), latency=float(latency) / cores)
    print(f"a call {1e3 * overhead:.2f} ms, a message {1e6 * latency:.0f} us, fitted on {' and '.join(FITTED)}\n")
    print("| code | nodes | measured | planned |\n|---|---:|---:|---:|")
    for name, code in MEASURED.items():
        cost = coded_step(code, SIZES, BATCH, fitted)
        seconds = cost.seconds + (code.shards - 1) * cost.messages * fitted.latency  # all nodes' share of the cores
        print(f"| {name} | {cost.nodes} | {1e3 * found[name]:.1f} ms | {1e3 * seconds:.1f} ms |")


def ahead() -> None:
    """Plans."""
    machine = Machine()
    print("\n| code | nodes | messages | received | memory | products | step |\n|---|---:|---:|---:|---:|---:|---:|")
    for rows, columns, errors in ((4, 5, 1), (8, 8, 1), (16, 16, 1), (32, 32, 2), (48, 48, 2)):
        cost = coded_step(CodeNet(rows, columns, errors), (784, 4096, 4096, 10), 1024, machine)
        name = f"CodeNet ({rows}, {columns}, {errors})"
        print(
            f"| {name} | {cost.nodes} | {cost.messages} | {cost.received / 1e6:.0f} MB | "
            f"{cost.memory / 1e6:.0f} MB | {cost.operations / 1e9:.2f} G | {1e3 * cost.seconds:.0f} ms |"
        )
    weights, operations = 25_000_000, 2.4e10  # of the size of ResNet-50
    print("\n| way | nodes | received | memory | step |\n|---|---:|---:|---:|---:|")
    for workers in (30, 100, 1000):
        cost = berrut_step(workers, workers * 4 // 5, workers // 5, weights, 150_528, 4 * workers, operations, machine)
        print(
            f"| Berrut | {workers} | {cost.received / 1e9:.1f} GB | {cost.memory / 1e6:.0f} MB | {cost.seconds:.1f} s |"
        )
    for agents in (10, 100, 1000):
        cost = network_step(agents, 4, weights, 16, operations, machine)
        print(f"| NEXT | {agents} | {cost.received / 1e9:.1f} GB | {cost.memory / 1e6:.0f} MB | {cost.seconds:.1f} s |")


def main() -> None:
    """Prints both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60, help="of each measured training, default 60")
    parser.add_argument("--smoke", action="store_true", help="few steps: does it run?")
    arguments = parser.parse_args()
    here(10 if arguments.smoke else arguments.steps)
    ahead()


if __name__ == "__main__":
    main()
