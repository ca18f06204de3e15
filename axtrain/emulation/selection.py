"""Which engine plays a table: chosen from its rank, the size of the product and the device, or forced."""

from __future__ import annotations

from functools import lru_cache

import keras

from axtrain.emulation.code_table import CodeTable
from axtrain.emulation.factorisation import exact_rank, factorise
from axtrain.emulation.gather import GatherEngine
from axtrain.emulation.low_rank import LowRankEngine

ENGINES = {"low_rank": LowRankEngine, "gather": GatherEngine}
# Above this rank one look-up per product is cheaper than r products (measured: benchmarks/emulation.py).
MAX_RANK = {"cpu": 24, "accelerator": 48}
# A factor pair that float32 sums for fewer terms than this would be cut into too many parts to pay.
MIN_EXACT_TERMS = 32


def engine_for(table: CodeTable, engine: str | None = None, *, device: str | None = None):
    """The engine that plays `table`.

    Args:
        table: the products over the codes in use.
        engine: `"low_rank"` or `"gather"` to force one; `None` chooses.
        device: `"cpu"` or `"accelerator"`; `None` asks Keras.

    Returns:
        an object with `matmul`, `conv`, `depthwise_conv` on integer codes, and a `name`.

    Raises:
        ValueError: an unknown engine, or `"low_rank"` forced on a table whose factors are too large.
    """
    if engine is None:
        return _engine(_choose(table, device or _device()), table)
    if engine not in ENGINES:
        raise ValueError(f"Unknown engine. Known: {sorted(ENGINES)}, or None to choose. Received: engine={engine!r}")
    if engine == "low_rank" and factorise(table).exact_terms < 1:
        raise ValueError(
            f"The integer factors of this table (rank {exact_rank(table)}) are too large for exact float32 sums. "
            "Use engine='gather' or engine=None. Received: engine='low_rank'"
        )
    return _engine(engine, table)


def _choose(table: CodeTable, device: str) -> str:
    if exact_rank(table) > MAX_RANK[device]:
        return "gather"
    try:
        return "low_rank" if factorise(table).exact_terms >= MIN_EXACT_TERMS else "gather"
    except ArithmeticError:
        return "gather"


@lru_cache(maxsize=64)
def _engine(name: str, table: CodeTable):
    return ENGINES[name](table)


def _device() -> str:
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return "accelerator" if tf.config.list_physical_devices("GPU") else "cpu"
    return "accelerator" if any("cpu" not in name for name in keras.distribution.list_devices()) else "cpu"
