"""Datapaths: what the accumulators of an array read when its arithmetic misses the clock.

Near the threshold voltage the long carry chains fail first, so the top bits of an accumulator are read wrong
(`TimingErrors`, with `CarryChain` for their rates at a voltage); or the error is detected and the update skipped
(`DroppedMACs`); or a trace of the real array says what happens (`MeasuredDatapath`, fitted by
`axtrain.noise_models.datapath_fitting`). A datapath is a description: `apply` plays it on tensors (Keras is
imported there, not with this module); `expected` and `variance` are its closed forms.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .carry_chain import ILLUSTRATIVE_CHAIN as ILLUSTRATIVE_CHAIN
from .carry_chain import CarryChain as CarryChain
from .carry_chain import check_number
from .datapath_base import Datapath as Datapath
from .residuals import LEVELS, normal_levels

_WRONG, _LEVEL = range(2)  # what numbers are drawn for


@dataclass(frozen=True, kw_only=True)
class TimingErrors(Datapath):
    """Accumulator bits read flipped, each with its own probability, independently at every output and read.

    The accumulator holds the sum modulo 2^n, as a two's-complement word of n = `accumulator_bits`; a read returns
    that word xor the flips, sign-extended to int32. So a sum that needs more bits wraps, at every voltage and every
    strength, since overflow is the width's doing and not the voltage's; at n = 32 nothing wraps that int32 does not.
    Sums that fit are returned unchanged where no bit flips.

    Args:
        flip_rates: probability in [0, 1] for each bit, lowest first; bits with rate 0 cost nothing.
        accumulator_bits: n, 2 to 32.
        voltage, nominal_voltage: in volts; None where the rates are not tied to a supply.
        source: where the rates come from.

    Raises:
        ValueError: for arguments out of range, or not one rate for each bit.

    >>> TimingErrors(flip_rates=[0.0] * 7 + [0.1], accumulator_bits=8).expected(100).item()
    87.2
    """

    flip_rates: tuple[float, ...]
    accumulator_bits: int = 24
    voltage: float | None = None
    nominal_voltage: float | None = None
    source: str | None = None

    kind = "timing_errors"

    def __post_init__(self) -> None:
        bits = self.accumulator_bits
        if isinstance(bits, bool) or not isinstance(bits, int) or not 2 <= bits <= 32:
            raise ValueError(f"`accumulator_bits` must be an int from 2 to 32. Received: accumulator_bits={bits!r}")
        if len(self.flip_rates) != bits:
            raise ValueError(
                f"`flip_rates` needs one rate for each of {bits} bits, lowest first; pad with 0 or change "
                f"accumulator_bits. Received: {len(self.flip_rates)} rates"
            )
        for bit, rate in enumerate(self.flip_rates):
            check_number(f"flip_rates[{bit}]", rate, 0, 1, "a number in [0, 1]")
        object.__setattr__(self, "flip_rates", tuple(float(rate) for rate in self.flip_rates))
        self._check_voltages()

    @classmethod
    def at_voltage(
        cls, voltage: float, model: CarryChain = ILLUSTRATIVE_CHAIN, accumulator_bits: int = 24
    ) -> TimingErrors:
        """The rates of a carry chain at a supply voltage, in volts.

        Raises:
            ValueError: for a voltage outside of the model's range.

        >>> f"{TimingErrors.at_voltage(0.75).error_rate:.1e}"
        '6.2e-03'
        """
        return cls(
            flip_rates=model.miss_rates(voltage, accumulator_bits),
            accumulator_bits=accumulator_bits,
            voltage=voltage,
            nominal_voltage=model.nominal_voltage,
            source=model.source,
        )

    def with_voltage(self, voltage: float, chain: CarryChain) -> Datapath | None:
        """At another supply, in volts, if the chain made it: a datapath keeps rates and no chain."""
        return _remade(self, voltage, chain, [self.accumulator_bits])

    @property
    def error_rate(self) -> float:
        """Probability that a read is wrong at all: ``1 - prod_j (1 - p_j)``."""
        return 0.0 - math.expm1(math.fsum(math.log1p(-rate) if rate < 1 else -math.inf for rate in self.flip_rates))

    @property
    def _has_faults(self) -> bool:
        return any(self.flip_rates)

    def _held(self, accumulators: Any) -> Any:
        from keras import ops

        spare = 32 - self.accumulator_bits
        return ops.right_shift(ops.left_shift(accumulators, spare), spare) if spare else accumulators

    def _play(self, accumulators: Any, words: Any, strength: Any, squares: Any) -> Any:
        from keras import ops

        from . import faults

        rates = [rate * strength if rate else 0.0 for rate in self.flip_rates]
        flips, _ = faults.faulty_cells(ops.shape(accumulators), self.accumulator_bits, words, rates)
        return self._held(faults.flip(accumulators, flips))

    def _bit_moments(self, accumulators: Any, strength: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        check_number("strength", strength, 0, 1, "a number in [0, 1]")
        positions = np.arange(self.accumulator_bits)
        bits = np.asarray(accumulators, np.int64)[..., None] >> positions & 1
        rates, weights = strength * np.array(self.flip_rates), 2.0**positions
        weights[-1] *= -1.0
        return bits + (1 - 2 * bits) * rates, rates * (1 - rates), weights

    def expected(self, accumulators: Any, *, strength: float = 1.0) -> np.ndarray:
        """Mean of a read of each accumulator: ``sum_j c_j (b_j + (1 - 2 b_j) p_j)``.

        b_j are the bits of the word and c_j their weights, 2^j, the top one negative. Source: theory page, section
        5, with a rate for each bit.

        Args:
            accumulators: integers of any shape.
            strength: number in [0, 1] that multiplies the rates.

        Returns:
            float64 array of the accumulators' shape.
        """
        mean, _, weights = self._bit_moments(accumulators, strength)
        return np.asarray(mean @ weights)

    def variance(self, accumulators: Any, *, strength: float = 1.0, squares: Any = None) -> np.ndarray:
        """Variance of a read: ``sum_j 4^j p_j (1 - p_j)``, the same for every accumulator; arguments as `expected`."""
        _, variance, weights = self._bit_moments(accumulators, strength)
        return np.full(np.shape(accumulators), variance @ weights**2)


@dataclass(frozen=True, kw_only=True)
class DroppedMACs(Datapath):
    """Multiply-accumulates whose timing error is detected and whose update is skipped (ThUnderVolt 2018).

    Each product m_k of an output is dropped with probability p: ``y = sum_k (1 - d_k) m_k``, of mean
    ``(1 - p) sum_k m_k`` and variance ``p (1 - p) sum_k m_k^2``. Played as a normal of these moments, rounded to
    integers (drawn from its 1024 levels, which reach 3.4 standard deviations). Where an output drops ten products the
    shape is right to a Kolmogorov-Smirnov distance of 0.02 (products of both signs) to 0.05 (of one); where it drops
    less than one, most real outputs are untouched and some far off, and only the moments are right. Derived here; the
    idea is the paper's.

    Args:
        rate: p, in [0, 1].
        voltage, nominal_voltage: in volts; None where the rate is not tied to a supply.
        source: where the rate comes from.

    Raises:
        ValueError: for arguments out of range.
    """

    rate: float
    voltage: float | None = None
    nominal_voltage: float | None = None
    source: str | None = None

    kind = "dropped_macs"

    def __post_init__(self) -> None:
        check_number("rate", self.rate, 0, 1, "a number in [0, 1]")
        self._check_voltages()

    @classmethod
    def at_voltage(
        cls, voltage: float, model: CarryChain = ILLUSTRATIVE_CHAIN, accumulator_bits: int = 24
    ) -> DroppedMACs:
        """The rate at which any bit misses the clock, which is that of the longest path, the top bit's.

        Raises:
            ValueError: for a voltage outside of the model's range.
        """
        rate = model.miss_rates(voltage, accumulator_bits)[-1]
        return cls(rate=rate, voltage=voltage, nominal_voltage=model.nominal_voltage, source=model.source)

    def with_voltage(self, voltage: float, chain: CarryChain) -> Datapath | None:
        """At another supply, in volts, if the chain made it: a datapath keeps rates and no chain."""
        return _remade(self, voltage, chain, range(2, 33))

    @property
    def needs_squares(self) -> bool:
        """True unless nothing is dropped."""
        return self.rate > 0

    @property
    def _has_faults(self) -> bool:
        return self.rate > 0

    def _play(self, accumulators: Any, words: Any, strength: Any, squares: Any) -> Any:
        from keras import ops

        # In float64 until the two factors are known: compilers differ in the last digit of 1 - p s.
        rate = ops.cast(strength, "float64") * self.rate
        spread = ops.cast(ops.sqrt(rate * (1.0 - rate)), "float32")
        normal = ops.take(ops.convert_to_tensor(normal_levels()), _level(ops.shape(accumulators), words))
        # Each part is rounded by itself: a sum of two products would be fused by some compilers and not by others.
        lost = ops.round(ops.cast(accumulators, "float32") * ops.cast(rate, "float32"))
        noise = ops.round(ops.sqrt(squares) * spread * normal)
        return accumulators - ops.cast(lost, "int32") + ops.cast(noise, "int32")

    def expected(self, accumulators: Any, *, strength: float = 1.0) -> np.ndarray:
        """Mean of a read of each accumulator, ``(1 - p) sum_k m_k``; arguments as for `TimingErrors.expected`."""
        check_number("strength", strength, 0, 1, "a number in [0, 1]")
        return (1.0 - self.rate * strength) * np.asarray(accumulators, np.float64)

    def variance(self, accumulators: Any, *, strength: float = 1.0, squares: Any = None) -> np.ndarray:
        """Variance of a read, ``p (1 - p) sum_k m_k^2``, rounding (1/6 at most) left out.

        Args:
            accumulators: integers of any shape.
            strength: number in [0, 1] that multiplies the rate.
            squares: ``sum_k m_k^2``, broadcasts to their shape.
        """
        check_number("strength", strength, 0, 1, "a number in [0, 1]")
        self._check_squares(squares)
        rate = self.rate * strength
        total = 0.0 if squares is None else np.asarray(squares, np.float64)
        return np.broadcast_to(rate * (1.0 - rate) * total, np.shape(accumulators))


@dataclass(frozen=True, kw_only=True)
class MeasuredDatapath(Datapath):
    """What a trace of a real array showed: now and then a result is off by a residual of a measured shape.

    ``y = x + round((gain - 1) x) + d round(bias + std l)``: d is 1 with probability `error_rate`, and l is one of
    `LEVELS` equally likely levels, the residual's standardised quantile function. Where the sum leaves int32 it wraps.
    The model is that of the error of multipliers (theory page, section 4), derived for results that are mostly right.

    Args:
        error_rate: probability in [0, 1] that a result carries a residual.
        bias: mean of a residual, in units of the accumulator.
        std: its standard deviation, >= 0, in the same units.
        levels: 1024 ascending numbers of mean 0 and variance 1, as `residuals.levels_of` gives them; None
            is the normal.
        gain: of every result, > 0; not drawn, but `strength` moves it between 1 and this.
        voltage, nominal_voltage: at which the trace was taken, in volts, or None.
        source: where the trace comes from.

    Raises:
        ValueError: for arguments out of range.

    >>> MeasuredDatapath(error_rate=0.25, bias=8.0, std=0.0).expected(100).item()
    102.0
    """

    error_rate: float
    bias: float = 0.0
    std: float = 0.0
    levels: tuple[float, ...] | None = None
    gain: float = 1.0
    voltage: float | None = None
    nominal_voltage: float | None = None
    source: str | None = None

    kind = "measured_datapath"

    def __post_init__(self) -> None:
        check_number("error_rate", self.error_rate, 0, 1, "a number in [0, 1]")
        check_number("bias", self.bias, -math.inf, math.inf, "a finite number")
        check_number("std", self.std, 0, math.inf, "a finite number >= 0")
        check_number("gain", self.gain, 0, math.inf, "a finite number > 0", open_low=True)
        if self.levels is not None:
            values = np.asarray(self.levels, np.float64)
            standard = values.shape == (LEVELS,) and abs(values.mean()) < 1e-3 and abs(values.std() - 1) < 1e-3
            if not standard or np.any(np.diff(values) < 0):
                raise ValueError(
                    f"`levels` must be {LEVELS} ascending numbers of mean 0 and variance 1; "
                    "axtrain.noise_models.residuals.levels_of(quantiles) makes them. "
                    f"Received: {values.size} levels of mean {values.mean():.3g} and variance {values.var():.3g}"
                )
            object.__setattr__(self, "levels", tuple(values.tolist()))
        # The normal's levels end before 4; SciPy, which they need, is not loaded for a description.
        reach = abs(self.bias) + self.std * (4.0 if self.levels is None else float(np.abs(self.levels).max()))
        if reach >= 2**31:
            raise ValueError(
                "Residuals must fit in int32, as accumulators do. "
                f"Received: bias={self.bias!r} and std={self.std!r}, which reach {reach:.3g}"
            )
        self._check_voltages()

    @property
    def residuals(self) -> np.ndarray:
        """float64 (LEVELS,): what is drawn from, whole numbers."""
        levels = normal_levels() if self.levels is None else np.array(self.levels)
        return np.rint(self.bias + self.std * levels.astype(np.float64)) if self.std else np.rint([self.bias] * LEVELS)

    @property
    def _has_faults(self) -> bool:
        return self.error_rate > 0 or self.gain != 1

    def _play(self, accumulators: Any, words: Any, strength: Any, squares: Any) -> Any:
        from keras import ops

        from . import faults
        from .random_numbers import hashed, positions

        shape, read = ops.shape(accumulators), accumulators
        if self.gain != 1:
            change = ops.cast(accumulators, "float32") * ((self.gain - 1.0) * strength)
            read = read + ops.cast(ops.round(change), "int32")
        if self.error_rate > 0:
            number = ops.reshape(hashed(positions(shape), words, _WRONG), shape)
            residuals = ops.convert_to_tensor(self.residuals.astype(np.int32))
            drawn = ops.take(residuals, _level(shape, words))
            read = read + ops.where(faults.below(number, self.error_rate * strength), drawn, 0)
        return read

    def gained(self, accumulators: Any, *, strength: float = 1.0) -> np.ndarray:
        """Accumulators after the gain alone, int64 of their shape, as `apply` rounds them."""
        exact = np.asarray(accumulators, np.int64)
        factor = np.float32(self.gain - 1.0) * np.float32(strength)
        return exact + np.rint(exact.astype(np.float32) * factor).astype(np.int64)

    def expected(self, accumulators: Any, *, strength: float = 1.0) -> np.ndarray:
        """Mean of a read, ``x + round((gain - 1) x) + q E r``; arguments as for `TimingErrors.expected`.

        q is the error rate and r the 1024 rounded residuals that are drawn from.
        """
        check_number("strength", strength, 0, 1, "a number in [0, 1]")
        return self.gained(accumulators, strength=strength) + self.error_rate * strength * self.residuals.mean()

    def variance(self, accumulators: Any, *, strength: float = 1.0, squares: Any = None) -> np.ndarray:
        """Variance of a read, ``q E r^2 - (q E r)^2``, the same for every accumulator; arguments as `expected`."""
        check_number("strength", strength, 0, 1, "a number in [0, 1]")
        rate, residuals = self.error_rate * strength, self.residuals
        return np.full(np.shape(accumulators), rate * (residuals**2).mean() - (rate * residuals.mean()) ** 2)


def _remade(datapath: Any, voltage: float, chain: CarryChain, widths: Iterable[int]) -> Any:
    if not chain.threshold_voltage < (datapath.voltage or 0) <= chain.nominal_voltage:
        return None
    at = type(datapath).at_voltage
    fitting = [bits for bits in widths if at(datapath.voltage, chain, bits) == datapath]
    # Several fit where nothing is ever late at its own voltage; then its width is not known.
    return at(voltage, chain, fitting[0]) if len(fitting) == 1 else None


def _level(shape: Any, words: Any) -> Any:
    """int32 tensor of `shape`: which of `LEVELS` equally likely levels each output draws."""
    from keras import ops

    from .random_numbers import hashed, positions

    top = ops.right_shift(hashed(positions(shape), words, _LEVEL), 31 - (LEVELS.bit_length() - 1))
    return ops.reshape(top, shape)


def datapath_from_dict(config: dict[str, Any]) -> Any:
    """`Datapath.from_dict`: the datapath that a `to_dict` described.

    Raises:
        ValueError: for an unknown `kind`, or a class that is not registered.
    """
    return Datapath.from_dict(config)
