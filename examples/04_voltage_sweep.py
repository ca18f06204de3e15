"""How low may the supply of the weight memory go, and how much lower after training for it?

A small convolutional network on scikit-learn's digits is measured on the same 20 chips at 8 voltages, trained for
the memory at 0.52 V, and measured again. The memory's error rates are illustrative, chosen here.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import keras
from digits import trained_network

import axtrain as ax

VOLTAGES = (0.46, 0.48, 0.5, 0.52, 0.54, 0.56, 0.6, 0.7)


def main() -> None:
    """Sweeps, trains for the memory, sweeps again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for pictures and tables; a temporary one by default")
    parser.add_argument("--smoke", action="store_true", help="few epochs, voltages and chips")
    arguments = parser.parse_args()
    keras.utils.set_random_seed(0)
    out = arguments.out or Path(tempfile.mkdtemp(prefix="axtrain-sweep-"))
    out.mkdir(parents=True, exist_ok=True)
    voltages, chips = (VOLTAGES[::3], 3) if arguments.smoke else (VOLTAGES, 20)

    # 1. A conventional network, in float.
    network, (x_train, y_train, x_test, y_test) = trained_network(3 if arguments.smoke else 20)
    clean = ax.evaluate(network, x_test, y_test).mean
    required = clean - 0.01
    print(f"float: accuracy {clean:.4f}; required on the memory: {required:.4f}, the mean over chips")

    # 2. Its 8-bit weights in a memory near the threshold voltage, and the network trained for that memory.
    hardware = ax.Hardware(weight_memory=ax.memories.NearThresholdSRAM(voltage=0.52))
    noisy = ax.convert(network, hardware, calibration=x_train[:512])
    for name in ("conventional", "trained at 0.52 V"):
        if name != "conventional":
            # A flipped top bit moves a weight by half of its channel's range, so the range is kept small.
            ax.limit_weights(noisy, 0.3)
            noisy.compile(keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy")
            noisy.fit(x_train, y_train, batch_size=64, epochs=1 if arguments.smoke else 15, verbose=0)

        # 3. The same chips at every voltage.
        result = ax.sweep(noisy, x_test, y_test, voltages=voltages, chips=chips)
        print(f"\n{name}: {result}")
        try:
            point = ax.lowest_voltage(result, required)
            print(
                f"lowest voltage: {point.voltage:.2f} V, {point.energy_pj / 1e3:.3g} nJ an inference, "
                f"{100 * point.saving:.1f} % less than at nominal voltage"
            )
        except ValueError as error:
            print(error)
        stem = name.replace(" ", "_").replace(".", "_")
        result.to_csv(out / f"{stem}.csv")
        result.plot(required).savefig(out / f"{stem}.png", dpi=150)
    print(f"\npictures and tables: {out}")


if __name__ == "__main__":
    main()
