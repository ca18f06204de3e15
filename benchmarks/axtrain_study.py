"""AxTrain's two methods on five data sets: passive, active and both, against going on as before.

For every data set and seed one clean network, from which each method continues for the same number of epochs:
`conventional` (in float), `decay` (in float, with weight decay), `passive` (bit-exactly on the hardware), `active` (in
float, with a penalty on the sensitivity to the hardware's noise), `both`. Hardware: a mild, a medium and a coarse
multiplier, and three bit-error rates of the weight memory. Each method has one dial and three values of it to choose
from, by seed 0 on a held-out part of the training data, for each hardware. Every network's figure is kept with its
settings, so an interrupted study goes on where it stopped.

    python benchmarks/axtrain_study.py --data DIR [--only mnist] [--hardware mul8u_JV3]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))

import keras
import numpy as np
from study_report import report
from study_tasks import TASKS, load

import axtrain as ax
from axtrain.files import whole_file, write_whole

MULTIPLIERS = {"mild": "mul8s_1L2H", "medium": "mul8u_17KS", "coarse": "mul8u_JV3"}
METHODS = ("conventional", "decay", "passive", "active", "both")
# Each method's dial: the learning rate; weight decay; the penalty's share of the loss at the start.
DIALS = {
    "conventional": (3e-4, 1e-3, 3e-3),
    "decay": (3e-3, 3e-2, 3e-1),
    "passive": (3e-4, 1e-3, 3e-3),
    "active": (0.03, 0.3, 3.0),
    "both": (0.03, 0.3, 3.0),
}
RATE = 1e-3  # of Adam, where it is not the dial
CHIPS = 20


@dataclass(frozen=True)
class Cell:
    """One network: who trained it, how, for what."""

    task: str
    seed: int
    hardware: str
    method: str
    dial: float

    @property
    def trained_for(self) -> str:
        """Conventional networks know of no hardware, so one serves all."""
        return "none" if self.method in ("conventional", "decay") else self.hardware

    @property
    def network(self) -> str:
        """Its file's name."""
        return f"{self.seed}-{self.method}-{self.trained_for}-{self.dial:g}"


class Study:
    """One data set's networks and figures, kept in a folder."""

    def __init__(self, name: str, data: Path, cache: Path, smoke: bool) -> None:
        self.name, self.task, self.folder = name, TASKS[name], cache / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.parts = load(self.task, data)
        self.data, self.smoke = data, smoke
        if smoke:
            self.parts = {part: (x[:500], y[:500]) for part, (x, y) in self.parts.items()}

    def hardware(self, name: str) -> ax.Hardware:
        """By a table's name, or `bits RATE`."""
        if name.startswith("bits "):
            return ax.Hardware(weight_memory=ax.memories.BitErrors(rate=float(name[5:]), fault="persistent"), name=name)
        table = ax.Multiplier.load(self.data / "luts" / f"{name}.npy", signed=name.startswith("mul8s"))
        return ax.Hardware(multiplier=table, name=name)

    def hardware_names(self) -> list[str]:
        """All of this data set."""
        return [*MULTIPLIERS.values(), *(f"bits {rate:g}" for rate in self.task.rates)]

    def clean(self, seed: int) -> keras.Model:
        """The network that every method continues from."""
        path = self.folder / f"{seed}-clean.keras"
        if not path.is_file():
            keras.utils.set_random_seed(seed)
            model = self.task.network()
            epochs = 1 if self.smoke else self.task.epochs[0]
            self._fit(model, self.task.rate, epochs, seed)
            save(model, path)
        return ax.load_model(path)

    def trained(self, cell: Cell) -> keras.Model:
        """The cell's network on its hardware, bit-exactly."""
        path, x = self.folder / f"{cell.network}.keras", self.parts["train"][0]
        if not path.is_file():
            model = self.clean(cell.seed)
            keras.utils.set_random_seed(1000 + cell.seed)
            if cell.trained_for != "none":
                model = ax.convert(model, self.hardware(cell.hardware), x[:512])
                ax.set_fidelity(model, "float" if cell.method == "active" else "exact")
            if cell.method in ("active", "both"):
                model = self._searching(model, cell)
            rate = cell.dial if cell.method in ("conventional", "passive") else RATE
            decay = cell.dial if cell.method == "decay" else None
            self._fit(model, rate, 1 if self.smoke else self.task.epochs[1], 1000 + cell.seed, decay)
            save(ax.strip(model), path)
        return ax.convert(ax.load_model(path), self.hardware(cell.hardware), x[:512])

    def _searching(self, model: keras.Model, cell: Cell) -> keras.Model:
        """With a penalty that is `dial` times the loss at the start."""
        options = {"weighting": "hardware", "fraction": 0.25}
        probe = ax.with_sensitivity(model, ax.OutputSensitivity(0.0, **options))
        probe.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
        x, y = self.parts["train"]
        logs = probe.fit(x[:1024], y[:1024], batch_size=self.task.batch, verbose=0).history
        strength = cell.dial * logs["loss"][0] / max(logs["sensitivity"][0], 1e-12)
        return ax.with_sensitivity(model, ax.OutputSensitivity(strength, **options))

    def _fit(self, model, rate: float, epochs: int, seed: int, decay: float | None = None) -> None:
        x, y = self.parts["train"]
        steps = epochs * -(-len(x) // self.task.batch)
        optimizer = keras.optimizers.AdamW(
            keras.optimizers.schedules.CosineDecay(rate, steps), weight_decay=decay or 0.0
        )
        model.compile(optimizer, "sparse_categorical_crossentropy")
        keras.utils.set_random_seed(seed)
        model.fit(x, y, batch_size=self.task.batch, epochs=epochs, verbose=0)

    def figure(self, cell: Cell, part: str) -> list[float]:
        """Accuracy of each chip on a part of the data, kept."""
        kind = "tuning" if part == "tuning" else "test"
        path = self.folder / f"{cell.network}-{cell.hardware.replace(' ', '_')}-{part}.json"
        if not path.is_file():
            start = time.perf_counter()
            chips = (2 if self.smoke else 5) if kind == "tuning" else (2 if self.smoke else CHIPS)
            found = ax.evaluate(self.trained(cell), *self.parts[part], chips=chips, batch_size=250, verbose=False)
            settings = {**vars(cell), "part": part, "commit": commit(), "seconds": time.perf_counter() - start}
            write_whole(path, json.dumps({**settings, **found.to_dict()}, indent=1).encode())
            print(f"{self.name:<8}{cell.hardware:<12}{cell.method:<13}{cell.seed} {cell.dial:<7g}{part:<7}"
                  f"{100 * found.mean:6.2f}  {settings['seconds']:.0f} s", flush=True)  # fmt: skip
        return json.loads(path.read_text())["accuracies"]

    def chosen_dial(self, hardware: str, method: str) -> float:
        """By seed 0 on the tuning part, the mean over chips."""
        scores = {
            dial: float(np.mean(self.figure(Cell(self.name, 0, hardware, method, dial), "tuning")))
            for dial in DIALS[method]
        }
        return max(scores, key=lambda dial: scores[dial])

    def rows(self, only: list[str] | None) -> list[dict]:
        """One for each hardware, method, seed and test part."""
        found = []
        for hardware in only or self.hardware_names():
            for method in METHODS:
                dial = self.chosen_dial(hardware, method)
                for seed in range(1 if self.smoke else self.task.seeds):
                    for part in self.task.tests:
                        accuracies = self.figure(Cell(self.name, seed, hardware, method, dial), part)
                        row = {"data": self.name, "hardware": hardware, "method": method, "seed": seed, "part": part}
                        found.append({**row, "dial": dial, "accuracy": float(np.mean(accuracies)),
                                      "worst": float(np.min(accuracies)), "chips": len(accuracies)})  # fmt: skip
        return found


def save(model: keras.Model, path: Path) -> None:
    """A file whole or not at all."""
    with whole_file(path) as temporary:
        model.save(temporary)


def commit() -> str:
    """Of the code that runs."""
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def main() -> None:
    """Runs what is missing and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("AXTRAIN_DATA"), help="folder with data/, luts/")
    parser.add_argument("--only", choices=list(TASKS), action="append", help="one data set, default all")
    parser.add_argument("--hardware", action="append", help="one hardware, default all")
    parser.add_argument("--cache", type=Path, default=Path("benchmarks/results/axtrain_study"), help="cells' folder")
    parser.add_argument("--out", type=Path, default=Path("docs/results"), help="where the results go")
    parser.add_argument("--smoke", action="store_true", help="an epoch of few samples: does it run?")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("--data DIR (or AXTRAIN_DATA) is needed: its luts/ and data/")
    rows = []
    for name in arguments.only or TASKS:
        rows += Study(name, Path(arguments.data), arguments.cache, arguments.smoke).rows(arguments.hardware)
    report(rows, arguments.out, METHODS, {name: task.title for name, task in TASKS.items()}, commit())
    print(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
