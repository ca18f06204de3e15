"""From the traces of an array whose carry chains miss the clock to a network trained for it.

With --traces FILE, an .npz with integer arrays `exact` and `observed` of one shape: accumulators as they should be and
as they were read. Without: traces simulated from an illustrative carry chain at a low voltage.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import keras
import numpy as np
from digits import trained_network

import axtrain as ax


def simulated_traces(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Sums as a layer makes them, read by accumulators whose top bits flip now and then."""
    noise = np.random.default_rng(0)
    exact = noise.normal(0, 20_000, count).round().astype(np.int64)
    observed = exact.copy()
    for bit, rate in ((13, 2e-3), (14, 6e-3), (15, 1.5e-2)):
        observed ^= (noise.random(count) < rate).astype(np.int64) << bit
    return exact, observed


def main() -> None:
    """Fits the datapath, shows how well it fits, and trains a network for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=Path, help=".npz with `exact` and `observed`")
    parser.add_argument("--out", type=Path, help="folder for the picture; a temporary one by default")
    parser.add_argument("--smoke", action="store_true", help="few epochs and chips")
    arguments = parser.parse_args()
    keras.utils.set_random_seed(0)
    out = arguments.out or Path(tempfile.mkdtemp(prefix="axtrain-datapath-"))
    out.mkdir(parents=True, exist_ok=True)
    if arguments.traces:
        with np.load(arguments.traces, allow_pickle=False) as arrays:
            exact, observed = arrays["exact"], arrays["observed"]
    else:
        exact, observed = simulated_traces(20_000 if arguments.smoke else 200_000)
        print("SIMULATED traces, of no real array")

    # 1. What kind of datapath reads like that? Judged on results that the fit has not seen.
    fit = ax.calibrate_datapath(exact, observed)
    print(fit)
    fit.plot().savefig(out / "datapath.png", dpi=150)

    # 2. What that costs a network, and what training for it wins back.
    network, (x_train, y_train, x_test, y_test) = trained_network(3 if arguments.smoke else 20)
    hardware = ax.Hardware(datapath=fit.datapath)
    noisy = ax.convert(network, hardware, calibration=x_train[:512])
    chips = 3 if arguments.smoke else 10
    print(f"\nfloat: accuracy {ax.evaluate(network, x_test, y_test).mean:.4f}")
    print("on the datapath:", ax.evaluate(noisy, x_test, y_test, chips=chips, verbose=False))
    noisy.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
    noisy.fit(x_train, y_train, batch_size=64, epochs=1 if arguments.smoke else 15, verbose=0)
    print("trained for it: ", ax.evaluate(noisy, x_test, y_test, chips=chips, verbose=False))
    print(f"picture: {out / 'datapath.png'}")


if __name__ == "__main__":
    main()
