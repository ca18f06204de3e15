"""Chips and noise streams: the seeds that a layer's hardware draws from."""

from __future__ import annotations

import keras


class ChipSeed(keras.random.SeedGenerator):
    """A seed that stays: every draw gives the same numbers, as a chip has the same faulty cells at every read."""

    def next(self, ordered=True):
        """The current state, not advanced."""
        return self.state.value * 1

    def assign(self, chip: int, stream: int) -> None:
        """Makes this the seed of chip `chip`; `stream` tells the chip's parts apart."""
        self.state.assign([chip, stream])
