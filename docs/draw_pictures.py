"""Draws the pictures of the concept and how-to pages from real runs: `python docs/draw_pictures.py [NAME ...]`.

Names are those of the files in docs/pictures without their suffix; without any, all are drawn.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras

import axtrain as ax
from axtrain.training import demo

HERE = Path(__file__).resolve().parent / "pictures"
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def chips() -> None:
    """What the demo draws: every chip before and after training."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # MLflow writes where it is run
        demo.run_demo(Path(folder))
        shutil.copy("chips.png", HERE / "chips.png")
        os.chdir(before)


def drum4() -> None:
    """Errors of a multiplier."""
    ax.multipliers.get("drum4").plot().savefig(HERE / "drum4.png", dpi=120)


def sweep() -> None:
    """Accuracy and energy of the demo's network at every voltage."""
    network, (x_train, _), test = trained()
    memory = ax.Hardware(weight_memory=ax.memories.NearThresholdSRAM(voltage=0.56))
    noisy = ax.convert(network, memory, x_train[:512])
    voltages = (0.44, 0.46, 0.48, 0.5, 0.52, 0.54, 0.56, 0.58, 0.6, 0.65, 0.7)
    swept = ax.sweep(noisy, *test, voltages=voltages, chips=20, verbose=False)
    swept.plot(accuracy=0.95, worst=True).savefig(HERE / "sweep.png", dpi=120)


def front() -> None:
    """The Pareto front of a search over its layers."""
    network, (x_train, y_train), _ = trained()
    names = ("exact", "truncated8", "operand_truncated3", "operand_truncated4", "broken_array_4_8", "broken_array_5_9")
    circuits = [ax.Hardware(multiplier=ax.multipliers.get(name)) for name in names]
    held_out = x_train[-500:], y_train[-500:]
    options = {"budget": 0.01, "confirm": 16, "objective": "multipliers", "verbose": False}
    found = ax.search(network, *held_out, candidates=circuits, calibration=x_train[:512], loss=LOSS, **options)
    found.plot().savefig(HERE / "front.png", dpi=120)


PICTURES = {draw.__name__: draw for draw in (chips, drum4, sweep, front)}


def trained():
    """(the demo's network trained in float, training data, test data)."""
    train, test = demo.digits()
    keras.utils.set_random_seed(0)
    network = demo.digits_network()
    network.compile(keras.optimizers.Adam(2e-3), LOSS, metrics=["accuracy"])
    network.fit(*train, epochs=40, batch_size=64, verbose=0)
    return network, train, test


def main() -> None:
    """Draws what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PICTURES)}")
    names = parser.parse_args().names
    if unknown := sorted(set(names) - PICTURES.keys()):
        parser.error(f"no such pictures; there are {', '.join(PICTURES)}. Received: {unknown}")
    HERE.mkdir(exist_ok=True)
    for name in names or PICTURES:
        PICTURES[name]()


if __name__ == "__main__":
    main()
