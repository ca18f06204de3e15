"""Should the penalty move during training, and whose noise should weigh it? `both` at the coarse multiplier.

The AxTrain study keeps its strength and weighs each weight by the variance of the hardware's error there. Here it also
rises, falls, or is off in the last epoch, and the weights' noise is the same for all, or in proportion to their size;
on the study's four small data sets, from the same clean networks and with the same seeds, paired over seeds, judged on
held-out samples.

    python benchmarks/penalty_variants.py --data DIR --cache FOLDER_OF_THE_STUDY
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))

import numpy as np
from study_networks import MULTIPLIERS, PENALTY, Cell, Setting, Study

import axtrain as ax

EPOCHS = 3
SETTING = Setting(3e-3, share=1.0)  # what held-out samples chose most often


@dataclass(frozen=True)
class Variant:
    """A penalty, and its strength in each epoch as a share of the first."""

    penalty: ax.LossGradient = PENALTY
    schedule: Callable[[int], float] = lambda epoch: 1.0


VARIANTS = {
    "the study's": Variant(),
    "rising": Variant(schedule=lambda epoch: (epoch + 1) / EPOCHS),
    "falling": Variant(schedule=lambda epoch: 1 - epoch / EPOCHS),
    "off in the last epoch": Variant(schedule=lambda epoch: float(epoch < EPOCHS - 1)),
    "noise alike": Variant(replace(PENALTY, weighting="constant")),
    "noise in proportion": Variant(replace(PENALTY, weighting="proportional")),
}


class Varied(Study):
    """The study's networks with another penalty; none is kept."""

    variant: Variant

    def accuracy(self, seed: int) -> float:
        """In per cent on the held-out part, of one newly trained network."""
        self.penalty = self.variant.penalty
        cell = Cell(self.name, seed, MULTIPLIERS["coarse"], "both", SETTING)
        model = self.on_hardware(self.made(cell, [ax.callbacks.PenaltySchedule(self.variant.schedule)]), cell)
        return 100 * ax.evaluate(model, *self.parts["tuning"], verbose=False).mean


def main() -> None:
    """Trains and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("AXTRAIN_DATA"), help="folder with data/, luts/")
    parser.add_argument("--cache", type=Path, default=Path("benchmarks/results/axtrain_study"), help="the study's")
    parser.add_argument("--only", choices=("usps", "isolet", "mnist", "fashion"), action="append", help="default all")
    parser.add_argument("--variant", choices=list(VARIANTS), action="append", help="default all")
    parser.add_argument("--seeds", type=int, default=3, help="networks of each kind, default 3")
    parser.add_argument("--smoke", action="store_true", help="an epoch of few samples: does it run?")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("--data DIR (or AXTRAIN_DATA) is needed: its luts/ and data/")
    for name in arguments.only or ("usps", "isolet", "mnist", "fashion"):
        study = Varied(name, Path(arguments.data), arguments.cache, {}, arguments.smoke)
        first = None
        for title in dict.fromkeys(["the study's", *(arguments.variant or VARIANTS)]):
            study.variant = VARIANTS[title]
            found = np.array([study.accuracy(seed) for seed in range(arguments.seeds)])
            first = found if first is None else first
            gain = found - first
            each = ", ".join(f"{one:+.2f}" for one in gain)
            spread = found.std(ddof=min(1, len(found) - 1))
            print(f"{name:<8}{title:<22}{found.mean():6.2f} +- {spread:.2f}  gain {gain.mean():+.2f} ({each})",
                  flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
