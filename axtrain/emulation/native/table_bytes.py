"""A table as byte planes: what the native engine's permutes look up in. NumPy alone.

Column w holds ``T[:, w] - centre[w]`` as signed 16-bit words, split into low and high bytes and indexed by
the activation code's own byte (two's complement). A column that spans more than 16 bits takes a second
plane: ``T - centre = plane_0 + 2^16 plane_1``.
"""

from __future__ import annotations

import numpy as np

from axtrain.emulation.code_table import CodeTable
from axtrain.emulation.native.buffers import aligned

ROWS = 256  # a byte indexes no more
COLUMN_BYTES = 2 * ROWS


class TableBytes:
    """The byte planes of one table.

    Args:
        table: the products over the codes in use, at most 256 activation codes.

    Attributes:
        planes: uint8, shape (planes, weight codes + 1, 512), 64-byte aligned; the last column is all zero.
        centres: int64, (weight codes,): what was taken off each column.
        zero_column: the index of the zero column, which fills up an odd number of rows.
        columns: int32, (planes, weight codes + 1, 256): the same words, for CPUs without byte permutes.
    """

    def __init__(self, table: CodeTable) -> None:
        low, count = table.activation_low, table.products.shape[0]
        if count > ROWS:
            raise ValueError(
                f"The native engine indexes by one byte, so at most {ROWS} activation codes; use another engine. "
                f"Received: {count} codes"
            )
        values = np.zeros((table.products.shape[1] + 1, ROWS), np.int64)
        places = (low + np.arange(count)) & (ROWS - 1)
        values[:-1, places] = table.products.T
        smallest, largest = table.products.min(axis=0), table.products.max(axis=0)
        # Centred columns fit 16 bits wherever their span does.
        centres = (smallest.astype(np.int64) + largest + 1) // 2
        values[:-1, places] -= centres[:, None]
        self.centres = centres
        self.zero_column = len(centres)
        words: list[np.ndarray] = []
        while not words or values.any():
            word = ((values + (1 << 15)) & 0xFFFF) - (1 << 15)
            words.append(word)
            values = (values - word) >> 16
        self.columns = np.array(words, np.int32)
        self.planes = aligned((len(words), len(centres) + 1, COLUMN_BYTES), np.uint8)
        self.planes[..., :ROWS] = self.columns & 0xFF
        self.planes[..., ROWS:] = (self.columns >> 8) & 0xFF
