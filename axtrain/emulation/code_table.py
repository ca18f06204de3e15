"""A multiplier's table over the integer codes that a layer really uses.

The hardware multiplies raw words; a layer multiplies integer codes (an activation code with a
zero point, a signed weight code). `CodeTable` is the bridge: entry ``[i, j]`` is what the circuit
contributes for activation code ``activation_low + i`` and weight code ``weight_low + j``, with the
operand encoding already folded in. Every engine takes one, so no engine knows about encodings.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from axtrain.noise_models.multiplier import Multiplier


@dataclass(frozen=True, eq=False)
class CodeTable:
    """Products over two ranges of integer codes.

    Attributes:
        products: int32, shape (activation codes, weight codes), read-only.
        activation_low: smallest activation code, the one of row 0.
        weight_low: smallest weight code, the one of column 0.
    """

    products: np.ndarray
    activation_low: int
    weight_low: int
    _digest: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        products = np.array(self.products, dtype=np.int32)
        products.setflags(write=False)
        object.__setattr__(self, "products", products)
        key = products.tobytes() + f"{products.shape}{self.activation_low},{self.weight_low}".encode()
        object.__setattr__(self, "_digest", hashlib.sha256(key).hexdigest())

    def __hash__(self) -> int:
        return hash(self._digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CodeTable) and self._digest == other._digest

    @property
    def activation_codes(self) -> np.ndarray:
        """int64, the activation code of each row."""
        return self.activation_low + np.arange(self.products.shape[0], dtype=np.int64)

    @property
    def weight_codes(self) -> np.ndarray:
        """int64, the weight code of each column."""
        return self.weight_low + np.arange(self.products.shape[1], dtype=np.int64)

    @property
    def error(self) -> np.ndarray:
        """int64 ``E = products - a * b``, the circuit's error for each pair of codes."""
        return self.products.astype(np.int64) - np.outer(self.activation_codes, self.weight_codes)

    def restricted(
        self, *, activations: tuple[int, int] | None = None, weights: tuple[int, int] | None = None
    ) -> CodeTable:
        """The table over the codes that can occur, e.g. 0 .. 127 behind a ReLU or -127 .. 127 for symmetric weights.

        Rows and columns are left out, so the rank can only fall, and with it the number of products: the
        unsigned EvoApprox circuit JV3 under two sign-magnitude operands has rank 6, and 4 without the code -128.

        Args:
            activations: smallest and largest activation code, both included; `None` keeps all.
            weights: smallest and largest weight code, likewise.

        Raises:
            ValueError: a range that is empty or holds codes outside the table.

        Examples:
            >>> import axtrain as ax
            >>> table = CodeTable.plain(ax.multipliers.get("exact", signed=True))
            >>> table.restricted(activations=(0, 127), weights=(-127, 127)).products.shape
            (128, 255)
        """
        rows = _range("activations", activations, self.activation_low, self.products.shape[0])
        columns = _range("weights", weights, self.weight_low, self.products.shape[1])
        return CodeTable(
            self.products[rows, columns], self.activation_low + rows.start, self.weight_low + columns.start
        )

    @classmethod
    def plain(cls, multiplier: Multiplier) -> CodeTable:
        """The table over the operands' own values: 0 .. 2^n - 1, or -2^(n-1) .. 2^(n-1) - 1 when signed."""
        bits = (multiplier.activation_bits, multiplier.weight_bits)
        if not multiplier.signed:
            return cls(multiplier.table, 0, 0)
        half = [1 << (n - 1) for n in bits]
        return cls(np.roll(multiplier.table, half, axis=(0, 1)), -half[0], -half[1])

    @classmethod
    def encoded(cls, multiplier: Multiplier, *, activations: str, weights: str) -> CodeTable:
        """The table as a layer sees it, each operand's codes going through an encoding.

        With ``E = M - a b`` over raw words, the contribution of the pair of codes is

            ``T[a, b] = a b + s_a s_b E[raw(a), raw(b)]``

        - ``"plain"``: raw word = the code itself (two's complement if the table is signed), s = 1;
        - ``"sign_magnitude"`` (unsigned tables): codes -2^(n-1) .. 2^(n-1) - 1, raw = |code|, s is the
          sign bit as a factor, so s(0) = +1 and an error at M(0, b) is kept;
        - ``"offset"`` (unsigned tables): the same codes, raw = code + 2^(n-1), s = 1. The exact
          zero-point terms ``- z_b sum a - z_a sum b + K z_a z_b`` are thereby already taken off.

        Derived from section 1 of the theory page.

        Args:
            multiplier: the circuit.
            activations: the encoding of the first operand.
            weights: the encoding of the second operand.
        """
        raw_a, sign_a = _raw_words(multiplier.activation_bits, multiplier.signed, activations)
        raw_b, sign_b = _raw_words(multiplier.weight_bits, multiplier.signed, weights)
        codes_a = sign_a * raw_a if activations == "sign_magnitude" else _codes(raw_a, multiplier, activations, 0)
        codes_b = sign_b * raw_b if weights == "sign_magnitude" else _codes(raw_b, multiplier, weights, 1)
        error = multiplier.error[np.ix_(raw_a, raw_b)] * np.outer(sign_a, sign_b)
        return cls(np.outer(codes_a, codes_b) + error, int(codes_a[0]), int(codes_b[0]))


def _range(name: str, codes: tuple[int, int] | None, low: int, count: int) -> slice:
    """Where the codes of a range lie in a table's axis."""
    if codes is None:
        return slice(0, count)
    first, last = codes
    if not low <= first <= last <= low + count - 1:
        raise ValueError(
            f"`{name}` must be a range (low, high) within the table's codes, {low} .. {low + count - 1}; a table has "
            f"no products for other codes. Received: {name}={codes!r}"
        )
    return slice(first - low, last - low + 1)


def _raw_words(bits: int, signed: bool, encoding: str) -> tuple[np.ndarray, np.ndarray]:
    """Raw word and sign factor of every code, in ascending order of the codes."""
    half, count = 1 << (bits - 1), 1 << bits
    ascending = np.arange(count, dtype=np.int64)
    if encoding == "sign_magnitude":
        codes = ascending - half
        return np.abs(codes), np.where(codes < 0, -1, 1)
    if encoding == "offset" or not signed:
        return ascending, np.ones(count, np.int64)
    return (ascending - half) % count, np.ones(count, np.int64)


def _codes(raw: np.ndarray, multiplier: Multiplier, encoding: str, operand: int) -> np.ndarray:
    bits = (multiplier.activation_bits, multiplier.weight_bits)[operand]
    if encoding == "offset":
        return raw - (1 << (bits - 1))
    return (multiplier.activation_values, multiplier.weight_values)[operand][raw]


@lru_cache(maxsize=64)
def encoded_table(multiplier: Multiplier, activation_encoding: str, weight_encoding: str) -> CodeTable:
    """`CodeTable.encoded`, made once for each multiplier and pair of encodings."""
    return CodeTable.encoded(multiplier, activations=activation_encoding, weights=weight_encoding)


@lru_cache(maxsize=64)
def table_in_use(multiplier: Multiplier, encodings: tuple[str, str], activations, weights) -> CodeTable:
    """`encoded_table` over the codes that a layer can give it, made once.

    Args:
        multiplier: the circuit.
        encodings: of activations and weights.
        activations, weights: smallest and largest code of each.
    """
    return encoded_table(multiplier, *encodings).restricted(activations=activations, weights=weights)
