"""How well the statistical fidelities predict what bit-exact emulation gives, layer by layer and in accuracy.

A small CNN is trained in float, converted for six circuits of growing rank, and evaluated bit-exactly, calibrated
at ranks 1, 2, 4 and 8, and gaussian (rank 0). Every cell's result is kept in a folder, so an interrupted study
goes on where it stopped. Then the cost: one layer's forward pass at each fidelity as a multiple of the float32
layer, both compiled by `tf.function` and run in turn.

With --data DIR (or AXTRAIN_DATA) Fashion-MNIST from `DIR/data` and tables of EvoApproxLib from `DIR/luts`; else
Keras's copy of Fashion-MNIST (scikit-learn's digits where that cannot be had) and this package's own circuits.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import platform
import subprocess
import tempfile
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

import axtrain as ax
from axtrain.emulation.code_table import CodeTable
from axtrain.emulation.factorisation import exact_rank
from axtrain.layers import noise
from axtrain.layers.chip import NoiseStream

PUBLISHED = ("mul8s_1L2H", "mul8s_1KX2", "mul8u_17KS", "mul8u_2AC", "mul8u_JV3", "mul8u_12N4")
BUILT_IN = ("drum4", "ssm4", "roba", "kulkarni", "truncated8", "mitchell")
RANKS = (1, 2, 4, 8)
TARGET = 0.5  # points of accuracy between the calibrated fidelity at its highest rank here and bit-exact
NOISE_TARGET = 0.1  # of the float32 layer
SEED = 0
CALIBRATION = 512


def data(folder: Path | None, smoke: bool):
    """(name, x_train, y_train, x_test, y_test), images in 0..1 with a channel axis."""
    source = None if folder is None else folder / "data" / "fashion_mnist.npz"
    name = "Fashion-MNIST"
    if source is not None and source.is_file():
        with np.load(source) as arrays:
            parts = [arrays[key] for key in ("x_train", "y_train", "x_test", "y_test")]
    else:
        try:
            (x, y), (x_test, y_test) = keras.datasets.fashion_mnist.load_data()
            parts = [x, y, x_test, y_test]
        except Exception:  # no network
            from sklearn.datasets import load_digits

            x, y = load_digits(return_X_y=True)
            x = np.kron(x.reshape(-1, 8, 8) * 15.9, np.ones((1, 3, 3)))
            order = np.random.default_rng(SEED).permutation(len(x))
            x, y, name = x[order], y[order], "scikit-learn's digits"
            parts = [x[:1200], y[:1200], x[1200:], y[1200:]]
    x, y, x_test, y_test = parts
    count = 4000 if smoke else len(x)
    x, x_test = (array[..., None].astype(np.float32) / 255 for array in (x[:count], x_test))
    return name, x, y[:count].astype(np.int64).ravel(), x_test, y_test.astype(np.int64).ravel()


def network(shape) -> keras.Model:
    """A convolution, two depthwise-separable blocks and a dense layer."""
    layers = keras.layers
    x = inputs = keras.Input(shape)
    x = layers.Conv2D(16, 3, padding="same", use_bias=False, name="conv")(x)
    x = layers.MaxPooling2D()(layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x)))
    for number, filters in enumerate((32, 64)):
        x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name=f"depthwise_{number}")(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
        x = layers.Conv2D(filters, 1, use_bias=False, name=f"pointwise_{number}")(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    x = layers.MaxPooling2D()(x)
    x = layers.Conv2D(32, 3, padding="same", name="conv_1", activation="relu")(x)
    x = layers.Dense(10, name="dense")(layers.Flatten()(layers.MaxPooling2D()(x)))
    return keras.Model(inputs, x, name="small_cnn")


def trained(cache: Path, x, y, epochs: int) -> keras.Model:
    """The float network, trained once."""
    path = cache / "network.keras"
    if not path.is_file():
        keras.utils.set_random_seed(SEED)
        model = network(x.shape[1:])
        steps = epochs * len(x) // 128
        model.compile(
            keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(3e-3, steps)),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        model.fit(x, y, batch_size=128, epochs=epochs, verbose=2)
        model.save(path)
    return keras.models.load_model(path, compile=False)


def circuits(folder: Path | None, smoke: bool) -> list:
    """The multipliers, in ascending rank of their errors."""
    if folder is not None and (folder / "luts").is_dir():
        found = [
            ax.Multiplier.load(folder / "luts" / f"{name}.npy", signed=name.startswith("mul8s")) for name in PUBLISHED
        ]
    else:
        found = [ax.multipliers.get(name) for name in BUILT_IN]
    found.sort(key=rank_of_error)
    return found[2:4] if smoke else found


def rank_of_error(multiplier) -> int:
    """The rank of the error under the encoding that the layers use: from there on, calibrated is bit-exact."""
    error = ax.Hardware(multiplier=multiplier).code_table.error
    return int(np.linalg.matrix_rank(error.astype(np.float64)))


def accuracies(model, x, y, seeds: int) -> list[float]:
    """Share of right classes in per cent for each seed of the noise."""
    found = []
    for seed in range(seeds):
        ax.set_chip(model, seed)
        found.append(100 * float((model.predict(x, batch_size=250, verbose=0).argmax(-1) == y).mean()))
    return found


def tiers() -> dict[str, tuple[str, dict]]:
    """Name to fidelity and options."""
    calibrated = {f"calibrated, rank {rank}": ("calibrated", {"rank": rank}) for rank in RANKS}
    return {"exact": ("exact", {}), **calibrated, "gaussian": ("gaussian", {})}


def study(multiplier, model, x_train, x_test, y_test, cache: Path, seeds: int) -> dict[str, dict]:
    """Every tier of one circuit: {tier: {"accuracies": [...], "layers": {layer: report}}}."""
    results: dict[str, dict] = {}
    converted = None
    for name, (fidelity, options) in tiers().items():
        path = cache / f"{multiplier.name}, {name}.json"
        if path.is_file():
            results[name] = json.loads(path.read_text())
            continue
        if converted is None:
            converted = ax.convert(model, ax.Hardware(multiplier=multiplier), x_train[:CALIBRATION])
        ax.set_fidelity(converted, fidelity, **options)
        result = {
            "accuracies": accuracies(converted, x_test, y_test, 1 if fidelity == "exact" else seeds),
            "layers": {
                layer.name: [asdict(report) for report in layer.fidelity_report]
                for layer in converted.layers
                if hasattr(layer, "fidelity_report")
            },
        }
        path.write_text(json.dumps(result))
        results[name] = result
        print(f"{multiplier.name:<14}{name:<22}{np.mean(result['accuracies']):>8.2f} %", flush=True)
    return results


def rows_of(multiplier, results: dict[str, dict]) -> list[dict]:
    """One row for each tier, with the layers' figures in the middle and at their worst."""
    exact = float(np.mean(results["exact"]["accuracies"]))
    rows = []
    for name, result in results.items():
        reports = [report for found in result["layers"].values() for report in found]
        row = {
            "circuit": multiplier.name,
            "rank of the table": exact_rank(CodeTable.plain(multiplier)),
            "rank of the error": rank_of_error(multiplier),
            "fidelity": name,
            "accuracy": round(float(np.mean(result["accuracies"])), 2),
            "spread over seeds": round(float(np.std(result["accuracies"])), 2),
            "minus exact": round(float(np.mean(result["accuracies"])) - exact, 2) + 0.0,  # no -0.0
        }
        figures = {
            "bias": lambda r: abs(r["bias"]),
            "std ratio": lambda r: r["std_ratio"],
            "correlation": lambda r: r["correlation"],
            "KS distance": lambda r: r["ks_normal"] if r["residual"] != "mixture" else r["ks_mixture"],
        }
        for label, figure in figures.items():
            values = [figure(report) for report in reports]
            row[label] = round(float(np.median(values)), 3) if values else ""
            worst = min(values, default=0) if label == "correlation" else max(values, key=abs, default=0)
            if label == "std ratio":
                worst = max(values, key=lambda v: abs(np.log(v)), default=0)
            row[f"worst {label}"] = round(float(worst), 3) if values else ""
        rows.append(row)
    return rows


def costs(multiplier, runs: int) -> list[dict]:
    """One row for each layer and way of playing it: milliseconds, and the multiple of the float32 layer."""
    layers = keras.layers
    cases = {
        "dense 128x512x512": (layers.Dense(512, use_bias=False), (128, 512)),
        "conv 3x3, 64 to 64, 32x32x32": (layers.Conv2D(64, 3, padding="same", use_bias=False), (32, 32, 32, 64)),
        "depthwise 3x3, 64, 32x32x32": (layers.DepthwiseConv2D(3, padding="same", use_bias=False), (32, 32, 32, 64)),
    }
    ways = {
        "exact": ("exact", {}),
        "calibrated, rank 0, no noise": ("calibrated", {"rank": 0, "residual": "none"}),
        "gaussian": ("gaussian", {}),
        **{f"calibrated, rank {r}": ("calibrated", {"rank": r, "residual": "normal"}) for r in RANKS},
    }
    rows = []
    for case, (layer, shape) in cases.items():
        model = keras.Sequential([keras.Input(shape[1:]), layer])
        x = np.random.default_rng(SEED).random(shape, np.float32)
        image, functions = tf.constant(x), {"float32": tf.function(model)}
        for way, (fidelity, options) in ways.items():
            converted = ax.convert(model, ax.Hardware(multiplier=multiplier), x)
            ax.set_fidelity(converted, fidelity, **options)
            functions[way] = tf.function(converted)
        outputs, stream = model.compute_output_shape(shape), NoiseStream(seed=SEED)
        read = tf.function(partial(noise.read, outputs), jit_compile=True, autograph=False)
        functions["the noise alone, not fused"] = tf.function(partial(_drawn, read, outputs, stream), autograph=False)
        times: dict[str, list[float]] = {way: [] for way in functions}
        for run in range(runs + 5):  # the first five let every compilation finish
            for way, function in functions.items():
                start = time.perf_counter()
                _wait(function(image))
                if run >= 5:
                    times[way].append(time.perf_counter() - start)
        base = float(np.median(times["float32"]))
        for way, taken in times.items():
            median = float(np.median(taken))
            row = {
                "layer": case,
                "fidelity": way,
                "ms": round(1e3 * median, 2),
                "times float32": round(median / base, 2),
            }
            rows.append(row)
            print(f"{case:<32}{way:<32}{row['ms']:>9.2f} ms{row['times float32']:>8.2f} x", flush=True)
    return rows


def _wait(tensor) -> None:
    """Until one value is there: an accelerator computes on while Python goes on."""
    tf.reshape(tensor, (-1,))[0].numpy()


def _drawn(read, shape, stream, image):
    return read(noise.places(shape, stream))


def picture(rows: list[dict], path: Path) -> None:
    """Predicted minus exact accuracy, by rank."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.subplots()
    names = list(dict.fromkeys(row["circuit"] for row in rows))
    position = ["gaussian", *(f"calibrated, rank {rank}" for rank in RANKS)]
    for name in names:
        found = {row["fidelity"]: row for row in rows if row["circuit"] == name}
        label = f"{name} (rank {found['exact']['rank of the error']}, exact {found['exact']['accuracy']:.1f} %)"
        axes.plot([found[tier]["minus exact"] for tier in position], marker="o", label=label)
    axes.axhspan(-TARGET, TARGET, color="grey", alpha=0.2, label=f"within {TARGET} points")
    axes.set_xticks(range(len(position)), ["gaussian", *(f"rank {rank}" for rank in RANKS)])
    axes.set_yscale("symlog", linthresh=1)
    axes.set_ylabel("predicted minus bit-exact accuracy [points]")
    figure.legend(loc="outside right upper", fontsize="small")
    figure.savefig(path, dpi=120)


def written(rows: list[dict], layers: list[dict], cost: list[dict], folder: Path, facts: dict[str, str]) -> None:
    """Writes the Markdown, the CSV files and the picture."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "fidelity.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    with open(folder / "fidelity_layers.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(layers[0]))
        writer.writeheader()
        writer.writerows(layers)
    picture(rows, folder / "fidelity.png")
    shown = [key for key in rows[0] if key not in ("spread over seeds",)]
    lines = ["# How well the statistical fidelities predict bit-exact emulation", ""]
    lines += [f"- {key}: {value}" for key, value in facts.items()]
    names = list(dict.fromkeys(row["circuit"] for row in rows))
    for tier in (f"calibrated, rank {max(RANKS)}", "gaussian"):
        near = [row for row in rows if row["fidelity"] == tier and abs(row["minus exact"]) <= TARGET]
        lines.append(f"- {tier}: within {TARGET} points of bit-exact for {len(near)} of {len(names)} circuits")
    lines += [
        "",
        "Accuracy in per cent, differences in points. Bias, standard deviation ratio, correlation and Kolmogorov-",
        "Smirnov distance compare the predicted with the bit-exact error of single layers on calibration windows that",
        "the model was not fitted to (`axtrain.layers.residual.FidelityReport`): the median layer and the worst.",
        "Each layer's own figures are in [fidelity_layers.csv](fidelity_layers.csv).",
        "",
        "| " + " | ".join(shown) + " |",
        "|" + "---|" * len(shown),
        *("| " + " | ".join(str(row[key]) for key in shown) + " |" for row in rows),
        "",
        "![predicted minus exact accuracy](fidelity.png)",
        "",
        "## What one forward pass of a layer costs",
        "",
        f"Medians in turn on this machine; circuit {cost[0]['circuit']}.",
        "",
        "| " + " | ".join(cost[0]) + " |",
        "|" + "---|" * len(cost[0]),
        *("| " + " | ".join(str(value) for value in row.values()) + " |" for row in cost),
        "",
    ]
    (folder / "fidelity.md").write_text("\n".join(lines))


def main() -> None:
    """Runs the study and writes its results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("AXTRAIN_DATA"), help="folder with data/ and luts/")
    parser.add_argument("--smoke", action="store_true", help="two circuits, little training, few images")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--out", type=Path, help="folder for the table and the picture (default: docs/results)")
    parser.add_argument("--cache", type=Path, help="folder that keeps the network and every cell's result")
    arguments = parser.parse_args()
    folder = None if arguments.data is None else Path(arguments.data)
    source, x_train, y_train, x_test, y_test = data(folder, arguments.smoke)
    images, seeds, steps = (500, 2, 150) if arguments.smoke else (len(x_test), 3, 1400)
    epochs = -(-steps * 128 // len(x_train))
    settings = f"{source} {len(x_train)} {images} {seeds} {epochs} {SEED} {ax.__version__}"
    key = hashlib.sha256(settings.encode()).hexdigest()[:8]
    cache = (arguments.cache or Path(tempfile.gettempdir()) / "axtrain-fidelity") / key
    cache.mkdir(parents=True, exist_ok=True)
    model = trained(cache, x_train, y_train, epochs)
    x_test, y_test = x_test[:images], y_test[:images]
    clean = 100 * float((model.predict(x_test, verbose=0).argmax(-1) == y_test).mean())
    print(f"{source}, {images} test images, float32 {clean:.2f} %")
    rows, layers, figures = [], [], []
    for multiplier in circuits(folder, arguments.smoke):
        results = study(multiplier, model, x_train, x_test, y_test, cache, seeds)
        rows += rows_of(multiplier, results)
        for tier, result in results.items():
            for layer, reports in result["layers"].items():
                layers += [{"circuit": multiplier.name, "fidelity": tier, "layer": layer, **r} for r in reports]
        exact = float(np.mean(results["exact"]["accuracies"]))
        gaps = {name: abs(float(np.mean(result["accuracies"])) - exact) for name, result in results.items()}
        for name in (f"calibrated, rank {max(RANKS)}", "gaussian"):
            judged = name != "gaussian"
            met = bool(gaps[name] <= TARGET) if judged else None
            figures.append(
                {
                    "name": f"{multiplier.name}, {name}: |accuracy - bit-exact|",
                    "value": round(gaps[name], 2),
                    "unit": "points",
                    "target": TARGET if judged else None,
                    "met": met,
                }
            )
            verdict = f"   target {TARGET}  {'met' if met else 'missed'}" if judged else ""
            print(f"{figures[-1]['name']:<64}{gaps[name]:>7.2f}{verdict}", flush=True)
    multiplier = next((m for m in circuits(folder, False) if m.name == "mul8u_17KS"), ax.multipliers.get("mitchell"))
    cost = [{"circuit": multiplier.name, **row} for row in costs(multiplier, 3 if arguments.smoke else 25)]
    of = {(row["layer"], row["fidelity"]): row["times float32"] for row in cost}
    for layer in dict.fromkeys(row["layer"] for row in cost):
        share = of[layer, "the noise alone, not fused"]
        figures.append(
            {
                "name": f"{layer}: the noise's stream",
                "value": share,
                "unit": "times float32",
                "target": NOISE_TARGET,
                "met": bool(share <= NOISE_TARGET),
            }
        )
        print(f"{figures[-1]['name']:<64}{share:>7.2f}   target {NOISE_TARGET}", flush=True)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    options = " ".join(["--data DIR"] * (folder is not None) + ["--smoke"] * arguments.smoke)
    facts = {
        "command": f"`python benchmarks/fidelity.py {options}`",
        "commit": commit.stdout.strip() or "unknown",
        "data": f"{source}: {len(x_train)} training images, {images} test images, {CALIBRATION} for calibration",
        "float32 accuracy": f"{clean:.2f} %",
        "seeds": f"network {SEED}, noise 0 .. {seeds - 1}",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": f"TensorFlow {tf.__version__}, Keras {keras.__version__}",
    }
    out = arguments.out or (None if arguments.smoke else Path("docs") / "results")
    if out is not None:
        written(rows, layers, cost, out, facts)
        print(f"written to {out}")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        machine = {"processor": platform.machine(), "cores": os.cpu_count(), "tensorflow": tf.__version__}
        arguments.json.write_text(json.dumps({"figures": figures, "machine": machine}, indent=1))


if __name__ == "__main__":
    main()
