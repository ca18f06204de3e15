"""What stands between a failing cell and the reader: robust cells, parity, masking, codes, copies.

A protection says how a word is stored (which cells, and how often each of them fails) and what is read back
when some of them did. Each costs cells, which the energy of a read pays for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from . import read_distribution, secded
from .description import Part
from .read_distribution import zero_word


@dataclass(frozen=True, kw_only=True)
class Protection(Part):
    """Base of all: words are stored and read as they are. Subclasses are frozen keyword-only dataclasses."""

    kind: ClassVar[str] = "none"
    encodings: ClassVar[tuple[str, ...]] = ("twos_complement", "sign_magnitude", "offset", "unsigned")
    has_decoder: ClassVar[bool] = True
    """Whether words pass through a circuit that checks or corrects them, which a read pays for."""
    assumption: ClassVar[str] = ""
    """What the energy of a protected `{memory}` takes for granted, in words; nothing by default."""
    _what = "protection"

    @property
    def follows_rate(self) -> bool:
        """Whether every cell's rate is the memory's or none, so that a sweep may turn it by the noise strength."""
        return type(self).rates is Protection.rates

    def width(self, bits: int) -> int:
        """Cells of a stored word of the tensors that `store` makes."""
        return bits

    def cells_per_word(self, bits: int) -> float:
        """Cells that one word of `bits` bits takes, its share of check bits included."""
        return float(self.width(bits))

    def rates(self, rate: Any, strength: Any, bits: int) -> Any:
        """How often each cell fails, as `faults.faulty_cells` takes it."""
        return rate

    def store(self, words: Any, bits: int) -> Any:
        """Words as stored.

        Args:
            words: int32 tensor of shape (images, words): each image of the memory is stored by itself.
            bits: of a word.

        Returns:
            int32 tensor (images, ...) of words of `width(bits)` cells, in the order of their addresses.
        """
        return words

    def recover(self, stored: Any, read: Any, words: Any, bits: int, encoding: str) -> Any:
        """Words as the reader gets them.

        Args:
            stored, read: stored words before and after the faults.
            words: the words that were stored, (images, words).
            bits: of a word.
            encoding: of the words.

        Returns:
            int32 tensor of the shape of `words`.
        """
        return read

    def read_chances(self, memory: Any, stored: np.ndarray, bits: int, strength: float) -> np.ndarray:
        """Probability of each word that a read of each stored one returns: the closed form of a read.

        Args:
            memory: of independent cells, whose `flip_probabilities` say how often a cell is read inverted.
            stored: bits of the words, lowest first, shape (N, bits).
            bits: of a word.
            strength: number in [0, 1] that multiplies the memory's rate.

        Returns:
            float64 array of shape (N, 2^bits).

        Raises:
            ValueError: where there is no closed form, as by default for a class that has a `recover` of its own.
        """
        if type(self) is not Protection:
            raise ValueError(
                f"{type(self).__name__} has no closed form: give it `read_chances`, or read many words with "
                f"`Memory.read`. Received: protection={self!r}"
            )
        return read_distribution.flipped(stored, memory.flip_probabilities(stored, strength))


@dataclass(frozen=True, kw_only=True)
class RobustBits(Protection):
    """The top bits lie in cells that hold out longer (8T beside 6T, Srinivasan 2016).

    Args:
        count: how many of the top bits, an int >= 1.
        rate: how often a robust cell fails, a number in [0, 0.5]; 0 by default.
    """

    count: int = 1
    rate: float = 0.0

    kind: ClassVar[str] = "robust_bits"
    has_decoder: ClassVar[bool] = False
    assumption: ClassVar[str] = "the robust cells of the {memory} cost as much as its others"

    @property
    def follows_rate(self) -> bool:
        """Whether the robust cells never fail: they have a rate of their own."""
        return self.rate == 0

    def __post_init__(self) -> None:
        if isinstance(self.count, bool) or not isinstance(self.count, int) or self.count < 1:
            raise ValueError(f"`count` must be an int >= 1. Received: count={self.count!r}")
        if not isinstance(self.rate, (int, float)) or not 0 <= self.rate <= 0.5:
            raise ValueError(f"`rate` must be a number in [0, 0.5]. Received: rate={self.rate!r}")

    def rates(self, rate: Any, strength: Any, bits: int) -> Any:
        """The memory's own rate below, the robust cells' at the top."""
        if self.count > bits:
            raise ValueError(f"A word of {bits} bits has no {self.count} top bits. Received: count={self.count!r}")
        return [rate] * (bits - self.count) + [self.rate * strength] * self.count

    def read_chances(self, memory: Any, stored: np.ndarray, bits: int, strength: float) -> np.ndarray:
        """Independent bits, the top ones at their own rate."""
        flips, top = memory.flip_probabilities(stored, strength), bits - self.count
        flips[:, top:] = memory.flip_probabilities(stored[:, top:], strength, self.rate)
        return read_distribution.flipped(stored, flips)


@dataclass(frozen=True, kw_only=True)
class Parity(Protection):
    """One more cell holds the parity; a word whose parity is wrong is read as the code 0 (Minerva 2016).

    An odd number of faults is seen, an even one is not.
    """

    kind: ClassVar[str] = "parity"

    def width(self, bits: int) -> int:
        """One cell more than bits."""
        return bits + 1

    def store(self, words: Any, bits: int) -> Any:
        """The parity above the word."""
        from keras import ops

        return ops.bitwise_or(words, ops.left_shift(_parity(words, bits), bits))

    def recover(self, stored: Any, read: Any, words: Any, bits: int, encoding: str) -> Any:
        """Zero where the parity is wrong."""
        from keras import ops

        word = ops.bitwise_and(read, (1 << bits) - 1)
        return ops.where(_parity(read, bits + 1) == 0, word, zero_word(bits, encoding))

    def read_chances(self, memory: Any, stored: np.ndarray, bits: int, strength: float) -> np.ndarray:
        """The words after an even number of wrong cells, and zero after an odd one."""
        return read_distribution.checked(memory, stored, bits, strength)


@dataclass(frozen=True, kw_only=True)
class SignMasking(Protection):
    """Each wrong bit, known from double sampling, is read as the sign bit, which pulls towards 0 (Minerva 2016).

    In sign-magnitude, where small numbers have zeros at the top whatever the sign, it is read as 0.

    Args:
        robust_sign: whether the sign bit lies in a cell that never fails; else its own faults are read as they
            are and the masked bits follow them.
    """

    robust_sign: bool = True

    kind: ClassVar[str] = "sign_masking"
    encodings: ClassVar[tuple[str, ...]] = ("twos_complement", "sign_magnitude")

    @property
    def follows_rate(self) -> bool:
        """True: a robust sign never fails."""
        return True

    def rates(self, rate: Any, strength: Any, bits: int) -> Any:
        """The sign's cell apart."""
        return [rate] * (bits - 1) + [0.0] if self.robust_sign else rate

    def recover(self, stored: Any, read: Any, words: Any, bits: int, encoding: str) -> Any:
        """Wrong bits below the sign replaced."""
        from keras import ops

        below = (1 << (bits - 1)) - 1
        wrong = ops.bitwise_and(ops.bitwise_xor(stored, read), below)
        kept = ops.bitwise_and(read, ops.bitwise_not(wrong))
        if encoding == "sign_magnitude":
            return kept
        negative = ops.right_shift(read, bits - 1)  # 0 or 1
        return ops.bitwise_or(kept, wrong * negative)

    def read_chances(self, memory: Any, stored: np.ndarray, bits: int, strength: float) -> np.ndarray:
        """For each sign that may be read, the other bits are kept or follow it."""
        return read_distribution.masked(memory, self.robust_sign, stored, strength)


@dataclass(frozen=True, kw_only=True)
class SECDED(Protection):
    """Words in groups with check bits that correct one wrong bit and detect two: Hamming (39, 32) or (72, 64).

    Args:
        data_bits: 32 or 64; as many whole words as fit make a group.
        detected: what is read where an error is detected and not corrected: `"keep"` the words as they are, or
            `"zero"`.
    """

    data_bits: int = 64
    detected: str = "keep"

    kind: ClassVar[str] = "secded"

    def __post_init__(self) -> None:
        secded.numbers(self.data_bits)
        if self.detected not in ("keep", "zero"):
            raise ValueError(f"`detected` must be 'keep' or 'zero'. Received: detected={self.detected!r}")

    def words_per_group(self, bits: int) -> int:
        """Whole words that fit the data bits."""
        return self.data_bits // bits

    def cells_per_word(self, bits: int) -> float:
        """Its bits and its share of the check bits."""
        return bits + secded.CHECK_BITS[self.data_bits] / self.words_per_group(bits)

    def store(self, words: Any, bits: int) -> Any:
        """(images, groups, words and words of check bits); the last group is filled up with zeros."""
        from keras import ops

        count = self.words_per_group(bits)
        images, size = ops.shape(words)
        groups = ops.reshape(ops.pad(words, [(0, 0), (0, -size % count)]), (images, -1, count))
        checks = secded.check_word(groups, bits, self.data_bits)
        parts = [ops.bitwise_and(ops.right_shift(checks, low), (1 << bits) - 1) for low in self._check_parts(bits)]
        return ops.concatenate([groups, ops.stack(parts, axis=-1)], axis=-1)

    def recover(self, stored: Any, read: Any, words: Any, bits: int, encoding: str) -> Any:
        """What the decoder gives."""
        from keras import ops

        count = self.words_per_group(bits)
        checks = ops.zeros_like(read[..., 0])
        for part, low in enumerate(self._check_parts(bits)):
            checks = ops.bitwise_or(checks, ops.left_shift(read[..., count + part], low))
        # The last part's word is wider than what is left of the check bits; those cells do not exist.
        checks = ops.bitwise_and(checks, (1 << secded.CHECK_BITS[self.data_bits]) - 1)
        groups, lost = secded.corrected(read[..., :count], checks, bits, self.data_bits)
        if self.detected == "zero":
            groups = ops.where(lost[..., None], zero_word(bits, encoding), groups)
        images, size = ops.shape(words)
        return ops.reshape(groups, (images, -1))[:, :size]

    def read_chances(self, memory: Any, stored: np.ndarray, bits: int, strength: float) -> np.ndarray:
        """The error that each pattern of wrong cells leaves; five and more of a group count as none."""
        return read_distribution.grouped(memory, self, stored, bits, strength)

    def _check_parts(self, bits: int) -> range:
        return range(0, secded.CHECK_BITS[self.data_bits], bits)


@dataclass(frozen=True, kw_only=True)
class Triplication(Protection):
    """Three copies of every word, and the majority of each bit: wrong with probability ``3 p^2 - 2 p^3``."""

    kind: ClassVar[str] = "triplication"

    def cells_per_word(self, bits: int) -> float:
        """Three times the bits."""
        return 3.0 * bits

    def store(self, words: Any, bits: int) -> Any:
        """(images, words, 3)."""
        from keras import ops

        return ops.stack([words] * 3, axis=-1)

    def recover(self, stored: Any, read: Any, words: Any, bits: int, encoding: str) -> Any:
        """The majority."""
        from keras import ops

        a, b, c = read[..., 0], read[..., 1], read[..., 2]
        either = ops.bitwise_or(ops.bitwise_and(a, b), ops.bitwise_and(a, c))
        return ops.bitwise_or(either, ops.bitwise_and(b, c))

    def read_chances(self, memory: Any, stored: np.ndarray, bits: int, strength: float) -> np.ndarray:
        """Independent bits, each wrong where two copies or three are."""
        flips = memory.flip_probabilities(stored, strength)
        return read_distribution.flipped(stored, flips**2 * (3 - 2 * flips))


def protection_from_dict(config: dict[str, Any]) -> Any:
    """`Protection.from_dict`: the protection that a `to_dict` described.

    Raises:
        ValueError: for an unknown `kind`, or a class that is not registered.
    """
    return Protection.from_dict(config)


def _parity(words: Any, bits: int) -> Any:
    from keras import ops

    parity = ops.zeros_like(words)
    for bit in range(bits):
        parity = ops.bitwise_xor(parity, ops.bitwise_and(ops.right_shift(words, bit), 1))
    return parity
