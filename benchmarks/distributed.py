"""Three ways to train on many machines, beside what they compete with.

- `berrut`: LeNet-5 on MNIST with 30 workers of whom 0, 5 or 10 straggle in each step: Berrut's code against repetition,
  uncoded with stragglers dropped, and uncoded waiting for all; accuracy against simulated time. With `--ray` also on
  30 actors, where stragglers sleep: accuracy against the wall's time.
- `next`: NEXT with full and partial linearisation, and decentralised gradient descent, against the centralised optimum
  on three data sets of scikit-learn with 10 to 50 agents.
- `nodes`: CodeNet on Ray's actors against replication: time of a step, bytes moved, time to recover from a kill.

Results go to `docs/results/distributed*.{csv,md,png}`; each part is kept in a folder and not done again.
With --data DIR (or AXTRAIN_DATA) MNIST of `DIR/data`; else Keras's copy.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).resolve().parent))

import keras
import networkx as nx
import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import minimize
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.preprocessing import scale
from study_training import commit
from timing import machine

from axtrain.coded import Berrut, CodeNet, Replication, Uncoded
from axtrain.coded.latency import Latency, ShiftedExponential
from axtrain.files import whole_file, write_whole
from axtrain.training.distributed import (
    BerrutGradients,
    BerrutTrainer,
    CodedTrainer,
    InProcess,
    NetworkTrainer,
    RayActors,
    Repetition,
    Trouble,
    split,
)
from axtrain.training.distributed.gradient_worker import GradientFunction

WORKERS, STRAGGLERS, SLOWER = 30, (0, 5, 10), 8.0
SAMPLES, TESTED, BATCH, EPOCHS = 6_000, 2_000, 300, 4
ACTORS_STRAGGLING, SLEEP = (0, 5, 10), 3.0
AGENTS, STEPS = (10, 25, 50), 200


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


def berrut_on_actors(data: Path | None, smoke: bool) -> list[dict]:
    """The same on processes of this machine, where stragglers sleep."""
    rows = []
    for stragglers in ACTORS_STRAGGLING[:1] if smoke else ACTORS_STRAGGLING:
        slow = [f"worker-{(7 * n) % WORKERS}" for n in range(stragglers)]
        asleep = [Trouble(name, "sleep", "gradient", steps=10**6, seconds=SLEEP) for name in slow]
        with RayActors(troubles=asleep) as executor:
            for name in list(schemes(0)):
                code, wait_for = schemes(stragglers)[name]
                # One step before the clock begins: processes start, functions are traced.
                x, y = mnist(data)[0]
                BerrutTrainer(lenet5(), executor=executor, code=code).fit(
                    x[:BATCH], y[:BATCH], batch_size=BATCH, verbose=0
                )
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


def problems() -> dict:
    """Name -> (model maker, x, y, samples kept for testing)."""
    ridge, classes, digits = load_diabetes(), load_breast_cancer(), load_digits()

    def network(inputs: int, hidden: int, outputs: int, loss) -> keras.Model:
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Dense(hidden, "tanh"), keras.layers.Dense(outputs)]
        model = keras.Sequential([keras.Input((inputs,)), *layers])
        model.compile("sgd", loss, metrics=[] if loss == "mse" else ["accuracy"])
        return model

    entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    target = scale(ridge.target)[:, None].astype("float32")
    return {
        "diabetes": (lambda: network(10, 6, 1, "mse"), scale(ridge.data).astype("float32"), target),
        "breast cancer": (lambda: network(30, 4, 2, entropy), scale(classes.data).astype("float32"), classes.target),
        "digits": (lambda: network(64, 8, 10, entropy), (digits.data / 16).astype("float32"), digits.target),
    }


STRENGTH = 1e-3


def optimum(model: keras.Model, x: np.ndarray, y: np.ndarray) -> float:
    """Of the mean loss with the penalty, by L-BFGS on all data in one place."""
    function = GradientFunction(model)
    start = np.concatenate([w.reshape(-1) for w in model.get_weights()]).astype(float)

    def both(w):
        loss, gradient = function(function.parts(w.astype("float32")), x, y)
        return loss + STRENGTH * w @ w, gradient.astype(float) + 2 * STRENGTH * w

    return float(minimize(both, start, jac=True, method="L-BFGS-B", options={"maxiter": 3000}).fun)


def without_a_centre(smoke: bool) -> list[dict]:
    """Each surrogate on each data set and number of agents."""
    rows = []
    steps = 20 if smoke else STEPS
    for name, (make, x, y) in problems().items():
        best = optimum(make(), x, y)
        for agents in AGENTS[:1] if smoke else AGENTS:
            graph = nx.random_regular_graph(4, agents, seed=0)
            for surrogate in ("full", "partial", "descent"):
                begun = time.perf_counter()
                tau = 0.5 if surrogate == "partial" else 1.0
                trainer = NetworkTrainer(
                    make(), graph, surrogate, keras.regularizers.L2(STRENGTH), tau=tau, step=0.3, decay=0.003
                )
                found = trainer.fit(split(x, y, agents), epochs=20, steps_per_epoch=max(steps // 20, 1), verbose=0)
                logs = found.history
                total = [a + b for a, b in zip(logs["loss"], logs["penalty"], strict=True)]
                row = {"data": name, "agents": agents, "surrogate": surrogate, "optimum": best, "curve": total}
                row |= {"disagreement": logs["disagreement"][-1], "tracking": max(logs["tracking"])}
                rows.append({**row, "steps": steps, "seconds": time.perf_counter() - begun})
                print(f"{name:<14}{agents:>3} {surrogate:<8} {total[-1]:.4f}, the optimum {best:.4f}", flush=True)
    return rows


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
        last = 15 if smoke else 60
        troubles = [] if name == "uncoded" else [Trouble("node-1", "kill", "forward", last // 2)]
        with RayActors(troubles=troubles) as executor:
            trainer = CodedTrainer(model, code, executor)
            watch = Watch(trainer, executor)
            trainer.fit(x[: 32 * last], y[: 32 * last], epochs=1, verbose=0, callbacks=[watch])
        times = np.diff(watch.times)
        killed = next((i for i, alive in enumerate(watch.alive) if alive < code.nodes), None)
        back = None if killed is None else next((i for i in range(killed, last) if watch.alive[i] == code.nodes), None)
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


def kept(path: Path, make) -> list[dict]:
    """What a part gave, from its file where it was done."""
    if path.is_file():
        return json.loads(path.read_text())
    found = make()
    write_whole(path, json.dumps(found).encode())
    return found


def picture(simulated: list[dict], measured: list[dict], agents: list[dict], path: Path) -> None:
    """Accuracy against time; loss above the optimum against steps."""
    figure = Figure(figsize=(12, 9.6), layout="constrained")
    axes = figure.subplots(3, 3)
    for row, runs, unit in ((0, simulated, "simulated time"), (1, measured, "seconds, 30 actors")):
        for column, stragglers in enumerate(STRAGGLERS):
            axis = axes[row][column]
            for run in runs:
                if run["stragglers"] == stragglers:
                    axis.plot(*np.array(run["curve"]).T, label=run["way"], linewidth=1.3)
            axis.set_title(f"LeNet-5, {stragglers} of {WORKERS} straggle", fontsize=9)
            axis.set_xlabel(unit)
            axis.set_ylim(0, 1)
    axes[0][0].set_ylabel("accuracy")
    if axes[0][0].lines:
        axes[0][0].legend(fontsize=7, frameon=False)
    for axis, name in zip(axes[2], dict.fromkeys(run["data"] for run in agents), strict=False):
        for run in agents:
            if run["data"] == name:
                above = np.maximum(np.array(run["curve"]) - run["optimum"], 1e-6)
                places = np.linspace(0, run["steps"], len(above) + 1)[1:]
                style = {"full": "-", "partial": "--", "descent": ":"}[run["surrogate"]]
                axis.semilogy(places, above, style, label=f"{run['surrogate']}, {run['agents']} agents", linewidth=1.2)
        axis.set_title(f"{name}: loss above the optimum", fontsize=9)
        axis.set_xlabel("step")
    axes[2][0].legend(fontsize=6, frameon=False)
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")


def table(header: list[str], rows: list[list]) -> list[str]:
    """As Markdown."""
    return [
        "| " + " | ".join(header) + " |",
        "|" + "---|" * len(header),
        *("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows),
        "",
    ]


def report(simulated: list[dict], measured: list[dict], agents: list[dict], coded: list[dict], folder: Path) -> None:
    """Tables and picture."""
    folder.mkdir(parents=True, exist_ok=True)
    header = ["way", "stragglers", "steps", "accuracy", "time", "late"]

    def line(run: dict) -> list:
        spent, accuracy = run["curve"][-1]
        return [
            run["way"],
            run["stragglers"],
            run["steps"],
            f"{100 * accuracy:.2f}",
            f"{spent:.4g}",
            run["events"]["late"],
        ]

    heads = {"agents": ["data", "agents", "surrogate", "loss", "optimum", "disagreement", "tracking"]}
    agent_rows = [
        [
            run["data"], run["agents"], run["surrogate"], f"{run['curve'][-1]:.4f}", f"{run['optimum']:.4f}",
            f"{run['disagreement']:.1e}", f"{run['tracking']:.1e}",
        ]
        for run in agents
    ]  # fmt: skip
    coded_head = list(coded[0]) if coded else []
    coded_rows = [[f"{v:.4g}" if isinstance(v, float) else v for v in row.values()] for row in coded]
    lines = [
        "# On many machines",
        "",
        "- command: `python benchmarks/distributed.py --data DIR --ray`",
        f"- commit: {commit()}; seeds 0 and 1",
        f"- machine: {machine()}",
        "",
        f"## LeNet-5 on MNIST with {WORKERS} workers",
        "",
        f"{SAMPLES} images, batches of {BATCH}, accuracy in per cent on {TESTED} test images. Simulated: a call takes "
        f"1 for each sample, with an exponential tail of mean 0.2, and a straggling one {SLOWER:g} times as long.",
        "",
        *table(header, [line(run) for run in simulated]),
        *(
            [f"On actors of this machine, in seconds; stragglers sleep {SLEEP:g} s in each call, one epoch:", ""]
            if measured
            else []
        ),
        *(table(header, [line(run) for run in measured]) if measured else []),
        "![accuracy and loss](distributed.png)",
        "",
        "## Without a centre",
        "",
        f"NEXT after {STEPS} steps on random 4-regular graphs, L2 of {STRENGTH:g}; the optimum by L-BFGS on all data.",
        "",
        *table(heads["agents"], agent_rows),
        "## Coded nodes on actors",
        "",
        "A 64-64-10 network on digits, batch 32; one actor is killed midway. Recovery is until all nodes are there.",
        "",
        *table(coded_head, coded_rows),
    ]
    write_whole(folder / "distributed.md", "\n".join(lines).encode())
    with whole_file(folder / "distributed.csv") as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["where", *header], *[["simulated", *line(run)] for run in simulated]])
        writer.writerows([["actors", *line(run)] for run in measured])
        writer.writerows([[], heads["agents"], *agent_rows, [], coded_head, *coded_rows])
    picture(simulated, measured, agents, folder / "distributed.png")


def main() -> None:
    """Runs what is missing and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("AXTRAIN_DATA"), help="folder with data/")
    parser.add_argument(
        "--cache", type=Path, default=Path("benchmarks/results/distributed"), help="parts are kept here"
    )
    parser.add_argument("--out", type=Path, default=Path("docs/results"), help="where the results go")
    parser.add_argument("--ray", action="store_true", help="also LeNet-5 on 30 actors: 15 GB of memory")
    parser.add_argument("--smoke", action="store_true", help="a little of each part: does it run?")
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    data = None if arguments.data is None else Path(arguments.data)
    smoke, cache = arguments.smoke, arguments.cache
    simulated = kept(cache / "berrut.json", lambda: berrut(data, smoke))
    agents = kept(cache / "next.json", lambda: without_a_centre(smoke))
    coded = kept(cache / "nodes.json", lambda: nodes(smoke))
    measured = kept(cache / "berrut_ray.json", lambda: berrut_on_actors(data, smoke)) if arguments.ray else []
    report(simulated, measured, agents, coded, arguments.out)
    print(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
