"""ResNet-8 of MLPerf Tiny on approximate multipliers, before and after one epoch of training for them.

With --data DIR (or AXTRAIN_DATA), a folder with `data/cifar10.npz`, `models/mlperf_tiny_resnet8_weights.npz`
and `luts/*.npy`: the published network on CIFAR-10, with EvoApproxLib circuits. Without: the same network
trained on scikit-learn's digits, enlarged to 32x32x3, with circuits computed from their definitions.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

import axtrain as ax

sys.path.insert(0, str(Path(__file__).parent))
from resnet8 import load_weights, resnet8


@dataclass
class Problem:
    """A trained float network, its data, and the circuits to try."""

    network: keras.Model
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    circuits: list[ax.Multiplier]


@dataclass
class Row:
    """Accuracy of one circuit; `after` is None where nothing was trained."""

    circuit: str
    before: float
    after: float | None


def cifar10(folder: Path) -> Problem:
    """The published network and data."""
    network = resnet8()
    load_weights(network, folder / "models" / "mlperf_tiny_resnet8_weights.npz")
    with np.load(folder / "data" / "cifar10.npz") as arrays:
        train, test = (
            (arrays[f"x_{part}"].astype("float32"), arrays[f"y_{part}"].ravel()) for part in ("train", "test")
        )
    circuits = [
        ax.Multiplier.load(folder / "luts" / f"{name}.npy", signed=name.startswith("mul8s"))
        for name in ("mul8s_1L2H", "mul8u_17KS")
    ]
    return Problem(network, train, test, circuits)


def enlarged_digits(epochs: int) -> Problem:
    """scikit-learn's digits as 32x32x3 images in 0..255, and the network trained on them."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    x = np.repeat(np.kron(x.reshape(-1, 8, 8), np.ones((4, 4)))[..., None] * (255 / 16), 3, axis=-1)
    x_train, x_test, y_train, y_test = train_test_split(
        x.astype("float32"), y, test_size=0.3, stratify=y, random_state=0
    )
    network = resnet8()
    network.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
    network.fit(x_train, y_train, epochs=epochs, batch_size=32, verbose=2)
    circuits = [ax.multipliers.get(name) for name in ("drum3", "broken_array_2_8")]
    return Problem(network, (x_train, y_train), (x_test, y_test), circuits)


def run(problem: Problem, *, steps: int | None = None, learning_rate: float = 1e-4) -> list[Row]:
    """Float, the exact multiplier at 8 bits, then each circuit before and after one epoch.

    Args:
        problem: network, data, circuits.
        steps: batches of 32 in the epoch; `None` for all the training data.
        learning_rate: of SGD with momentum 0.9 and gradients clipped to a global norm of 1.
    """
    x_train, y_train = problem.train
    rows = [Row("float", ax.evaluate(problem.network, *problem.test).mean, None)]
    for circuit in (None, *problem.circuits):
        keras.utils.set_random_seed(0)
        noisy = ax.convert(problem.network, ax.Hardware(multiplier=circuit), calibration=x_train[:512])
        before, after = ax.evaluate(noisy, *problem.test).mean, None
        if circuit is not None:
            optimizer = keras.optimizers.SGD(learning_rate, momentum=0.9, global_clipnorm=1.0)
            noisy.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
            count = len(x_train) if steps is None else 32 * steps
            noisy.fit(x_train[:count], y_train[:count], batch_size=32, verbose=2)
            after = ax.evaluate(noisy, *problem.test).mean
        rows.append(Row("exact, 8 bits" if circuit is None else circuit.name, before, after))
    return rows


def main() -> None:
    """Runs the example and prints its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("AXTRAIN_DATA"), help="folder with real data")
    parser.add_argument("--smoke", action="store_true", help="a few steps, to finish within a minute")
    arguments = parser.parse_args()
    keras.utils.set_random_seed(0)
    problem = cifar10(Path(arguments.data)) if arguments.data else enlarged_digits(6 if arguments.smoke else 15)
    rows = run(problem, steps=20 if arguments.smoke else None)
    print(f"\n{'circuit':<20}{'before':>8}{'after':>8}   test accuracy, {len(problem.test[1])} samples")
    for row in rows:
        print(f"{row.circuit:<20}{row.before:>8.3f}{'' if row.after is None else f'{row.after:.3f}':>8}")


if __name__ == "__main__":
    main()
