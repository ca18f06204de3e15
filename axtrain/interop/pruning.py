"""Kernels trained to zeros, by TensorFlow Model Optimization."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from axtrain.interop.library import chosen_layers, keras2_loss, kernel_of, library, returned, train, translated


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
    tfmot = library()
    steps = epochs * -(-len(y) // batch_size)
    schedule = tfmot.sparsity.keras.PolynomialDecay(0.0, sparsity, 0, max(1, steps // 2), frequency=1)

    def wrapped(layer):
        return tfmot.sparsity.keras.prune_low_magnitude(layer, schedule, block_size=block_size)

    chosen, loss = chosen_layers(model, layers), keras2_loss(model, loss)
    trained = translated(model, wrapped, chosen)
    train(
        trained, loss, optimizer, learning_rate, x=x, y=y, epochs=epochs, batch_size=batch_size,
        verbose=verbose, callbacks=[tfmot.sparsity.keras.UpdatePruningStep()],
    )  # fmt: skip
    found = returned(model, tfmot.sparsity.keras.strip_pruning(trained))
    for name in chosen:
        kernel = kernel_of(found.get_layer(name))
        zeros = 1 - np.count_nonzero(kernel) / kernel.size
        if zeros < sparsity - int(np.prod(block_size)) / kernel.size:
            raise ValueError(
                f"Pruning left too many weights; give more epochs, or blocks that fit the kernel. Received: "
                f"{zeros:.3f} of {name!r} are 0, wanted {sparsity:g}"
            )
    return found
