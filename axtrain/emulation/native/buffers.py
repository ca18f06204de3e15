"""Memory for results, used again when TensorFlow lets go of it, and memory to work in.

TensorFlow takes a NumPy array as it is where it is aligned, and copies it otherwise; and new memory costs a
page fault for every 4 KiB. Both were a good part of a layer's time.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import numpy as np

_ALIGNMENT = 64
_KEPT = 32  # unused buffers of one size
_SIZES = 32  # sizes of which unused buffers are kept (chosen here: ResNet50's outputs have 12)


def aligned(shape: tuple[int, ...], dtype) -> np.ndarray:
    """A new array of zeros whose first byte lies at a multiple of 64."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    storage = np.zeros(size + _ALIGNMENT, np.uint8)
    start = -storage.ctypes.data % _ALIGNMENT
    return storage[start : start + size].view(dtype).reshape(shape)


def _rounded(size: int) -> int:
    """The size of the memory that is taken for so many bytes, one of four for each power of two.

    So batches of many sizes share a few buffers. What is not written costs no memory: the system gives it page by page.
    """
    step = 1 << max(size.bit_length() - 3, 0)
    return -(-size // step) * step


class Buffers:
    """Arrays that come back: what nobody holds any more is given out again, but for sizes long not asked for."""

    def __init__(self) -> None:
        self._free: dict[int, list[np.ndarray]] = {}

    def take(self, shape: tuple[int, ...], dtype) -> np.ndarray:
        """An aligned array; its values are anything."""
        size = _rounded(math.prod(shape) * np.dtype(dtype).itemsize)
        free = self._free.pop(size, None)
        free = [] if free is None else free
        self._free[size] = free  # the last in order; the first are the ones that were not asked for the longest
        if len(self._free) > _SIZES:
            with contextlib.suppress(KeyError, RuntimeError):  # another thread was faster
                del self._free[next(iter(self._free))]
        try:
            storage = free.pop()  # one step, so that threads need no lock
        except IndexError:
            storage = aligned((size,), np.uint8)
        # A view of the array holds the storage's owner, not the array: give out what owns every later view.
        return np.asarray(_Owned(storage, shape, np.dtype(dtype), free))


class Scratch:
    """Arrays to work in until the same name is asked for again, each in memory for the largest so far."""

    def __init__(self) -> None:
        self._storage: dict[str, np.ndarray] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype) -> np.ndarray:
        """An aligned array; its values are anything."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        storage = self._storage.get(name)
        if storage is None or storage.size < size:
            storage = self._storage[name] = aligned((size,), np.uint8)
        return storage[:size].view(dtype).reshape(shape)


class ScratchPool:
    """`Scratch` for one user at a time.

    Not one for each thread: TensorFlow's threads lose what Python keeps for them whenever they leave it.
    """

    def __init__(self) -> None:
        self.free: list[Scratch] = []

    @contextlib.contextmanager
    def borrowed(self) -> Iterator[Scratch]:
        """One that nobody else has, the last that was in use if it is free."""
        try:
            scratch = self.free.pop()  # one step, so that threads need no lock
        except IndexError:
            scratch = Scratch()
        try:
            yield scratch
        finally:
            self.free.append(scratch)


class _Owned:
    """Speaks NumPy's array interface, so that arrays made of it keep it alive; what it holds is free after it."""

    def __init__(self, storage: np.ndarray, shape: tuple[int, ...], dtype: np.dtype, free: list[np.ndarray]) -> None:
        self._storage, self._free = storage, free
        self.__array_interface__ = {
            "version": 3,
            "shape": shape,
            "typestr": dtype.str,
            "data": (storage.ctypes.data, False),
        }

    def __del__(self, kept: int = _KEPT) -> None:  # module names are gone when the interpreter ends
        if len(self._free) < kept:
            self._free.append(self._storage)
