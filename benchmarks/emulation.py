"""What bit-exact emulation costs, as a multiple of the float32 operation it stands for.

Both sides run in one process, compiled by `tf.function`, in turn (A B A B ...); the figure is the ratio of
medians. `--xla` compiles both with XLA. With --data DIR (or AXTRAIN_DATA) the tables of `DIR/luts` too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from keras import ops

import axtrain as ax
from axtrain.emulation.code_table import CodeTable
from axtrain.emulation.factorisation import exact_rank
from axtrain.emulation.selection import engine_for

# The floor: r products for a table of rank r, so the ratio cannot fall below r by this method; the target
# allows half as much again for look-ups, int32 and padding, and 2 for what one small product is too short to
# hide. Look-ups of any table: the prototype of the theory page, section 2, fused by XLA.
LOOK_UP_TARGET = 28.0


def cases(shape: str, table: CodeTable):
    """(activation codes, weight codes, float operation, emulated operation) of one operator."""
    rng = np.random.default_rng(0)
    if shape == "dense 128x512x512":
        a, w = rng.choice(table.activation_codes, (128, 512)), rng.choice(table.weight_codes, (512, 512))
        return a, w, ops.matmul, lambda engine: engine.matmul
    a, w = rng.choice(table.activation_codes, (32, 32, 32, 64)), rng.choice(table.weight_codes, (3, 3, 64, 64))
    return (
        a,
        w,
        lambda x, k: ops.conv(x, k, padding="valid"),
        lambda engine: lambda x, k: engine.conv(x, k, (1, 1), (1, 1)),
    )


def interleaved(functions, runs: int) -> list[float]:
    """Median seconds of each function, run in turn after one call each."""
    for function in functions:
        function()
    times = [[] for _ in functions]
    for _ in range(runs):
        for function, taken in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            taken.append(time.perf_counter() - start)
    return [float(np.median(taken)) for taken in times]


def measure(multiplier, shape: str, engine_name: str | None, *, xla: bool, runs: int) -> dict:
    """One figure: the emulated operation over the float one."""
    table = CodeTable.plain(multiplier)
    a, w, plain, emulated = cases(shape, table)
    engine = engine_for(table, engine_name, operation=shape.split()[0])
    x, k = tf.constant(a, tf.float32), tf.constant(w, tf.float32)
    reference = tf.function(plain, jit_compile=xla)
    played = tf.function(emulated(engine), jit_compile=xla)
    base, cost = interleaved([lambda: reference(x, k).numpy(), lambda: played(x, k).numpy()], runs)
    rank = exact_rank(table)
    target = 1.5 * rank + 2 if engine.name == "low_rank" else LOOK_UP_TARGET
    return {
        "name": f"{multiplier.name}, {shape}, {engine.name}" + (", xla" if xla else ""),
        "value": round(cost / base, 2),
        "unit": "times float32",
        "target": target,
        "met": bool(cost / base <= target),
        "rank": rank,
        "float_ms": round(1e3 * base, 3),
    }


def main() -> None:
    """Prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("AXTRAIN_DATA"), help="folder with luts/")
    parser.add_argument("--smoke", action="store_true", help="few runs and tables")
    parser.add_argument("--xla", action="store_true", help="compile both sides with XLA")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    names = ["exact", "kulkarni"] if arguments.smoke else ["exact", "drum4", "kulkarni", "truncated8", "mitchell"]
    chosen = [ax.multipliers.get(name) for name in names]
    if arguments.data and not arguments.smoke:
        for name in ("mul8s_1L2H", "mul8u_17KS", "mul8u_L40"):
            path = Path(arguments.data) / "luts" / f"{name}.npy"
            chosen.append(ax.Multiplier.load(path, signed=name.startswith("mul8s")))
    figures = []
    for shape in ("dense 128x512x512", "conv 3x3, 64 to 64, 32x32x32"):
        for multiplier in chosen:
            figure = measure(multiplier, shape, None, xla=arguments.xla, runs=3 if arguments.smoke else 15)
            figures.append(figure)
            print(
                f"{figure['name']:<56}{figure['value']:>8.2f} x   target {figure['target']:<6g}"
                f"{'met' if figure['met'] else 'missed'}",
                flush=True,
            )
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        machine = {"processor": platform.machine(), "cores": os.cpu_count(), "tensorflow": tf.__version__}
        arguments.json.write_text(json.dumps({"figures": figures, "machine": machine}, indent=1))


if __name__ == "__main__":
    main()
