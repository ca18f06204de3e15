"""Memories: what reads return when stored bits fail.

A memory is a description: how often a bit fails, how, and in which encoding the word is stored. `read` plays
it on tensors (Keras is imported there, not with this module); `expected` and `variance` are its closed forms.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from .curves import ILLUSTRATIVE, ProbitCurve, TabulatedCurve, curve_from_dict
from .encodings import ENCODINGS, check_word, decode, encode, stored_bits

FAULTS = ("random", "persistent", "stuck")
"""Kinds of fault: fresh flips at every read; flips that are a chip's own; cells stuck at zero or one."""


def _in_range(value: Any, low: float, high: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high


class Memory:
    """What all memories share; subclasses are frozen dataclasses that give `rate` and `voltage`."""

    rate: Any
    voltage: Any
    fault: Any
    encoding: Any
    share_of_ones: Any
    kind = ""

    def _check(self) -> None:
        if self.fault not in FAULTS:
            raise ValueError(f"`fault` must be one of {', '.join(FAULTS)}. Received: fault={self.fault!r}")
        if self.encoding not in ENCODINGS:
            raise ValueError(f"`encoding` must be one of {', '.join(ENCODINGS)}. Received: encoding={self.encoding!r}")
        if not _in_range(self.share_of_ones, 0.0, 1.0):
            raise ValueError(
                f"`share_of_ones` must be a number in [0, 1]. Received: share_of_ones={self.share_of_ones!r}"
            )
        highest = 1.0 if self.fault == "stuck" else 0.5
        if not _in_range(self.rate, 0.0, highest):
            raise ValueError(
                f"The bit error rate must be a number in [0, {highest}] for fault={self.fault!r}; above 0.5 "
                "a read is more often wrong than right: use the complement, or raise the voltage. "
                f"Received: rate={self.rate!r}" + ("" if self.voltage is None else f" at {self.voltage} V")
            )

    @property
    def per_chip(self) -> bool:
        """Whether the faults belong to the chip: the same cells at every read, drawn from the chip's seed."""
        return self.fault != "random"

    def read(self, codes: Any, bits: int, seed: Any, *, strength: Any = 1.0) -> Any:
        """Codes as they are read back from the memory.

        Encodes the codes, applies the faults to the words, and decodes. For `per_chip` faults the caller
        passes the chip's seed at every read (an integer, or a generator that does not advance): then the same
        cells fail each time, and those of a lower strength are among those of a higher. Integers have no
        gradient; a layer decides what passes backward.

        Args:
            codes: Tensor of integers of any shape, representable in `bits` bits.
            bits: Word length, 2 to 16.
            seed: Integer or `keras.random.SeedGenerator`.
            strength: Number or scalar tensor in [0, 1] that multiplies the rate (a noise schedule moves it);
                a tensor outside is clipped. At rate or strength 0 codes are unchanged and nothing is drawn; a
                tensor of value 0 draws, and flips nothing.

        Returns:
            int32 tensor of the codes' shape.

        Raises:
            ValueError: for a bad word length, or a strength outside [0, 1].
        """
        from keras import ops

        from . import faults

        check_word(bits, self.encoding)
        codes = ops.cast(codes, "int32")
        max_rate = float(self.rate)
        if isinstance(strength, (int, float)):
            if not 0.0 <= strength <= 1.0:
                raise ValueError(f"`strength` must be in [0, 1]. Received: strength={strength!r}")
            rate = max_rate * strength
        else:
            rate = ops.clip(ops.cast(strength, "float32"), 0.0, 1.0) * max_rate
        if max_rate == 0.0 or (isinstance(rate, float) and rate == 0.0):
            return codes
        words, shape = encode(codes, bits, self.encoding), ops.shape(codes)
        if self.fault == "stuck":
            masks = faults.stuck_masks(shape, bits, rate, self.share_of_ones, seed, max_rate=max_rate)
            words = faults.stuck(words, *masks)
        else:
            words = faults.flip(words, faults.bernoulli_mask(shape, bits, rate, seed, max_rate=max_rate))
        return decode(words, bits, self.encoding)

    def _bit_moments(self, codes: Any, bits: int, strength: float) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of each bit as read: shape S + (bits,)."""
        if not _in_range(strength, 0.0, 1.0):
            raise ValueError(f"`strength` must be a number in [0, 1]. Received: strength={strength!r}")
        stored = stored_bits(codes, bits, self.encoding)
        rise = fall = self.rate * strength  # P(0 is read as 1), P(1 is read as 0)
        if self.fault == "stuck":
            rise, fall = rise * self.share_of_ones, fall * (1.0 - self.share_of_ones)
        mean = np.where(stored, 1.0 - fall, rise)
        return mean, mean * (1.0 - mean)

    def _moments(self, codes: Any, bits: int, strength: float) -> tuple[np.ndarray, np.ndarray]:
        mean, variance = self._bit_moments(codes, bits, strength)
        weights = 2.0 ** np.arange(bits)
        if self.encoding == "sign_magnitude":
            magnitude, spread = mean[..., :-1] @ weights[:-1], variance[..., :-1] @ weights[:-1] ** 2
            sign = 1.0 - 2.0 * mean[..., -1]
            return sign * magnitude, spread + (1.0 - sign**2) * magnitude**2
        if self.encoding == "twos_complement":
            weights[-1] *= -1.0
        origin = -(2.0 ** (bits - 1)) if self.encoding == "offset" else 0.0
        return origin + mean @ weights, variance @ weights**2

    def expected(self, codes: Any, bits: int, *, strength: float = 1.0) -> np.ndarray:
        """Mean of a read of each code, over reads (random faults) or chips (the others).

        Bits fail independently, and a bit b is read as 1 with probability `(1 - p0 - p1) b + p1`: for flips
        `p0 = p1 = p`, for stuck cells `p1 = p share_of_ones`, `p0 = p - p1`. The mean weighs the bits; in
        sign-magnitude it is `E[s'] mu`, with mu the mean magnitude. For flips in two's complement this is
        `(1 - 2p) w - p`. Source: theory page, section 5, with D = 1.

        Args:
            codes: Array of integers of any shape, representable in `bits` bits.
            bits: Word length, 2 to 16.
            strength: Number in [0, 1] that multiplies the rate.

        Returns:
            float64 array of the codes' shape, in codes.

        Raises:
            ValueError: for codes that the encoding cannot represent, a bad word length or strength.

        >>> float(BitErrors(rate=0.01).expected(100, 8))
        97.99
        """
        return self._moments(codes, bits, strength)[0]

    def variance(self, codes: Any, bits: int, *, strength: float = 1.0) -> np.ndarray:
        """Variance of a read of each code, over reads or chips; arguments and errors as for `expected`.

        `sum_i c_i^2 Var(b_i')` over the bits' weights; in sign-magnitude `Var(m') + (1 - E[s']^2) mu^2`. For
        flips in two's complement, offset and unsigned this is `p (1 - p) (4^n - 1) / 3`. Source: theory page,
        section 5, with D = 1.

        Returns:
            float64 array of the codes' shape, in codes squared.
        """
        return self._moments(codes, bits, strength)[1]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able description that `memory_from_dict` reads."""
        config: dict[str, Any] = {"kind": self.kind}
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            config[field.name] = value.to_dict() if field.name == "curve" else value
        return config

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> Any:
        """The memory that `to_dict` described.

        Raises:
            ValueError: for an entry that this memory does not have.
        """
        names = [field.name for field in fields(cls)]  # type: ignore[arg-type]
        unknown = sorted(set(config) - {*names, "kind"})
        if unknown:
            raise ValueError(f"A memory of kind {cls.kind!r} has the entries {', '.join(names)}. Received: {unknown!r}")
        arguments = {key: value for key, value in config.items() if key != "kind"}
        if isinstance(arguments.get("curve"), dict):
            arguments["curve"] = curve_from_dict(arguments["curve"])
        return cls(**arguments)


@dataclass(frozen=True, kw_only=True)
class BitErrors(Memory):
    """Independent bit faults at a given rate.

    Args:
        rate: Probability that a bit is faulty: 0 to 0.5 for flips, 0 to 1 for stuck cells.
        fault: `"random"`: fresh flips at every read. `"persistent"`: flipped cells are the chip's own.
            `"stuck"`: cells stuck at zero or one, also the chip's own; a stuck cell shows only where the
            stored bit differs, half of the time on random data.
        encoding: How words are stored, one of `axtrain.noise_models.encodings.ENCODINGS`.
        share_of_ones: Share of the stuck cells that are stuck at one (half by default, chosen here).

    Raises:
        ValueError: for arguments out of range.
    """

    rate: float
    fault: str = "random"
    encoding: str = "twos_complement"
    share_of_ones: float = 0.5

    kind = "bit_errors"

    def __post_init__(self) -> None:
        self._check()

    @property
    def voltage(self) -> None:
        """None: a bare rate has no supply voltage."""
        return None


@dataclass(frozen=True, kw_only=True)
class NearThresholdSRAM(Memory):
    """A static memory whose supply is lowered towards the threshold, where cells begin to fail.

    Args:
        voltage: Supply, in volts.
        curve: Bit error rate of a voltage: a `ProbitCurve` or a `TabulatedCurve`; illustrative by default.
        fault: As for `BitErrors`; persistent by default, since weak cells are a chip's own.
        encoding: As for `BitErrors`.
        nominal_voltage: Supply at which the memory is free of faults, for energy comparisons, in volts; at
            least `voltage`. 1.0 V is chosen here.
        share_of_ones: As for `BitErrors`.

    Raises:
        ValueError: for arguments out of range, a voltage outside the curve's table, or one at which more
            than half of the bits flip.

    >>> f"{NearThresholdSRAM(voltage=0.56).rate:.1e}"
    '6.2e-04'
    """

    voltage: float
    curve: ProbitCurve | TabulatedCurve | Callable[[float], float] = ILLUSTRATIVE
    fault: str = "persistent"
    encoding: str = "twos_complement"
    nominal_voltage: float = 1.0
    share_of_ones: float = 0.5

    kind = "near_threshold_sram"

    def __post_init__(self) -> None:
        if not (callable(self.curve) and hasattr(self.curve, "to_dict")):
            raise ValueError(
                "`curve` must be a ProbitCurve or a TabulatedCurve (measurements: TabulatedCurve.from_csv). "
                f"Received: curve={self.curve!r}"
            )
        for name in ("voltage", "nominal_voltage"):
            value = getattr(self, name)
            if not _in_range(value, 0.0, math.inf) or not 0.0 < value < math.inf:
                raise ValueError(f"`{name}` must be a positive number of volts. Received: {name}={value!r}")
        if self.voltage > self.nominal_voltage:
            raise ValueError(
                f"`voltage` must not exceed nominal_voltage={self.nominal_voltage}; give the memory's own "
                f"nominal voltage. Received: voltage={self.voltage!r}"
            )
        self._check()

    @property
    def rate(self) -> float:
        """Probability that a cell is faulty at this voltage."""
        return self.curve(self.voltage)


def memory_from_dict(config: dict[str, Any]) -> Memory:
    """The memory that a `to_dict` described.

    Raises:
        ValueError: for an unknown `kind`.
    """
    kinds = {memory.kind: memory for memory in (BitErrors, NearThresholdSRAM)}
    kind = config.get("kind")
    if kind not in kinds:
        raise ValueError(f"A memory's `kind` must be one of {', '.join(kinds)}. Received: kind={kind!r}")
    return kinds[kind].from_dict(config)
