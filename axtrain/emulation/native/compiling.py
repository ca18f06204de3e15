"""How the native engine's functions are compiled."""

from __future__ import annotations

from typing import Any

from numba import njit


def compiled(function) -> Any:
    """Compiled without the global lock, and kept on disk where there is somewhere to keep it."""
    try:
        return njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError:  # no folder to write to
        return njit(nogil=True, error_model="numpy")(function)
