"""From a Keras model on hardware to the same network in integers alone."""

from __future__ import annotations

import keras

from axtrain.calibrating import calibration_samples
from axtrain.controls import hardware_layers
from axtrain.conversion import convert, strip
from axtrain.finite import check_finite_weights
from axtrain.hardware import Hardware
from axtrain.integers.lowering.assembling import Assembly
from axtrain.integers.lowering.folding import folded
from axtrain.integers.lowering.ranges import observed_ranges
from axtrain.integers.lowering.scales import TensorScales, tensors_to_observe
from axtrain.integers.lowering.steps import flat_model
from axtrain.integers.network import IntegerNetwork
from axtrain.quantisation import Quantisation


def integer_network(model: keras.Model, calibration=None) -> IntegerNetwork:
    """The network in integers alone: int8 codes between steps, int32 sums, fixed-point rescaling.

    What LiteRT's int8 reference kernels compute, code for code, and through any 8-bit multiplier. A product's
    accumulator is the Keras layer's own for the same input codes; batch normalisation and ReLU are folded into
    the step before; weights are the clean ones, whatever their memory does.

    Args:
        model: from `axtrain.convert`, or a plain model, which runs on exact multipliers with
            `Quantisation.litert()`. One input, one output; Sequential or Functional, nested too. It is not changed.
        calibration: samples, as for `axtrain.convert`, passed once through the float network for the ranges of
            tensors that no hardware layer reads, such as the last layer's output: `x_train[:512]`.

    Raises:
        ValueError: a layer that has no integer counterpart, a weight or range that is not finite, no calibration data
            where they are needed, or data that do not fit.
        TypeError: not a Keras model.

    Examples:
        >>> import keras, numpy as np, axtrain as ax
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="out")])
        >>> network = ax.integer_network(model, np.eye(4, dtype="float32"))
        >>> network.run(network.quantised(np.eye(4))).shape
        (4, 2)
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a keras.Model. Received: {type(model).__name__}")
    check_finite_weights(model)
    if not any(True for _ in hardware_layers(model)):
        if calibration is None:
            raise ValueError(f"A plain model needs calibration=x_train[:512]. Received: {model.name!r} and no data")
        calibration = calibration_samples(model, calibration)  # a generator gives its samples once
        model = convert(model, Hardware(quantisation=Quantisation.litert()), calibration)
    flat = flat_model(strip(model), model)
    steps = folded(flat)
    for step in steps:
        if step.kind == "product" and getattr(step.hardware_layer, "hardware", None) is None:
            raise ValueError(
                "Every layer with products must run on hardware, exact multipliers if you like; convert without an "
                f"override of None for it. Received: layer {step.name!r}, kept in float"
            )
    names = tensors_to_observe(flat, steps)
    if names and calibration is None:
        raise ValueError(
            "Nothing but data tells the ranges of tensors that no hardware layer reads; give "
            f"calibration=x_train[:512]. Received: calibration=None, and tensors {names}"
        )
    quantisation = next(hardware_layers(model)).hardware.quantisation
    samples = calibration_samples(model, calibration) if names else None
    ranges = observed_ranges(flat, names, samples, quantisation) if names else {}
    return Assembly(model.name, flat, steps, TensorScales(flat, steps, ranges.__getitem__).scales).network()
