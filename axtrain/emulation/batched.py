"""Matrix products with batch axes in both operands, as attention has them, through an engine's own table.

The engines' `matmul` takes weights without batch axes; here each entry of the batch has a second operand of
its own, and the summed axis may be open (a sequence of any length).
"""

from __future__ import annotations

from keras import ops

from axtrain.emulation.gather import GatherEngine
from axtrain.emulation.low_rank import LowRankEngine
from axtrain.emulation.selection import engine_for


def batched_matmul(engine, a_codes, w_codes):
    """int32 ``sum_k T[a_..mk, w_..kn]`` for codes of shape (..., M, K) and (..., K, N), exact.

    Args:
        engine: the rank-r engine's factors or the gather engine's look-ups are used; any other engine's table
            is played by the gather engine.
        a_codes, w_codes: integer codes of any numeric dtype, the same batch axes.
    """
    if isinstance(engine, LowRankEngine):
        return _low_rank(engine, a_codes, w_codes)
    gather = engine if isinstance(engine, GatherEngine) else engine_for(engine.table, "gather")
    return gather._run(_look_ups(gather), a_codes, w_codes)


def _low_rank(engine: LowRankEngine, a_codes, w_codes):
    """One float32 product of contraction length r K, cut where its sums would pass 2^24 (theory page, section 2).

    The factors of the terms that fill the last part up are 0, so they add nothing whatever the table says.
    """
    *batch, rows, length = ops.shape(a_codes)
    columns, rank = ops.shape(w_codes)[-1], engine.factors.rank
    parts = -(-length // max(engine.factors.exact_terms, 1))
    part = -(-length // parts)
    left = ops.reshape(engine._activation_factors(a_codes), (*batch, rows, length, rank))
    right = engine._weight_factors(w_codes)  # (..., K, r, N)
    filled = parts * part - length
    lead = [(0, 0)] * len(batch)
    padded_left = ops.pad(left, [*lead, (0, 0), (0, filled), (0, 0)])
    padded_right = ops.pad(right, [*lead, (0, filled), (0, 0), (0, 0)])
    sums = ops.matmul(
        ops.swapaxes(ops.reshape(padded_left, (*batch, rows, parts, part * rank)), -2, -3),
        ops.reshape(padded_right, (*batch, parts, part * rank, columns)),
    )
    total = ops.sum(ops.cast(sums, "int32"), axis=-3)
    if not engine.factors.shift.any():
        return total
    return total + engine._shift(right, axes=(-3, -2))[..., None, :]


def _look_ups(engine: GatherEngine):
    """One pass per contraction index k, as in the engine's own product."""

    def batched(rows, columns):
        rows = ops.moveaxis(rows, -1, 0)  # (K, ..., M): one index k is one contiguous block
        columns = ops.moveaxis(columns, -2, 0)  # (K, ..., N)
        zeros = (
            ops.zeros_like(rows[0], dtype="int32")[..., None] + ops.zeros_like(columns[0], dtype="int32")[..., None, :]
        )

        def add_products(k, total):
            row, column = ops.take(rows, k, axis=0), ops.take(columns, k, axis=0)
            return total + engine._look_up(row[..., None], column[..., None, :])

        return ops.fori_loop(0, ops.shape(rows)[0], add_products, zeros)

    return batched
