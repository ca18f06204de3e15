"""Names under which Keras saves our classes: public interface, files may move, names may not."""

from __future__ import annotations

import keras

PACKAGE = "axtrain"


def register(name: str):
    """Class decorator: registers a Keras object as ``axtrain>name``."""
    return keras.saving.register_keras_serializable(package=PACKAGE, name=name)


def register_descriptions(*kinds: type) -> None:
    """Registers configurations of floors that know no Keras, each as ``axtrain>`` and the class's name."""
    for kind in kinds:
        register(kind.__name__)(kind)
