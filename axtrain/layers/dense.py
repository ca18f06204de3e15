"""A dense layer on approximate hardware."""

from __future__ import annotations

import keras

from axtrain.emulation.geometry import Dense
from axtrain.layers.base import ApproximateLayer
from axtrain.layers.counts import kernel_layer
from axtrain.layers.registry import register_layer
from axtrain.registration import register


@register("ApproxDense")
class ApproxDense(ApproximateLayer, keras.layers.Dense):
    """`keras.layers.Dense` whose matrix product runs on a `Hardware`.

    Models an accelerator that multiplies quantised activations and weights with the described circuit
    and adds exactly in 32 bits. Formulas and gradient: `ApproximateLayer`.

    Args:
        hardware: an `axtrain.Hardware`, or `None` for exactly the Keras layer.
        fidelity: `"exact"` or `"gaussian"`.
        engine: `None` chooses the cheapest; a name (`"numba"`, `"low_rank"`, `"gather"`) forces one.
        args, kwargs: as for `keras.layers.Dense`.

    Raises:
        TypeError, ValueError: arguments of the wrong kind.

    Examples:
        >>> import axtrain as ax
        >>> layer = ax.layers.ApproxDense(4, hardware=ax.Hardware(multiplier=ax.multipliers.get("drum4")))
        >>> layer.hardware.activations
        'affine'
    """

    _geometry = Dense()


register_layer(keras.layers.Dense, ApproxDense, count=kernel_layer, lowering="dense")
