"""What happens to a coded layer between two steps: errors in its memory, wrong shards mended, rounding taken out."""

from __future__ import annotations

from typing import Any

from keras import ops

from axtrain.coded.layer import CodedLayer


def corrupt_memory(layer: CodedLayer) -> None:
    """Errors in the stored shards, as the layer's faults have them."""
    if not layer.strikes("memory"):
        return
    layout = layer.product.layout
    shards = layout.shards(ops.convert_to_tensor(layer.coded_kernel))
    owner = layer.code.owner("update")
    changed, injected = layer.corruption(shards, owner, ops.convert_to_tensor(layer.step), "memory")
    layer.coded_kernel.assign(layout.from_shards(changed))
    zero = ops.zeros(())
    layer.counts.assign_add(ops.stack([injected, zero, zero, zero, zero]))


def mend(layer: CodedLayer, slots: list, due: Any) -> None:
    """Decode wrong shards, and the same shards of the optimizer's slots, where a result was wrong or it is time.

    Says in `layer.hopeless` where they are beyond correction.

    Args:
        layer: after both passes.
        slots: the optimizer's variables that are coded as the kernel is.
        due: boolean scalar: look at what is stored, whatever the results were.
    """
    variables = [layer.coded_kernel, *slots]
    suspected = ops.any(ops.stack([ops.any(variable.value > 0.5) for variable in layer.wrong.values()]))
    dirty = ops.cond(
        due, lambda: ops.logical_not(layer.stored.is_clean(_tensors(variables))), lambda: ops.zeros((), "bool")
    )

    def decode():
        states, regenerated, possible = layer.stored.mended(_tensors(variables))
        for variable, state in zip(variables, layer.stored.settled(states), strict=True):
            variable.assign(state)
        return ops.stack([regenerated, 1.0 - ops.cast(possible, "float32")])

    wanted = ops.logical_or(suspected, dirty)
    regenerated, hopeless = ops.unstack(ops.cond(wanted, decode, lambda: ops.zeros((2,))), 2)
    layer.hopeless.assign(ops.maximum(layer.hopeless, hopeless))
    unseen = ops.cast(ops.logical_and(dirty, ops.logical_not(suspected)), "float32")
    zero = ops.zeros(())
    layer.counts.assign_add(ops.stack([zero, unseen, unseen * (1.0 - hopeless), regenerated, zero]))
    for variable in layer.wrong.values():
        variable.assign(ops.zeros_like(variable))


def settle(layer: CodedLayer, slots: list) -> None:
    """Take out what rounding has put between shards."""
    variables = [layer.coded_kernel, *slots]
    for variable, state in zip(variables, layer.stored.settled(_tensors(variables)), strict=True):
        variable.assign(state)


def _tensors(variables: list) -> list:
    return [ops.convert_to_tensor(variable) for variable in variables]
