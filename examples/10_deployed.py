"""The same network in Keras, LiteRT, C and ONNX: is it the same network?

A small convolutional network on scikit-learn's digits, on exact multipliers, is exported in every form and run in each;
then once more on a coarse multiplier, in C, which takes any. Needs the extras `litert` and `onnx`, and a C compiler.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

import keras
import numpy as np
from digits import trained_network

import axtrain as ax


def in_c(network, folder: Path, codes: np.ndarray) -> np.ndarray:
    """Output codes of the generated C program."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise SystemExit("This example compiles C; install gcc or clang.")
    ax.write_c(network, folder)
    sources = [path.name for path in folder.glob("*.c")]
    subprocess.run([compiler, "-std=c99", "-O2", *sources, "-o", "network"], cwd=folder, check=True)
    codes.tofile(folder / "inputs.bin")
    subprocess.run(["./network", "inputs.bin", "outputs.bin"], cwd=folder, check=True)
    return np.fromfile(folder / "outputs.bin", np.int8).reshape(len(codes), -1)


def in_onnx(path: Path, x: np.ndarray) -> np.ndarray:
    """Outputs of onnxruntime, real values."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def main() -> None:
    """Exports, runs everything, compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--multiplier", default="broken_array_5_9", help="of the second part; default %(default)s")
    parser.add_argument("--out", type=Path, help="folder for what is exported; a temporary one by default")
    parser.add_argument("--smoke", action="store_true", help="few epochs")
    arguments = parser.parse_args()
    keras.utils.set_random_seed(0)
    out = arguments.out or Path(tempfile.mkdtemp(prefix="axtrain-deployed-"))
    out.mkdir(parents=True, exist_ok=True)
    trained, (x_train, y_train, x_test, y_test) = trained_network(3 if arguments.smoke else 20)
    calibration = x_train[:512]

    # 1. Exact multipliers: every form there is.
    noisy = ax.convert(trained, ax.Hardware(quantisation=ax.Quantisation.litert()), calibration)
    forms = ("litert", "onnx", "c", "memory", "saved_model")
    ax.export(noisy, out / "exact", formats=forms, calibration=calibration, overwrite=True)
    network = ax.integer_network(noisy, calibration)
    codes = network.quantised(x_test)
    expected = network.run(codes)
    rows = [("Keras, float", trained.predict(x_test, verbose=0), None)]
    rows.append(("Keras on the hardware", noisy.predict(x_test, verbose=0), None))
    rows.append(("integers, NumPy", expected, expected))
    for kernels in ("reference", "default"):
        compared = ax.compare_litert(network, out / "exact" / "model.tflite", codes, kernels=kernels)
        print(f"LiteRT, {kernels} kernels: {compared}")
    print(ax.compare_onnx(network, out / "exact", codes))
    c = in_c(network, out / "exact_c", codes)
    rows.append(("integers, C", c, c))
    real = in_onnx(out / "exact" / "model.onnx", x_test)
    rows.append(("ONNX", real, None))
    print(f"\n{'exact multipliers':<24}{'accuracy':>9}{'codes that differ':>20}")
    for title, outputs, found in rows:
        differing = "-" if found is None else int((found != expected).sum())
        print(f"{title:<24}{(outputs.argmax(-1) == y_test).mean():>9.4f}{differing:>20}")

    # 2. An approximate multiplier: trained for, then in C with the circuit's table.
    circuit = ax.multipliers.get(arguments.multiplier)
    hardware = ax.Hardware(multiplier=circuit, quantisation=ax.Quantisation.litert())
    noisy = ax.convert(trained, hardware, calibration)
    print(f"\n{arguments.multiplier}: accuracy {ax.evaluate(noisy, x_test, y_test).mean:.4f} before training for it")
    noisy.compile("adam", "sparse_categorical_crossentropy")
    noisy.fit(x_train, y_train, batch_size=64, epochs=1 if arguments.smoke else 10, verbose=0)
    network = ax.integer_network(noisy, calibration)
    codes = network.quantised(x_test)
    c = in_c(network, out / "approximate_c", codes)
    accuracy = (c.argmax(-1) == y_test).mean()
    print(f"after it: {ax.evaluate(noisy, x_test, y_test).mean:.4f} in Keras, {accuracy:.4f} in C, ", end="")
    print(f"{int((c != network.run(codes)).sum())} codes of {c.size} differ from NumPy's\nfolder: {out}")


if __name__ == "__main__":
    main()
