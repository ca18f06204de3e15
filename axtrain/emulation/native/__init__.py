"""The native CPU engine (extra `numba`)."""
