"""Your own Keras model on approximate hardware, in the ten lines of the README, on scikit-learn's digits."""

from __future__ import annotations

import argparse

import keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import axtrain as ax


def main() -> None:
    """Trains a dense network, breaks it, mends it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="few epochs and chips")
    smoke = parser.parse_args().smoke
    keras.utils.set_random_seed(0)
    x, y = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(x.astype("float32") / 16, y, stratify=y, random_state=0)
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((64,)), layers.Dense(64, "relu"), layers.Dense(64, "relu"), layers.Dense(10, "softmax")]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x_train, y_train, epochs=5 if smoke else 40, verbose=0)

    hardware = ax.Hardware(
        multiplier=ax.multipliers.get("broken_array_5_9"),
        weight_memory=ax.memories.NearThresholdSRAM(voltage=0.50),  # pass curve=... measured on your chips
    )
    noisy = ax.convert(model, hardware, calibration=x_train[:512])
    chips = 5 if smoke else 50
    print("before:", ax.evaluate(noisy, x_test, y_test, chips=chips))
    noisy.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    noisy.fit(x_train, y_train, epochs=5 if smoke else 40, verbose=0)
    print("after: ", ax.evaluate(noisy, x_test, y_test, chips=chips))
    ax.summary(noisy)


if __name__ == "__main__":
    main()
