"""Checkpoints in memory: a model's variables every few steps, put back where an error cannot be corrected."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


class Snapshot:
    """A copy of variables.

    Args:
        variables: what to copy.
    """

    def __init__(self, variables: list) -> None:
        self._variables = variables
        self._copies = [
            keras.Variable(ops.convert_to_tensor(variable), dtype=variable.dtype, trainable=False, name="snapshot")
            for variable in variables
        ]

        self.empty = keras.Variable(True, dtype="bool", trainable=False, name="empty")

    def keep(self) -> Any:
        """Copy the variables now."""
        self.empty.assign(False)
        for variable, copy in zip(self._variables, self._copies, strict=True):
            copy.assign(variable)
        return ops.zeros(())

    def restore(self) -> Any:
        """Put the copies back."""
        for variable, copy in zip(self._variables, self._copies, strict=True):
            variable.assign(copy)
        return ops.ones(())
