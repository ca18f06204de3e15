"""What all memories share: how a read plays the faults, and its closed forms.

A memory is a description: how often a cell fails, how, in which encoding the word is stored, and what protects
it. `read` plays it on tensors (Keras is imported there, not with this module).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .curves import Curve
from .description import Part
from .encodings import ENCODINGS, check_word, decode, encode, stored_bits, whole_codes
from .faults import Clustering, faulty_cells, flip, stuck
from .fused import fused
from .protections import Protection
from .read_distribution import distribution, word_values

FAULTS = ("random", "persistent", "stuck")
"""Kinds of fault: fresh flips at every read; flips that are a chip's own; cells stuck at zero or one."""


@dataclass(frozen=True, kw_only=True)
class Memory(Part):
    """Base of all memories; subclasses are frozen keyword-only dataclasses that give a `rate`, as field or property.

    They may give a `voltage` with a `nominal_voltage` (else there is none), a `fault` (else `"persistent"`) and a
    `share_of_ones` (else a half) too, and override `rates` where the cells of a word fail differently. One that fails
    in another way overrides `read`, with `expected` and `variance` where it has closed forms.

    Args:
        encoding: how words are stored, one of `axtrain.noise_models.encodings.ENCODINGS`.
        protection: what stands between cell and reader, from `axtrain.noise_models.protections`; `None` nothing.
        clustering: faults that come in rows and columns, a `Clustering`; `None` for independent cells.

    Raises:
        ValueError: for arguments out of range.
    """

    encoding: str = "twos_complement"
    protection: Protection | None = None
    clustering: Clustering | None = None

    _what = "memory"

    if TYPE_CHECKING:  # subclasses have them, as fields or as properties

        @property
        def rate(self) -> Any: ...  # noqa: D102
        @property
        def voltage(self) -> Any: ...  # noqa: D102
        @property
        def fault(self) -> Any: ...  # noqa: D102
        @property
        def share_of_ones(self) -> Any: ...  # noqa: D102

    else:
        voltage, fault, share_of_ones = None, "persistent", 0.5

    def __post_init__(self) -> None:
        self._check()

    def _check(self) -> None:
        if self.fault not in FAULTS:
            raise ValueError(f"`fault` must be one of {', '.join(FAULTS)}. Received: fault={self.fault!r}")
        if self.encoding not in ENCODINGS:
            raise ValueError(f"`encoding` must be one of {', '.join(ENCODINGS)}. Received: encoding={self.encoding!r}")
        if not in_range(self.share_of_ones, 0.0, 1.0):
            raise ValueError(
                f"`share_of_ones` must be a number in [0, 1]. Received: share_of_ones={self.share_of_ones!r}"
            )
        highest = 1.0 if self.fault == "stuck" else 0.5
        if not in_range(self.rate, 0.0, highest):
            raise ValueError(
                f"The bit error rate must be a number in [0, {highest}] for fault={self.fault!r}; above 0.5 "
                "a read is more often wrong than right: use the complement, or raise the voltage. "
                f"Received: rate={self.rate!r}" + ("" if self.voltage is None else f" at {self.voltage} V")
            )
        for name, kind in (("protection", Protection), ("clustering", Clustering)):
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                raise ValueError(f"`{name}` must be a {kind.__name__} or None. Received: {name}={value!r}")
        if self.protection is not None and self.encoding not in self.protection.encodings:
            raise ValueError(
                f"{type(self.protection).__name__} needs one of the encodings {', '.join(self.protection.encodings)}. "
                f"Received: encoding={self.encoding!r}"
            )

    @property
    def per_chip(self) -> bool:
        """Whether the faults belong to the chip: the same cells at every read, drawn from the chip's seed."""
        return self.fault != "random"

    def rates(self, bits: int) -> Any:
        """How often the cells of a word fail: a number, or one for each of its `bits` cells, lowest first.

        `rate` is what tables and sweeps say of them, 0 where none fails. Cells that differ take no protection, which
        has cells of its own.
        """
        return self.rate

    def with_rate(self, rate: float) -> Memory | None:
        """The same memory at another bit error rate; `None` where `rate` is none of its arguments."""
        return self._with("rate", rate)

    def with_voltage(self, voltage: float) -> Memory | None:
        """The same memory at another supply, in volts; `None` where it has no voltage."""
        return None if self.voltage is None else self._with("voltage", voltage)

    def _with(self, name: str, value: float) -> Memory | None:
        changed: dict[str, Any] = {field.name: value for field in fields(self) if field.name == name}
        return replace(self, **changed) if changed else None

    def scaled_by_strength(self, rate: float) -> Memory | None:
        """A memory that at noise strength s fails, to the cell, as this one does at a rate of ``rate s``.

        By it a sweep runs all its points in one compiled function. `None`, the default, compiles one for each.
        """
        return None

    @property
    def refresh_intervals_s(self) -> tuple[float, float] | None:
        """Refresh interval and standard one of a dynamic memory, in seconds, for its energy; `None` for others."""
        return None

    @property
    def unfailing(self) -> Memory | None:
        """What it is compared with in energy: it where nothing fails; `None` is on chip, at nominal voltage."""
        return None

    def cells_per_word(self, bits: int) -> float:
        """Cells that one word takes, its protection's included."""
        return float(bits) if self.protection is None else self.protection.cells_per_word(bits)

    def read(
        self, codes: Any, bits: int, seed: Any, *, strength: Any = 1.0, address: int = 0, batched: bool = False
    ) -> Any:
        """Codes as they are read back from the memory.

        Encodes the codes, stores the words with their protection, applies the faults, and decodes. For `per_chip`
        faults the caller passes the chip's seed at every read (an integer, or a generator that does not
        advance): then the same cells fail each time, and those of a lower strength or rate are among those of a
        higher. Integers have no gradient; a layer decides what passes backward.

        Args:
            codes: Tensor of integers of any shape, representable in `bits` bits.
            bits: Word length, 2 to 16.
            seed: Integer or `keras.random.SeedGenerator`.
            strength: Number or scalar tensor in [0, 1] that multiplies the rate (a noise schedule moves it);
                a tensor outside is clipped. At rate or strength 0 codes are unchanged and nothing is drawn; a
                tensor of value 0 draws, and changes nothing.
            address: of the first word in the memory, in words; the others follow in the tensor's order.
            batched: whether each element along the first axis is stored in its turn at the same address, as the
                activations of one sample after another are.

        Returns:
            int32 tensor of the codes' shape.

        Raises:
            ValueError: for a bad word length, codes that are no integers, or a strength outside [0, 1].
        """
        from keras import ops

        from .random_numbers import seed_words

        check_word(bits, self.encoding)
        codes = whole_codes("codes", codes)
        if isinstance(strength, (int, float, np.number)):
            if not 0.0 <= strength <= 1.0:
                raise ValueError(f"`strength` must be in [0, 1]. Received: strength={strength!r}")
            if strength == 0.0:
                return codes
        if float(self.rate) == 0.0 and self.protection is None:
            return codes
        strength = ops.clip(ops.cast(strength, "float32"), 0.0, 1.0)
        shape, how = tuple(codes.shape), (bits, address, batched)
        played = fused(Memory._played, self, how, shape=(len(shape), *shape[1:]), size=shape)
        return played(codes, seed_words(seed), strength)

    def _played(self, how: tuple[int, int, bool], codes: Any, seed: Any, strength: Any) -> Any:
        from keras import ops

        bits, address, batched = how
        protection = self.protection or Protection()
        images = ops.shape(codes)[0] if batched else 1
        words = ops.reshape(encode(codes, bits, self.encoding), (images, -1))
        stored = protection.store(words, bits)
        # What belongs to the chip is the same for every image; what happens by chance is each image's own.
        shape = (1, *ops.shape(stored)[1:]) if self.per_chip else ops.shape(stored)
        faulty, ones = self._faulty(shape, protection, bits, seed, strength, address)
        read = flip(stored, faulty) if ones is None else stuck(stored, faulty, ones)
        read = protection.recover(stored, read, words, bits, self.encoding)
        return ops.reshape(decode(read, bits, self.encoding), ops.shape(codes))

    def _faulty(self, shape: Any, protection: Protection, bits: int, seed: Any, strength: Any, address: int):
        """Masks of faulty cells, and of the values that stuck ones hold (`None` where cells flip)."""
        rate = self.rates(bits)
        if np.ndim(rate):
            self._check_cells(rate)
            rates = [np.float32(each) * strength for each in rate]
        else:
            rates = protection.rates(np.float32(rate) * strength, strength, bits)
        share = self.share_of_ones if self.fault == "stuck" else None
        options: dict[str, Any] = {"share_of_ones": share, "address": address, "clustering": self.clustering}
        faulty, ones = faulty_cells(shape, protection.width(bits), seed, rates, **options)
        return faulty, None if share is None else ones

    def _check_cells(self, rates: Any) -> None:
        if not all(0.0 <= rate <= 1.0 for rate in rates):
            raise ValueError(f"The rates of a word's cells must lie in [0, 1]. Received: {[*map(float, rates)]}")
        if self.protection is not None:
            raise ValueError(
                "Cells of a word that fail differently take no protection, since it has cells of its own. Use "
                f"protection=None. Received: protection={self.protection!r}, rates={rates!r}"
            )

    def flip_probabilities(self, stored: np.ndarray, strength: float = 1.0, rate: float | None = None) -> np.ndarray:
        """Probability that a cell is read inverted, given the bit it stores: p, or the share of p stuck otherwise.

        Args:
            stored: bits, any shape; the last axis is that of a word's.
            strength: number in [0, 1] that multiplies the rate.
            rate: of these cells, where it is not what `rates` gives.

        Returns:
            float64 array of that shape.
        """
        rates = np.asarray(self.rates(np.shape(stored)[-1]) if rate is None else rate, np.float64) * strength
        if rates.ndim:
            self._check_cells(rates)
        if self.fault != "stuck":
            return np.full(np.shape(stored), rates)
        return np.where(stored, rates * (1.0 - self.share_of_ones), rates * self.share_of_ones)

    def expected(self, codes: Any, bits: int, *, strength: float = 1.0) -> np.ndarray:
        """Mean of a read of each code, over reads (random faults) or chips (the others).

        Without protection the bits weigh in: a bit b is read as 1 with probability `(1 - p0 - p1) b + p1`: for
        flips `p0 = p1 = p`, for stuck cells `p1 = p share_of_ones`, `p0 = p - p1`; in sign-magnitude it is
        `E[s'] mu`, with mu the mean magnitude. For flips in two's complement this is `(1 - 2p) w - p`. With a
        protection: from the distribution of words (`read_distribution`). Source: theory page, section 5, with
        D = 1.

        Args:
            codes: Array of integers of any shape, representable in `bits` bits.
            bits: Word length, 2 to 16.
            strength: Number in [0, 1] that multiplies the rate.

        Returns:
            float64 array of the codes' shape, in codes.

        Raises:
            ValueError: for codes that the encoding cannot represent, a bad word length or strength, or a
                memory without a closed form (clustered faults, stuck cells under SECDED, a `read` of its own).

        >>> from axtrain.noise_models.memories import BitErrors
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

    def _moments(self, codes: Any, bits: int, strength: float) -> tuple[np.ndarray, np.ndarray]:
        if not in_range(strength, 0.0, 1.0):
            raise ValueError(f"`strength` must be a number in [0, 1]. Received: strength={strength!r}")
        if type(self).read is not Memory.read:
            raise ValueError(
                f"{type(self).__name__} has a `read` of its own, so it needs an `expected` and a `variance` of its own "
                f"where their closed forms are asked for. Received: {self!r}"
            )
        if self.clustering is not None:
            raise ValueError(
                "Cells that fail together have no closed form here; use clustering=None, which has the same rate of "
                f"each cell. Received: clustering={self.clustering!r}"
            )
        stored = stored_bits(codes, bits, self.encoding)
        if self.protection is not None:
            given, places = np.unique(np.asarray(codes), return_inverse=True)
            chances, values = distribution(self, given, bits, strength), word_values(bits, self.encoding)
            mean = chances @ values
            spread = np.einsum("cw,cw->c", chances, (values - mean[:, None]) ** 2)
            return mean[places].reshape(np.shape(codes)), spread[places].reshape(np.shape(codes))
        wrong = self.flip_probabilities(stored, strength)
        mean = np.where(stored, 1.0 - wrong, wrong)
        return _weighed(mean, mean * (1.0 - mean), self.encoding)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """The memory with the arguments that `get_config` gave; errors as for `from_dict`."""
        readers = {
            "curve": Curve.from_dict,
            "protection": Protection.from_dict,
            "clustering": Clustering.from_dict,
        }
        read = {name: readers[name](config[name]) for name in readers if isinstance(config.get(name), dict)}
        return super().from_config({**config, **read})


def in_range(value: Any, low: float, high: float) -> bool:
    """Whether a value is a number within bounds."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high


def _weighed(mean: np.ndarray, variance: np.ndarray, encoding: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of words from those of their bits: S + (bits,) to S."""
    weights = 2.0 ** np.arange(mean.shape[-1])
    if encoding == "sign_magnitude":
        magnitude, spread = mean[..., :-1] @ weights[:-1], variance[..., :-1] @ weights[:-1] ** 2
        sign = 1.0 - 2.0 * mean[..., -1]
        return sign * magnitude, spread + (1.0 - sign**2) * magnitude**2
    if encoding == "twos_complement":
        weights[-1] *= -1.0
    origin = -weights[-1] if encoding == "offset" else 0.0
    return origin + mean @ weights, variance @ weights**2
