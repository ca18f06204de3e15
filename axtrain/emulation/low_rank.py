"""The rank-r engine: a table's exact integer factors turn it into ordinary float32 products.

Dense: one product with contraction length r K. Convolution: one convolution with r C input
channels; the factors are looked up before patches are cut, so each activation is looked up once.
A float32 sum of integers is exact while every partial sum stays within 2^24; longer contractions are
cut into parts that are added as int32 (theory page, section 2). Large dense products go through int8
where the factors fit. What depends on one operand alone is summed in int32 and never multiplied.
"""

from __future__ import annotations

import numpy as np
from keras import ops

from axtrain.emulation.code_table import CodeTable
from axtrain.emulation.engine import Engine, register_engine
from axtrain.emulation.factorisation import exact_rank, factorise, factorise_rest
from axtrain.emulation.int8_products import int8_product
from axtrain.emulation.look_up import LookUp, whole_numbers

# Dense products of fewer terms are over before a compiled program has started (chosen here).
MIN_INT8_TERMS = 1 << 20
# Parts of fewer terms than this would spend more on adding int32 than on multiplying (chosen here).
MIN_PART = 32
_CYCLES = 1 / 16  # of a core for one float32 product
_HIGHEST_RANK = 48  # look-ups cost less on any device


@register_engine
class LowRankEngine(Engine):
    """Bit-exact products through integer factors.

    Args:
        table: the products over the codes in use.

    Raises:
        ValueError: the factors are too large for exact float32 sums, even of one product.
    """

    name = "low_rank"

    def __init__(self, table: CodeTable) -> None:
        super().__init__(table)
        if factorise_rest(table).exact_terms < 1:
            raise ValueError(
                f"The integer factors of this table (rank {exact_rank(table)}) are too large for exact float32 sums. "
                "Use engine='gather' or engine=None. Received: engine='low_rank'"
            )
        self.factors = factorise(table)
        self.rest = factors = factorise_rest(table)
        self._activations = LookUp(factors.activation.astype(np.float32), table.activation_low)
        self._weights = LookUp(factors.weight.T.astype(np.float32), table.weight_low)
        self._intercept = _intercept(factors.activation, table.activation_codes)
        self._activation_shift = whole_numbers(factors.activation_shift, table.activation_low)
        self._weight_shift = whole_numbers(factors.weight_constant, table.weight_low)
        self._int8 = int8_product(factors, table)

    def __repr__(self) -> str:
        return f"LowRankEngine(rank={self.rest.rank}, exact_terms={self.rest.exact_terms})"

    @property
    def description(self) -> str:
        """The number of ordinary products."""
        return f"rank {self.factors.rank}"

    @classmethod
    def cost(cls, operation: str, table: CodeTable, device: str, *, terms: int | None = None) -> float:
        """As many float32 products as the rank, and about one more for look-ups, casts and rescaling.

        Infinite where the table has no useful factors.
        """
        if cls.least_cost(table) == float("inf"):
            return float("inf")
        try:
            factors = factorise_rest(table)
        except ArithmeticError:
            return float("inf")
        # Float32 sums must reach a useful length before they are cut, unless they need no cut at all.
        useful = factors.exact_terms >= min(MIN_PART, terms or MIN_PART)
        return (factors.rank + 1) * _CYCLES if useful else float("inf")

    @classmethod
    def least_cost(cls, table: CodeTable) -> float:
        """From the rank alone: a function of one operand alone is one rank each, and no product."""
        rank = exact_rank(table) - 2
        return (max(rank, 0) + 1) * _CYCLES if rank <= _HIGHEST_RANK else float("inf")

    def matmul(self, activations, weights):
        """int32 ``sum_k T[a_mk, b_kn]`` for codes of shape (..., K) and (K, N), or (..., M, K) and (..., K, N)."""
        *batch, length, units = weights.shape
        lead = ops.shape(activations)[:-1]
        if not batch:  # one product of two matrices, however many axes there are in front
            activations = ops.reshape(activations, (-1, length))
        fast = self._int8 is not None and _large(activations.shape, units)
        total = self._int8(activations, weights) if fast else self._float_matmul(activations, weights)
        if self._activation_shift:
            total = total + self._activation_shift.sums(activations, axis=-1)
        return total if batch else ops.reshape(total, (*lead, units))

    def _float_matmul(self, activations, weights):
        total = None
        for start, stop in _parts(weights.shape[-2], self.rest.exact_terms):
            left = self._left(activations[..., start:stop])  # (..., r K)
            right = self._weights.planes(weights[..., start:stop, :], axis=-2)  # (..., r K, N)
            total = _add(total, ops.matmul(left, right))
        return total + self._weight_shift.sums(weights, axis=-2) if self._weight_shift else total

    def batched_matmul(self, activations, weights):
        """int32 ``sum_k T[a_..mk, w_..kn]`` for codes of shape (..., M, K) and (..., K, N), the same batch axes.

        One float32 product of contraction length r K, cut where its sums would pass 2^24 (theory page, section 2);
        K may be open, as a sequence's length is. The factors of the terms that fill the last part up are 0, so they
        add nothing whatever the table says.
        """
        *batch, rows, length = ops.shape(activations)
        columns, rank = ops.shape(weights)[-1], self.factors.rank
        parts = -(-length // max(self.factors.exact_terms, 1))
        part = -(-length // parts)
        left = ops.reshape(self._activation_factors(activations), (*batch, rows, length, rank))
        right = self._weight_factors(weights)  # (..., K, r, N)
        filled = parts * part - length
        lead = [(0, 0)] * len(batch)
        padded_left = ops.pad(left, [*lead, (0, 0), (0, filled), (0, 0)])
        padded_right = ops.pad(right, [*lead, (0, filled), (0, 0), (0, 0)])
        sums = ops.matmul(
            ops.swapaxes(ops.reshape(padded_left, (*batch, rows, parts, part * rank)), -2, -3),
            ops.reshape(padded_right, (*batch, parts, part * rank, columns)),
        )
        total = ops.sum(ops.cast(sums, "int32"), axis=-3)
        if not self.factors.shift.any():
            return total
        return total + self._shift(right, axes=(-3, -2))[..., None, :]

    def conv(self, activations, weights, strides, dilation_rate):
        """int32 VALID convolution of codes (B, *space, C) with (*kernel, C, N)."""
        *window, channels, filters = weights.shape
        total = None
        for image, kernel, steps in self._pieces(activations, weights, strides, dilation_rate):
            for start, stop in _parts(channels, self.rest.exact_terms // int(np.prod(kernel.shape[:-2]))):
                left = self._left(image[..., start:stop])  # (B, *space, r C)
                right = self._weights.planes(kernel[..., start:stop, :], axis=-2)  # (*kernel, r C, N)
                total = _add(total, _strided(ops.conv, left, right, *steps))
        if self._weight_shift:
            total = total + ops.sum(self._weight_shift.sums(ops.reshape(weights, (-1, filters)), axis=0), axis=0)
        if self._activation_shift:
            sums = self._activation_shift.sums(activations, axis=-1)
            total = total + sum(view for _, view in _views(sums, window, strides, dilation_rate))
        return total

    def depthwise_conv(self, activations, weights, strides, dilation_rate):
        """int32 VALID depthwise convolution of codes (B, *space, C) with (*kernel, C, multiplier)."""
        *window, channels, multiplier = weights.shape
        total = None
        for image, kernel, steps in self._pieces(activations, weights, strides, dilation_rate):
            left = self._left(image)  # (B, *space, r C)
            right = self._weights.planes(kernel, axis=-2)  # (*kernel, r C, multiplier)
            part = _strided(ops.depthwise_conv, left, right, *steps)
            by_factor = (*ops.shape(part)[:-1], self.rest.rank, channels * multiplier)
            total = _add(total, part if self.rest.rank == 1 else ops.sum(ops.reshape(part, by_factor), axis=-2))
        if self._weight_shift:
            total = total + self._weight_shift.sums(ops.reshape(weights, (-1, channels * multiplier)), axis=0)[0]
        if self._activation_shift:
            values = self._activation_shift.planes(activations, axis=-1)
            sums = sum(view for _, view in _views(values, window, strides, dilation_rate))
            total = total + ops.repeat(sums, multiplier, axis=-1)
        return total

    def _left(self, codes):
        """(..., C) codes to (..., r C) factors."""
        if self._intercept is None:
            return self._activations.planes(codes, axis=-1)
        codes = ops.cast(codes, "float32")  # the factor is the code itself: no look-up
        return codes + self._intercept if self._intercept else codes

    def _activation_factors(self, codes):
        """(..., K) codes to (..., K r) factors of the whole table, r fastest."""
        index = ops.cast(codes, "int32") - self.table.activation_low
        looked_up = ops.take(ops.convert_to_tensor(self.factors.activation.astype(np.float32)), index, axis=0)
        *lead, length = ops.shape(codes)
        return ops.reshape(looked_up, (*lead, length * self.factors.rank))

    def _weight_factors(self, codes):
        """(..., K, N) codes to (..., K, r, N) factors of the whole table."""
        index = ops.cast(codes, "int32") - self.table.weight_low
        factors = ops.convert_to_tensor(self.factors.weight.T.astype(np.float32))
        return ops.swapaxes(ops.take(factors, index, axis=0), -1, -2)

    def _shift(self, weight_factors, axes):
        """What centring took off the factors of the whole table, int32 per output channel."""
        shift = ops.convert_to_tensor(self.factors.shift.astype(np.int32))
        return ops.sum(ops.cast(weight_factors, "int32") * shift[:, None], axis=axes)

    def _pieces(self, image, kernel, strides, dilation_rate):
        """(codes, kernel, (strides, dilation)) of convolutions to add: one tap each where a window is too long."""
        *window, _, _ = kernel.shape
        if int(np.prod(window)) <= self.rest.exact_terms:
            yield image, kernel, (strides, dilation_rate)
            return
        ones = (1,) * len(window)
        for tap, view in _views(image, window, strides, dilation_rate):
            yield view, kernel[tuple(slice(t, t + 1) for t in tap)], (ones, ones)


def _intercept(factor: np.ndarray, codes: np.ndarray) -> int | None:
    """The constant of the one activation factor where that is ``code + constant``."""
    constants = factor - codes[:, None]
    return int(constants[0, 0]) if factor.shape[1] == 1 and np.ptp(constants) == 0 else None


def _large(activation_shape, units: int) -> bool:
    """Whether a dense product is worth a program of its own; an open batch is taken for a large one."""
    return None in activation_shape or int(np.prod(activation_shape)) * units >= MIN_INT8_TERMS


def _strided(convolution, image, kernel, strides, dilation_rate):
    """A VALID convolution, also with strides that the backend refuses to combine with dilation."""
    dilated, strided = max(dilation_rate) > 1, max(strides) > 1
    unequal = convolution is ops.depthwise_conv and len(set(strides)) > 1
    options = {"padding": "valid", "dilation_rate": dilation_rate, "data_format": "channels_last"}
    if not (strided and dilated) and not unequal:
        return convolution(image, kernel, strides=strides, **options)
    every = convolution(image, kernel, strides=1, **options)
    return every[(slice(None), *(slice(None, None, stride) for stride in strides))]


def _add(total, part):
    part = ops.cast(part, "int32")
    return part if total is None else total + part


def _parts(length: int, limit: int) -> list[tuple[int, int]]:
    """Cuts 0 .. length into the fewest nearly equal parts of at most `limit`."""
    count = -(-length // max(limit, 1))
    edges = np.linspace(0, length, count + 1).astype(int)
    return list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))


def _views(image, window, strides, dilation_rate):
    """For each tap of the window, the tap and the strided view of the image that it meets."""
    sizes = ops.shape(image)[1:-1]
    outputs = [
        (size - (k - 1) * d - 1) // s + 1 for size, k, d, s in zip(sizes, window, dilation_rate, strides, strict=True)
    ]
    for tap in np.ndindex(*window):
        view = tuple(
            slice(t * d, t * d + (o - 1) * s + 1, s)
            for t, d, o, s in zip(tap, dilation_rate, outputs, strides, strict=True)
        )
        yield tap, image[(slice(None), *view)]
