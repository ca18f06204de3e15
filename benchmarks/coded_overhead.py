"""What coding costs where nothing goes wrong: products, checks and whole steps, beside the uncoded ones.

For each code, on one layer: its forward product with check and decoding, its backward product likewise, and its coded
update with the encoding of both operands, as a multiple of the same coded products alone; and a training step of a
network of two such layers as a multiple of the plain Keras step, beside the multiple that the code's own count of
operations gives. Every figure is the median of ratios to runs beside it, in one process.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).resolve().parent))

import keras
import numpy as np
import tensorflow as tf
from timing import machine, ratios

from axtrain import coded
from axtrain.coded.layouts import MatrixLayout
from axtrain.coded.products import CodedProduct

CODES = {
    "CodeNet (4, 5, 1)": coded.CodeNet(4, 5, 1),
    "SystematicMDS (8, 5)": coded.SystematicMDS(8, 5),
    "PolyDot (2, 2), P = 8": coded.GeneralizedPolyDot(2, 2),
    "MatDot (4), P = 9": coded.MatDot(4),
    "Polynomial (4), P = 9": coded.Polynomial(4),
    "Replication x 2": coded.Replication(2),
    "Replication x 3": coded.Replication(3),
}


def products_alone(product: CodedProduct, code: coded.Code, kernel, x, delta):
    """The coded products with operands that are encoded already, and nothing else: a compiled function."""
    laid = product.layout
    batch = x.shape[0]
    if isinstance(laid, MatrixLayout) or isinstance(code, coded.Checksum):
        rows, columns = laid.shape
        wide, tall = tf.zeros((batch, rows)) + 0.5, tf.zeros((batch, columns)) + 0.5

        def run(kernel):
            if isinstance(code, coded.Checksum):
                back = tall @ tf.transpose(kernel)
            else:
                back = delta @ tf.transpose(kernel[:, : laid.outputs])
            return x @ kernel[: laid.inputs], back, tf.transpose(wide) @ tall
    else:
        forward = tf.zeros((code.shards, batch, laid.height)) + 0.5
        backward = tf.zeros((code.shards, batch, laid.width)) + 0.5

        def run(kernel):
            return (
                forward @ kernel,
                tf.matmul(backward, kernel, transpose_b=True),
                tf.matmul(forward, backward, transpose_a=True),
            )

    return tf.function(run)


def layer_overhead(name: str, code: coded.Code, size: int, batch: int, target: float, rounds: int) -> dict:
    """Check, decoding and encoding on top of the coded products of one layer."""
    generator = np.random.default_rng(0)
    x = tf.constant(generator.standard_normal((batch, size)), tf.float32)
    delta = tf.constant(generator.standard_normal((batch, size)), tf.float32)
    product = CodedProduct(code, size, size)
    kernel = product.layout.encode(tf.constant(generator.standard_normal((size, size)) / size**0.5, tf.float32))

    @tf.function
    def whole(kernel):
        y, seen = product.forward(kernel, x)
        c, found = product.backward(kernel, delta)
        return y, c, product.layout.gradient(x, delta), seen.detected + found.detected

    alone = products_alone(product, code, kernel, x, delta)
    if float(whole(kernel)[3]):
        raise RuntimeError(f"{name}: a false alarm")
    _, found = ratios(lambda: alone(kernel)[2].numpy(), {"whole": lambda: whole(kernel)[2].numpy()}, rounds)
    share = found["whole"] - 1.0
    title = f"{name}: check, decode, encode on top of the coded products, {size} x {size}, batch {batch}"
    return {
        "name": title,
        "value": round(share, 3),
        "unit": "of the products",
        "target": target,
        "met": share <= target,
    }


def step_ratio(name: str, code: coded.Code, size: int, batch: int, target: float | None, rounds: int) -> dict:
    """A training step of two layers, as a multiple of the plain one's."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal((batch, size)).astype("float32")
    plain = keras.Sequential([keras.Input((size,)), *[keras.layers.Dense(size, use_bias=False) for _ in range(2)]])
    trained = coded.convert(plain, code)
    for model in (plain, trained):
        model.compile(keras.optimizers.SGD(1e-4, momentum=0.9), "mse")
    base, found = ratios(lambda: plain.train_on_batch(x, x), {"coded": lambda: trained.train_on_batch(x, x)}, rounds)
    alarms = trained.events["detected"]
    if alarms:
        raise RuntimeError(f"{name}: {alarms} false alarms")
    figure = {
        "name": f"{name}: step of two layers, {size} x {size}, batch {batch}",
        "value": round(found["coded"], 3),
        "unit": "times the plain step",
        "operations": round(code.work, 3),
        "plain_step_ms": round(1e3 * base, 2),
    }
    return figure if target is None else {**figure, "target": target, "met": found["coded"] <= target}


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=31, help="runs of each, default 31")
    parser.add_argument("--smoke", action="store_true", help="small layers, few runs: does it run?")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    rounds = 3 if arguments.smoke else arguments.rounds
    size, large = (128, 128) if arguments.smoke else (1024, 2048)
    figures = [layer_overhead(name, code, size, 128, 0.15, rounds) for name, code in CODES.items()]
    figures.append(layer_overhead("Checksum", coded.Checksum(), large, 256, 0.06, rounds))
    figures += [step_ratio(name, code, size, 128, None, rounds) for name, code in CODES.items()]
    figures.append(step_ratio("Checksum", coded.Checksum(), large, 256, 1.06, rounds))
    for figure in figures:
        target = f"{figure['target']:>7} {'met' if figure['met'] else 'MISSED'}" if "target" in figure else ""
        print(f"{figure['name']:<90}{figure['value']:>8} {figure.get('operations', ''):>6} {target}")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps({"figures": figures, "machine": machine()}, indent=1))


if __name__ == "__main__":
    main()
