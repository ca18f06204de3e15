"""Kernels trained to a few values, by TensorFlow Model Optimization."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from axtrain.interop.library import chosen_layers, keras2_loss, kernel_of, library, returned, train, translated


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
    tfmot = library()
    from tensorflow_model_optimization.python.core.clustering.keras.experimental import cluster as experimental

    begun = tfmot.clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS

    def wrapped(layer):
        options = {"number_of_clusters": clusters, "cluster_centroids_init": begun}
        if keep_zeros:
            return experimental.cluster_weights(layer, **options, preserve_sparsity=True)
        return tfmot.clustering.keras.cluster_weights(layer, **options)

    chosen, loss = chosen_layers(model, layers), keras2_loss(model, loss)
    trained = translated(model, wrapped, chosen)
    train(trained, loss, optimizer, learning_rate, x=x, y=y, epochs=epochs, batch_size=batch_size, verbose=verbose)
    found = returned(model, tfmot.clustering.keras.strip_clustering(trained))
    for name in chosen:
        values = len(np.unique(kernel_of(found.get_layer(name))))
        if values > clusters:
            raise ValueError(f"Clustering left too many values. Received: {values} in {name!r}, wanted {clusters}")
    return found
