"""From a CSV of tester readings to a curve to a network: what does this supply voltage cost in accuracy?

With --readings FILE, a CSV with the columns `voltage`, `failures` and `cells` of one chip that was measured at
several voltages (or a column `chip` too). Without: simulated readings of one chip, not measured ones.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path

import keras
import numpy as np
from digits import trained_network

import axtrain as ax
from axtrain.noise_models.curve_fitting import CurveFit


def simulate(path: Path, cells: int = 1 << 20) -> None:
    """Writes readings of one simulated chip of 2^20 cells at ten voltages."""
    # Mean and standard deviation of the cells' minimum voltages are chosen here.
    minimum_v = np.random.default_rng(0).normal(0.35, 0.065, cells)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["voltage", "failures", "cells"])
        for voltage in np.linspace(0.44, 0.71, 10).round(3).tolist():
            writer.writerow([voltage, int((minimum_v > voltage).sum()), cells])


def three_voltages(fit: CurveFit) -> list[float]:
    """The lowest, a middle and the highest of the measured voltages at which at most a tenth of the cells fail."""
    usable = [voltage for voltage in fit.readings.voltages if fit.curve(voltage) <= 0.1]
    if not usable:
        raise SystemExit("More than a tenth of the cells fail at every voltage of these readings; measure higher ones.")
    return sorted({usable[0], usable[len(usable) // 4], usable[-1]})


def main() -> None:
    """Fits the curve, then asks a network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readings", type=Path, help="CSV of your tester; simulated readings by default")
    parser.add_argument("--out", type=Path, help="folder for the readings and the picture; a temporary one by default")
    parser.add_argument("--smoke", action="store_true", help="few epochs and chips")
    arguments = parser.parse_args()
    keras.utils.set_random_seed(0)
    out = arguments.out or Path(tempfile.mkdtemp(prefix="axtrain-voltage-"))
    out.mkdir(parents=True, exist_ok=True)
    readings = arguments.readings
    if readings is None:
        readings = out / "simulated_chip.csv"
        simulate(readings)
        print(f"SIMULATED readings, of no real chip: {readings}")

    # 1. Counts to a curve. The same cells at every voltage: the counts are nested.
    fit = ax.fit_curve(ax.Readings.from_csv(readings))
    print(f"{fit}\n\n{'voltage':>8}{'failures':>12}{'fitted rate':>13}   {100 * fit.confidence:g} % band")
    for voltage, failures, _ in zip(*fit.readings.pooled(), strict=True):
        low, high = fit.band(voltage)
        print(f"{voltage:>6.3f} V{failures:>12,}{fit.curve(voltage):>13.2e}   {low:.2e} .. {high:.2e}")
    picture = out / "voltage_curve.png"
    fit.plot().savefig(picture, dpi=150)

    # 2. The curve to a network: every chip of `evaluate` has its own faulty cells at the fitted rate.
    network, (x_train, _, x_test, y_test) = trained_network(3 if arguments.smoke else 20)
    print(f"\nfloat network: accuracy {ax.evaluate(network, x_test, y_test).mean:.4f}")
    for voltage in three_voltages(fit):
        memory = ax.memories.NearThresholdSRAM(voltage=voltage, curve=fit.curve)
        noisy = ax.convert(network, ax.Hardware(weight_memory=memory), calibration=x_train[:512])
        result = ax.evaluate(noisy, x_test, y_test, chips=5 if arguments.smoke else 20, verbose=False)
        print(f"{voltage:.3f} V, rate {memory.rate:.1e}: {result}")
    print(f"picture: {picture}")


if __name__ == "__main__":
    main()
