"""Where the operands of a product lie in memory: the image, its windows, and runs of terms side by side."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from axtrain.emulation.geometry import Dense
from axtrain.emulation.native.images import TAIL


@dataclass(frozen=True)
class Places:
    """A product as a convolution of an image (B, H, W, C), which a dense one is too.

    Attributes:
        shape: (B, H, W, C).
        window, strides, dilation: (rows, columns).
        corner: (top, left), where the image begins within its padding.
        padded: (height, width) with the padding.
        sizes: (height, width) of the output.
        channels: of the output.
        depthwise: whether each output channel meets one channel of the image.
        skips: (rows, columns), of how many values one is in the image: a stride that passes over the others.
    """

    shape: tuple[int, ...]
    window: tuple[int, ...]
    strides: tuple[int, int]
    dilation: tuple[int, int]
    corner: tuple[int, int]
    padded: tuple[int, int]
    sizes: tuple[int, int]
    channels: int
    depthwise: bool
    skips: tuple[int, ...] = (1, 1)

    @property
    def pixels(self) -> int:
        """Of the output, all images together."""
        return self.shape[0] * self.sizes[0] * self.sizes[1]

    @property
    def inputs(self) -> int:
        """Pixels of the image, all images together."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    @property
    def taps(self) -> int:
        """Of the window."""
        return self.window[0] * self.window[1]

    @property
    def taps_of_a_run(self) -> int:
        """Neighbouring taps lie side by side in memory, unless the window is dilated."""
        return self.window[1] if self.dilation[1] == 1 else 1

    @property
    def terms(self) -> int:
        """How many products one output sums."""
        return self.taps * (1 if self.depthwise else self.shape[3])

    @property
    def steps(self) -> tuple[tuple[int, int], int, tuple[int, int]]:
        """What `images.pixel_offsets` takes: output sizes, padded width, strides."""
        return self.sizes, self.padded[1], self.strides

    def pixel_bytes(self, rank: int = 1) -> tuple[int, int]:
        """Of one pixel of `rank` words for each channel, and of one image and its tail."""
        pixel = 2 * rank * self.shape[3]
        return pixel, self.padded[0] * self.padded[1] * pixel + 2 * TAIL

    def offsets(self, places: np.ndarray) -> np.ndarray:
        """int64, the byte of each pixel's first word, for numbers of pixels of the padded images."""
        pixel, image = self.pixel_bytes()
        batch, place = np.divmod(places, self.padded[0] * self.padded[1])
        return batch * image + place * pixel

    @cached_property
    def tap_places(self) -> np.ndarray:
        """int64 (taps,), the pixel of each tap, counted from the window's first."""
        rows, columns = (np.arange(n) * d for n, d in zip(self.window, self.dilation, strict=True))
        return (rows[:, None] * self.padded[1] + columns).reshape(-1)

    @cached_property
    def run_places(self) -> np.ndarray:
        """int64 (runs,), the pixel of each run's first tap, counted from the window's first."""
        return np.ascontiguousarray(self.tap_places[:: self.taps_of_a_run])

    def window_places(self) -> np.ndarray:
        """int64 (pixels,), the pixel of the padded image under each output's window's first tap."""
        batch, rows, columns = (
            np.arange(n) * step
            for n, step in zip(
                (self.shape[0], *self.sizes),
                (self.padded[0] * self.padded[1], self.strides[0] * self.padded[1], self.strides[1]),
                strict=True,
            )
        )
        return (batch[:, None, None] + rows[:, None] + columns).reshape(-1)

    def inputs_of_taps(self) -> tuple[np.ndarray, np.ndarray]:
        """Which pixels of the padded image differ, int64 (n,), and which of these each tap of an output meets.

        All of the padding is one pixel.
        """
        batch, height, width, _ = self.shape
        (top, left), (rows, columns) = self.corner, self.padded
        numbers = np.arange(batch * rows * columns).reshape(batch, rows, columns)
        inner = (slice(None), slice(top, top + height), slice(left, left + width))
        met, found = np.full(numbers.shape, self.inputs), numbers[inner].reshape(-1)
        met[inner] = np.arange(self.inputs).reshape(batch, height, width)
        if found.size < numbers.size:
            found = np.append(found, 0 if top or left else numbers.size - 1)
        return found, met.reshape(-1)[self.window_places()[:, None] + self.tap_places]

    def image_of(self, values: np.ndarray) -> np.ndarray:
        """A product's activations as its image (B, H, W, C), contiguous."""
        if max(self.skips) > 1:
            values = values.reshape(len(values), -1, *values.shape[-2:])[:, :: self.skips[0], :: self.skips[1]]
        return np.ascontiguousarray(values).reshape(self.shape)

    def spoil(self, image: np.ndarray, outputs: np.ndarray) -> None:
        """Writes NaN into the outputs (pixels, channels) that values enter which are not finite."""
        bad = ~np.isfinite(image)
        if not self.depthwise:
            bad = bad.any(axis=-1, keepdims=True)
        found = _windows_with(bad, self).reshape(self.pixels, -1)
        outputs[np.repeat(found, self.channels // found.shape[1], axis=1)] = np.nan


@lru_cache(maxsize=256)
def places_of(geometry, shape: tuple[int, ...], kernel: tuple[int, ...]) -> Places:
    """The places of a product.

    Args:
        geometry: a `Dense` or `Convolution` of one or two spatial axes.
        shape: of the activations.
        kernel: the shape of the weights.
    """
    one = (1, 1)
    if isinstance(geometry, Dense):
        rows = int(np.prod(shape[:-1]))
        return Places((rows, 1, 1, kernel[0]), one, one, one, (0, 0), one, one, kernel[-1], False)
    window, strides, dilation = kernel[:-2], geometry.strides, geometry.dilation_rate
    pads, sizes = geometry.pads(shape[1:-1], window), shape[1:-1]
    skips = (1,) * len(strides)
    if max(window) == 1 and not np.any(pads):  # what the stride passes over is never needed
        sizes = tuple(-(-size // step) for size, step in zip(sizes, strides, strict=True))
        skips, strides = strides, skips
    if len(window) == 1:  # one row of pixels
        window, strides, dilation, skips = ((1, *axis) for axis in (window, strides, dilation, skips))
        pads, sizes = [(0, 0), *pads], (1, *sizes)
    padded = tuple(size + sum(pad) for size, pad in zip(sizes, pads, strict=True))
    outputs = tuple(
        (p - (k - 1) * d - 1) // s + 1 for p, k, d, s in zip(padded, window, dilation, strides, strict=True)
    )
    return Places(
        shape=(shape[0], *sizes, shape[-1]),
        window=tuple(window),
        strides=tuple(strides),
        dilation=tuple(dilation),
        corner=(pads[0][0], pads[1][0]),
        padded=padded,
        sizes=outputs,
        channels=kernel[-1] * (kernel[-2] if geometry.depthwise else 1),
        depthwise=geometry.depthwise,
        skips=tuple(skips),
    )


def _windows_with(bad: np.ndarray, places: Places) -> np.ndarray:
    """bool (B, *sizes, C'): which windows of a padded image hold a True."""
    (top, left), (height, width) = places.corner, bad.shape[1:3]
    below, right = places.padded[0] - top - height, places.padded[1] - left - width
    bad = np.pad(bad, [(0, 0), (top, below), (left, right), (0, 0)])
    found = np.zeros((bad.shape[0], *places.sizes, bad.shape[3]), bool)
    for i, j in np.ndindex(*places.window):
        rows, columns = (
            slice(tap * d, tap * d + (size - 1) * s + 1, s)
            for tap, d, size, s in zip((i, j), places.dilation, places.sizes, places.strides, strict=True)
        )
        found |= bad[:, rows, columns]
    return found
