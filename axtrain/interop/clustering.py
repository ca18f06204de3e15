"""Kernels trained to a few values, by TensorFlow Model Optimization; on codes where a multiplier is accurate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from axtrain.conversion import convert
from axtrain.hardware import Hardware
from axtrain.interop.code_centroids import CodeCentroids, choose, code_errors
from axtrain.interop.library import chosen_layers, keras2_loss, kernel_of, library, returned, train, translated
from axtrain.model_walk import all_layers

_CALIBRATION = 512  # samples for the activations' distribution (chosen here)


def cluster(
    model: keras.Model,
    x: Any,
    y: Any,
    *,
    clusters: int = 16,
    hardware: Hardware | None = None,
    keep_zeros: bool = False,
    layers: Sequence[str] | None = None,
    epochs: int = 1,
    batch_size: int = 32,
    optimizer: str = "adam",
    learning_rate: float = 1e-4,
    loss: Any = None,
    verbose: Any = 0,
) -> keras.Model:
    """Trains each kernel to a few different values: those of its clusters.

    `tfmot.clustering.keras.cluster_weights`, begun by k-means++ and with the values trained too; or, with `hardware`,
    with values at weight codes where its multiplier is accurate, which stay while the weights learn which one to
    take. A kernel's values then are the codes c and the scale s of least ``sum_w [(w - s c)^2 + s^2 e(c)]``, c the
    nearest to w / s: the clustering's error, and ``e(c) = E_a[E(a, c)^2] / E_a[(a - z)^2]``, the multiplier's under
    the activations of `x`, in squared weight steps (chosen here; `axtrain.interop.code_centroids.choose`). One code is
    the largest or the smallest there is, since a quantiser takes its scale from the largest weight.

    Args:
        model: a plain Keras 3 model, Sequential or Functional, without models inside, trained. It is not changed.
        x, y: training samples and labels, arrays.
        clusters: how many values each kernel may have, at least 2.
        hardware: whose codes the values shall have. All channels share the values, so it must have one scale for a
            kernel: ``Quantisation(weight_scale="per_tensor")``.
        keep_zeros: weights that are 0, of a pruned model, stay 0; 0 is one of the values.
        layers: names or patterns of the layers to cluster; `None` is all that have kernels tfmot knows.
        epochs, batch_size, optimizer, learning_rate, verbose: of the training; the optimizer by its name.
        loss: a name or a `keras.losses.Loss`; `None` is what the model was compiled with.

    Returns:
        a new Keras 3 model, not compiled. Converted to `hardware`, its weights have the chosen codes.

    Raises:
        TypeError: not hardware.
        ValueError: bad numbers, a model that Keras 2 cannot take, hardware with a scale for each channel, no layer to
            cluster, or no loss.
    """
    if isinstance(clusters, bool) or not isinstance(clusters, int) or clusters < 2:
        raise ValueError(f"`clusters` must be an int >= 2. Received: clusters={clusters!r}")
    if keep_zeros and clusters < 3:
        raise ValueError(f"With keep_zeros, 0 is one of at least 3 clusters. Received: clusters={clusters!r}")
    if hardware is not None:
        _check(hardware)
    tfmot = library()
    from tensorflow_model_optimization.python.core.clustering.keras.experimental import cluster as experimental

    kinds, chosen, loss = tfmot.clustering.keras, chosen_layers(model, layers), keras2_loss(model, loss)
    centroids = {} if hardware is None else _centroids(model, hardware, x, chosen, clusters, keep_zeros)

    def wrapped(layer):
        options: dict[str, Any] = {"number_of_clusters": clusters}
        options["cluster_centroids_init"] = kinds.CentroidInitialization.KMEANS_PLUS_PLUS
        if layer.name in centroids:
            options["number_of_clusters"] = _places(centroids[layer.name], keep_zeros)
            options["cluster_centroids_init"] = kinds.CentroidInitialization.LINEAR  # a place for ours
        if keep_zeros:
            return experimental.cluster_weights(layer, **options, preserve_sparsity=True)
        return kinds.cluster_weights(layer, **options)

    trained = translated(model, wrapped, chosen)
    train(
        trained, loss, optimizer, learning_rate, x=x, y=y, epochs=epochs, batch_size=batch_size, verbose=verbose,
        callbacks=[_kept(trained, centroids)] if centroids else [],
    )  # fmt: skip
    found = returned(model, kinds.strip_clustering(trained))
    for name in chosen:
        layer = found.get_layer(name)
        if name in centroids:
            layer.kernel.assign(_reaching(kernel_of(layer), centroids[name]))
        values = len(np.unique(kernel_of(layer)))
        if values > clusters:
            raise ValueError(f"Clustering left too many values. Received: {values} in {name!r}, wanted {clusters}")
    return found


def _check(hardware: Any) -> None:
    if not isinstance(hardware, Hardware):
        raise TypeError(f"`hardware` must be an axtrain.Hardware or None. Received: hardware={hardware!r}")
    if hardware.quantisation.weight_scale != "per_tensor":
        raise ValueError(
            "A cluster's value is shared by all channels, so it has one code only under one scale for the kernel: "
            "Hardware(..., quantisation=Quantisation(weight_scale='per_tensor')). "
            f"Received: weight_scale={hardware.quantisation.weight_scale!r}"
        )


def _centroids(model, hardware, x, chosen, clusters: int, keep_zeros: bool) -> dict[str, CodeCentroids]:
    """The values of each kernel, from its weights and its inputs."""
    names = {layer.name for layer in all_layers(model)} - set(chosen)
    noisy = convert(model, hardware, x[:_CALIBRATION], overrides=dict.fromkeys(names))
    found = {}
    for name in chosen:
        layer = noisy.get_layer(name)
        if kernel_of(layer).any():
            codes, errors = code_errors(layer.hardware_state)
            found[name] = choose(kernel_of(layer), codes, errors, clusters, keep_zeros)
    return found


def _kept(trained: Any, centroids: dict[str, CodeCentroids]) -> Any:
    """A callback that puts the values back after each step; only the weights learn, which one to take."""
    import tf_keras

    held = []
    for layer in trained.layers:
        name = layer.layer.name if hasattr(layer, "cluster_centroids") else None
        if name in centroids:
            values = centroids[name].values
            held += [(one, np.resize(values, one.shape)) for one in layer.cluster_centroids.values()]

    class Kept(tf_keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            for variable, values in held:
                variable.assign(values)

        def on_train_batch_end(self, batch, logs=None):
            self.on_train_begin()

    return Kept()


def _places(centroids: CodeCentroids, keep_zeros: bool) -> int:
    """As many as tfmot asks for at least; a value may stand twice."""
    return max(len(centroids.codes), 3 if keep_zeros else 2)


def _reaching(kernel: np.ndarray, centroids: CodeCentroids) -> np.ndarray:
    """The kernel, its largest weight moved to the outermost value where none is there: the scale comes from it."""
    values = centroids.values
    outermost = values[np.abs(values).argmax()]
    if np.abs(kernel).max() == np.abs(outermost):
        return kernel
    moved = kernel.copy()
    moved.flat[(kernel * np.sign(outermost)).argmax()] = outermost
    return moved
