"""What a penalty on the output sensitivity costs: a training step with it beside the same model's plain step.

ResNet-8 at batch 32, one probe: in float as a graph, and on rank-1 hardware under XLA. Every figure is the median of
ratios to plain steps run beside it, in one process; each run takes four steps, so that `every=4` has all of its two
kinds in it. With --data DIR (or AXTRAIN_DATA) the hardware is `mul8s_1L2H` of `DIR/luts`, else `drum4`, which is also
of rank 1.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))

import keras
import numpy as np
from resnet8 import resnet8
from timing import machine, ratios

import axtrain as ax

STEPS = 4
WAYS = {
    "every step, differentiated twice": ({}, 2.0),
    "every step, differentiated twice, a quarter of the batch": ({"fraction": 0.25}, 2.0),
    "every step, moved weights": ({"method": "first_order"}, 2.0),
    "every 4th step, differentiated twice": ({"every": 4}, 1.3),
    "every 4th step, a quarter of the batch": ({"every": 4, "fraction": 0.25}, 1.3),
    "every 4th step, moved weights": ({"every": 4, "method": "first_order"}, 1.3),
}


def compiled(model: keras.Model, jit_compile: bool) -> keras.Model:
    """Ready to train."""
    optimizer = keras.optimizers.SGD(1e-4, momentum=0.9)
    model.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=jit_compile)
    return model


def measure(name: str, model: keras.Model, jit_compile: bool, weighting: str, rounds: int) -> list[dict]:
    """Every way on one model."""
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0, 255, (32, 32, 32, 3)).astype("float32"), rng.integers(0, 10, 32)

    def steps(trained):
        def run():
            for _ in range(STEPS):
                trained.train_on_batch(x, y)

        return run

    active = {
        way: compiled(
            ax.with_sensitivity(model, ax.OutputSensitivity(1e-6, weighting=weighting, **options)), jit_compile
        )
        for way, (options, _) in WAYS.items()
    }
    plain = compiled(model, jit_compile)
    base, found = ratios(steps(plain), {way: steps(trained) for way, trained in active.items()}, rounds)
    figures = []
    for way, value in found.items():
        target = WAYS[way][1]
        verdict = f"target {target:<5g}{'met' if value <= target else 'missed'}"
        print(f"{name}: {way:<58}{value:>6.2f} x   {verdict}", flush=True)
        figure = {"name": f"{name}: {way}", "value": round(value, 3), "unit": "times the plain step"}
        step_ms = round(1e3 * base / STEPS, 2)
        figures.append({**figure, "target": target, "met": bool(value <= target), "plain_step_ms": step_ms})
    return figures


def main() -> None:
    """Prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("AXTRAIN_DATA"), help="folder with luts/")
    parser.add_argument("--smoke", action="store_true", help="few rounds")
    parser.add_argument("--rounds", type=int, default=15, help="runs of each, default 15")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    rounds = 2 if arguments.smoke else arguments.rounds
    circuit = ax.multipliers.get("drum4")
    if arguments.data is not None:
        circuit = ax.Multiplier.load(Path(arguments.data) / "luts" / "mul8s_1L2H.npy", signed=True)
    calibration = np.random.default_rng(1).uniform(0, 255, (64, 32, 32, 3)).astype("float32")
    noisy = ax.convert(resnet8(), ax.Hardware(multiplier=circuit), calibration)
    figures = measure("ResNet-8, float, graph", resnet8(), False, "constant", rounds)
    figures += measure(f"ResNet-8, {circuit.name}, XLA", noisy, True, "hardware", rounds)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps({"figures": figures, "machine": machine()}, indent=1))


if __name__ == "__main__":
    main()
