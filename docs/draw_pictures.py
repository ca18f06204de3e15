"""Draws the pictures of the concept and how-to pages from real runs: `python docs/draw_pictures.py`."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras

import axtrain as ax
from axtrain.training import demo

HERE = Path(__file__).resolve().parent / "pictures"


def main() -> None:
    """Trains the demo's network and draws what it shows."""
    HERE.mkdir(exist_ok=True)
    (x_train, y_train), (x_test, y_test) = demo.digits()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # MLflow writes where it is run
        demo.run_demo(Path(folder))
        shutil.copy("chips.png", HERE / "chips.png")
        os.chdir(HERE)
    ax.multipliers.get("drum4").plot().savefig(HERE / "drum4.png", dpi=120)
    keras.utils.set_random_seed(0)
    network = demo.digits_network()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.Adam(2e-3), loss, metrics=["accuracy"])
    network.fit(x_train, y_train, epochs=40, batch_size=64, verbose=0)

    memory = ax.Hardware(weight_memory=ax.memories.NearThresholdSRAM(voltage=0.56))
    noisy = ax.convert(network, memory, x_train[:512])
    voltages = (0.44, 0.46, 0.48, 0.5, 0.52, 0.54, 0.56, 0.58, 0.6, 0.65, 0.7)
    swept = ax.sweep(noisy, x_test, y_test, voltages=voltages, chips=20, verbose=False)
    swept.plot(accuracy=0.95).savefig(HERE / "sweep.png", dpi=120)

    names = ("exact", "truncated8", "operand_truncated3", "operand_truncated4", "broken_array_4_8", "broken_array_5_9")
    circuits = [ax.Hardware(multiplier=ax.multipliers.get(name)) for name in names]
    held_out = x_train[-500:], y_train[-500:]
    options = {"budget": 0.01, "confirm": 16, "objective": "multipliers", "verbose": False}
    found = ax.search(network, *held_out, candidates=circuits, calibration=x_train[:512], loss=loss, **options)
    found.plot().savefig(HERE / "front.png", dpi=120)


if __name__ == "__main__":
    main()
