"""Dense products of factors that fit 8 bits, with int32 accumulators: no part is ever cut off to stay exact.

XLA on a CPU multiplies int8 matrices into int32. Measured on 2 cores, look-ups included, as a multiple of the
float32 product of the same factors, both under XLA: 32x512x512 0.95, 128x512x512 0.87, 128x2560x512 0.70,
1024x1024x1024 0.69. TensorFlow outside XLA takes 2.2 times as long as in float32, and convolutions would first have
to copy their windows, so only dense products use it, and always compiled.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from axtrain.emulation.code_table import CodeTable
from axtrain.emulation.factorisation import Factors
from axtrain.emulation.look_up import LookUp, whole_numbers


def int8_factors(factors: Factors) -> Factors | None:
    """The same products by factors of which every entry fits int8; `None` where no scaling and centring gives that.

    A common divisor of a column's differences may sit on either side; whatever its centre takes off goes to
    `weight_shift`.
    """
    columns = [_fitted(u, v) for u, v in zip(factors.activation.T, factors.weight, strict=True)]
    fitting = [column for column in columns if column is not None]
    if len(fitting) < len(columns):
        return None
    u, v = np.stack([u for u, _ in fitting], axis=1), np.stack([v for _, v in fitting])
    rest = factors.activation @ factors.weight - u @ v
    if not np.array_equal(rest, np.broadcast_to(rest[:1], rest.shape)):
        raise ArithmeticError(f"The int8 factors do not rebuild the table. Received: rank {factors.rank}")
    constant = factors.weight_constant + rest[0]
    return Factors(u, v, np.zeros_like(factors.shift), factors.bound, constant, factors.activation_shift)


def _fitted(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """One column and one row scaled and centred into int8."""
    if not np.ptp(u):  # nothing but a centre
        return np.zeros_like(u), np.zeros_like(v)
    u_divisor, v_divisor = int(np.gcd.reduce(np.diff(u))) or 1, int(np.gcd.reduce(v)) or 1
    u, v, both = u // u_divisor, v // v_divisor, u_divisor * v_divisor
    for scale in (d for d in range(1, 256) if both % d == 0):
        for sign in (1, -1):  # -128 fits and 128 does not
            left, right = sign * scale * u, sign * (both // scale) * v
            left = left - left.min() - (np.ptp(left) + 1) // 2
            if all(side.min() >= -128 and side.max() <= 127 for side in (left, right)):
                return left, right
    return None


class Int8Product:
    """``sum_k (sum_r U[a_k, r] V[r, b_k] + weight_constant[b_k])`` in int32, compiled by XLA.

    Past 2^31 the accumulators wrap, as those of the emulated hardware do.

    Args:
        factors: of which every entry fits int8.
        table: the table whose codes they are for.
    """

    def __init__(self, factors: Factors, table: CodeTable) -> None:
        self._activations = LookUp(factors.activation.astype(np.int8), table.activation_low)
        self._weights = LookUp(factors.weight.T.astype(np.int8), table.weight_low)
        self._shift = whole_numbers(factors.weight_constant, table.weight_low)
        self._compiled: dict[tuple[int, int], Callable] = {}

    def __call__(self, activations, weights):
        """int32 (..., M, N) for codes (..., M, K) and (..., K, N)."""
        key = (len(activations.shape), len(weights.shape))
        if key not in self._compiled:
            import tensorflow as tf

            self._compiled[key] = tf.function(self._product, jit_compile=True, autograph=False, reduce_retracing=True)
        return self._compiled[key](activations, weights)

    def _product(self, activations, weights):
        left, right = self._activations.planes(activations, axis=-1), self._weights.planes(weights, axis=-2)
        products = ops.matmul(left, right)
        return products + self._shift.sums(weights, axis=-2) if self._shift else products


def int8_product(factors: Factors, table: CodeTable) -> Int8Product | None:
    """The product by int8 where it is the faster one: the factors fit, and TensorFlow is on a CPU (measured there)."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    fitting = None if tf.config.list_physical_devices("GPU") else int8_factors(factors)
    return None if fitting is None else Int8Product(fitting, table)
