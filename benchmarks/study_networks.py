"""The AxTrain study's networks: every method's settings, the tuning, and one data set's figures, kept in a folder."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import keras
import numpy as np
from study_cells import key_of
from study_tasks import TASKS, load
from study_training import commit, keep_averages, save

import axtrain as ax
from axtrain.noise_models.files import write_whole

MULTIPLIERS = {"mild": "mul8s_1L2H", "medium": "mul8u_17KS", "coarse": "mul8u_JV3"}
METHODS = ("conventional", "decay", "passive", "active", "both")
EXACT = "exact"  # 8 bits without errors: what the conventional network has to lose
RATES = (3e-3, 1e-3, 1e-2, 3e-4, 6e-3, 2e-2)  # of Adam, where they are all a method has to choose
CHIPS, TUNING_CHIPS = 20, 5


@dataclass(frozen=True)
class Setting:
    """What a method is tuned by.

    Attributes:
        rate: of Adam.
        decay: of the weights.
        share: of the penalty, in the loss, at the start.
    """

    rate: float
    decay: float = 0.0
    share: float = 0.0

    def __str__(self) -> str:
        more = {"decay": self.decay, "share": self.share}
        return f"{self.rate:g}" + "".join(f"-{name}{value:g}" for name, value in more.items() if value)


_DECAY = ((3e-3, 0.3), (1e-2, 0.3), (3e-3, 0.03), (3e-3, 3.0), (1e-2, 0.03), (1e-2, 3.0))
_SHARE = ((3e-3, 0.1), (3e-3, 0.3), (1e-3, 0.1), (3e-3, 1.0), (1e-2, 0.3), (1e-2, 1.0))
# As many for each method.
SETTINGS = {
    "conventional": tuple(Setting(rate) for rate in RATES),
    "decay": tuple(Setting(rate, decay=decay) for rate, decay in _DECAY),
    "passive": tuple(Setting(rate) for rate in RATES),
    "active": tuple(Setting(rate, share=share) for rate, share in _SHARE),
    "both": tuple(Setting(rate, share=share) for rate, share in _SHARE),
}
# Which penalty, tried with `both` at the coarse level on held-out samples of USPS, Fashion-MNIST, ISOLET and MNIST:
# passive alone 92.3, 72.3, 86.1, 92.0 %; the outputs' sensitivity, differentiated twice, 93.5, 72.2, 87.2, 93.0; the
# loss gradient from moved weights, which see rectifiers' kinks and the circuit's steps, 94.2, 75.6, 89.1, 93.2.
# Its strength stays what it is: rising, falling or off in the last epoch, it gained -0.5 to +0.4 points over that on
# MNIST, USPS and ISOLET (three seeds each, none clear of their spread; penalty_variants.py).
# Its weighting is the hardware's: over that, noise alike for all weights gained -0.5 to +1.1 points on the four data
# sets, noise in proportion to the weights -1.2 to +0.4 (three seeds each; clear are only the losses on MNIST, of 0.15
# and 0.9 points; same file).
# On faulty memories training on the faults already searches for insensitivity: CIFAR-10, 0.5 % of bits, rate 1e-3,
# held-out samples: passive 52.3 %, with a share of 0.1, 0.3, 1 of the penalty 52.0, 52.1, 51.7.
PENALTY = ax.LossGradient(1.0, weighting="hardware", method="first_order", radius=0.02)


@dataclass(frozen=True)
class Cell:
    """One network: who trained it, how, for what."""

    task: str
    seed: int
    hardware: str
    method: str
    setting: Setting

    @property
    def trained_for(self) -> str:
        """Conventional networks know of no hardware, so one serves all."""
        return "none" if self.method in ("conventional", "decay") else self.hardware

    @property
    def network(self) -> str:
        """Its file's name."""
        return f"{self.seed}-{self.method}-{self.trained_for}-{self.setting}".replace(" ", "_")


class Study:
    """One data set's networks and figures, kept in a folder."""

    penalty = PENALTY

    def __init__(self, name: str, data: Path, cache: Path, kept: dict, smoke: bool) -> None:
        self.name, self.task, self.folder, self.kept = name, TASKS[name], cache / name, kept
        self.folder.mkdir(parents=True, exist_ok=True)
        self.parts = load(self.task, data)
        self.data, self.smoke = data, smoke
        if smoke:
            self.parts = {part: (x[:500], y[:500]) for part, (x, y) in self.parts.items()}

    def hardware(self, name: str) -> ax.Hardware:
        """By a table's name, `bits RATE` or `exact`."""
        if name == EXACT:
            return ax.Hardware(name=name)
        if name.startswith("bits "):
            memory = ax.memories.BitErrors(rate=float(name[5:]), fault="persistent")
            return ax.Hardware(weight_memory=memory, name=name)
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
            self._fit(model, Setting(self.task.rate), epochs, seed)
            save(model, path)
        return ax.load_model(path)

    def trained(self, cell: Cell) -> keras.Model:
        """The cell's network on its hardware, bit-exactly."""
        path = self.folder / f"{cell.network}.keras"
        if not path.is_file():
            save(self.made(cell), path)
        return self.on_hardware(ax.load_model(path), cell)

    def made(self, cell: Cell, callbacks=()) -> keras.Model:
        """Trains the cell's network; plain, without its hardware."""
        model = self.clean(cell.seed)
        keras.utils.set_random_seed(1000 + cell.seed)
        if cell.trained_for != "none":
            model = self.on_hardware(model, cell)
            ax.set_fidelity(model, "float" if cell.method == "active" else "exact")
            if cell.method != "active" and self.hardware(cell.hardware).has_faults:
                keep_averages(model)
        if cell.method in ("active", "both"):
            model = self._searching(model, cell.setting)
        self._fit(model, cell.setting, 1 if self.smoke else self.task.epochs[1], 1000 + cell.seed, callbacks)
        return ax.strip(model)

    def on_hardware(self, model: keras.Model, cell: Cell) -> keras.Model:
        """Bit-exactly."""
        return ax.convert(model, self.hardware(cell.hardware), self.parts["train"][0][:512])

    def _searching(self, model: keras.Model, setting: Setting) -> keras.Model:
        """With a penalty that has the setting's share of the loss at the start."""
        x, y = self.parts["train"]
        options = {"share": setting.share, "batch_size": self.task.batch}
        return ax.with_sensitivity(model, ax.scaled_penalty(model, self.penalty, x[:1024], y[:1024], **options))

    def _fit(self, model, setting: Setting, epochs: int, seed: int, callbacks=()) -> None:
        x, y = self.parts["train"]
        steps = epochs * -(-len(x) // self.task.batch)
        schedule = keras.optimizers.schedules.CosineDecay(setting.rate, steps)
        model.compile(keras.optimizers.AdamW(schedule, setting.decay), "sparse_categorical_crossentropy")
        keras.utils.set_random_seed(seed)
        model.fit(x, y, batch_size=self.task.batch, epochs=epochs, callbacks=list(callbacks), verbose=0)

    def figure(self, cell: Cell, part: str) -> list[float]:
        """Accuracy of each chip on a part of the data, kept."""
        row = {"task": self.name, "network": cell.network, "hardware": cell.hardware, "part": part}
        if key_of(row) in self.kept:
            return self.kept[key_of(row)]["accuracies"]
        path = self.folder / f"{cell.network}-{cell.hardware.replace(' ', '_')}-{part}.json"
        if not path.is_file():
            start = time.perf_counter()
            chips = 2 if self.smoke else TUNING_CHIPS if part == "tuning" else CHIPS
            found = ax.evaluate(self.trained(cell), *self.parts[part], chips=chips, batch_size=250, verbose=False)
            settings = {**row, **asdict(cell), "commit": commit(), "seconds": time.perf_counter() - start}
            write_whole(path, json.dumps({**settings, **found.to_dict()}, indent=1).encode())
            print(f"{self.name:<8}{cell.hardware:<12}{cell.method:<13}{cell.seed} {cell.setting!s:<18}{part:<7}"
                  f"{100 * found.mean:6.2f}  {settings['seconds']:.0f} s", flush=True)  # fmt: skip
        return json.loads(path.read_text())["accuracies"]

    def chosen(self, hardware: str, method: str) -> Setting:
        """By seed 0 on the tuning part, the mean over chips; of equals the first."""
        cells = {setting: Cell(self.name, 0, hardware, method, setting) for setting in SETTINGS[method]}
        return max(cells, key=lambda setting: np.mean(self.figure(cells[setting], "tuning")))

    def rows(self, only: list[str] | None) -> list[dict]:
        """One for each hardware, method, seed and test part."""
        found = []
        for hardware in (EXACT, *(only or self.hardware_names())):
            for method in METHODS[:1] if hardware == EXACT else METHODS:
                setting = self.chosen(hardware, method)
                for seed in range(1 if self.smoke else self.task.seeds):
                    for part in self.task.tests:
                        accuracies = self.figure(Cell(self.name, seed, hardware, method, setting), part)
                        row = {"data": self.name, "hardware": hardware, "method": method, "seed": seed, "part": part}
                        found.append({**row, "setting": str(setting), "accuracy": float(np.mean(accuracies)),
                                      "worst": float(np.min(accuracies)), "chips": len(accuracies)})  # fmt: skip
        return found
