"""One chip whose failing cells a tester has mapped: train for exactly that chip, and see what it is worth elsewhere.

With --map FILE, a CSV with the columns `address`, `bit` (and `value` for stuck cells); --words and --word-bits say how
large the memory is. Without: a simulated map, of no real chip.
"""

from __future__ import annotations

import argparse

import keras
import numpy as np
from digits import trained_network

import axtrain as ax


def simulated_map(words: int, rate: float) -> ax.memories.FaultMap:
    """Cells stuck at 0 or 1 at random places of a memory of 8-bit words."""
    cells = np.random.default_rng(7)
    addresses, bits = np.nonzero(cells.random((words, 8)) < rate)
    values = cells.integers(0, 2, len(addresses))
    return ax.memories.FaultMap(words=words, word_bits=8, addresses=addresses, bits=bits, values=values)


def main() -> None:
    """Measures a network on the chip, trains for it, measures again there and on other chips."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--map", type=str, help="the tester's CSV")
    parser.add_argument("--words", type=int, default=8192, help="of the memory; default %(default)s")
    parser.add_argument("--word-bits", type=int, default=8, help="default %(default)s")
    parser.add_argument("--smoke", action="store_true", help="few epochs and chips")
    arguments = parser.parse_args()
    keras.utils.set_random_seed(0)
    if arguments.map:
        chip = ax.memories.FaultMap.from_csv(arguments.map, words=arguments.words, word_bits=arguments.word_bits)
    else:
        chip = simulated_map(arguments.words, rate=0.04)
        print("SIMULATED map, of no real chip")
    print(f"{len(chip.addresses)} failing cells, {100 * chip.rate:.2f} % of the memory")
    network, (x_train, y_train, x_test, y_test) = trained_network(3 if arguments.smoke else 20)
    chips = 3 if arguments.smoke else 20

    this_chip = ax.Hardware(weight_memory=ax.memories.MeasuredMemory(maps=(chip,)))
    any_chip = ax.Hardware(weight_memory=ax.memories.BitErrors(rate=chip.rate, fault="stuck"))
    print(f"float network: {ax.evaluate(network, x_test, y_test).mean:.4f}")
    print(f"{'trained for':<22}{'this chip':>12}{'other chips: mean':>20}{'worst':>9}")
    for title, hardware in (("neither", None), ("this chip", this_chip), ("chips in general", any_chip)):
        model = network
        if hardware is not None:
            model = ax.convert(network, hardware, calibration=x_train[:512])
            model.compile(keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy")
            model.fit(x_train, y_train, batch_size=64, epochs=1 if arguments.smoke else 15, verbose=0)
        plain = model if hardware is None else ax.strip(model)
        here, elsewhere = (
            ax.evaluate(ax.convert(plain, described, calibration=x_train[:512]), x_test, y_test, chips=chips)
            for described in (this_chip, any_chip)
        )
        print(f"{title:<22}{here.mean:>12.4f}{elsewhere.mean:>20.4f}{elsewhere.worst:>9.4f}")


if __name__ == "__main__":
    main()
