"""What all datapaths share: how one is applied to accumulators, and how it becomes JSON and comes back."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import numpy as np

from .carry_chain import check_number
from .description import Description


class Datapath(Description):
    """What all datapaths share; subclasses are frozen dataclasses."""

    voltage: Any
    nominal_voltage: Any
    kind = ""

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

    def to_dict(self) -> dict[str, Any]:
        """JSON-able description that `datapath_from_dict` reads."""
        config: dict[str, Any] = {"kind": self.kind}
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            value = value.item() if isinstance(value, np.generic) else value
            config[field.name] = list(value) if isinstance(value, tuple) else value
        return config

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> Any:
        """The datapath that `to_dict` described.

        Raises:
            ValueError: for an entry that this datapath does not have.
        """
        names = [field.name for field in fields(cls)]  # type: ignore[arg-type]
        unknown = sorted(set(config) - {*names, "kind"})
        if unknown:
            raise ValueError(
                f"A datapath of kind {cls.kind!r} has the entries {', '.join(names)}. Received: {unknown!r}"
            )
        return cls(**{key: value for key, value in config.items() if key != "kind"})
