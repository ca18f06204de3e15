"""What the studies' trainings share: images varied, averages kept, and which code ran."""

from __future__ import annotations

import subprocess
from pathlib import Path

import keras
import tensorflow as tf

from axtrain.noise_models.files import whole_file


def shifted_and_mirrored(images, labels):
    """A batch of small images of things, each moved by up to 4 pixels and mirrored at random; for `tf.data`'s map."""
    shifted = tf.image.random_crop(tf.pad(images, [[0, 0], [4, 4], [4, 4], [0, 0]]), tf.shape(images))
    return tf.image.random_flip_left_right(shifted), labels


def keep_averages(model: keras.Model) -> None:
    """Batch normalisation uses its moving averages from now on, in training too.

    In training it would take the shift that a chip's faulty weights cause from the batch, and out again, which no
    inference does.
    """
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False


def commit() -> str:
    """Of the code that runs."""
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def save(model: keras.Model, path: Path) -> None:
    """A file whole or not at all."""
    with whole_file(path) as temporary:
        model.save(temporary)
