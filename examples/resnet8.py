"""The image-classification network of MLPerf Tiny, rebuilt in Keras, with its published weights.

Source: mlcommons/tiny, benchmark/training/image_classification (Apache-2.0). The weights come as an `.npz`
with arrays named `layer.weight`; input is raw 0..255 RGB.
"""

from __future__ import annotations

import os

import keras
import numpy as np
from keras import layers


def resnet8() -> keras.Model:
    """ResNet-8 for 32x32x3 inputs in 0..255 and 10 classes; the output is a softmax."""
    numbers = iter(range(9)), iter(range(7))

    def convolution(x, filters, size=3, strides=1):
        name = _name("conv2d", next(numbers[0]))
        return layers.Conv2D(filters, size, strides=strides, padding="same", name=name)(x)

    def normalisation(x):
        return layers.BatchNormalization(epsilon=1e-3, name=_name("batch_normalization", next(numbers[1])))(x)

    inputs = keras.Input((32, 32, 3), name="image")
    x = layers.ReLU()(normalisation(convolution(inputs, 16)))
    for filters, strides in ((16, 1), (32, 2), (64, 2)):
        y = layers.ReLU()(normalisation(convolution(x, filters, strides=strides)))
        y = normalisation(convolution(y, filters))
        if strides > 1:
            x = convolution(x, filters, size=1, strides=strides)
        x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.Flatten()(layers.AveragePooling2D(8)(x))
    return keras.Model(inputs, layers.Dense(10, activation="softmax", name="dense")(x), name="resnet8")


def load_weights(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """Loads the arrays of `mlperf_tiny_resnet8_weights.npz`, each layer by its name."""
    with np.load(path, allow_pickle=False) as arrays:
        for layer in model.layers:
            if layer.weights:
                layer.set_weights([arrays[f"{layer.name}.{variable.name}"] for variable in layer.weights])


def _name(kind: str, number: int) -> str:
    return kind if number == 0 else f"{kind}_{number}"
