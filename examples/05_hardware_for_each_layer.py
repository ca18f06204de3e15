"""Which multiplier for which layer? The cheapest assignment that loses at most a point, confirmed bit-exactly.

A small convolutional network on scikit-learn's digits and circuits that the package computes. The search chooses by a
part of the training images; the test images are seen once, at the end.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import keras
from digits import trained_network

import axtrain as ax

CIRCUITS = ("exact", "truncated8", "operand_truncated3", "broken_array_4_8", "broken_array_5_9")


def main() -> None:
    """Maps the layers' sensitivity, searches, trains the winner, measures it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for pictures; a temporary one by default")
    parser.add_argument("--smoke", action="store_true", help="few epochs, circuits and confirmations")
    arguments = parser.parse_args()
    keras.utils.set_random_seed(0)
    out = arguments.out or Path(tempfile.mkdtemp(prefix="axtrain-search-"))
    out.mkdir(parents=True, exist_ok=True)
    network, (x_train, y_train, x_test, y_test) = trained_network(3 if arguments.smoke else 20)
    names = CIRCUITS[::2] if arguments.smoke else CIRCUITS
    circuits = [ax.Hardware(multiplier=ax.multipliers.get(name)) for name in names]

    # 1. What each circuit costs in each layer alone: predicted from curvature, and measured.
    held_out = x_train[-300:], y_train[-300:]
    sensitivity = ax.sensitivity(network, *held_out, candidates=circuits, verbose=False)
    print(sensitivity)
    sensitivity.plot().savefig(out / "sensitivity.png", dpi=150)

    # 2. The cheapest assignment within a point of the exact network, trained for it where that buys a cheaper one.
    def train(model: keras.Model) -> None:
        model.compile(keras.optimizers.Adam(5e-4), "sparse_categorical_crossentropy")
        model.fit(x_train[:-300], y_train[:-300], batch_size=64, epochs=1 if arguments.smoke else 5, verbose=0)

    found = ax.search(
        network, *held_out, candidates=circuits, sensitivity=sensitivity, budget=0.01, objective="multipliers",
        confirm=2 if arguments.smoke else 12, train=train, calibration=x_train[:512], verbose=False,
    )  # fmt: skip
    print(f"\n{found}")
    found.plot().savefig(out / "front.png", dpi=150)

    # 3. On images that neither training nor the search has seen.
    exact = ax.evaluate(ax.convert(network, ax.Hardware(), x_train[:512]), x_test, y_test).mean
    chosen = exact if found.model is None else ax.evaluate(found.model, x_test, y_test).mean
    print(f"\ntest images: exact multipliers {exact:.4f}, chosen ones {chosen:.4f}\npictures: {out}")


if __name__ == "__main__":
    main()
