"""scikit-learn's handwritten digits and a small network for them, as the examples use them."""

from __future__ import annotations

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


def digits() -> tuple[np.ndarray, ...]:
    """Images of 8 by 8 pixels in 0..1 and their labels: training images and labels, test images and labels."""
    x, y = load_digits(return_X_y=True)
    images = (x.astype("float32") / 16).reshape(-1, 8, 8, 1)
    x_train, x_test, y_train, y_test = train_test_split(images, y, stratify=y, random_state=0)
    return x_train, y_train, x_test, y_test


def small_network() -> keras.Model:
    """Two convolutions and two dense layers."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(16, 3, padding="same", activation="relu", name="edges"),
            layers.MaxPooling2D(name="halved"),
            layers.Conv2D(16, 3, padding="same", activation="relu", name="strokes"),
            layers.MaxPooling2D(name="quartered"),
            layers.Flatten(name="flat"),
            layers.Dense(64, activation="relu", name="hidden"),
            layers.Dense(10, activation="softmax", name="digit"),
        ]
    )


def trained_network(epochs: int) -> tuple[keras.Model, tuple[np.ndarray, ...]]:
    """The network after ordinary training in float, and the data."""
    data = digits()
    network = small_network()
    network.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    network.fit(data[0], data[1], batch_size=64, epochs=epochs, verbose=0)
    return network, data
