"""TensorFlow Model Optimization's pruning and clustering for Keras 3 models.

It accepts models of Keras 2 only, and importing it can flip `tf.keras` to Keras 2 for the whole process; all contact
with it is here. A model goes there through `axtrain.interop.keras2`, is trained there, and comes back as Keras 3 with
the promised zeros or number of values, which is checked.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import keras
import numpy as np

from axtrain.conversion import cloned
from axtrain.interop.keras2 import copy_weights, to_keras2
from axtrain.model_walk import named


def prune(
    model: keras.Model,
    x: Any,
    y: Any,
    *,
    sparsity: float = 0.5,
    block_size: tuple[int, int] = (1, 1),
    layers: Sequence[str] | None = None,
    epochs: int = 2,
    batch_size: int = 32,
    optimizer: str = "adam",
    learning_rate: float = 1e-3,
    loss: Any = None,
    verbose: Any = 0,
) -> keras.Model:
    """Trains the smallest weights away: their share rises to `sparsity` over the first half of the steps.

    `tfmot.sparsity.keras.prune_low_magnitude` (Zhu and Gupta 2017). `axtrain.callbacks.KeepZeros` keeps the zeros in
    later training, such as that for approximate hardware.

    Args:
        model: a plain Keras 3 model, Sequential or Functional, without models inside. It is not changed.
        x, y: training samples and labels, arrays.
        sparsity: share of each kernel's weights that become 0, in (0, 1).
        block_size: of neighbouring weights that become 0 together.
        layers: names or patterns of the layers to prune; `None` is all that have kernels tfmot knows.
        epochs, batch_size, optimizer, learning_rate, verbose: of the training; the optimizer by its name.
        loss: a name or a `keras.losses.Loss`; `None` is what the model was compiled with.

    Returns:
        a new Keras 3 model, not compiled.

    Raises:
        ValueError: bad numbers, a model that Keras 2 cannot take, no layer to prune, or no loss.
    """
    if not 0 < sparsity < 1:
        raise ValueError(f"`sparsity` must lie in (0, 1). Received: sparsity={sparsity!r}")
    tfmot = _tfmot()
    steps = epochs * -(-len(y) // batch_size)
    schedule = tfmot.sparsity.keras.PolynomialDecay(0.0, sparsity, 0, max(1, steps // 2), frequency=1)

    def wrapped(layer):
        return tfmot.sparsity.keras.prune_low_magnitude(layer, schedule, block_size=block_size)

    chosen = _chosen(model, layers)
    trained = _trained(
        model, wrapped, chosen, loss, optimizer, learning_rate, x=x, y=y, epochs=epochs, batch_size=batch_size,
        verbose=verbose, callbacks=[tfmot.sparsity.keras.UpdatePruningStep()],
    )  # fmt: skip
    found = _returned(model, tfmot.sparsity.keras.strip_pruning(trained))
    for name in chosen:
        kernel = _kernel(found.get_layer(name))
        zeros = 1 - np.count_nonzero(kernel) / kernel.size
        if zeros < sparsity - int(np.prod(block_size)) / kernel.size:
            raise ValueError(
                f"Pruning left too many weights; give more epochs, or blocks that fit the kernel. Received: "
                f"{zeros:.3f} of {name!r} are 0, wanted {sparsity:g}"
            )
    return found


def cluster(
    model: keras.Model,
    x: Any,
    y: Any,
    *,
    clusters: int = 16,
    keep_zeros: bool = False,
    layers: Sequence[str] | None = None,
    epochs: int = 1,
    batch_size: int = 32,
    optimizer: str = "adam",
    learning_rate: float = 1e-4,
    loss: Any = None,
    verbose: Any = 0,
) -> keras.Model:
    """Trains each kernel to a few different values: those of its clusters, which are trained too.

    `tfmot.clustering.keras.cluster_weights`, begun by k-means++.

    Args:
        model: a plain Keras 3 model, Sequential or Functional, without models inside, trained. It is not changed.
        x, y: training samples and labels, arrays.
        clusters: how many values each kernel may have, at least 2.
        keep_zeros: weights that are 0, of a pruned model, stay 0; 0 is one of the values.
        layers: names or patterns of the layers to cluster; `None` is all that have kernels tfmot knows.
        epochs, batch_size, optimizer, learning_rate, verbose: of the training; the optimizer by its name.
        loss: a name or a `keras.losses.Loss`; `None` is what the model was compiled with.

    Returns:
        a new Keras 3 model, not compiled.

    Raises:
        ValueError: bad numbers, a model that Keras 2 cannot take, no layer to cluster, or no loss.
    """
    if isinstance(clusters, bool) or not isinstance(clusters, int) or clusters < 2:
        raise ValueError(f"`clusters` must be an int >= 2. Received: clusters={clusters!r}")
    tfmot = _tfmot()
    from tensorflow_model_optimization.python.core.clustering.keras.experimental import cluster as experimental

    begun = tfmot.clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS

    def wrapped(layer):
        options = {"number_of_clusters": clusters, "cluster_centroids_init": begun}
        if keep_zeros:
            return experimental.cluster_weights(layer, **options, preserve_sparsity=True)
        return tfmot.clustering.keras.cluster_weights(layer, **options)

    chosen = _chosen(model, layers)
    trained = _trained(
        model, wrapped, chosen, loss, optimizer, learning_rate, x=x, y=y, epochs=epochs, batch_size=batch_size,
        verbose=verbose,
    )  # fmt: skip
    found = _returned(model, tfmot.clustering.keras.strip_clustering(trained))
    for name in chosen:
        values = len(np.unique(_kernel(found.get_layer(name))))
        if values > clusters:
            raise ValueError(f"Clustering left too many values. Received: {values} in {name!r}, wanted {clusters}")
    return found


def _tfmot() -> ModuleType:
    """The library, with the process's `tf.keras` and environment as they were."""
    import tensorflow as tf

    getattr(tf.keras, "layers")  # noqa: B009 - resolved now, before the import below would choose Keras 2 for it
    before = os.environ.get("TF_USE_LEGACY_KERAS")
    try:
        import tensorflow_model_optimization as tfmot
    finally:
        if before is None:
            os.environ.pop("TF_USE_LEGACY_KERAS", None)
        else:
            os.environ["TF_USE_LEGACY_KERAS"] = before
    return tfmot


_KINDS = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv2DTranspose)


def _chosen(model: keras.Model, patterns: Sequence[str] | None) -> list[str]:
    """Names of the layers whose kernels are worked on."""
    if any(isinstance(layer, keras.Model) for layer in model.layers):
        raise ValueError(f"Models inside models cannot be pruned or clustered. Received: {model.name!r}")
    found = named((layer for layer in model.layers if isinstance(layer, _KINDS)), patterns)
    if not found:
        raise ValueError(f"This model has no dense layer and no convolution to work on. Received: {model.name!r}")
    return [layer.name for layer in found]


def _trained(model, wrapped: Callable, chosen, loss, optimizer: str, learning_rate: float, **fit_options) -> Any:
    """The Keras 2 model with the chosen layers wrapped, after training."""
    import tf_keras

    loss = _loss(model, loss)
    names = set(chosen)
    translated = tf_keras.models.clone_model(
        to_keras2(model), clone_function=lambda layer: wrapped(layer) if layer.name in names else layer
    )
    chosen_optimizer = tf_keras.optimizers.get(optimizer)
    chosen_optimizer.learning_rate = learning_rate
    translated.compile(chosen_optimizer, loss)
    translated.fit(**fit_options)
    return translated


def _loss(model: keras.Model, loss: Any) -> Any:
    """As Keras 2 has it."""
    import tf_keras

    if loss is None and model.compiled:
        loss = model.loss
    if isinstance(loss, str):
        return loss
    kind = getattr(tf_keras.losses, type(loss).__name__, None)
    if not isinstance(loss, keras.losses.Loss) or kind is None:
        raise ValueError(f"Give loss=, a name or one of keras.losses. Received: loss={loss!r}")
    return kind(**{name: value for name, value in loss.get_config().items() if name != "dtype"})


def _returned(model: keras.Model, trained: Any) -> keras.Model:
    """A Keras 3 model like the first one with the trained weights."""
    found = cloned(model, lambda layer: layer.__class__.from_config(layer.get_config()))
    copy_weights(trained, found)
    return found


def _kernel(layer: keras.layers.Layer) -> np.ndarray:
    return keras.ops.convert_to_numpy(layer.kernel)
