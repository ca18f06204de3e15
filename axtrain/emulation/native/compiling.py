"""How the native engine's functions are compiled."""

from __future__ import annotations

import contextlib
import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from numba import njit


def compiled(function) -> Any:
    """Compiled without the global lock, and kept on disk where there is somewhere to keep it."""
    try:
        kernel: Any = njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError:  # no folder to write to
        return njit(nogil=True, error_model="numpy")(function)
    # Numba compiles anew when the function's own file has changed, but other files are compiled into it, too.
    with contextlib.suppress(AttributeError):
        file = kernel._cache._cache_file
        file._source_stamp = (file._source_stamp, sources_digest(Path(__file__).parent))
    return kernel


@lru_cache(maxsize=1)
def sources_digest(folder: Path) -> str:
    """A digest of all sources in a folder."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))).hexdigest()
