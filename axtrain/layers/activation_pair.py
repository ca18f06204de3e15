"""The state of a product of two activations, as attention has them: each operand has a range of its own."""

from __future__ import annotations

import numpy as np
from keras import ops

from axtrain.hardware import Hardware
from axtrain.layers.state import HardwareState
from axtrain.quantisers import Codes, calibrated_range, quantise, symmetric_scale
from axtrain.registration import register


@register("ActivationPairState")
class ActivationPairState(HardwareState):
    """Quantises both operands of a product of activations; the second plays the weights' role.

    The first operand is quantised as activations are. The second reaches the circuit's weight operand:
    symmetric signed codes in the weights' encoding, ``w = clip(round(v / s), -(2^(n-1) - 1), 2^(n-1) - 1)``,
    one scale s for the whole tensor from its own range, calibrated or following the batches as the first's
    does. It comes from no weight memory, so no faults of one reach it. Gradient 1 inside the range, 0 beyond.

    Args:
        hardware: the description.
        calibrated: whether both ranges come from calibration data. Until then they follow the batches.
        kwargs: as for `keras.layers.Layer`.
    """

    def __init__(self, hardware: Hardware, calibrated: bool = False, **kwargs) -> None:
        super().__init__(hardware, calibrated, **kwargs)
        # Only its range is used: calibrated, saved and followed just as the first operand's.
        self.second = HardwareState(hardware, calibrated, name="second")

    def build(self, input_shape=None) -> None:
        """Makes the variables of both operands."""
        super().build(input_shape)
        self.second.build()

    def read_weights(self, kernel, axes: tuple[int, ...], training: bool) -> Codes:
        """Codes of the second operand; the name is that of the role which it plays."""
        second = self.second
        low, high = second.low.value, second.high.value
        if second.follows_batches:
            low, high = second._moving_range(kernel, training)
        limit = (1 << (self.hardware.weight_bits - 1)) - 1
        return quantise(kernel, symmetric_scale(low, high, limit), ops.zeros(()), -limit, limit)

    def no_weights(self, statistical: bool) -> list:
        """Of both operands; of the second only its range is used."""
        return [*super().no_weights(statistical), *self.second.no_weights(False)]

    @property
    def observer(self):
        """Collects samples of the first operand, `second.observer` of the other; `None` where nothing observes."""
        return self._observer

    @observer.setter
    def observer(self, value) -> None:
        self._observer = value
        if hasattr(self, "second"):
            self.second.observer = None if value is None else type(value)()

    def calibrate(
        self,
        samples: np.ndarray,
        kernel,
        axes: tuple[int, ...] = (),
        bounds: tuple[float, float] | None = None,
    ) -> None:
        """Sets both ranges and fits the error statistics to samples of both operands.

        Args:
            samples: of the first operand.
            kernel: samples of the second.
            axes: of no use here.
            bounds: the first operand's range, where it is known.

        Raises:
            ValueError: samples that are not finite.
        """
        quantisation = self.hardware.quantisation
        method = "minmax" if quantisation.activation_range == "moving_average" else quantisation.activation_range
        second = np.asarray(kernel).reshape(-1, 1)
        low, high = calibrated_range(second, method=method, percentile=quantisation.percentile, symmetric=True)
        self.second.set_range(low, high)
        # Clipped to its range it has the codes that a kernel of one output channel would have.
        largest = max(abs(low), abs(high))
        super().calibrate(samples, np.clip(second, -largest, largest), (0,), bounds)
