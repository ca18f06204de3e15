"""Constraints on single weights: ordinary Keras constraints, for any layer."""

from __future__ import annotations

import keras
from keras import ops

from axtrain.registration import register


@register("WeightRange")
class WeightRange(keras.constraints.Constraint):
    """Clips weights to [-limit, limit] after every step: ``w = min(max(w, -limit), limit)``.

    A quantiser that covers a smaller range has finer steps, so a flipped bit moves a weight by less; and training
    that may not grow its large weights uses many instead (Stutz 2021, "weight clipping").

    Args:
        limit: largest absolute weight, positive.

    Raises:
        ValueError: a limit that is not a positive finite number.

    Examples:
        >>> import numpy as np
        >>> np.asarray(WeightRange(0.1)(np.array([-0.3, 0.05]))).round(2).tolist()
        [-0.1, 0.05]
    """

    def __init__(self, limit: float) -> None:
        if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not 0 < limit < float("inf"):
            raise ValueError(f"`limit` must be a positive number. Received: limit={limit!r}")
        self.limit = limit

    def __call__(self, w):
        """The clipped weights."""
        return ops.clip(w, -self.limit, self.limit)

    def get_config(self):
        """The limit."""
        return {"limit": self.limit}
