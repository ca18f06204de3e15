"""Should the penalty's strength move during training? `both` at the coarse multiplier, judged on held-out samples.

The AxTrain study keeps it constant. Here it also rises, falls, or is off in the last epoch, on the study's four small
data sets, from the same clean networks and with the same seeds; paired over seeds.

    python benchmarks/penalty_schedules.py --data DIR --cache FOLDER_OF_THE_STUDY
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))

import numpy as np
from study_networks import MULTIPLIERS, Cell, Setting, Study

import axtrain as ax

EPOCHS = 3
SCHEDULES: dict[str, Callable[[int], float]] = {
    "constant": lambda epoch: 1.0,
    "rising": lambda epoch: (epoch + 1) / EPOCHS,
    "falling": lambda epoch: 1 - epoch / EPOCHS,
    "off in the last epoch": lambda epoch: float(epoch < EPOCHS - 1),
}
SETTING = Setting(3e-3, share=1.0)  # what held-out samples chose most often


class Scheduled(Study):
    """The study's networks with a penalty whose strength moves; none is kept."""

    schedule: Callable[[int], float]

    def accuracy(self, seed: int) -> float:
        """In per cent on the held-out part, of one newly trained network."""
        cell = Cell(self.name, seed, MULTIPLIERS["coarse"], "both", SETTING)
        model = self.on_hardware(self.made(cell, [ax.callbacks.PenaltySchedule(self.schedule)]), cell)
        return 100 * ax.evaluate(model, *self.parts["tuning"], verbose=False).mean


def main() -> None:
    """Trains and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("AXTRAIN_DATA"), help="folder with data/, luts/")
    parser.add_argument("--cache", type=Path, default=Path("benchmarks/results/axtrain_study"), help="the study's")
    parser.add_argument("--only", choices=("usps", "isolet", "mnist", "fashion"), action="append", help="default all")
    parser.add_argument("--seeds", type=int, default=3, help="networks of each kind, default 3")
    parser.add_argument("--smoke", action="store_true", help="an epoch of few samples: does it run?")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("--data DIR (or AXTRAIN_DATA) is needed: its luts/ and data/")
    for name in arguments.only or ("usps", "isolet", "mnist", "fashion"):
        study = Scheduled(name, Path(arguments.data), arguments.cache, {}, arguments.smoke)
        constant = None
        for title, schedule in SCHEDULES.items():
            study.schedule = schedule
            found = np.array([study.accuracy(seed) for seed in range(arguments.seeds)])
            constant = found if constant is None else constant
            gain = found - constant
            each = ", ".join(f"{one:+.2f}" for one in gain)
            spread = found.std(ddof=min(1, len(found) - 1))
            print(f"{name:<8}{title:<22}{found.mean():6.2f} +- {spread:.2f}  over constant {gain.mean():+.2f} ({each})",
                  flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
