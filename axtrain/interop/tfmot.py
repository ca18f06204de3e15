"""TensorFlow Model Optimization for Keras 3 models, and approximate hardware in its own pipeline.

It accepts models of Keras 2 only, and importing it can flip `tf.keras` to Keras 2 for the whole process; all contact
with it is in `axtrain.interop`. A model goes there through `axtrain.interop.keras2`, is trained there, and comes back
as Keras 3 with the promised zeros, number of values or ranges. Those who stay in its pipeline give their `tf_keras`
layers an `ApproximateQuantizeConfig`.
"""

from __future__ import annotations

from typing import Any

from axtrain.interop.clustering import cluster
from axtrain.interop.keras3 import to_keras3
from axtrain.interop.pruning import prune
from axtrain.interop.quantising import quantize_aware

__all__ = [  # noqa: F822 - the classes are loaded when they are used
    "ApproximateQuantizeConfig",
    "ApproximateQuantizeScheme",
    "cluster",
    "prune",
    "quantize_aware",
    "to_keras3",
]
_CLASSES = ("ApproximateQuantizeConfig", "ApproximateQuantizeScheme")


def __getattr__(name: str) -> Any:
    """The classes that subclass the library's, which is loaded for them."""
    if name not in _CLASSES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from axtrain.interop import quantize_config

    return getattr(quantize_config, name)
