"""Which cells of a memory fail: a cell is a number, and fails where its number lies below the rate.

The number is a hash of (seed, cell), uniform on 31 bits, so cells fail independently with probability `rate`;
those that fail at one rate are among those that fail at any higher one, as in a chip whose supply falls; and
nothing about a chip is stored but its seed. It costs some 15 integer operations a cell, which XLA runs as one
pass over memory; drawing only the distances between faults costs as much at a rate of 1e-3 and more above it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .description import Part
from .fused import traced

MAX_WIDTH = 32
"""Most cells in one stored word."""

_CELL, _VALUE, _ROW, _COLUMN = range(4)  # what numbers are drawn for


@dataclass(frozen=True, kw_only=True)
class Clustering(Part):
    """Faults that come in rows and columns, as those of undervolted arrays do (arXiv 1912.00154).

    A cell fails where ``sqrt(1 - r - c) z_cell + sqrt(r) z_row + sqrt(c) z_column < Phi^-1(rate)`` with standard
    normal z: the rate of each cell is unchanged, and the faults still grow with it. Derived here (a Gaussian
    copula).

    Args:
        row_cells: cells in a row of the array; words lie side by side in it.
        rows, columns: shares r and c of the variance that a row's and a column's cells have in common, each in
            [0, 1), together below 1.

    Raises:
        ValueError: for arguments out of range.
    """

    row_cells: int
    rows: float = 0.0
    columns: float = 0.0

    _what = "clustering"

    def __post_init__(self) -> None:
        if isinstance(self.row_cells, bool) or not isinstance(self.row_cells, int) or self.row_cells < 1:
            raise ValueError(f"`row_cells` must be an int >= 1. Received: row_cells={self.row_cells!r}")
        shares = (self.rows, self.columns)
        if not all(isinstance(s, (int, float)) and 0 <= s < 1 for s in shares) or sum(shares) >= 1:
            raise ValueError(
                "`rows` and `columns` must be shares in [0, 1) that leave some to the cell: their sum below 1. "
                f"Received: rows={self.rows!r}, columns={self.columns!r}"
            )


def faulty_cells(
    shape: Any,
    width: int,
    words: Any,
    rates: Any,
    *,
    share_of_ones: float | None = None,
    address: int = 0,
    clustering: Clustering | None = None,
) -> tuple[Any, Any]:
    """The faulty cells of each stored word, and the value that a stuck cell holds.

    Args:
        shape: of the stored words: integers, or scalar tensors where the graph does not know them.
        width: cells in a word, 1 to `MAX_WIDTH`.
        words: the seed's two words, from `random_numbers.seed_words`.
        rates: probability that a cell is faulty, right to 2^-31: a number or a scalar tensor; or one for each
            cell of a word, lowest first.
        share_of_ones: probability that a faulty cell is stuck at one; `None` draws no values.
        address: of the first word in its memory.
        clustering: `None` for independent cells.

    Returns:
        `(faulty, ones)`: int32 tensors of shape `shape`; bit b of `faulty` is set where cell b fails, and of
        `ones` where its value is one (0 without `share_of_ones`).

    Raises:
        ValueError: for a width out of range, or not one rate for each cell.
    """
    from keras import ops

    from .random_numbers import positions

    if not 1 <= width <= MAX_WIDTH:
        raise ValueError(f"A stored word has 1 to {MAX_WIDTH} cells. Received: width={width!r}")
    each = list(rates) if isinstance(rates, (list, tuple)) else [rates] * width
    if len(each) != width:
        raise ValueError(f"`rates` must hold one rate for each of {width} cells. Received: {len(each)} rates")
    used = [bit for bit, rate in enumerate(each) if not (isinstance(rate, (int, float)) and rate == 0)]
    place = positions(shape)
    if not used:
        none = ops.reshape(ops.zeros_like(ops.cast(place, "int32")), shape)
        return none, none
    if isinstance(rates, (list, tuple)):
        rate = ops.stack([ops.cast(each[bit], "float32") for bit in used])
    else:
        rate = ops.cast(rates, "float32")
    keys = words, rate, ops.convert_to_tensor(np.uint32(address % 2**32))
    masks = traced(_masks, width, tuple(used), share_of_ones, clustering, rows=place, keys=keys)
    return tuple(ops.reshape(mask, shape) for mask in masks)


def _masks(width: int, used: Any, share_of_ones: Any, clustering: Any, place: Any, words: Any, rate: Any, address: Any):
    """`faulty_cells` of the words at some places: int32 tensors of one axis."""
    from keras import ops

    from .random_numbers import hashed

    # All cells at once, a row for each bit of the words: as one table of numbers it compiles soonest.
    first = (place + address) * ops.convert_to_tensor(np.uint32(width))
    cell = first[None] + ops.convert_to_tensor(np.array(used, np.uint32))[:, None]
    rate = rate[:, None] if len(rate.shape) else rate
    marks = ops.convert_to_tensor(np.array([_bit(bit) for bit in used], np.int32))[:, None]
    number = hashed(cell, words, _CELL)
    fails = below(number, rate) if clustering is None else _clustered(number, cell, words, rate, clustering)
    faulty = ops.sum(ops.where(fails, marks, 0), axis=0)
    if share_of_ones is None:
        return faulty, ops.zeros_like(faulty)
    return faulty, ops.sum(ops.where(below(hashed(cell, words, _VALUE), share_of_ones), marks, 0), axis=0)


def below(numbers: Any, rate: Any) -> Any:
    """Whether each 31-bit number lies in the lowest share `rate` of all.

    Args:
        numbers: int32 tensor, as `random_numbers.hashed` gives it.
        rate: number or float32 tensor in [0, 1] that broadcasts against it; both give the same answer.
    """
    from keras import ops

    rate = ops.cast(ops.convert_to_tensor(np.float32(rate)) if isinstance(rate, (int, float)) else rate, "float32")
    # The largest float32 below 2^31; at a rate of 1 no number may be left out.
    threshold = ops.cast(ops.minimum(rate * 2.0**31, 2.0**31 - 128), "int32")
    return ops.logical_or(numbers < threshold, rate >= 1.0)


def _clustered(number: Any, cell: Any, words: Any, rate: Any, clustering: Clustering) -> Any:
    from keras import ops

    # In float64: the float32 error function resolves no rate below 1e-6.
    wide = ops.cast(rate, "float64")
    level = _normal_quantile(wide)
    row_cells = ops.convert_to_tensor(np.uint32(clustering.row_cells))
    for share, line, purpose in (
        (clustering.rows, cell // row_cells, _ROW),
        (clustering.columns, cell % row_cells, _COLUMN),
    ):
        if share:
            level = level - math.sqrt(share) * _normal_of(line, words, purpose)
    left = math.sqrt(2.0 * (1.0 - clustering.rows - clustering.columns))
    threshold = 0.5 * (1.0 + ops.erf(level / left))
    fails = ops.cast(number, "float64") < threshold * 2.0**31
    return ops.logical_and(fails, wide > 0)


def _normal_of(line: Any, words: Any, purpose: int) -> Any:
    from keras import ops

    from .random_numbers import hashed

    return _normal_quantile((ops.cast(hashed(line, words, purpose), "float64") + 0.5) * 2.0**-31)


def _normal_quantile(probability: Any) -> Any:
    from keras import ops

    return math.sqrt(2.0) * ops.erfinv(2.0 * probability - 1.0)


def _bit(bit: int) -> int:
    return 1 << bit if bit < 31 else -(1 << 31)  # the top bit of an int32 is its sign


def flip(words: Any, faulty: Any) -> Any:
    """Words whose faulty cells are read inverted (int32 tensors of one shape): `words xor faulty`."""
    from keras import ops

    return ops.bitwise_xor(words, faulty)


def stuck(words: Any, faulty: Any, ones: Any) -> Any:
    """Words whose faulty cells are read as the value they hold: `(words and not faulty) or (ones and faulty)`."""
    from keras import ops

    kept = ops.bitwise_and(words, ops.bitwise_not(faulty))
    return ops.bitwise_or(kept, ops.bitwise_and(ones, faulty))
