"""Which engine plays a table: chosen from its rank, the size of the product and where it runs, or forced."""

from __future__ import annotations

import importlib.util
import logging
from functools import lru_cache

import keras

from axtrain.emulation.code_table import CodeTable
from axtrain.emulation.factorisation import exact_rank, factorise_rest
from axtrain.emulation.gather import GatherEngine
from axtrain.emulation.low_rank import LowRankEngine

logger = logging.getLogger("axtrain")


def _native_engine(table: CodeTable):
    from axtrain.emulation.native.engine import NativeEngine  # needs the extra `numba`

    return NativeEngine(table)


ENGINES = {"low_rank": LowRankEngine, "gather": GatherEngine, "numba": _native_engine}
# What one look-up per product costs, as a multiple of the float32 operation; a table of rank r costs about r.
# Measured on 2 CPU cores: gather, dense 8.5 to 11.7, convolution 19 to 24. Accelerators multiply relatively faster;
# their figures are chosen here. The native engine makes few products of bytes itself and costs less than any factors
# (benchmarks/emulation.py), so it is taken wherever it runs.
LOOK_UP_COST = {
    "native": {"dense": 0, "conv": 0, "depthwise": 0},
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
    """The engine that plays `table` here and now.

    The native engine runs on TensorFlow on the CPU, outside of XLA and of saved graphs; where it cannot,
    another is taken, also where it was asked for by name. A line of the logger `"axtrain"` says which and why.

    Args:
        table: the products over the codes in use.
        engine: `"low_rank"`, `"gather"` or `"numba"` (the native one) to force one; `None` chooses.
        operation: `"dense"`, `"conv"` or `"depthwise"`: look-ups cost each differently.
        terms: how many products one output sums; `None` is many.
        device: `"cpu"` or `"accelerator"`; `None` asks Keras.

    Returns:
        an object with `matmul`, `conv`, `depthwise_conv` on integer codes, and a `name`.

    Raises:
        ValueError: an unknown engine, or `"low_rank"` forced on a table whose factors are too large.
    """
    if engine is not None and engine not in ENGINES:
        raise ValueError(f"Unknown engine. Known: {sorted(ENGINES)}, or None to choose. Received: engine={engine!r}")
    if engine == "low_rank" and factorise_rest(table).exact_terms < 1:
        raise ValueError(
            f"The integer factors of this table (rank {exact_rank(table)}) are too large for exact float32 sums. "
            "Use engine='gather' or engine=None. Received: engine='low_rank'"
        )
    device = device or _device()
    obstacle = _native_obstacle(table, device)
    if engine == "numba" and obstacle is not None:
        chosen = _choose(table, operation, terms, device)
        logger.warning("Engine 'numba' cannot run here (%s); %r plays instead, with the same sums.", obstacle, chosen)
        return _engine(chosen, table)
    if engine is None:
        engine = _choose(table, operation, terms, "native" if obstacle is None else device)
        logger.info(
            "Engine %r plays a %s table of rank %d (native engine: %s).",
            engine,
            operation,
            exact_rank(table),
            obstacle or "available",
        )
    return _engine(engine, table)


def _choose(table: CodeTable, operation: str, terms: int | None, device: str) -> str:
    otherwise, limit = "numba" if device == "native" else "gather", LOOK_UP_COST[device][operation]
    if exact_rank(table) > limit + 2:  # a function of one operand alone is one rank each, and no product
        return otherwise
    try:
        factors = factorise_rest(table)
    except ArithmeticError:
        return otherwise
    # Float32 sums must reach a useful length before they are cut, unless they need no cut at all.
    useful = factors.exact_terms >= min(MIN_PART, terms or MIN_PART)
    return "low_rank" if useful and factors.rank <= limit else otherwise


@lru_cache(maxsize=64)
def _engine(name: str, table: CodeTable):
    return ENGINES[name](table)


def _device() -> str:
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return "accelerator" if tf.config.list_physical_devices("GPU") else "cpu"
    return "accelerator" if any("cpu" not in name for name in keras.distribution.list_devices()) else "cpu"


def _native_obstacle(table: CodeTable, device: str) -> str | None:
    """Why the native engine cannot play the table here; `None` where it can."""
    if device != "cpu":
        return "it runs on the CPU alone"
    obstacle = native_obstacle()
    if obstacle is None and table.products.shape[0] > 256:
        return "more than 256 activation codes"
    return obstacle


def native_obstacle() -> str | None:
    """Why native kernels cannot run in the graph (or eagerly) at hand; `None` where they can."""
    if keras.backend.backend() != "tensorflow":
        return "the Keras backend is not TensorFlow"
    if importlib.util.find_spec("numba") is None:
        return "numba is not installed: pip install 'axtrain[numba]'"
    # TensorFlow has no public question for these two.
    from tensorflow.python.framework import ops
    from tensorflow.python.ops import control_flow_util
    from tensorflow.python.saved_model import save_context

    if save_context.in_save_context():
        return "the graph is being saved"
    graph = ops.get_default_graph() if not ops.executing_eagerly_outside_functions() or ops.inside_function() else None
    if graph is not None and control_flow_util.GraphOrParentsInXlaContext(graph):
        return "the graph is compiled by XLA"
    return None
