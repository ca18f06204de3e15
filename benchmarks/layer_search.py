"""A multiplier for every layer of ResNet-8 on CIFAR-10: how much of the multipliers' energy a point of accuracy buys.

The network is trained from scratch on a part of `x_train`; `axtrain.search` over the 16 tables selects on another part
of it, training what it tries; the winner is judged bit-exactly on `x_val`, image by image against the exact 8-bit
network, as it was and after the same further training. Network, figures and trained models are kept in a folder, so
an interrupted run goes on.

    python benchmarks/layer_search.py --data DIR
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))

import keras
import numpy as np
import tensorflow as tf
from resnet8 import resnet8
from study_training import commit, save, shifted_and_mirrored
from timing import machine

import axtrain as ax

SELECTION = 3000
EPOCHS, FURTHER, FURTHER_RATE = 30, 5, 1e-3
SAVING, LOST = 0.75, 1.0
EXACT = "exact 8 bits"
INTRODUCTION = """\
ResNet-8 on CIFAR-10, trained from scratch on a part of `x_train`. `axtrain.search` gives each of its ten layers one of
16 published multipliers (EvoApproxLib), so that the multipliers' energy is least within half a point of accuracy on
another part of `x_train`, which no training sees; what it tries is trained for five more epochs, bit-exactly. The
winner is then judged on `x_val`, bit-exactly and image by image, against the network on exact 8-bit multipliers, as it
was and after the same five epochs. Wanted: three quarters of the energy saved at less than one point.

Published on CIFAR-10, with larger ResNets and other circuits: 70 to 79 % at less than one point, by noise that is
learned (Trommer, Waschneck and Kumar, arXiv:2208.07265)."""


def candidates(data: Path) -> list[ax.Hardware]:
    """The 16 tables, with their published power relative to the exact circuit of the same sign."""
    published = json.loads((data / "luts" / "published_metrics.json").read_text())
    milliwatts = {entry["name"]: entry["published"]["pdk45_power_mw"] for entry in published}
    exact = {signed: max(milliwatts[e["name"]] for e in published if e["signed"] == signed) for signed in (True, False)}
    found = []
    for entry in published:
        name, signed = entry["name"], entry["signed"]
        options = {"signed": signed, "power": milliwatts[name] / exact[signed], "source": "EvoApproxLib v1, PDK45"}
        found.append(ax.Hardware(multiplier=ax.Multiplier.load(data / "luts" / f"{name}.npy", **options), name=name))
    return found


def fitted(model: keras.Model, x, y, epochs: int, rate: float, seed: int) -> None:
    """Adam with cosine decay on mirrored and shifted images."""
    keras.utils.set_random_seed(seed)
    images = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x), seed=seed).batch(64, drop_remainder=True)
    steps = epochs * (len(x) // 64)
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps))
    model.compile(optimizer, "sparse_categorical_crossentropy")
    model.fit(
        images.map(shifted_and_mirrored, num_parallel_calls=2).prefetch(4), epochs=epochs, shuffle=False, verbose=0
    )


def kept(path: Path, make: Callable[[], keras.Model]) -> keras.Model:
    """The model in the file, made where there is none."""
    if not path.is_file():
        save(make(), path)
    return ax.load_model(path)


def verdict(right: dict[str, np.ndarray], best) -> list[str]:
    """What was saved and lost, image by image against both exact networks."""
    lines = [f"- {name}: {100 * value.mean():.2f} % on x_val" for name, value in right.items()]
    if "chosen" not in right:
        return [*lines, "- nothing within the budget"]
    for name in (EXACT, f"{EXACT}, trained further"):
        lost = 100 * (right[name].astype(float) - right["chosen"])
        error = lost.std(ddof=1) / len(lost) ** 0.5
        words = "met" if best.saving >= SAVING and lost.mean() < LOST else "missed"
        lines.append(
            f"- below {name}: {lost.mean():.2f} points, standard error {error:.2f} (paired over {len(lost)} images); "
            f"saved {100 * best.saving:.1f} % of the multipliers' energy. "
            f"{100 * SAVING:g} % at less than {LOST:g}: {words}"
        )
    return lines


def page(found: ax.SearchResult, right: dict[str, np.ndarray], notes: list[str]) -> str:
    """The Markdown: verdict, what was chosen, every played assignment."""
    assignment = [] if found.best is None else [f"| {name} | {one} |" for name, one in found.best.assignment.items()]
    return "\n".join([
        "# A multiplier for each layer", "", INTRODUCTION, "",
        "- command: `python benchmarks/layer_search.py --data DIR`",
        *(f"- {note}" for note in notes), *verdict(right, found.best), "",
        "| layer | chosen |", "|---|---|", *assignment, "",
        "![Pareto front](layer_search.png)", "",
        "*Every played assignment on the selection part: energy against accuracy, before training and after.*", "",
        "```text", found.table(), "```", "",
    ])  # fmt: skip


def main() -> None:
    """Searches, judges, writes the table and the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("AXTRAIN_DATA"), help="folder with data/, luts/")
    parser.add_argument("--cache", type=Path, default=Path("benchmarks/results/layer_search"), help="kept here")
    parser.add_argument("--out", type=Path, default=Path("docs/results"), help="where the results go")
    parser.add_argument(
        "--budget", type=float, default=0.005, help="accuracy lost on the selection part, default 0.005"
    )
    parser.add_argument("--confirm", type=int, default=24, help="assignments played, default 24")
    parser.add_argument("--train-candidates", type=int, default=6, help="assignments trained, default 6")
    parser.add_argument("--smoke", action="store_true", help="few images and epochs: does it run?")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("--data DIR (or AXTRAIN_DATA) is needed: its luts/ and data/")
    data, began = Path(arguments.data), time.perf_counter()
    with np.load(data / "data" / "cifar10.npz", allow_pickle=False) as arrays:
        parts = {name: arrays[name] for name in ("x_train", "y_train", "x_val", "y_val")}
    x, y = parts["x_train"].astype(np.float32), parts["y_train"].astype(np.int64).ravel()
    x_val, y_val = parts["x_val"].astype(np.float32), parts["y_val"].astype(np.int64).ravel()
    cut, epochs, further = len(x) - SELECTION, EPOCHS, FURTHER
    if arguments.smoke:
        x, y, x_val, y_val, cut, epochs, further = x[:900], y[:900], x_val[:200], y_val[:200], 600, 1, 1
    went_on = arguments.cache.is_dir()
    arguments.cache.mkdir(parents=True, exist_ok=True)

    def network() -> keras.Model:
        model = resnet8()
        fitted(model, x[:cut], y[:cut], epochs, 3e-3, seed=0)
        return model

    def trained_further(model: keras.Model) -> None:
        fitted(model, x[:cut], y[:cut], further, FURTHER_RATE, seed=1)

    model = kept(arguments.cache / "network.keras", network)
    found = ax.search(
        model,
        x[cut:],
        y[cut:],
        candidates=candidates(data),
        budget=arguments.budget,
        objective="multipliers",
        confirm=4 if arguments.smoke else arguments.confirm,
        train=trained_further,
        train_candidates=1 if arguments.smoke else arguments.train_candidates,
        calibration=x[:512],
        batch_size=250,
        folder=arguments.cache / "search",
    )

    def exact_further() -> keras.Model:
        model_further = ax.convert(model, ax.Hardware(), x[:512])
        trained_further(model_further)
        return model_further

    judged = {
        EXACT: ax.convert(model, ax.Hardware(), x[:512]),
        f"{EXACT}, trained further": kept(arguments.cache / "exact_further.keras", exact_further),
    }
    if found.model is not None:
        judged["chosen"] = found.model
    right = {name: one.predict(x_val, batch_size=250, verbose=0).argmax(-1) == y_val for name, one in judged.items()}
    here = machine()
    took = f"this run took {(time.perf_counter() - began) / 60:.0f} minutes on {here['cores']} cores"
    notes = [took + (", with what earlier ones had kept" if went_on else ""), f"commit {commit()}"]
    notes.append(f"TensorFlow {here['tensorflow']}, Keras {keras.__version__}")
    notes.append(f"{cut} images to train on, {len(x) - cut} to select on, {len(x_val)} to judge by")
    arguments.out.mkdir(parents=True, exist_ok=True)
    text = page(found, right, notes)
    (arguments.out / "layer_search.md").write_text(text)
    found.plot().savefig(arguments.out / "layer_search.png", dpi=120)
    print(text)


if __name__ == "__main__":
    main()
