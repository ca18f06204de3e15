"""Training under soft errors: accuracy by step and by time, for each way to survive them.

A 784-1024-1024-10 network on MNIST and Fashion-MNIST, SGD with momentum, every node erring in each stage of a step
(forward, backward, update) with the same probability. Ways: `uncoded`; `checkpoint` (uncoded, and back to the last
checkpoint where the loss is not finite); 2 and 3 copies; checksums; a PolyDot code; CodeNet (4, 5, 1) and (4, 5, 2).
Steps that are rolled back count, so a curve that ends lower has lost them.
Time is what the slowest node of each stage takes, with shifted exponential latencies, from `axtrain.coded.simulate`.
Every run is kept in a folder, so an interrupted study goes on where it stopped.

With --data DIR (or AXTRAIN_DATA) the sets of `DIR/data`; else Keras's copies.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).resolve().parent))

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure
from study_training import commit
from timing import machine

from axtrain import coded
from axtrain.coded.renewal import success
from axtrain.coded.simulation import iteration_time
from axtrain.noise_models.files import whole_file, write_whole

RATES = (0.0, 1e-4, 1e-3, 1e-2, 1e-1)
SETS = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST"}
WAYS = {
    "uncoded": (coded.Uncoded(4, 5), None),
    "checkpoint": (coded.Uncoded(4, 5), 10),
    "copies x 2": (coded.Replication(2, 4, 5), "auto"),
    "copies x 3": (coded.Replication(3, 4, 5), "auto"),
    "checksum": (coded.Checksum(4, 5), "auto"),
    "PolyDot (2, 2)": (coded.GeneralizedPolyDot(2, 2, workers=10), "auto"),
    "CodeNet (4, 5, 1)": (coded.CodeNet(4, 5, 1), "auto"),
    "CodeNet (4, 5, 2)": (coded.CodeNet(4, 5, 2), "auto"),
}
LATENCY = coded.ShiftedExponential(1.0, 2.0)
SAMPLES, TESTED, BATCH, EPOCHS, EVERY = 10_000, 2_000, 100, 3, 10
WITHIN = 0.01  # of the accuracy without errors: then a way is said to have survived a rate
LAST = 10  # looks that are averaged for this: rounding alone moves single ones by a point


@dataclass(frozen=True)
class Run:
    """One training."""

    data: str
    way: str
    rate: float

    @property
    def file(self) -> str:
        """Where it is kept."""
        return f"{self.data}-{self.way}-{self.rate:g}.json".replace(" ", "_").replace(",", "")


def load(name: str, folder: Path | None):
    """x, y for training and testing; images as vectors in 0 .. 1."""
    source = None if folder is None else folder / "data" / f"{name}.npz"
    if source is not None and source.is_file():
        with np.load(source, allow_pickle=False) as arrays:
            parts = [arrays[key] for key in ("x_train", "y_train", "x_test", "y_test")]
    else:
        (x, y), (x_test, y_test) = getattr(keras.datasets, name).load_data()
        parts = [x, y, x_test, y_test]
    x, y, x_test, y_test = parts
    images = [part.reshape(len(part), -1).astype("float32") / 255 for part in (x[:SAMPLES], x_test[:TESTED])]
    return images[0], y[:SAMPLES].astype("int64"), images[1], y_test[:TESTED].astype("int64")


def accuracy(model: coded.CodedModel, x: np.ndarray, y: np.ndarray) -> float:
    """Of the stored weights, decoded as a product would be, with no new errors."""
    for layer in model.coded_layers:
        x = tf.concat([x, tf.ones_like(x[:, :1])], axis=1)
        x = layer.activation(layer.product.forward(layer.coded_kernel.value, x)[0])
    return float(np.mean(np.argmax(x, axis=1) == y))


class Curve(keras.callbacks.Callback):
    """Accuracy every few steps."""

    def __init__(self, x: np.ndarray, y: np.ndarray, every: int) -> None:
        super().__init__()
        self.x, self.y, self.every, self.points, self.steps = tf.constant(x), y, every, [], 0

    def on_train_batch_end(self, batch, logs=None) -> None:
        """Look at the weights."""
        self.steps += 1
        if self.steps % self.every == 0:
            self.points.append((self.steps, accuracy(self.model, self.x, self.y)))


def network() -> keras.Model:
    """784-1024-1024-10."""
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense
    layers = [dense(1024, "relu"), dense(1024, "relu"), dense(10, "softmax")]
    return keras.Sequential([keras.Input((784,)), *layers])


def train(run: Run, data: Path | None, folder: Path, smoke: bool) -> None:
    """One run, kept as a file."""
    path = folder / run.file
    if path.is_file():
        return
    tf.config.threading.set_intra_op_parallelism_threads(1)
    x, y, x_test, y_test = load(run.data, data)
    if smoke:
        x, y, x_test, y_test = x[:500], y[:500], x_test[:200], y_test[:200]
    code, every = WAYS[run.way]
    faults = coded.SoftErrors(rate=run.rate, where=("forward", "backward", "update")) if run.rate else None
    start = time.perf_counter()
    model = coded.convert(network(), code, faults, checkpoint_every=every)
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "sparse_categorical_crossentropy")
    curve = Curve(x_test, y_test, 1 if smoke else EVERY)
    model.fit(x, y, batch_size=BATCH, epochs=1 if smoke else EPOCHS, verbose=0, callbacks=[curve])
    found = {"data": run.data, "way": run.way, "rate": run.rate, "nodes": code.nodes, "curve": curve.points}
    found |= {"events": model.events, "interval": model.interval, "step_time": iteration_time(code, LATENCY)}
    found |= {"seconds": time.perf_counter() - start, "commit": commit()}
    write_whole(path, json.dumps(found).encode())
    last = curve.points[-1][1]
    print(f"{run.data:<14}{run.way:<18}{run.rate:<8g}{100 * last:6.2f} %  {found['seconds']:.0f} s", flush=True)


def tolerated(runs: list[dict], data: str, way: str) -> float:
    """The largest rate that a way survives, as all smaller ones."""
    chosen = [run for run in runs if (run["data"], run["way"]) == (data, way)]
    own = {run["rate"]: float(np.mean([value for _, value in run["curve"][-LAST:]])) for run in chosen}
    best = 0.0
    for rate in sorted(own):
        if own[rate] < own[0.0] - WITHIN:
            break
        best = rate
    return best


def apart(runs: list[dict], data: str, way: str, rate: float) -> float:
    """The largest difference in points between a curve and that of the same way without errors, at any step."""
    curves = [
        np.array(run["curve"])[:, 1]
        for wanted in (rate, 0.0)
        for run in runs
        if (run["data"], run["way"], run["rate"]) == (data, way, wanted)
    ]
    return 100 * float(np.abs(curves[0] - curves[1]).max())


def half_lost(code: coded.Code) -> float:
    """The rate of errors at which every second step needs a rollback."""
    low, high = 1e-9, 0.5
    for _ in range(60):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if success(code, middle) > 0.5 else (low, middle)
    return low


def against_copies() -> list[str]:
    """What a code tolerates beside copies of about as many nodes."""
    lines = [
        "At about equal redundancy, the rate of errors per node and stage at which every second step needs a rollback:",
        "",
        "| code | nodes | corrects for certain | rate | copies | nodes | corrects | rate | gain |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for errors, copies in ((1, 2), (2, 3), (3, 4)):
        code, others = coded.CodeNet(4, 5, errors), coded.Replication(copies, 4, 5)
        rates = half_lost(code), half_lost(others)
        cells = [
            f"CodeNet (4, 5, {errors})",
            code.nodes,
            f"{code.adversarial_errors} rows and columns",
            f"{rates[0]:.2g}",
        ]
        cells += [f"x {copies}", others.nodes, f"{others.adversarial_errors} of each block", f"{rates[1]:.2g}"]
        lines.append("| " + " | ".join(map(str, [*cells, f"{rates[0] / rates[1]:.1f}"])) + " |")
    return [*lines, ""]


def picture(runs: list[dict], path: Path) -> None:
    """Accuracy by step, one panel for each set and rate."""
    figure = Figure(figsize=(3.2 * (len(RATES) - 1), 5.6), layout="constrained")
    axes = figure.subplots(len(SETS), len(RATES) - 1, sharex=True, sharey=True, squeeze=False)
    for row, data in enumerate(SETS):
        for column, rate in enumerate(RATES[1:]):
            axis = axes[row][column]
            for way in WAYS:
                for run in runs:
                    if (run["data"], run["way"], run["rate"]) == (data, way, rate):
                        axis.plot(*np.array(run["curve"]).T, label=way, linewidth=1.3)
            axis.set_title(f"{SETS[data]}, {rate:g} per node and stage", fontsize=8)
            axis.set_ylim(0, 1)
    axes[-1][0].set_xlabel("step")
    axes[0][0].set_ylabel("accuracy")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=90, format="png")


def report(runs: list[dict], folder: Path) -> None:
    """Table and picture."""
    folder.mkdir(parents=True, exist_ok=True)
    header = (
        "data",
        "way",
        "nodes",
        "rate",
        "steps",
        "accuracy",
        "time",
        "detected",
        "corrected",
        "rolled_back",
        "missed",
    )
    rows = []
    for run in runs:
        steps, last = run["curve"][-1]
        events = [run["events"][name] for name in ("detected", "corrected", "rolled_back", "missed")]
        spent = steps * run["step_time"]
        rows.append(
            (run["data"], run["way"], run["nodes"], run["rate"], steps, f"{100 * last:.2f}", f"{spent:.0f}", *events)
        )
    with whole_file(folder / "coded_training.csv") as temporary, open(temporary, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    lines = [
        "# Training under soft errors",
        "",
        "- command: `python benchmarks/coded_training.py --data DIR`",
        f"- commit: {', '.join(sorted({run['commit'] for run in runs}))}; seed 0",
        f"- {SAMPLES} training images, batches of {BATCH}, {EPOCHS} epochs; accuracy on {TESTED} test images",
        f"- machine: {machine()}; {sum(run['seconds'] for run in runs) / 60:.0f} minutes of training in all",
        "",
        "Accuracy in per cent after the last step; time in units of a node's shortest stage, waiting for the slowest.",
        "",
        "| " + " | ".join(header) + " |",
        "|" + "---|" * len(header),
        *("| " + " | ".join(str(value) for value in row) + " |" for row in rows),
        "",
        "![accuracy by step](coded_training.png)",
        "",
        f"Largest rate survived, the mean of the last {LAST} accuracies within {100 * WITHIN:g} point of that of the "
        "same way without errors:",
        "",
        "| data | " + " | ".join(WAYS) + " |",
        "|" + "---|" * (len(WAYS) + 1),
        *(
            f"| {title} | " + " | ".join(f"{tolerated(runs, data, way):g}" for way in WAYS) + " |"
            for data, title in SETS.items()
        ),
        "",
        "Largest difference of a curve from that of the same way without errors, at any step, in points:",
        "",
        "| data | rate | " + " | ".join(WAYS) + " |",
        "|" + "---|" * (len(WAYS) + 2),
        *(
            f"| {title} | {rate:g} | " + " | ".join(f"{apart(runs, data, way, rate):.1f}" for way in WAYS) + " |"
            for data, title in SETS.items()
            for rate in sorted({run["rate"] for run in runs} - {0.0})
        ),
        "",
        *against_copies(),
    ]
    write_whole(folder / "coded_training.md", "\n".join(lines).encode())
    picture(runs, folder / "coded_training.png")


def main() -> None:
    """Runs what is missing and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("AXTRAIN_DATA"), help="folder with data/")
    parser.add_argument(
        "--cache", type=Path, default=Path("benchmarks/results/coded_training"), help="runs are kept here"
    )
    parser.add_argument("--out", type=Path, default=Path("docs/results"), help="where the results go")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, default 2")
    parser.add_argument("--smoke", action="store_true", help="one epoch of few samples at two rates: does it run?")
    arguments = parser.parse_args()
    data = None if arguments.data is None else Path(arguments.data)
    arguments.cache.mkdir(parents=True, exist_ok=True)
    rates = (0.0, 1e-2) if arguments.smoke else RATES
    wanted = [Run(name, way, rate) for name in SETS for way in WAYS for rate in rates]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.jobs, context, max_tasks_per_child=1) as pool:
        for done in [pool.submit(train, run, data, arguments.cache, arguments.smoke) for run in wanted]:
            done.result()
    runs = [json.loads((arguments.cache / run.file).read_text()) for run in wanted]
    report(runs, arguments.out)
    print(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
