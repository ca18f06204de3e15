"""A product inside a time loop: its weights are read once, and its range stands still until the loop is over."""

from __future__ import annotations

from typing import Any

from keras import ops
from keras.src.backend import AutocastScope

from axtrain.layers.playing import HardwareProduct, Playing, play
from axtrain.layers.state import HardwareState
from axtrain.quantisers import Codes


class LoopProduct:
    """One product of a recurrent layer, for all time steps of one call.

    The weights' codes are read from the memory before the loop: an accelerator holds them there while it steps
    through the sequence, so that a chip drawn for a training step is the same chip at every time step. `bias` is
    one that the layer adds to the product's sums, read there too, or `None`.

    Args:
        product: what to play.
        playing: fidelity, engine and gradient.
        training: whether faults are drawn anew and moving ranges follow.
        still: whether the activation range is left as it is. Within a loop it must be: the initial state, all
            zeros, would otherwise be the first range that a moving average sees.
    """

    def __init__(self, product: HardwareProduct, playing: Playing, training: bool, still: bool) -> None:
        self.product, self.playing = product, playing
        self.training, self.still = training, still
        self.kernel = float32(product.kernel)
        self.weights = self.bias = None
        if product.state.observer is None:
            axes = product.geometry.summed_axes(len(self.kernel.shape))
            self.weights = product.state.read_weights(self.kernel, axes, training)

    def __call__(self, inputs, columns: slice = slice(None)):
        """float32 ``inputs @ kernel[:, columns]`` as the hardware gives it."""
        weights = self.weights
        if weights is not None:
            codes, real, scale = (values[:, columns] for values in (weights.codes, weights.real, weights.scale))
            weights = Codes(codes, real, scale, weights.zero_point)
        state: Any = _ReadState(self.product.state, weights, self.still)
        return play(state, self.product.geometry, inputs, self.kernel[:, columns], self.playing, self.training)

    def gates(self, inputs, masks, units: int, first: int, last: int):
        """The sums of the gates `first` to `last - 1`, `units` columns each.

        Args:
            inputs: float32.
            masks: dropout masks of all gates, each for its own gate's inputs; `None` for no dropout.
            units: columns of one gate.
            first, last: which gates.
        """
        if masks is None:
            return self(inputs, slice(first * units, last * units))
        parts = []
        for gate in range(first, last):
            masked = inputs * ops.cast(masks[gate], "float32")
            parts.append(self(masked, slice(gate * units, (gate + 1) * units)))
        return ops.concatenate(parts, axis=-1)


class _ReadState:
    """A `HardwareState` whose weights have been read; all else is asked of the state itself."""

    def __init__(self, state: HardwareState, weights: Codes | None, still: bool) -> None:
        self._state, self._weights, self._still = state, weights, still

    def __getattr__(self, name: str):
        return getattr(self._state, name)

    def read_weights(self, kernel, axes: tuple[int, ...], training: bool) -> Codes | None:
        """What was read before the loop."""
        return self._weights

    def activation_quantiser(self, x, training: bool):
        """The state's quantiser, which in a loop takes no tensor in."""
        return self._state.activation_quantiser(x, training and not self._still)


def float32(variable):
    """A variable's own values, where a mixed-precision policy would hand out rounded ones."""
    with AutocastScope(None):
        return variable.value * 1.0  # read here: the variable itself would be read, and rounded, where it is used
