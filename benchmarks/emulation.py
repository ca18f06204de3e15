"""What bit-exact emulation costs, as a multiple of the float32 Keras layer or network it stands for.

Everything runs in one process, in turn, each beside the float32 one; a figure is the median of their ratios.
Layers run in `tf.function` (forward); ResNet-8 at batch 32 forward and as `train_on_batch`, with tfmot's 8-bit
quantisation-aware training of the same network beside it. With --data DIR (or AXTRAIN_DATA) the multipliers
of `DIR/luts`, else ours of like rank.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))

import keras
import numpy as np
import tensorflow as tf
from resnet8 import resnet8
from timing import machine, ratios

import axtrain as ax
from axtrain.controls import hardware_layers


@dataclass(frozen=True)
class Case:
    """A multiplier and what its network may cost.

    Attributes:
        table: the file's name in `luts`, or `None` for one of ours.
        family: ours, of like rank, where there is no data.
        forward, step: the targets for ResNet-8, multiples of float32.
    """

    table: str | None
    family: str
    forward: float
    step: float


# The targets of rank 18 and more are those of any table.
CASES = (
    Case(None, "exact", 1.6, 1.2),
    Case("mul8s_1L2H", "drum4", 1.6, 1.2),
    Case("mul8s_1KRC", "kulkarni", 3.0, 1.6),
    Case("mul8s_1KX2", "truncated8", 3.5, 1.8),
    Case("mul8u_17KS", "roba", 6.0, 2.5),
    Case("mul8u_12N4", "mitchell", 6.0, 2.5),
    Case(None, "mitchell", 6.0, 2.5),
)
LAYERS = {
    "dense 128x512x512": ((128, 512), lambda: keras.layers.Dense(512)),
    "conv 3x3, 64 to 64, 32x32, batch 16": ((16, 32, 32, 64), lambda: keras.layers.Conv2D(64, 3, padding="same")),
    "depthwise 3x3, 256 channels, 32x32, batch 16": (
        (16, 32, 32, 256),
        lambda: keras.layers.DepthwiseConv2D(3, padding="same"),
    ),
}


def multiplier(case: Case, data: Path | None) -> ax.Multiplier:
    """The circuit of a case."""
    if case.table is None or data is None:
        return ax.multipliers.get(case.family)
    return ax.Multiplier.load(data / "luts" / f"{case.table}.npy", signed=case.table.startswith("mul8s"))


def forward(model, x):
    """A function that runs the model once."""
    compiled = tf.function(lambda x: model(x, training=False), jit_compile=False, autograph=False)
    return lambda: compiled(x).numpy()


def figure(name: str, value: float, target: float | None = None, **details) -> dict:
    """One line of the table, printed as it is made."""
    found = {"name": name, "value": round(value, 2), "unit": "times float32", "target": target}
    found["met"] = None if target is None else bool(value <= target)
    verdict = "" if target is None else f"target {target:<5g}{'met' if found['met'] else 'missed'}"
    print(f"{name:<78}{value:>7.2f} x   {verdict}", flush=True)
    return {**found, **details}


def measure_layers(cases, engine: str | None, rounds: int) -> list[dict]:
    """Forward passes of single layers after a ReLU."""
    figures = []
    for shape_name, (shape, make) in LAYERS.items():
        x = tf.constant(np.maximum(np.random.default_rng(0).normal(size=shape), 0), tf.float32)
        plain = keras.Sequential([keras.Input(shape[1:]), make()])
        played = {}
        for circuit in cases:
            converted = ax.convert(plain, ax.Hardware(multiplier=circuit), np.asarray(x), engine=engine)
            played[circuit.name] = (converted, next(hardware_layers(converted)).chosen_engine)
        base, found = ratios(forward(plain, x), {name: forward(m, x) for name, (m, _) in played.items()}, rounds)
        for name, value in found.items():
            how = played[name][1].name
            figures.append(figure(f"{shape_name}: {name}, {how}", value, engine=how, float_ms=round(1e3 * base, 3)))
    return figures


def measure_networks(cases, circuits, engine: str | None, rounds: int, qat: bool) -> list[dict]:
    """ResNet-8 forward and training step, exact fidelity, and the statistical ones of the highest rank."""
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0, 255, (32, 32, 32, 3)).astype("float32"), rng.integers(0, 10, 32)
    plain = resnet8()
    networks = {c.name: ax.convert(plain, ax.Hardware(multiplier=c), x, engine=engine) for c in circuits}
    hardest = ax.Hardware(multiplier=circuits[-1])
    for fidelity in ("calibrated", "gaussian"):
        networks[fidelity] = ax.convert(plain, hardest, x, fidelity=fidelity)
    for model in (plain, *networks.values()):
        model.compile(keras.optimizers.SGD(1e-4, momentum=0.9), "sparse_categorical_crossentropy")
    steps = {name: lambda m=m: m.train_on_batch(x, y) for name, m in networks.items()}
    if qat:
        from qat import qat_resnet8

        trained = qat_resnet8()
        steps["tfmot QAT"] = lambda: trained.train_on_batch(x, y)
    inputs = tf.constant(x)
    base, forwards = ratios(forward(plain, inputs), {n: forward(m, inputs) for n, m in networks.items()}, rounds)
    step_base, taken = ratios(lambda: plain.train_on_batch(x, y), steps, rounds)
    targets = {circuit.name: case for case, circuit in zip(cases, circuits, strict=True)}
    limit = taken.get("tfmot QAT")
    figures = []
    for name, value in forwards.items():
        target = targets[name].forward if name in targets else None
        figures.append(figure(f"ResNet-8 forward: {name}", value, target, float_ms=round(1e3 * base, 2)))
    for name, value in taken.items():
        target = targets[name].step if name in targets else limit if name != "tfmot QAT" else None
        figures.append(figure(f"ResNet-8 training step: {name}", value, target, float_ms=round(1e3 * step_base, 2)))
    return figures


def main() -> None:
    """Prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("AXTRAIN_DATA"), help="folder with luts/")
    parser.add_argument("--smoke", action="store_true", help="two multipliers, few rounds, no tfmot")
    parser.add_argument("--engine", choices=["low_rank", "gather", "numba"], help="force one engine")
    parser.add_argument("--rounds", type=int, default=31, help="runs of each, default 31")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    data = None if arguments.data is None else Path(arguments.data)
    cases = (CASES[0], CASES[-1]) if arguments.smoke else CASES
    chosen = {multiplier(case, data).name: case for case in cases}  # without data two cases may be one circuit
    circuits = [multiplier(case, data) for case in chosen.values()]
    rounds = 3 if arguments.smoke else arguments.rounds
    figures = measure_layers(circuits, arguments.engine, rounds)
    figures += measure_networks(tuple(chosen.values()), circuits, arguments.engine, rounds, not arguments.smoke)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps({"figures": figures, "machine": machine()}, indent=1))


if __name__ == "__main__":
    main()
