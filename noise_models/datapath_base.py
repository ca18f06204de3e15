"""What all datapaths share: how one is applied to accumulators, and how it becomes JSON and comes back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .carry_chain import CarryChain, check_number
from .description import Part


class Datapath(Part):
    """What all datapaths share; subclasses are frozen dataclasses that override `apply`.

    They may have a `voltage` with a `nominal_voltage`, in volts, and closed forms, `expected` and `variance`.
    """

    voltage: Any = None
    nominal_voltage: Any = None
    _what = "datapath"

    @property
    def needs_squares(self) -> bool:
        """Whether `apply` and `variance` need each output's sum of squared products."""
        return False

    def _check_voltages(self) -> None:
        for name in ("voltage", "nominal_voltage"):
            if getattr(self, name) is not None:
                expected = "a positive number of volts, or None"
                check_number(name, getattr(self, name), 0, math.inf, expected, open_low=True)
        if self.voltage is not None and self.nominal_voltage is not None and self.voltage > self.nominal_voltage:
            raise ValueError(
                f"`voltage` must not exceed nominal_voltage={self.nominal_voltage}. Received: voltage={self.voltage!r}"
            )

    def apply(self, accumulators: Any, stream: Any, *, strength: Any = 1.0, squares: Any = None) -> Any:
        """Accumulators as the array reads them. Every call draws anew from the stream.

        The numbers are the same eagerly, in graphs and under XLA. Integers have no gradient; a layer decides what
        passes backward.

        Args:
            accumulators: int32 tensor of any shape: sums of products after the exact zero-point correction, before
                rescaling and bias.
            stream: integer or `keras.random.SeedGenerator`.
            strength: number or scalar tensor in [0, 1] that multiplies the rates (a noise schedule moves it); a
                tensor outside is clipped. The number 0 draws nothing; a tensor of value 0 draws, with the same
                result.
            squares: float32 tensor that broadcasts to the accumulators' shape, ``sum_k m_k^2`` of each output's
                products; for a datapath that `needs_squares`.

        Returns:
            int32 tensor of the accumulators' shape.

        Raises:
            ValueError: for a strength outside [0, 1], or missing squares.
        """
        from keras import ops

        from .fused import fused
        from .random_numbers import seed_words

        if isinstance(strength, (int, float, np.number)):
            check_number("strength", strength, 0, 1, "a number in [0, 1]")
        self._check_squares(squares)
        accumulators = ops.cast(accumulators, "int32")
        if not self._has_faults or (isinstance(strength, (int, float)) and strength == 0):
            return self._held(accumulators)
        strength = ops.clip(ops.cast(strength, "float32"), 0.0, 1.0)
        squares = ops.cast(0.0 if squares is None else squares, "float32")
        # One pass over memory: a drawn number is some fifteen operations, each over all outputs otherwise.
        shapes = [(len(tensor.shape), *tensor.shape[1:]) for tensor in (accumulators, squares)]
        play = fused(type(self)._play, self, shape=tuple(shapes), size=tuple(accumulators.shape))
        return play(accumulators, seed_words(stream), strength, squares)

    def _check_squares(self, squares: Any) -> None:
        if self.needs_squares and squares is None:
            raise ValueError(
                f"{type(self).__name__} needs `squares`, each output's sum of squared products. Received: squares=None"
            )

    @property
    def _has_faults(self) -> bool:
        raise NotImplementedError

    def _held(self, accumulators: Any) -> Any:
        """Accumulators as the array holds them without any fault."""
        return accumulators

    def _play(self, accumulators: Any, words: Any, strength: Any, squares: Any) -> Any:
        raise NotImplementedError

    def expected(self, accumulators: Any, *, strength: float = 1.0) -> np.ndarray:
        """Mean of a read of each accumulator; this class has no closed form.

        Raises:
            ValueError: always; a subclass that has one overrides this.
        """
        raise self._no_closed_form()

    def variance(self, accumulators: Any, *, strength: float = 1.0, squares: Any = None) -> np.ndarray:
        """Variance of a read of each accumulator; as for `expected`."""
        raise self._no_closed_form()

    def _no_closed_form(self) -> ValueError:
        return ValueError(
            f"{type(self).__name__} has no closed form; give it an `expected` and a `variance`. Received: {self!r}"
        )

    def with_voltage(self, voltage: float, chain: CarryChain) -> Datapath | None:
        """The same datapath at another supply, where `chain` is seen to have made it; else `None`, the default.

        Args:
            voltage: in volts.
            chain: what says how often a path misses the clock at a voltage.
        """
        return None
