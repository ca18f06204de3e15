"""What faults cost: flips in ten million stored words beside a copy of them, and a training step with faulty weights.

Each figure is a median of ratios to a reference run beside it, in one process: for the words one copy of the array;
for ResNet-8 at batch 32 the same training step without faults.
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
from axtrain.noise_models.injection import flip_bits

WORDS = 10_000_000
RATES = {1e-5: 3.0, 1e-4: 3.0, 1e-3: 3.0, 1e-2: None, 1e-1: 12.0}
STEP_RATE, STEP_TARGET = 1e-3, 1.15


def figure(name: str, value: float, target: float | None, unit: str, **details) -> dict:
    """One line of the table, printed as it is made."""
    met = None if target is None else bool(value <= target)
    verdict = "" if met is None else f"target {target:<5g}{'met' if met else 'missed'}"
    print(f"{name:<64}{value:>7.2f} x   {verdict}", flush=True)
    return {"name": name, "value": round(value, 3), "unit": unit, "target": target, "met": met, **details}


def measure_words(rounds: int, count: int) -> list[dict]:
    """`flip_bits` on 8-bit words."""
    words = np.random.default_rng(0).integers(0, 256, count).astype(np.uint8)
    ways = {rate: lambda rate=rate: flip_bits(words, rate, seed=1) for rate in RATES}
    base, found = ratios(words.copy, ways, rounds)
    unit, details = "times a copy of the words", {"copy_ms": round(1e3 * base, 3)}
    return [figure(f"{count:,} words of 8 bits, rate {r:g}", v, RATES[r], unit, **details) for r, v in found.items()]


def measure_steps(rounds: int) -> list[dict]:
    """ResNet-8 on an exact 8-bit machine whose weights lie in a faulty memory."""
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0, 255, (32, 32, 32, 3)).astype("float32"), rng.integers(0, 10, 32)
    plain = resnet8()
    kinds = {
        "random": ax.memories.BitErrors(rate=STEP_RATE),
        "a new chip at each step": ax.memories.BitErrors(rate=STEP_RATE, fault="persistent"),
        "stuck cells": ax.memories.BitErrors(rate=STEP_RATE, fault="stuck"),
        "SECDED": ax.memories.BitErrors(rate=STEP_RATE, protection=ax.memories.SECDED()),
    }
    networks = {name: ax.convert(plain, ax.Hardware(weight_memory=memory), x) for name, memory in kinds.items()}
    networks["weights and activations, random"] = ax.convert(
        plain, ax.Hardware(weight_memory=kinds["random"], activation_memory=kinds["random"]), x
    )
    clean = ax.convert(plain, ax.Hardware(), x)
    for model in (clean, *networks.values()):
        model.compile(keras.optimizers.SGD(1e-4, momentum=0.9), "sparse_categorical_crossentropy")
    steps = {name: lambda m=m: m.train_on_batch(x, y) for name, m in networks.items()}
    base, found = ratios(lambda: clean.train_on_batch(x, y), steps, rounds)
    unit, details = "times the step without faults", {"step_ms": round(1e3 * base, 2)}
    targets = {"random": STEP_TARGET, "a new chip at each step": STEP_TARGET}
    names = {name: f"ResNet-8 training step, rate {STEP_RATE:g}: {name}" for name in found}
    return [figure(names[name], value, targets.get(name), unit, **details) for name, value in found.items()]


def main() -> None:
    """Prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="few rounds, a tenth of the words")
    parser.add_argument("--rounds", type=int, default=31, help="runs of each, default 31")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    rounds = 3 if arguments.smoke else arguments.rounds
    figures = measure_words(rounds, WORDS // 10 if arguments.smoke else WORDS)
    figures += measure_steps(rounds)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps({"figures": figures, "machine": machine()}, indent=1))


if __name__ == "__main__":
    main()
