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
    for size, k, s, d in zip(a.shape[1:3], window, strides, dilation_rate, strict=True):
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


def contribution_table(circuit, activation_codes, weight_codes, encodings):
    """What each pair of codes adds to the accumulator, from the raw words and the exact corrections, pair by pair.

    `encodings` are the operands' ("plain", "sign_magnitude" or "offset"); codes are ranges of ints.
    """
    rows, columns = circuit.table.shape
    table = np.zeros((len(activation_codes), len(weight_codes)), np.int64)
    for i, a in enumerate(activation_codes):
        for j, b in enumerate(weight_codes):
            word_a, sign_a, zero_a = _word(a, encodings[0], circuit.activation_bits)
            word_b, sign_b, zero_b = _word(b, encodings[1], circuit.weight_bits)
            product = sign_a * sign_b * int(circuit.table[word_a % rows, word_b % columns])
            table[i, j] = product - zero_b * sign_a * word_a - zero_a * sign_b * word_b + zero_a * zero_b
    return table


def _word(code, encoding, bits):
    """(word, sign factor, zero point) with ``code = sign * word - zero point``; sign(0) is +1."""
    if encoding == "sign_magnitude":
        return abs(code), (-1 if code < 0 else 1), 0
    if encoding == "offset":
        return code + (1 << (bits - 1)), 1, 1 << (bits - 1)
    return code, 1, 0


def layer_accumulator(layer, x):
    """A hardware layer's accumulators by plain loops, and the scale that turns them into real numbers.

    Quantises in float32 NumPy from the layer's range and kernel, pads with the zero-point code, sums the
    contributions one by one, and takes off ``zero_point * sum w``.
    """
    hardware, state = layer.hardware, layer.hardware_state
    low, high = np.float32(state.low), np.float32(state.high)
    first, last = hardware.activation_codes
    if hardware.activations == "symmetric":
        a_scale, zero_point = max(abs(low), abs(high)) / np.float32(last), 0
    else:
        a_scale = (max(high, np.float32(0)) - min(low, np.float32(0))) / np.float32(last - first)
        zero_point = int(np.clip(np.round(first - min(low, np.float32(0)) / a_scale), first, last))
    a = np.clip(np.round(np.asarray(x, np.float32) / a_scale) + zero_point, first, last).astype(int)
    kernel, depthwise = np.asarray(layer.kernel), "Depthwise" in type(layer).__name__
    summed = tuple(range(kernel.ndim - (2 if depthwise else 1)))
    limit = (1 << (hardware.weight_bits - 1)) - 1
    w_scale = np.abs(kernel).max(axis=summed, keepdims=True) / np.float32(limit)
    w_scale = np.where(w_scale > 0, w_scale, np.float32(1))
    w = np.round(kernel / w_scale).astype(int)
    table = contribution_table(
        hardware.circuit,
        range(first, last + 1),
        range(-limit, limit + 1),
        hardware.operand_encodings,
    )
    sums = _layer_sums(layer, a - first, w + limit, table, zero_point - first)
    correction = zero_point * w.sum(axis=summed).reshape(-1)
    return sums - correction, a_scale * w_scale.reshape(-1)


def _layer_sums(layer, a, w, table, zero_index):
    """The layer's sum of products of table indices; 1D convolutions are 2D ones of height 1."""
    kind = type(layer).__name__
    if kind.endswith("Dense"):
        return matmul(a.reshape(-1, a.shape[-1]), w, table).reshape(*a.shape[:-1], w.shape[-1])
    options = {"padding": layer.padding, "zero_point": zero_index}
    if kind.endswith("Conv1D"):
        if layer.padding == "causal":
            left = layer.dilation_rate[0] * (w.shape[0] - 1)
            a = np.pad(a, [(0, 0), (left, 0), (0, 0)], constant_values=zero_index)
            options["padding"] = "valid"
        options |= {"strides": (1, *layer.strides), "dilation_rate": (1, *layer.dilation_rate)}
        return conv2d(a[:, None], w[None], table, **options)[:, 0]
    options |= {"strides": layer.strides, "dilation_rate": layer.dilation_rate}
    return (depthwise_conv2d if "Depthwise" in kind else conv2d)(a, w, table, **options)
