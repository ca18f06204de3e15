"""The native CPU engine (numba)."""
