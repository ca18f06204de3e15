"""Reading the CSV files of testers and tables."""

from __future__ import annotations

import csv
from collections.abc import Iterable


class _Rows(csv.DictReader):
    """Rows without further cells than the header line has columns; empty ones, as spreadsheets leave, do no harm."""

    def __next__(self):
        row = super().__next__()
        if any(row.get(None, ())):
            raise ValueError(
                f"Line {self.line_num} has more cells than the header line has columns; write decimal points, not "
                f"commas. Received: {row[None]!r} behind {', '.join(self.fieldnames or ())}"
            )
        return row


def rows_of(lines: Iterable[str]) -> csv.DictReader:
    """Rows by the names of the header line.

    Args:
        lines: of a file opened with ``newline=""`` and ``errors="replace"``. A NUL, as files that are no text hold,
            is replaced like the rest that is none: Python 3.10 would stop at it.

    Raises:
        ValueError: a column that stands twice; as rows are read, one of more cells than there are columns.

    Examples:
        >>> [row["rate"] for row in rows_of(["voltage, rate", "0.5, 0.01"])]
        ['0.01']
    """
    rows = _Rows((line.replace("\0", "\N{REPLACEMENT CHARACTER}") for line in lines), skipinitialspace=True)
    names = [name for name in rows.fieldnames or () if name]
    if len(set(names)) < len(names):
        raise ValueError(f"A column may stand once in a header line. Received: {', '.join(names)}")
    return rows
