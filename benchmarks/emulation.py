"""What bit-exact emulation costs, as a multiple of the float32 Keras layer or network it stands for.

Everything runs in one process, in turn, each beside the float32 one; a figure is the median of their ratios.
Layers run in `tf.function` (forward); ResNet-8 at batch 32 forward and as `train_on_batch`, with tfmot's 8-bit
quantisation-aware training of the same network beside it; MobileNetV2 and ResNet50 forward, with random weights.
With --data DIR (or AXTRAIN_DATA) the multipliers of `DIR/luts`, else ours of like rank.

The native kernels are compiled for the processor at hand; NUMBA_CPU_NAME=haswell and an empty NUMBA_CPU_FEATURES
give those of a CPU without AVX-512. TensorFlow's float32 then runs as it does there, too: on Linux it turns oneDNN's
operations on only where it finds instructions for neural networks (AVX-512 VNNI and others). Set
TF_ENABLE_ONEDNN_OPTS=1 and ONEDNN_MAX_CPU_ISA=ALL to leave float32 the whole processor.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
if os.environ.get("NUMBA_CPU_NAME") in ("generic", "haswell"):  # before TensorFlow is imported
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))

import keras
import numpy as np
import tensorflow as tf
from resnet8 import resnet8
from timing import machine, ratios

import axtrain as ax
from axtrain.controls import hardware_layers
from axtrain.emulation.engine import ENGINES
from axtrain.emulation.factorisation import exact_rank


@dataclass(frozen=True)
class Targets:
    """What circuits of one kind may cost, multiples of float32.

    Attributes:
        forward, step: of ResNet-8.
        dense, conv, depthwise: of single layers.
        large: of MobileNetV2 and ResNet50 forward; `None` where they are not measured.
    """

    forward: float
    step: float
    dense: float
    conv: float
    depthwise: float
    large: float | None = None


@dataclass(frozen=True)
class Case:
    """A multiplier and what it may cost.

    Attributes:
        table: the file's name in `luts`, or `None` for one of ours.
        family: ours, of like rank, where there is no data.
        targets: of its kind.
    """

    table: str | None
    family: str
    targets: Targets


RANK_1, FEW = Targets(1.2, 1.2, 1.0, 0.9, 1.2, 2.2), Targets(1.7, 1.35, 2.5, 1.7, 1.7)
ANY = Targets(2.0, 1.5, 2.5, 1.7, 1.7, 4.0)
CASES = (
    Case(None, "exact", RANK_1),
    Case("mul8s_1L2H", "drum4", RANK_1),
    Case("mul8s_1KRC", "kulkarni", FEW),
    Case("mul8s_1KX2", "truncated8", FEW),
    Case("mul8u_17KS", "roba", ANY),
    Case("mul8u_12N4", "mitchell", ANY),
    Case(None, "mitchell", ANY),
)
# Name, the target's, input shape, and the layer.
LAYERS = (
    ("dense 128x512x512", "dense", (128, 512), lambda: keras.layers.Dense(512)),
    (
        "conv 3x3, 64 to 64, 32x32, batch 16",
        "conv",
        (16, 32, 32, 64),
        lambda: keras.layers.Conv2D(64, 3, padding="same"),
    ),
    (
        "depthwise 3x3, 256 channels, 32x32, batch 16",
        "depthwise",
        (16, 32, 32, 256),
        lambda: keras.layers.DepthwiseConv2D(3, padding="same"),
    ),
)
LARGE = {
    "MobileNetV2": lambda: keras.applications.MobileNetV2((96, 96, 3), weights=None),
    "ResNet50": lambda: keras.applications.ResNet50(weights=None, input_shape=(96, 96, 3)),
}
COLUMNS = ("dense", "conv", "depthwise", "ResNet-8 forward", "ResNet-8 training step", *LARGE)


def multiplier(case: Case, data: Path | None) -> ax.Multiplier:
    """The circuit of a case."""
    if case.table is None or data is None:
        return ax.multipliers.get(case.family)
    return ax.Multiplier.load(data / "luts" / f"{case.table}.npy", signed=case.table.startswith("mul8s"))


def forward(model, x):
    """A function that runs the model once."""
    compiled = tf.function(lambda x: model(x, training=False), jit_compile=False, autograph=False)
    return lambda: compiled(x).numpy()


def figure(column: str, circuit: str, value: float, target: float | None, **details) -> dict:
    """One line of the table, printed as it is made."""
    found = {"name": f"{column}: {circuit}", "column": column, "circuit": circuit, "value": round(value, 2)}
    found |= {"unit": "times float32", "target": target, "met": None if target is None else bool(value <= target)}
    verdict = "" if target is None else f"target {target:<5g}{'met' if found['met'] else 'missed'}"
    engine = details.get("engine", "")
    print(f"{details.get('shape', column):<46}{circuit:<20}{engine:<10}{value:>7.2f} x   {verdict}", flush=True)
    return {**found, **details}


def measure_layers(cases: dict, engine: str | None, rounds: int) -> list[dict]:
    """Forward passes of single layers after a ReLU."""
    figures = []
    for shape_name, column, shape, make in LAYERS:
        x = tf.constant(np.maximum(np.random.default_rng(0).normal(size=shape), 0), tf.float32)
        plain = keras.Sequential([keras.Input(shape[1:]), make()])
        networks = converted(plain, cases, np.asarray(x), engine)
        base, found = ratios(forward(plain, x), {name: forward(m, x) for name, m in networks.items()}, rounds)
        for circuit, case in cases.items():
            target = getattr(case.targets, column)
            details = {"engine": engines(networks[circuit.name]), "float_ms": round(1e3 * base, 3), "shape": shape_name}
            details["rank"] = exact_rank(ax.Hardware(multiplier=circuit).code_table)
            figures.append(figure(column, circuit.name, found[circuit.name], target, **details))
    return figures


def measure_resnet8(cases: dict, engine: str | None, rounds: int, qat: bool) -> list[dict]:
    """ResNet-8 forward and training step, exact fidelity, and the statistical ones of the highest rank."""
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0, 255, (32, 32, 32, 3)).astype("float32"), rng.integers(0, 10, 32)
    plain = resnet8()
    networks = converted(plain, cases, x, engine)
    hardest = ax.Hardware(multiplier=list(cases)[-1])
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
    targets, figures = {circuit.name: case.targets for circuit, case in cases.items()}, []
    for column, measured, seconds, of in (
        ("ResNet-8 forward", forwards, base, "forward"),
        ("ResNet-8 training step", taken, step_base, "step"),
    ):
        for name, value in measured.items():
            target = getattr(targets[name], of) if name in targets else None
            details = {"float_ms": round(1e3 * seconds, 2)}
            if name in targets:
                details["engine"] = engines(networks[name])
            elif name != "tfmot QAT":
                target = taken.get("tfmot QAT") if of == "step" else None
            figures.append(figure(column, name, value, target, **details))
    return figures


def measure_large(cases: dict, engine: str | None, rounds: int) -> list[dict]:
    """MobileNetV2 and ResNet50 at 96 x 96, batch 8, forward."""
    figures, x = [], np.random.default_rng(0).normal(size=(8, 96, 96, 3)).astype("float32")
    cases = {circuit: case for circuit, case in cases.items() if case.targets.large is not None}
    for name, make in LARGE.items():
        plain, inputs = make(), tf.constant(x)
        networks = converted(plain, cases, x, engine)
        base, found = ratios(forward(plain, inputs), {n: forward(m, inputs) for n, m in networks.items()}, rounds)
        for circuit, case in cases.items():
            details = {"engine": engines(networks[circuit.name]), "float_ms": round(1e3 * base, 2)}
            figures.append(figure(name, circuit.name, found[circuit.name], case.targets.large, **details))
    return figures


def converted(plain, cases: dict, x, engine: str | None) -> dict:
    """The network on each circuit, by its name."""
    return {c.name: ax.convert(plain, ax.Hardware(multiplier=c), x, engine=engine) for c in cases}


def engines(model) -> str:
    """The names of the engines that a network's layers run on."""
    return ", ".join(sorted({engine.name for layer in hardware_layers(model) for engine in layer.chosen_engines}))


def markdown(files: list[Path]) -> str:
    """The figures of several runs as one table, a run's beside the other's."""
    runs = [json.loads(file.read_text()) for file in files]
    values = [{(f["column"], f["circuit"]): f["value"] for f in run["figures"]} for run in runs]
    circuits = list(dict.fromkeys(f["circuit"] for run in runs for f in run["figures"]))
    rank = {f["circuit"]: f.get("rank", "") for run in runs for f in run["figures"] if "rank" in f}
    lines = ["| circuit | rank | " + " | ".join(COLUMNS) + " |", "|---|---:|" + "---:|" * len(COLUMNS)]
    for circuit in circuits:
        cells = [" / ".join(f"{v[c, circuit]:.1f}" for v in values if (c, circuit) in v) for c in COLUMNS]
        lines.append(f"| {circuit} | {rank.get(circuit, '')} | " + " | ".join(cells) + " |")
    places = [
        f"{run['machine']['cpu']}, kernels for {run['machine']['numba_target']}, float32 {run['machine']['float32']}"
        for run in runs
    ]
    return "\n".join(["Measured on: " + "; then ".join(places), "", *lines])


def main() -> None:
    """Prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("AXTRAIN_DATA"), help="folder with luts/")
    parser.add_argument("--smoke", action="store_true", help="two multipliers, few rounds, no tfmot")
    parser.add_argument("--engine", choices=sorted(ENGINES), help="force one engine")
    parser.add_argument("--rounds", type=int, default=31, help="runs of each, default 31")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument(
        "--markdown", type=Path, nargs="+", help="print these runs' files as one table, and measure nothing"
    )
    arguments = parser.parse_args()
    if arguments.markdown:
        print(markdown(arguments.markdown))
        return
    data = None if arguments.data is None else Path(arguments.data)
    chosen = (CASES[0], CASES[-1]) if arguments.smoke else CASES
    # Without data two cases may be one circuit.
    cases = {
        circuit: case for circuit, case in {multiplier(c, data).name: (multiplier(c, data), c) for c in chosen}.values()
    }
    rounds = 3 if arguments.smoke else arguments.rounds
    here = machine()
    target, float32 = here["numba_target"], here["float32"]
    print(f"{here['cpu']}, {here['cores']} cores; native kernels for {target}; float32 {float32}", flush=True)
    figures = measure_layers(cases, arguments.engine, rounds)
    figures += measure_resnet8(cases, arguments.engine, rounds, not arguments.smoke)
    if not arguments.smoke:
        figures += measure_large(cases, arguments.engine, max(3, rounds // 4))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps({"figures": figures, "machine": here}, indent=1))


if __name__ == "__main__":
    main()
