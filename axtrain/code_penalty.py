"""What a penalty on weight codes is: an expected squared error of each code, linear between codes, with a gradient."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from axtrain.finite import check_finite
from axtrain.noise_models import picture_style as style
from axtrain.quantisers import quantise_weights

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class CodePenalty(keras.regularizers.Regularizer):
    """What both share: ``strength * sum_w D_w^2 e(w / D_w)``, e(b) linear between the codes.

    Gradient ``strength * D_w (e(k + 1) - e(k))`` for a weight between the codes k and k + 1. The largest weight of a
    channel has the largest code whatever its value, so none of this gradient reaches it; where the penalty is also
    differentiated in the scale, that part ends there. A channel of zeros costs nothing.

    Args:
        errors: e(b), expected squared errors in squared weight steps, one for each code -(2^(n-1) - 1) .. 2^(n-1) - 1.
        bits: n, width of the weight codes.
        strength: what the sum is multiplied by, >= 0; no unit.
        axis: an int or several, the kernel's axes that one output sums over; every combination of the others is a
            channel with a scale of its own. `None` is all but the last (of a vector, its only one).
        scale_has_gradient: whether the penalty is differentiated in D_w too.
    """

    def __init__(self, errors: np.ndarray, bits: int, strength: float, axis: Any, scale_has_gradient: bool) -> None:
        number = isinstance(strength, (int, float)) and not isinstance(strength, bool)
        if not number or not 0 <= strength < math.inf:
            raise ValueError(f"`strength` must be a number >= 0. Received: strength={strength!r}")
        axes = axis if isinstance(axis, (list, tuple)) else [axis]
        whole = all(isinstance(one, int) and not isinstance(one, bool) for one in axes)
        if axis is not None and not (axes and whole):
            raise ValueError(f"`axis` must be an int, a list of ints, or None. Received: axis={axis!r}")
        self.strength = strength
        self.axis = list(axis) if isinstance(axis, (list, tuple)) else axis
        self.bits = bits
        self._scale_has_gradient = scale_has_gradient
        self._errors = errors.astype(np.float32)

    def __call__(self, weights):
        """The penalty, a float32 scalar in squared real weights.

        Args:
            weights: a tensor of real weights, of any float type.

        Raises:
            ValueError: `axis` names an axis that the weights don't have, or one twice.
        """
        weights = ops.cast(weights, "float32")
        size = ops.abs(weights)
        largest = ops.max(size, axis=self._summed_axes(len(weights.shape)), keepdims=True)
        if not self._scale_has_gradient:
            largest = ops.stop_gradient(largest)
        limit = (1 << (self.bits - 1)) - 1
        scale = largest / limit
        codes = weights / ops.where(scale > 0, scale, 1.0)
        # The largest is at +-limit wherever it goes.
        codes = ops.where(size < largest, codes, ops.stop_gradient(codes))
        # Clipped as an integer: a NaN would make an index that no table has; so it stays a NaN in the sum.
        below = ops.clip(ops.cast(ops.stop_gradient(ops.floor(codes)), "int32"), -limit, limit - 1)
        slope = ops.take(np.diff(self._errors), below + limit)
        errors = ops.take(self._errors, below + limit) + slope * (codes - ops.cast(below, "float32"))
        return self.strength * ops.sum(ops.square(scale) * errors)

    def profile(self) -> tuple[np.ndarray, np.ndarray]:
        """The weight codes, and the expected squared error of each.

        Returns:
            int64 and float64, (weight codes,); errors in squared weight steps, D_w^2.
        """
        limit = (1 << (self.bits - 1)) - 1
        return np.arange(-limit, limit + 1), self._errors.astype(np.float64)

    def plot(self, weights: Any = None) -> Figure:
        """The expected squared error over the weight codes, and how often given weights have each code.

        Args:
            weights: an array or variable, quantised as the penalty does; `None` draws the errors alone.

        Returns:
            a matplotlib figure; nothing is shown or kept open.

        Raises:
            ValueError: as for a call.
        """
        codes, errors = self.profile()
        figure, (axes,) = style.panels(style.WIDTH, 4)
        if weights is not None:
            counts = self.counts(weights)
            second = style.second_axis(axes, "weights of this code", style.MUTED)
            second.bar(codes, counts, width=1.0, color=style.SILVER, label=f"{counts.sum()} weights")
        axes.plot(codes, errors, linewidth=1.2, color=style.VERMILLION, label="expected squared error")
        axes.set_xlabel("weight code")
        axes.set_ylabel("expected squared error [squared weight steps]")
        axes.set_ylim(bottom=0)
        style.title(figure, self._title())
        style.legend_below(figure)
        return figure

    def counts(self, weights: Any) -> np.ndarray:
        """How many weights have each code of `profile`, quantised as the penalty does.

        Args:
            weights: an array or variable of real weights.

        Returns:
            int64, (weight codes,).

        Raises:
            ValueError: as for a call, and weights that are not finite.
        """
        weights = np.asarray(check_finite("`weights`", weights), np.float32)
        held = quantise_weights(weights, self.bits, self._summed_axes(weights.ndim))
        limit = (1 << (self.bits - 1)) - 1
        return np.bincount(ops.convert_to_numpy(held.codes).astype(np.int64).ravel() + limit, minlength=2 * limit + 1)

    def get_config(self):
        """Strength and axis; the others add their own."""
        return {"strength": self.strength, "axis": self.axis}

    def _title(self) -> str:
        raise NotImplementedError

    def _summed_axes(self, rank: int) -> tuple[int, ...]:
        given = list(range(max(rank - 1, 1))) if self.axis is None else self.axis
        given = given if isinstance(given, list) else [given]
        axes = tuple(one + rank if one < 0 else one for one in given)
        if len(set(axes)) < len(axes) or not all(0 <= one < rank for one in axes):
            raise ValueError(
                f"`axis` must name different axes of weights with {rank} axes. Received: axis={self.axis!r}"
            )
        return axes
