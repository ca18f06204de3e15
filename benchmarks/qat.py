"""The 8-bit quantisation-aware training of tensorflow-model-optimization, to compare a training step with."""

from __future__ import annotations

import os


def qat_resnet8():
    """ResNet-8 in tf_keras, made quantisation-aware by tfmot, compiled as the other networks are.

    Importing tfmot sets an environment variable that would turn `tf.keras` into Keras 2 for the process;
    `tf.keras` is touched first and the variable put back.
    """
    import tensorflow as tf

    _ = tf.keras.layers
    before = os.environ.get("TF_USE_LEGACY_KERAS")
    import tensorflow_model_optimization as tfmot
    import tf_keras

    if before is None:
        os.environ.pop("TF_USE_LEGACY_KERAS", None)
    else:
        os.environ["TF_USE_LEGACY_KERAS"] = before
    layers = tf_keras.layers

    def block(x, filters, size=3, strides=1):
        x = layers.Conv2D(filters, size, strides=strides, padding="same")(x)
        return layers.BatchNormalization(epsilon=1e-3)(x)

    inputs = tf_keras.Input((32, 32, 3))
    x = layers.ReLU()(block(inputs, 16))
    for filters, strides in ((16, 1), (32, 2), (64, 2)):
        y = block(layers.ReLU()(block(x, filters, strides=strides)), filters)
        if strides > 1:
            x = layers.Conv2D(filters, 1, strides=strides, padding="same")(x)
        x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.Flatten()(layers.AveragePooling2D(8)(x))
    model = tf_keras.Model(inputs, layers.Dense(10, activation="softmax")(x))
    model = tfmot.quantization.keras.quantize_model(model)
    model.compile(tf_keras.optimizers.SGD(1e-4, momentum=0.9), "sparse_categorical_crossentropy")
    return model
