"""Reading the CSV files of testers and tables."""

from __future__ import annotations

import csv
from collections.abc import Iterable


def rows_of(lines: Iterable[str]) -> csv.DictReader:
    """Rows by the names of the header line.

    Args:
        lines: of a file opened with ``newline=""`` and ``errors="replace"``. A NUL, as files that are no text hold,
            is replaced like the rest that is none: Python 3.10 would stop at it.

    Examples:
        >>> [row["rate"] for row in rows_of(["voltage, rate", "0.5, 0.01"])]
        ['0.01']
    """
    return csv.DictReader((line.replace("\0", "\N{REPLACEMENT CHARACTER}") for line in lines), skipinitialspace=True)
