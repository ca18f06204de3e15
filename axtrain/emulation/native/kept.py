"""What was made of a layer's weights, kept while they stay the same: outside of training they always do."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

_SAMPLE = 61  # weights apart: a few of them tell at once that a training step has moved the rest


class KeptWeights:
    """Calls a function of weight codes, or gives what it gave last time for equal arguments.

    Args:
        prepare: function of (codes, *settings).
    """

    def __init__(self, prepare: Callable) -> None:
        self._prepare = prepare
        self._last: tuple | None = None

    def __call__(self, codes: np.ndarray, *settings):
        """The function's result."""
        last = self._last  # read once: another thread may replace it
        if last is not None and last[1] == settings and _equal(last[0], codes):
            return last[2]
        result = self._prepare(codes, *settings)
        self._last = (codes.copy(), settings, result)
        return result


def _equal(first: np.ndarray, second: np.ndarray) -> bool:
    if first.shape != second.shape:
        return False
    some = slice(None, None, _SAMPLE)
    return np.array_equal(first.flat[some], second.flat[some]) and np.array_equal(first, second)
