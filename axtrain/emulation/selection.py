"""Which engine computes a product: the cheapest that supports it here and now, or the one that was asked for."""

from __future__ import annotations

import importlib.util
import logging
from functools import lru_cache

import keras

from axtrain.emulation import gather, low_rank  # noqa: F401 - they register themselves
from axtrain.emulation.code_table import CodeTable
from axtrain.emulation.engine import ENGINES, Engine
from axtrain.emulation.factorisation import exact_rank
from axtrain.emulation.native import engine as _native  # noqa: F401 - registers itself; numba is imported on use

logger = logging.getLogger("axtrain")


def engine_for(
    table: CodeTable,
    engine: str | None = None,
    *,
    operation: str = "conv",
    terms: int | None = None,
    device: str | None = None,
    axes: int = 2,
) -> Engine:
    """The engine that computes with `table` here and now.

    Where the engine that was asked for cannot compute the product, another does, with the same sums. A line of the
    logger `"axtrain"` says which and why.

    Args:
        table: the products over the codes in use.
        engine: the name of a registered engine, as `"low_rank"`, `"gather"`, `"numba"`, to force one; `None` chooses.
        operation: `"dense"`, `"batched"`, `"conv"` or `"depthwise"`.
        terms: how many products one output sums; `None` is many.
        device: `"cpu"` or `"accelerator"`; `None` asks Keras.
        axes: spatial axes of a convolution.

    Raises:
        ValueError: an unknown engine, or `"low_rank"` forced on a table whose factors are too large.
    """
    if engine is not None and engine not in ENGINES:
        raise ValueError(f"Unknown engine. Known: {sorted(ENGINES)}, or None to choose. Received: engine={engine!r}")
    device = device or _device()
    if engine is not None:
        obstacle = _forced_obstacle(ENGINES[engine], operation, table, device, axes)
        if obstacle is None:
            return _engine(engine, table)
        chosen = _cheapest(table, operation, terms, device, axes)
        logger.warning(
            "Engine %r cannot run here (%s); %r computes instead, with the same sums.", engine, obstacle, chosen
        )
        return _engine(chosen, table)
    if device == "cpu":
        _say_what_is_missing()
    chosen = _cheapest(table, operation, terms, device, axes)
    others = {name: one.obstacle(table, device, axes=axes) for name, one in ENGINES.items() if name != chosen}
    said = "; ".join(f"{name}: {reason or 'costs more'}" for name, reason in others.items())
    logger.info("Engine %r computes a %s table of rank %d (%s).", chosen, operation, exact_rank(table), said)
    return _engine(chosen, table)


def _cheapest(table: CodeTable, operation: str, terms: int | None, device: str, axes: int) -> str:
    able = [name for name, one in ENGINES.items() if one.supports(operation, table, device, axes=axes)]
    least = {name: ENGINES[name].least_cost(table) for name in able}
    costs: dict[str, float] = {}
    for name in sorted(able, key=least.__getitem__):
        if least[name] <= min(costs.values(), default=float("inf")):  # else its factors need not be found
            costs[name] = ENGINES[name].cost(operation, table, device, terms=terms)
    return min((name for name in able if name in costs), key=costs.__getitem__)


def _forced_obstacle(engine: type[Engine], operation: str, table: CodeTable, device: str, axes: int) -> str | None:
    """Why the engine cannot be had though it was asked for; `None` where it can."""
    if operation not in engine.operations:
        return f"it has no {operation} products"
    if engine.supports(operation, table, device, axes=axes):
        return None
    return engine.obstacle(table, device, axes=axes) or "it does not support this product"


@lru_cache(maxsize=1)
def _say_what_is_missing() -> None:
    """One line a process for each engine that only an installation keeps from running."""
    for engine in ENGINES.values():
        if engine.requires is not None and importlib.util.find_spec(engine.requires) is None:
            logger.warning(
                "%s is not installed (pip install %s), so engine %r cannot run: %s.",
                engine.requires,
                engine.requires,
                engine.name,
                engine.without,
            )


@lru_cache(maxsize=64)
def _engine(name: str, table: CodeTable) -> Engine:
    return ENGINES[name](table)


def _device() -> str:
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return "accelerator" if tf.config.list_physical_devices("GPU") else "cpu"
    return "accelerator" if any("cpu" not in name for name in keras.distribution.list_devices()) else "cpu"
