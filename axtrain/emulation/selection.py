"""Which engine plays a table: chosen from its rank, the size of the product and the device, or forced."""

from __future__ import annotations

from functools import lru_cache

import keras

from axtrain.emulation.code_table import CodeTable
from axtrain.emulation.factorisation import exact_rank, factorise
from axtrain.emulation.gather import GatherEngine
from axtrain.emulation.low_rank import LowRankEngine

ENGINES = {"low_rank": LowRankEngine, "gather": GatherEngine}
# What one look-up per product costs, as a multiple of the float32 operation; a table of rank r costs about r.
# Measured on 2 CPU cores (benchmarks/emulation.py): dense 8.5 to 11.7, convolution 19 to 24. Accelerators multiply
# relatively faster; their figures are chosen here.
LOOK_UP_COST = {
    "cpu": {"dense": 12, "conv": 20, "depthwise": 20},
    "accelerator": {"dense": 48, "conv": 48, "depthwise": 48},
}
# Parts of fewer terms than this would spend more on adding int32 than on multiplying (chosen here).
MIN_PART = 32


def engine_for(
    table: CodeTable,
    engine: str | None = None,
    *,
    operation: str = "conv",
    terms: int | None = None,
    device: str | None = None,
):
    """The engine that plays `table`.

    Args:
        table: the products over the codes in use.
        engine: `"low_rank"` or `"gather"` to force one; `None` chooses.
        operation: `"dense"`, `"conv"` or `"depthwise"`: look-ups cost each differently.
        terms: how many products one output sums; `None` is many.
        device: `"cpu"` or `"accelerator"`; `None` asks Keras.

    Returns:
        an object with `matmul`, `conv`, `depthwise_conv` on integer codes, and a `name`.

    Raises:
        ValueError: an unknown engine, or `"low_rank"` forced on a table whose factors are too large.
    """
    if engine is None:
        return _engine(_choose(table, operation, terms, device or _device()), table)
    if engine not in ENGINES:
        raise ValueError(f"Unknown engine. Known: {sorted(ENGINES)}, or None to choose. Received: engine={engine!r}")
    if engine == "low_rank" and factorise(table).exact_terms < 1:
        raise ValueError(
            f"The integer factors of this table (rank {exact_rank(table)}) are too large for exact float32 sums. "
            "Use engine='gather' or engine=None. Received: engine='low_rank'"
        )
    return _engine(engine, table)


def _choose(table: CodeTable, operation: str, terms: int | None, device: str) -> str:
    if exact_rank(table) > LOOK_UP_COST[device][operation]:
        return "gather"
    try:
        exact_terms = factorise(table).exact_terms
    except ArithmeticError:
        return "gather"
    # Float32 sums must reach a useful length before they are cut, unless they need no cut at all.
    return "low_rank" if exact_terms >= min(MIN_PART, terms or MIN_PART) else "gather"


@lru_cache(maxsize=64)
def _engine(name: str, table: CodeTable):
    return ENGINES[name](table)


def _device() -> str:
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return "accelerator" if tf.config.list_physical_devices("GPU") else "cpu"
    return "accelerator" if any("cpu" not in name for name in keras.distribution.list_devices()) else "cpu"
