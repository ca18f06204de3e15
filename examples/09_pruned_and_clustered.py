"""Sparse and clustered networks on approximate hardware: TensorFlow Model Optimization first, axtrain after it.

A small convolutional network on scikit-learn's digits is pruned, then clustered with its zeros kept, then trained for
a coarse multiplier with its zeros kept again.
"""

from __future__ import annotations

import argparse

import keras
import numpy as np
from digits import trained_network

import axtrain as ax


def row(title: str, network: keras.Model, hardware: ax.Hardware, data) -> None:
    """Prints one line of the table."""
    x_train, _, x_test, y_test = data
    kernels = [layer.kernel.numpy() for layer in network.layers if hasattr(layer, "kernel")]
    zeros = sum((kernel == 0).sum() for kernel in kernels) / sum(kernel.size for kernel in kernels)
    values = max(len(np.unique(kernel)) for kernel in kernels)
    plain = ax.evaluate(network, x_test, y_test).mean
    coarse = ax.evaluate(ax.convert(network, hardware, calibration=x_train[:512]), x_test, y_test).mean
    print(f"{title:<34}{100 * zeros:>8.1f}{values:>10}{plain:>10.4f}{coarse:>12.4f}")


def main() -> None:
    """Prunes, clusters, trains for the multiplier, and prints what is left of each at each step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--multiplier", default="broken_array_5_9", help="by name; default %(default)s")
    parser.add_argument("--smoke", action="store_true", help="few epochs")
    arguments = parser.parse_args()
    keras.utils.set_random_seed(0)
    hardware = ax.Hardware(multiplier=ax.multipliers.get(arguments.multiplier))
    epochs = 1 if arguments.smoke else 4
    network, data = trained_network(3 if arguments.smoke else 20)
    x_train, y_train = data[:2]

    print(f"{'network':<34}{'zeros %':>8}{'values':>10}{'float':>10}  {arguments.multiplier}")
    row("as trained", network, hardware, data)
    pruned = ax.interop.tfmot.prune(
        network, x_train, y_train, sparsity=0.7, epochs=epochs, loss="sparse_categorical_crossentropy"
    )
    row("pruned", pruned, hardware, data)
    clustered = ax.interop.tfmot.cluster(
        pruned, x_train, y_train, clusters=16, keep_zeros=True, epochs=epochs, loss="sparse_categorical_crossentropy"
    )
    row("pruned, then clustered", clustered, hardware, data)
    # 16 values that are 16 codes, chosen where the multiplier is accurate: one weight scale for the whole kernel.
    whole = ax.Hardware(multiplier=hardware.multiplier, quantisation=ax.Quantisation(weight_scale="per_tensor"))
    chosen = ax.interop.tfmot.cluster(
        network, x_train, y_train, clusters=16, hardware=whole, epochs=epochs, loss="sparse_categorical_crossentropy"
    )
    row("clustered at accurate codes", chosen, whole, data)
    noisy = ax.convert(pruned, hardware, calibration=x_train[:512])
    noisy.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
    noisy.fit(x_train, y_train, batch_size=64, epochs=2 * epochs, verbose=0, callbacks=[ax.callbacks.KeepZeros()])
    row("pruned, then trained for it", ax.strip(noisy), hardware, data)


if __name__ == "__main__":
    main()
