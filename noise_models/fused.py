"""Elementwise work on tensors as one pass over memory, or at least as one graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from functools import lru_cache, partial
from typing import Any

# Smaller work is done before it would be compiled: eagerly, and in a graph, where the operations' own cost is less.
_SMALL, _SMALL_IN_GRAPH = 1 << 15, 1 << 12  # elements (chosen here)
_BATCH = 32  # what an open size counts as


def fused(function: Callable, *static: Hashable, shape: tuple[Any, ...] = (), size: Any = None) -> Callable:
    """`function` with its static arguments, compiled by XLA where the Keras backend does not do so by itself.

    TensorFlow runs one operation after the other, each over all of its memory; XLA makes one loop of them.

    Args:
        function: of `static` and tensors. Its results must not depend on the order of floating-point operations.
        static: hashable leading arguments.
        shape: what distinguishes the calls besides, rank included; one compiled function is kept for each where it
            is called eagerly, so that nothing but the batch's size varies between the calls of one function.
        size: shape of what is worked on, with `None` where it is open: little is not worth compiling. `None` compiles.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        return partial(function, *static)
    import tensorflow as tf

    if size is not None:
        small = _SMALL_IN_GRAPH if tf.inside_function() else _SMALL
        if math.prod(_BATCH if axis is None else axis for axis in size) < small:
            return partial(function, *static)
    # TensorFlow traces a function again for every graph that calls it, and warns where that happens to one often.
    return _compiled(function, *static) if tf.inside_function() else _kept(function, shape, *static)


def traced(function: Callable, *static: Hashable, rows: Any, keys: tuple[Any, ...]) -> Any:
    """``function(*static, rows, *keys)``, from a graph that is made once for rows of all shapes.

    Where TensorFlow is the Keras backend: a function of fifty operations then adds one to every graph that calls it,
    and eagerly it is one call.

    Args:
        function: gives one integer, or a tuple of some, for each element of `rows`. No other tensor may enter it.
        static: hashable leading arguments.
        rows: tensor of any shape, which is that of each result.
        keys: tensors of fixed shapes.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        return function(*static, rows, *keys)
    found = _graph(function, (rows.dtype, *((key.dtype, tuple(key.shape)) for key in keys)), *static)(rows, *keys)
    for result in found if isinstance(found, tuple) else (found,):
        result.set_shape(rows.shape)
    return found


@lru_cache(maxsize=1024)
def _graph(function: Callable, kinds: tuple[Any, ...], *static: Hashable) -> Callable:
    import tensorflow as tf

    rows, *keys = kinds
    signature = tf.TensorSpec(None, rows), *(tf.TensorSpec(shape, dtype) for dtype, shape in keys)
    with tf.init_scope():  # no part of the graph that asks first
        return tf.function(partial(function, *static), autograph=False).get_concrete_function(*signature)


def _compiled(function: Callable, *static: Hashable) -> Callable:
    import tensorflow as tf

    return tf.function(partial(function, *static), jit_compile=True, autograph=False, reduce_retracing=True)


@lru_cache(maxsize=1024)
def _kept(function: Callable, shape: tuple[Any, ...], *static: Hashable) -> Callable:
    return _compiled(function, *static)
