"""A network whose sub-models have layers of one name."""

import keras
import numpy as np

from axtrain.model_walk import all_layers

X = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")


def tower(name):
    inputs = keras.Input((6,))
    return keras.Model(inputs, keras.layers.Dense(4, name="proj")(inputs), name=name)


def towers():
    """`left/proj`, `right/proj`, and a `proj` behind both."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((6,))
    left, right = tower("left"), tower("right")
    both = keras.layers.Add(name="both")([left(inputs), right(inputs)])
    return keras.Model(inputs, keras.layers.Dense(3, name="proj")(both), name="towers")


def products(model):
    return [layer for layer in all_layers(model) if layer.name == "proj"]
