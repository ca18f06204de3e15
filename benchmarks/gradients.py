"""Retraining through coarse multipliers: the straight-through gradient against the slopes of the table.

One network, trained in float, is put on each circuit and trained on for a few hundred steps, from the same
weights, with the same batches, schedule and rates under every gradient. With --data DIR (or AXTRAIN_DATA), a
folder with `data/fashion_mnist.npz` and `luts/*.npy`: Fashion-MNIST, EvoApproxLib's circuits among the others.
Without: scikit-learn's digits. Each finished cell lies in --cache, so that a study that was stopped goes on.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure
from scipy import stats

import axtrain as ax
from axtrain.emulation.table_gradient import DEFAULT_WINDOW, smoothed_slope

ROOT = Path(__file__).resolve().parents[1]
STRAIGHT = "straight_through"
# From coarse to fine, by the accuracy that the small CNN has on them before it is trained for them.
CIRCUITS = (
    "truncated12",
    "ssm2",
    "truncated11",
    "broken_array_6_10",
    "ssm3",
    "mul8u_JV3",
    "drum2",
    "mul8u_17KS",
    "mul8u_L40",
)
ROUNDS = 4
PROSE = "<!-- Everything above is written by the benchmark; below it is kept. -->\n"


@dataclass
class Study:
    """What is compared, and on what."""

    name: str
    network: keras.Model
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    circuits: tuple[str, ...]
    luts: Path | None
    windows: tuple[int, ...] = (4, 16, 32, 64)
    rates: tuple[float, ...] = (1e-3, 3e-4)
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 160
    batch: int = 64

    def hardware(self, name: str) -> ax.Hardware:
        """The circuit of this name, from its file or its definition."""
        if not name.startswith("mul8"):
            return ax.Hardware(multiplier=ax.multipliers.get(name))
        return ax.Hardware(multiplier=ax.Multiplier.load(self.luts / f"{name}.npy", signed=False))

    @property
    def gradients(self) -> list[tuple[str, int]]:
        """(gradient, half window) of every column; straight-through has no window."""
        return [(STRAIGHT, 0), *(("table", window) for window in self.windows)]

    def converted(self, circuit: str, gradient: str, window: int) -> keras.Model:
        """The network on the circuit, compiled with Adam."""
        keras.utils.set_random_seed(0)
        model = ax.convert(
            self.network,
            self.hardware(circuit),
            self.train[0][:256],
            gradient=gradient,
            gradient_window=window or DEFAULT_WINDOW,
        )
        model.compile(keras.optimizers.Adam(self.rates[0]), "sparse_categorical_crossentropy")
        return model

    def accuracy(self, model: keras.Model) -> float:
        """Share of the test samples that are right."""
        return float((model.predict(self.test[0], batch_size=250, verbose=0).argmax(-1) == self.test[1]).mean())


def small_cnn(shape: tuple[int, ...]) -> keras.Model:
    """Two strided convolutions and a dense layer."""
    layers = [
        keras.Input(shape),
        keras.layers.Conv2D(16, 3, strides=2, padding="same", activation="relu", name="first"),
        keras.layers.Conv2D(32, 3, strides=2, padding="same", activation="relu", name="second"),
        keras.layers.Flatten(),
        keras.layers.Dense(10, activation="softmax", name="last"),
    ]
    return keras.Sequential(layers, name="small_cnn")


def study_of(folder: Path | None, cache: Path) -> Study:
    """The network with its float weights, trained once and kept, the data and the circuits."""
    luts = folder / "luts" if folder else None
    circuits = tuple(name for name in CIRCUITS if luts or not name.startswith("mul8"))
    if folder:
        name = "small CNN, Fashion-MNIST"
        with np.load(folder / "data" / "fashion_mnist.npz") as data:
            parts = [(data[f"x_{part}"][..., None] / np.float32(255), data[f"y_{part}"]) for part in ("train", "test")]
        parts[1] = tuple(array[:5000] for array in parts[1])
    else:
        from sklearn.datasets import load_digits

        name = "small CNN, digits"
        x, y = load_digits(return_X_y=True)
        x = (x.reshape(-1, 8, 8, 1) / 16).astype("float32")
        parts = [(x[:1300], y[:1300]), (x[1300:], y[1300:])]
    keras.utils.set_random_seed(0)
    model, path = small_cnn(parts[0][0].shape[1:]), cache / f"{name.replace(', ', '_').replace(' ', '_')}.weights.h5"
    if not path.exists():
        model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
        model.fit(*parts[0], batch_size=128, epochs=5 if folder else 30, verbose=2)
        path.parent.mkdir(parents=True, exist_ok=True)
        model.save_weights(path)
    model.load_weights(path)
    return Study(name, model, *parts, circuits, luts)


def cells(study: Study, cache: Path) -> Iterator[dict]:
    """Every cell of the study, computed or from the cache: accuracy before and after one training."""
    for circuit in study.circuits:
        before = _kept(cache / f"{circuit}_before.json", lambda circuit=circuit: _before(study, circuit))
        for gradient, window in study.gradients:
            model, initial = None, None
            for rate in study.rates:
                for seed in study.seeds:

                    def trained(gradient=gradient, window=window, rate=rate, seed=seed, circuit=circuit):
                        nonlocal model, initial
                        if model is None:
                            model = study.converted(circuit, gradient, window)
                            initial = model.get_weights()
                        return _trained(study, model, initial, rate, seed)

                    found = _kept(cache / f"{circuit}_{gradient}_{window}_{rate:g}_{seed}.json", trained)
                    cell = {"circuit": circuit, "gradient": gradient, "window": window, "rate": rate, "seed": seed}
                    yield {**cell, **before, **found}


def _kept(path: Path, function: Callable[[], dict]) -> dict:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        found = function()
        path.with_suffix(".part").write_text(json.dumps(found))
        path.with_suffix(".part").replace(path)
    return json.loads(path.read_text())


def _before(study: Study, circuit: str) -> dict:
    """Accuracy on the circuit untrained, how far its slopes are from b, and the cost of a step by gradient."""
    table = study.hardware(circuit).code_table
    slope = smoothed_slope(table.products, DEFAULT_WINDOW) - table.weight_codes
    roughness = float(np.sqrt(np.mean(slope**2) / np.mean(table.weight_codes**2)))
    models = [study.converted(circuit, *gradient) for gradient in study.gradients]
    x, y = (array[: study.batch] for array in study.train)
    before = study.accuracy(models[0])
    taken: list[list[float]] = [[] for _ in models]
    for _ in range(12):  # in turn, so that what else the machine does falls on all alike; the first compile
        for model, times in zip(models, taken, strict=True):
            start = time.perf_counter()
            model.train_on_batch(x, y)
            times.append(time.perf_counter() - start)
    seconds = [float(np.median(times[2:])) for times in taken]
    ratios = {f"step ratio {window}": seconds[i] / seconds[0] for i, (_, window) in enumerate(study.gradients)}
    return {"before": before, "slope error": roughness, **ratios}


def _trained(study: Study, model: keras.Model, initial, rate: float, seed: int) -> dict:
    """Trains on from the initial weights; the rate is halved after each of the rounds."""
    model.set_weights(initial)
    for variable in model.optimizer.variables:
        variable.assign(np.zeros(variable.shape))
    x, y = study.train
    order, losses = np.random.default_rng(seed).permutation(len(x)), []
    count = study.steps // ROUNDS * study.batch
    for number in range(ROUNDS):
        model.optimizer.learning_rate.assign(rate / 2**number)
        part = np.take(order, range(number * count, (number + 1) * count), mode="wrap")
        history = model.fit(x[part], y[part], batch_size=study.batch, shuffle=False, verbose=0)
        losses.append(history.history["loss"][0])
    return {"after": study.accuracy(model), "loss": losses[-1]}


def summarised(found: list[dict], study: Study) -> list[dict]:
    """One row for each circuit and gradient, each at the better of the rates for it, and the gain in accuracy.

    The gain is over straight-through with the same batches, seed by seed; its interval is Student's t at 95 %.
    """
    rows = []
    for circuit in study.circuits:
        mine = [cell for cell in found if cell["circuit"] == circuit]
        straight = None
        for gradient, window in study.gradients:
            by_rate = [
                [100 * c["after"] for c in mine if (c["gradient"], c["window"], c["rate"]) == (gradient, window, rate)]
                for rate in study.rates
            ]
            best = max(range(len(by_rate)), key=lambda i, by_rate=by_rate: np.mean(by_rate[i]))
            after = np.array(by_rate[best])
            straight = after if straight is None else straight
            gains, spread = after - straight, np.inf  # one pair has no interval
            if len(gains) > 1:
                spread = float(stats.t.ppf(0.975, len(gains) - 1) * gains.std(ddof=1) / len(gains) ** 0.5)
            rows.append(
                {
                    "circuit": circuit,
                    "slope error": mine[0]["slope error"],
                    "before": 100 * mine[0]["before"],
                    "gradient": STRAIGHT if gradient == STRAIGHT else f"table, h = {window}",
                    "after": float(after.mean()),
                    "std": float(after.std(ddof=min(1, len(after) - 1))),
                    "rate": study.rates[best],
                    "gain": float(gains.mean()),
                    "half": spread,
                    "step": mine[0][f"step ratio {window}"],
                }
            )
    return rows


def markdown(rows: list[dict], study: Study, command: str, float_accuracy: float) -> str:
    """The table, and how it came about."""
    rates = " and ".join(f"{rate:g}" for rate in study.rates)
    lines = [
        f"# Straight-through or the table's own gradient: {study.name}",
        "",
        f"Float accuracy {100 * float_accuracy:.2f} % on {len(study.test[1])} test samples. "
        f"{study.steps} steps of {study.batch} samples, Adam at {rates}, halved after each quarter; seeds "
        f"{', '.join(map(str, study.seeds))} order the training samples. `{command}`, TensorFlow {tf.__version__}, "
        f"{os.cpu_count()} cores.",
        "",
        "*Slope error*: root mean square of the table's slope along activations (h = 16) minus that of the exact "
        "product, over the latter. *Before*: on the circuit, not trained for it. *After*, *std*: over the seeds, at "
        "the better of the rates for this gradient (chosen on the same samples, for all gradients alike; every cell is "
        "in the .csv). *Gain*: that minus straight-through's, seed by seed, and its 95 % interval (Student's t). "
        "*Step time*: of a training step, over that of straight-through, measured in turn in one process.",
        "",
        "| circuit | slope error | before [%] | gradient | after [%] | std | rate | gain [points] | step time |",
        "|---|---:|---:|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        gain = "" if row["gradient"] == STRAIGHT else f"{row['gain']:+.2f} ± {row['half']:.2f}"
        lines.append(
            f"| {row['circuit']} | {row['slope error']:.2f} | {row['before']:.2f} | {row['gradient']} | "
            f"{row['after']:.2f} | {row['std']:.2f} | {row['rate']:g} | {gain} | {row['step']:.2f} |"
        )
    tables = [row for row in rows if row["gradient"] != STRAIGHT]
    verdicts = {
        "The table's gradient is better": [row for row in tables if row["gain"] > row["half"]],
        "Straight-through is better": [row for row in tables if row["gain"] < -row["half"]],
        "No difference that these runs could show": [row for row in tables if abs(row["gain"]) <= row["half"]],
    }
    lines += ["", "By the 95 % interval of the gain:"]
    for verdict, those in verdicts.items():
        names = [f"{row['circuit']} ({row['gradient'].removeprefix('table, ')})" for row in those]
        lines.append(f"- {verdict}: {', '.join(names) or 'nowhere'}.")
    return "\n".join(lines) + "\n"


def figure(rows: list[dict], study: Study) -> Figure:
    """Gain over straight-through of each window, circuit by circuit."""
    drawn = Figure(figsize=(9, 4), layout="constrained")
    axes = drawn.subplots()
    for offset, window in zip(np.linspace(-0.2, 0.2, len(study.windows)), study.windows, strict=True):
        mine = [row for row in rows if row["gradient"] == f"table, h = {window}"]
        places = np.arange(len(mine)) + offset
        bars = [row["half"] if np.isfinite(row["half"]) else 0 for row in mine]
        axes.errorbar(places, [row["gain"] for row in mine], bars, fmt="o", capsize=3, label=f"h = {window}")
    axes.axhline(0, color="grey", linestyle="--")
    axes.set_xticks(range(len(study.circuits)), study.circuits, rotation=20)
    axes.set_yscale("symlog", linthresh=5)  # a few points of gain beside a network that never learns
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_ylabel("accuracy after training:\ntable minus straight-through [points]")
    axes.set_title(f"{study.name}: gain of the table's gradient, mean and 95 % interval over seeds")
    axes.legend(title="half window")
    return drawn


def main() -> None:
    """Runs what the cache lacks and writes the table, the cells and the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("AXTRAIN_DATA"), help="folder with real data")
    parser.add_argument("--smoke", action="store_true", help="two circuits, one seed, a few steps")
    parser.add_argument("--cache", type=Path, default=ROOT / "benchmarks" / "results" / "gradients")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results", help="folder of gradients.*")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    cache = arguments.cache / ("smoke" if arguments.smoke else "full")
    study = study_of(arguments.data and Path(arguments.data), cache)
    if arguments.smoke:
        study.circuits, study.windows, study.rates, study.seeds, study.steps = (
            ("ssm3", "drum2"),
            (16,),
            (1e-3,),
            (0,),
            20,
        )
    found = []
    for cell in cells(study, cache / ("data" if arguments.data else "digits")):
        found.append(cell)
        print(*(f"{key} {value}" for key, value in cell.items() if "ratio" not in key), sep="  ", flush=True)
    rows = summarised(found, study)
    study.network.compile()
    data = " --data DIR" if arguments.data else ""
    command = f"python benchmarks/gradients.py{data}{' --smoke' * arguments.smoke}"
    text = markdown(rows, study, command, study.accuracy(study.network))
    print(text)
    name = "gradients_smoke" if arguments.smoke else "gradients"
    output = cache if arguments.smoke else arguments.output
    output.mkdir(parents=True, exist_ok=True)
    page = output / f"{name}.md"
    _, mark, prose = (page.read_text() if page.exists() else "").partition(PROSE)
    page.write_text(f"{text}\n{mark or PROSE}{prose}")
    with (output / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(found[0]))
        writer.writeheader()
        writer.writerows(found)
    figure(rows, study).savefig(output / f"{name}.png", dpi=120)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        machine = {"processor": platform.machine(), "cores": os.cpu_count(), "tensorflow": tf.__version__}
        figures = [
            {"name": f"gain, {row['circuit']}, {row['gradient']}", "value": round(row["gain"], 3), "unit": "points",
             "target": None, "met": None}
            for row in rows if row["gradient"] != STRAIGHT
        ]  # fmt: skip
        arguments.json.write_text(json.dumps({"figures": figures, "machine": machine}, indent=1))


if __name__ == "__main__":
    main()
