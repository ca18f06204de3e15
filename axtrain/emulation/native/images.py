"""From an image of real numbers to 16-bit words: codes, offsets of rows, or factors, with their padding around them."""

from __future__ import annotations

import numpy as np
from numba import njit

from axtrain.emulation.native.compiling import compiled

TAIL = 16  # words behind each image, which may be read with it and never count
_BEYOND = np.float32(2)
ROUND = np.float32(3 << 22)  # adding it leaves no bits for fractions: rounds to nearest, ties to even
_EXPONENT = np.int32(0x7F800000)  # all ones: an infinity or not a number


@njit(inline="always")
def quantised(value, scale, zero_point, low, high):
    """``clip(round(value / scale) + zero_point)``, float32; the lowest code for what is not a number."""
    # Clipped first, so that rounding by adding is in its range; a code beyond is clipped either way.
    ratio = value / scale
    code = min(ratio if ratio > low - zero_point - _BEYOND else low - zero_point - _BEYOND, high - zero_point + _BEYOND)
    return min(max((code + ROUND) - ROUND + zero_point, low), high)


@compiled
def quantise_image(values, bits, quantiser, gain, offset, storage, padded, corner, images):
    """Writes ``gain * code + offset`` of some images, and that of real zero around them.

    Args:
        values: float32 (B, H, W, C).
        bits: int32, the same memory.
        quantiser: float32 (scale, zero point, lowest code, highest code).
        gain, offset: int32.
        storage: uint16 (B, words of an image and its tail), written; the tail holds real zero as well.
        padded: (height, width) with the padding.
        corner: (top, left), where the image begins within its padding.
        images: (first, last) of this part.

    Returns:
        the smallest and the largest word, and whether every value is finite.
    """
    scale, zero_point, low, high = quantiser
    _, height, width, channels = values.shape
    top, left = corner
    gain, offset = np.int32(gain), np.int32(offset)
    zero = np.uint16(np.int32(zero_point) * gain + offset)
    smallest = largest = zero
    extreme = np.int32(0)
    for b in range(images[0], images[1]):
        image = storage[b, : padded[0] * padded[1] * channels].reshape((padded[0], padded[1], channels))
        storage[b, image.size :] = zero
        image[:top] = zero
        image[top + height :] = zero
        for y in range(height):
            row = image[top + y]
            row[:left] = zero
            row[left + width :] = zero
            source, words = values[b, y].reshape(width * channels), bits[b, y].reshape(width * channels)
            target = row[left : left + width].reshape(width * channels)
            for i in range(source.size):
                code = np.int32(quantised(source[i], scale, zero_point, low, high))
                target[i] = np.uint16(np.int32(np.int32(code * gain) + offset))  # vectors of 64 bits cost twice
            for i in range(source.size):
                smallest, largest = min(smallest, target[i]), max(largest, target[i])
                extreme = max(extreme, np.int32(words[i] & _EXPONENT))
    return smallest, largest, extreme != _EXPONENT


@compiled
def look_up_factors(codes, factors, storage, pixels, images):
    """Each code's factors: an image (pixels, r, C) of ``factors[r, code]`` for one (pixels, C) of codes.

    Args:
        codes: uint16 (B, words of an image and its tail), the number of a row of the table.
        factors: int16 (r, rows).
        storage: int16 (B, words of an image and its tail), written.
        pixels: of one image.
        images: (first, last) of this part.
    """
    rank, tail = factors.shape[0], TAIL
    channels = (codes.shape[1] - tail) // pixels
    for b in range(images[0], images[1]):
        storage[b, storage.shape[1] - tail :] = 0
        if rank == 1:  # the same order
            source, target, factor = codes[b, : pixels * channels], storage[b, : pixels * channels], factors[0]
            for i in range(source.size):
                target[i] = factor[source[i]]
            continue
        image = storage[b, : storage.shape[1] - tail].reshape((pixels, rank, channels))
        for p in range(pixels):
            source = codes[b, p * channels : (p + 1) * channels]
            for r in range(rank):
                factor, target = factors[r], image[p, r]
                for c in range(target.size):
                    target[c] = factor[source[c]]


@compiled
def quantise_factors(image, activation, factors, images):
    """From some images to their codes' factors.

    Args:
        image: what `quantise_image` takes, all but the images.
        activation: int16 (r, rows), each code's factors; (0, 0) where the image's words are the factors.
        factors: int16 (B, words of an image and its tail), written where there is `activation`.
        images: (first, last) of this part.

    Returns:
        whether every value is finite.
    """
    _, _, finite = quantise_image(*image, images)
    if activation.size:
        padded = image[6]
        look_up_factors(image[5], activation, factors, padded[0] * padded[1], images)
    return finite


@compiled
def pixel_offsets(steps, pixel_bytes, first, offsets):
    """The byte of the first word under the windows of outputs `first`, `first` + 1, ...

    Args:
        steps: ((output height, width), padded width, (row stride, column stride)).
        pixel_bytes: (of one pixel, of one image and its tail).
        first: output.
        offsets: int64, written.
    """
    (height, width), line_pixels, strides = steps
    x, line = first % width, first // width
    y, b = line % height, line // height
    for i in range(offsets.size):
        offsets[i] = b * pixel_bytes[1] + (y * strides[0] * line_pixels + x * strides[1]) * pixel_bytes[0]
        x += 1
        if x == width:
            x, y = 0, y + 1
            if y == height:
                y, b = 0, b + 1
