"""Plain integer loops, written to be obviously right: what every engine must equal with zero differences."""

import numpy as np


def matmul(a, b, table):
    """sum_k table[a_mk, b_kn], codes indexing the table as raw words."""
    total = np.zeros((a.shape[0], b.shape[1]), np.int64)
    for k in range(a.shape[1]):
        total += table[np.ix_(a[:, k], b[k])]
    return total


def pad(a, window, strides, dilation_rate, padding, value):
    if padding == "valid":
        return a
    pads = []
    for size, k, s, d in zip(a.shape[1:3], window, strides, dilation_rate):
        wanted = max((int(np.ceil(size / s)) - 1) * s + (k - 1) * d + 1 - size, 0)
        pads.append((wanted // 2, wanted - wanted // 2))
    return np.pad(a, [(0, 0), *pads, (0, 0)], constant_values=value)


def conv2d(a, b, table, strides=(1, 1), padding="valid", dilation_rate=(1, 1), zero_point=0):
    """One product at a time over batch, output position, window and channel, summed in int64."""
    kh, kw, channels, filters = b.shape
    a = pad(a, (kh, kw), strides, dilation_rate, padding, zero_point)
    height = (a.shape[1] - (kh - 1) * dilation_rate[0] - 1) // strides[0] + 1
    width = (a.shape[2] - (kw - 1) * dilation_rate[1] - 1) // strides[1] + 1
    out = np.zeros((a.shape[0], height, width, filters), np.int64)
    for y in range(height):
        for x in range(width):
            for i in range(kh):
                for j in range(kw):
                    row, column = y * strides[0] + i * dilation_rate[0], x * strides[1] + j * dilation_rate[1]
                    for c in range(channels):
                        out[:, y, x] += table[np.ix_(a[:, row, column, c], b[i, j, c])]
    return out


def depthwise_conv2d(a, b, table, strides=(1, 1), padding="valid", dilation_rate=(1, 1), zero_point=0):
    parts = [
        conv2d(a[..., c : c + 1], b[:, :, c : c + 1], table, strides, padding, dilation_rate, zero_point)
        for c in range(a.shape[-1])
    ]
    return np.concatenate(parts, axis=-1)
