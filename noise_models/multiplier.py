"""The multiplier: a table of products over raw operand codes, with its error metrics and identity."""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import os
import zlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .circuits import operand_widths
from .description import Description
from .metrics import ErrorMetrics, error_metrics
from .table_conventions import check_convention
from .table_files import LARGEST_TABLE_BITS, read_table, write_table


def code_values(bits: int, signed: bool) -> np.ndarray:
    """The number each raw code stands for, int64 of shape ``(2^bits,)``; two's complement when signed.

    >>> code_values(2, signed=True).tolist()
    [0, 1, -2, -1]
    """
    codes = np.arange(2**bits, dtype=np.int64)
    return np.where(codes >= 2 ** (bits - 1), codes - 2**bits, codes) if signed else codes


def _as_table(table: Any, widths: tuple[int, int]) -> np.ndarray:
    """Check a table's shape and values; return it as a new read-only int32 array."""
    array = np.asarray(table)
    shape = (2 ** widths[0], 2 ** widths[1])
    if array.shape != shape:
        raise ValueError(
            f"`table` must have shape {shape} for operands of {widths[0]} (activation) and {widths[1]} "
            f"(weight) bits; transpose it where the weight comes first, or give the `bits` of its operands. "
            f"Received: table.shape={array.shape}"
        )
    if array.dtype.kind not in "iuf":
        raise ValueError(f"`table` must hold integers. Received: table.dtype={array.dtype}")
    if array.dtype.kind == "f":
        wrong = array[~(np.isfinite(array) & (array == np.rint(array)))]
        if wrong.size:
            raise ValueError(
                f"`table` must hold integers; {wrong.size} entries are not. Round them if that is what the "
                f"circuit does. Received: {wrong.flat[0]}"
            )
    limits = np.iinfo(np.int32)
    if array.min() < limits.min or array.max() > limits.max:
        raise ValueError(
            f"`table` must hold products that fit 32 bits, {limits.min}..{limits.max}; check its data type "
            f"and byte order. Received: products in {array.min()}..{array.max()}"
        )
    array = array.astype(np.int32, order="C", copy=True)
    array.flags.writeable = False
    return array


class Multiplier(Description):
    """An approximate (or exact) hardware multiplier, described by the product of every operand pair.

    The circuit computes ``M[a, b]`` on the raw operand codes, activation first; its error is
    ``E = M - a*b`` (theory page, section 1). Immutable, hashable, and safe to share.

    Args:
        table: integers of shape ``(2^activation_bits, 2^weight_bits)``, indexed by raw code (two's complement
            when signed). Floats are accepted if every value is whole. Kept as a read-only int32 copy.
        name: what the circuit is called, with the library's release where names are reused.
        bits: width of both operands, or the pair ``(activation_bits, weight_bits)``; each 2..10.
        signed: whether operands are signed (two's complement codes).
        power: power relative to the exact circuit of the same library (1.0), or None where unknown.
        source: where the table comes from: a paper, a library and its release.
        check: refuse a table that another convention brings far nearer to the product: raw words for signed
            products, codes in the order of their values, the other signedness. Exchanged operands of one width
            cannot be seen: know which comes first.

    Attributes:
        table: the products, read-only int32.
        name: see the argument.
        bits: the width if both are equal, else the pair.
        activation_bits: width of the first operand.
        weight_bits: width of the second operand.
        signed: see the argument.
        power: see the argument.
        source: see the argument; not part of the identity that ``==`` and ``hash`` compare.

    Raises:
        ValueError: if an argument is not as described, or the table looks like one in another convention.

    >>> import numpy as np
    >>> values = np.arange(4)
    >>> multiplier = Multiplier(np.outer(values, values), name="exact", bits=2, signed=False)
    >>> multiplier.is_exact, multiplier.table[3, 2].item()
    (True, 6)
    """

    table: np.ndarray
    name: str
    bits: int | tuple[int, int]
    activation_bits: int
    weight_bits: int
    signed: bool
    power: float | None
    source: str | None
    _family: str | None

    def __init__(
        self,
        table: Any,
        *,
        name: str,
        bits: int | tuple[int, int],
        signed: bool,
        power: float | None = None,
        source: str | None = None,
        check: bool = True,
    ):
        if not isinstance(name, str) or not name:
            raise ValueError(f"`name` must be a string that is not empty. Received: name={name!r}")
        if not isinstance(signed, (bool, np.bool_)):
            raise ValueError(f"`signed` must be True or False. Received: signed={signed!r}")
        if source is not None and not isinstance(source, str):
            raise ValueError(f"`source` must be a string or None. Received: source={source!r}")
        if power is not None:
            numeric = isinstance(power, (int, float, np.integer, np.floating)) and not isinstance(power, bool)
            if not numeric or not math.isfinite(power) or power <= 0:
                raise ValueError(
                    "`power` must be a positive number relative to the exact circuit's (1.0), or None where "
                    f"it is unknown. Received: power={power!r}"
                )
        widths = operand_widths(bits, largest=LARGEST_TABLE_BITS)
        products = _as_table(table, widths)
        if check:
            check_convention(products, widths, bool(signed))
        # Straight into __dict__, since __setattr__ refuses.
        vars(self).update(
            table=products,
            name=name,
            bits=widths[0] if widths[0] == widths[1] else widths,
            activation_bits=widths[0],
            weight_bits=widths[1],
            signed=bool(signed),
            power=None if power is None else float(power),
            source=source,
            _family=None,  # set by the registry, for a circuit that it can compute again
        )

    def __setattr__(self, attribute: str, value: Any) -> None:
        raise AttributeError(f"A Multiplier cannot be changed; make a new one. Received: {attribute}={value!r}")

    @cached_property
    def activation_values(self) -> np.ndarray:
        """The number each activation code stands for, read-only int64 of shape ``(2^activation_bits,)``."""
        return _read_only(code_values(self.activation_bits, self.signed))

    @cached_property
    def weight_values(self) -> np.ndarray:
        """The number each weight code stands for, read-only int64 of shape ``(2^weight_bits,)``."""
        return _read_only(code_values(self.weight_bits, self.signed))

    @property
    def error(self) -> np.ndarray:
        """The error ``E = M - a*b``, int64 of the table's shape; computed anew at each call."""
        return self.table - np.multiply.outer(self.activation_values, self.weight_values)

    @cached_property
    def _metrics(self) -> ErrorMetrics:
        return error_metrics(self.table, self.activation_values, self.weight_values, self.signed)

    def metrics(self) -> ErrorMetrics:
        """The error metrics over all operand pairs; computed once. See `ErrorMetrics` for their units."""
        return self._metrics

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of widths, signedness and table: the identity of the circuit's function."""
        header = f"{self.activation_bits}x{self.weight_bits}{'s' if self.signed else 'u'}:"
        return hashlib.sha256(header.encode("ascii") + self.table.astype("<i4").tobytes()).hexdigest()

    @cached_property
    def is_exact(self) -> bool:
        """Whether every product is exact."""
        return not self.error.any()

    @cached_property
    def is_symmetric(self) -> bool:
        """Whether operands may be exchanged: ``M[a, b] = M[b, a]`` (never, for different widths)."""
        return np.array_equal(self.table, self.table.T)

    @cached_property
    def preserves_zero(self) -> bool:
        """Whether a zero operand gives zero. If not, padding contributes ``M[code of zero, w]``, not 0."""
        return not self.table[0].any() and not self.table[:, 0].any()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Multiplier):
            return NotImplemented
        return (self.name, self.power, self.digest) == (other.name, other.power, other.digest)

    def __hash__(self) -> int:
        return hash((self.name, self.power, self.digest))

    def __repr__(self) -> str:
        metrics = self.metrics()
        errors = (
            f"MAE {metrics.mae_percent:.3g} %, WCE {metrics.wce_percent:.3g} %, "
            f"MRE {100 * metrics.mre:.3g} %, bias {metrics.bias:.4g}"
        )
        errors = "exact" if self.is_exact else errors
        power = "unknown" if self.power is None else f"{self.power:.3g} of exact"
        widths = f"{self.activation_bits}x{self.weight_bits}"
        sign = "signed" if self.signed else "unsigned"
        return f"<Multiplier {self.name!r}: {widths} bits {sign}, {errors}, power {power}>"

    def __reduce__(self):
        # Copies and processes get a read-only table and checked values again, as the constructor gives.
        return Multiplier.from_dict, (self.to_dict(),)

    def to_dict(self) -> dict[str, Any]:
        """Describe the multiplier by JSON's types, for `from_dict`.

        A circuit of a built-in family (from `axtrain.multipliers.get`) is named, any other one is stored with
        its table: base64 of the zlib-compressed little-endian int32 products.
        """
        description: dict[str, Any] = {
            "name": self.name,
            "bits": self.bits if isinstance(self.bits, int) else list(self.bits),
            "signed": self.signed,
            "power": self.power,
            "source": self.source,
            "digest": self.digest,
        }
        if self._family is not None:
            return {"family": self._family, **description}
        compressed = zlib.compress(self.table.astype("<i4").tobytes(), 9)
        return {**description, "table": base64.b64encode(compressed).decode("ascii")}

    @classmethod
    def from_dict(cls, description: Mapping[str, Any]) -> Multiplier:
        """Rebuild the multiplier that `to_dict` described.

        Raises:
            ValueError: if the description is incomplete or damaged, or the rebuilt table is not the one
                described (its digest differs).
        """
        missing = {"name", "bits", "signed", "digest"} - set(description)
        if missing or ("family" in description) == ("table" in description):
            raise ValueError(
                "A multiplier's description needs name, bits, signed, digest, and either family or table; "
                f"write it with Multiplier.to_dict(). Received: keys {sorted(description)}"
            )
        bits = description["bits"]
        widths = operand_widths(tuple(bits) if isinstance(bits, list) else bits, largest=LARGEST_TABLE_BITS)
        if "family" in description:
            # Within the function, because the registry builds Multipliers and so imports this module.
            from .multipliers import get

            family = get(description["family"], bits=widths, signed=description["signed"])
            table = family.table
        else:
            family, table = None, _decompressed(description["table"], widths)
        multiplier = cls(
            table,
            name=description["name"],
            bits=widths,
            signed=description["signed"],
            power=description.get("power"),
            source=description.get("source"),
            check=False,  # it was, or was insisted on, when the described one was made
        )
        vars(multiplier)["_family"] = None if family is None else family._family
        if multiplier.digest != description["digest"]:
            raise ValueError(
                f"The table of multiplier {multiplier.name!r} is not the one that was described: its digest "
                f"is {multiplier.digest}. The description was edited, or comes from a version that computes "
                f"this circuit differently; describe it again. Received: digest={description['digest']!r}"
            )
        return multiplier

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        signed: bool,
        bits: int | tuple[int, int] = 8,
        name: str | None = None,
        power: float | None = None,
        source: str | None = None,
        check: bool = True,
    ) -> Multiplier:
        """Load a table from a ``.npy``, ``.npz``, ``.csv``, ``.bin``, ``.c`` or ``.h`` file.

        The formats are described at `axtrain.noise_models.table_files.read_table`; the arguments are the
        constructor's, `name` being the file's name without suffix if None.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the file does not hold exactly one table of this shape, or one that looks like a table
                in another convention, which `check=False` takes as it is.
        """
        table, name = read_table(path, bits, signed), name or Path(path).stem
        return cls(table, name=name, bits=bits, signed=signed, power=power, source=source, check=check)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the table (alone) as ``.npy``, ``.npz``, ``.csv`` or ``.bin``, whole or not at all.

        Raises:
            ValueError: if the suffix is not one of these, or the products do not fit a ``.bin`` file's words.
        """
        write_table(path, self.table, self.bits, self.signed)

    def plot(self) -> Any:
        """A matplotlib `Figure`: the error of every pair of operands as a map, and the errors' histogram."""
        from .multiplier_picture import multiplier_figure

        return multiplier_figure(self)


def _read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def _decompressed(text: Any, widths: tuple[int, int]) -> np.ndarray:
    """Undo `to_dict`'s encoding; never decompresses more than the table's own size."""
    shape = (2 ** widths[0], 2 ** widths[1])
    expected = 4 * math.prod(shape)
    decompressor = zlib.decompressobj()
    try:
        data = decompressor.decompress(base64.b64decode(text, validate=True), expected + 1)
    except (binascii.Error, zlib.error, TypeError, ValueError) as error:
        raise ValueError(
            "The description's table is damaged: it must be base64 of zlib-compressed products, as "
            f"Multiplier.to_dict() writes it. Received: {error}"
        ) from error
    if len(data) != expected or not decompressor.eof or decompressor.unused_data:
        received = f"more than {expected}" if len(data) > expected else f"{len(data)}"
        raise ValueError(
            f"The description's table must decompress to {expected} bytes for bits={widths}; describe it "
            f"again with Multiplier.to_dict(). Received: {received} bytes, or a stream cut short or too long"
        )
    return np.frombuffer(data, "<i4").reshape(shape)
