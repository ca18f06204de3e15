"""TensorFlow Model Optimization for Keras 3 models, and approximate hardware in its own pipeline.

It accepts models of Keras 2 only, and importing it can flip `tf.keras` to Keras 2 for the whole process; all contact
with it is in `axtrain.interop`. A model goes there through `axtrain.interop.keras2`, is trained there, and comes back
as Keras 3 with the promised zeros, number of values or ranges. Those who stay in its pipeline give their `tf_keras`
layers an `ApproximateQuantizeConfig`.
"""

from __future__ import annotations

from axtrain.interop.clustering import cluster
from axtrain.interop.keras3 import to_keras3
from axtrain.interop.pruning import prune
from axtrain.interop.quantising import quantize_aware
from axtrain.lazy_names import import_when_used

__all__ = [  # noqa: F822 - the classes are loaded when they are used
    "ApproximateQuantizeConfig",
    "ApproximateQuantizeScheme",
    "cluster",
    "prune",
    "quantize_aware",
    "to_keras3",
]
# These subclass the library's, which is loaded for them.
_CLASSES = ("ApproximateQuantizeConfig", "ApproximateQuantizeScheme")
_PUBLIC = {name: f"axtrain.interop.quantize_config:{name}" for name in _CLASSES}
__getattr__, __dir__ = import_when_used(__name__, _PUBLIC)
