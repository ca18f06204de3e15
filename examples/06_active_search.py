"""Passive, active, both: three ways to train for a coarse multiplier, with the same number of epochs.

A small convolutional network on scikit-learn's digits. Passive training makes the hardware's errors in the forward
pass; active training, in float, looks for weights at which they matter little; the two can be had together.
"""

from __future__ import annotations

import argparse

import keras
from digits import trained_network

import axtrain as ax

PENALTY = ax.LossGradient(1.0, weighting="hardware", method="first_order", radius=0.02)


def main() -> None:
    """Continues one network in four ways and measures each on the multiplier, for each seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--multiplier", default="broken_array_5_9", help="by name; default %(default)s")
    parser.add_argument("--seeds", type=int, default=3, help="default %(default)s")
    parser.add_argument("--smoke", action="store_true", help="one seed, one epoch")
    arguments = parser.parse_args()
    hardware = ax.Hardware(multiplier=ax.multipliers.get(arguments.multiplier))
    epochs = 1 if arguments.smoke else 5

    print(f"accuracy on {arguments.multiplier}, {epochs} further epochs\n{'seed':<6}{'float':>8}", end="")
    print("".join(f"{name:>14}" for name in ("as it is", "conventional", "passive", "active", "both")))
    for seed in range(1 if arguments.smoke else arguments.seeds):
        keras.utils.set_random_seed(seed)
        network, (x_train, y_train, x_test, y_test) = trained_network(3 if arguments.smoke else 15)
        converted = ax.convert(network, hardware, calibration=x_train[:512])
        figures = [ax.evaluate(network, x_test, y_test).mean, ax.evaluate(converted, x_test, y_test).mean]
        for method in ("conventional", "passive", "active", "both"):
            model = ax.convert(network, hardware, calibration=x_train[:512])
            ax.set_fidelity(model, "exact" if method in ("passive", "both") else "float")
            if method in ("active", "both"):
                # As large as 0.3 times the loss: a penalty's own size says nothing a person could guess.
                penalty = ax.scaled_penalty(model, PENALTY, x_train[:512], y_train[:512], share=0.3, batch_size=64)
                model = ax.with_sensitivity(model, penalty)
            model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
            keras.utils.set_random_seed(seed)
            model.fit(x_train, y_train, batch_size=64, epochs=epochs, verbose=0)
            on_hardware = ax.convert(ax.strip(model), hardware, calibration=x_train[:512])
            figures.append(ax.evaluate(on_hardware, x_test, y_test).mean)
        print(f"{seed:<6}{figures[0]:>8.4f}" + "".join(f"{figure:>14.4f}" for figure in figures[1:]), flush=True)


if __name__ == "__main__":
    main()
