"""Plain integer loops, written to be obviously right: what every engine must equal with zero differences."""

import functools

import numpy as np

import axtrain as ax
from axtrain.layers import playing


def circuit(name):
    """Tables of every kind: signed, unsigned, of low and of full rank, and two where M(0, b) is not 0."""
    a, b = np.meshgrid(np.arange(256), np.arange(256), indexing="ij")
    if name == "zero is not zero":  # rank 2
        return ax.Multiplier(a * b + 5 * b - 3 * a + 17, name=name, bits=8, signed=False)
    if name == "full rank":
        noise = np.random.default_rng(0).integers(-300, 900, (256, 256))
        return ax.Multiplier(a * b + noise, name=name, bits=8, signed=False)
    return ax.multipliers.get(name.removeprefix("signed "), signed=name.startswith("signed"))


# The low-rank engine is not meant for a table of full rank.
CIRCUITS_AND_ENGINES = [
    *((name, engine) for name in ("kulkarni", "signed drum4", "zero is not zero") for engine in ("low_rank", "gather")),
    ("full rank", "gather"),
]


def recorded(monkeypatch):
    """A list that gets (name of the state, accumulators) of every product played eagerly from now on."""
    seen, accumulate = [], playing.accumulate

    def recording(state, *arguments):
        sums = accumulate(state, *arguments)
        seen.append((state.name, np.asarray(sums)))
        return sums

    monkeypatch.setattr(playing, "accumulate", recording)
    return seen


def same(found, expected):
    """int32 accumulators with zero differences."""
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, expected)


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


def conv2d_transpose(a, w, table, layer, padding, zero_point):
    """Zeros between neighbours and around, then every window of the widened image with the flipped kernel."""
    kh, kw, _, channels = w.shape
    spread = np.full(
        (len(a), *((n - 1) * s + 1 for n, s in zip(a.shape[1:3], layer.strides, strict=True)), channels), zero_point
    )
    spread[:, :: layer.strides[0], :: layer.strides[1]] = a
    outputs, pads = layer.compute_output_shape((*a.shape,))[1:3], []
    for n, k, d, size in zip(spread.shape[1:3], (kh, kw), layer.dilation_rate, outputs, strict=True):
        reach = (k - 1) * d + 1
        # What the convolution that is transposed has padded, for an input of the output's size.
        taken = 0 if padding == "valid" else max(n - 1 + reach - size, 0) // 2
        before = reach - 1 - taken
        pads.append((before, size - 1 + reach - n - before))
    spread = np.pad(spread, [(0, 0), *pads, (0, 0)], constant_values=zero_point)
    return conv2d(spread, w[::-1, ::-1].swapaxes(2, 3), table, dilation_rate=layer.dilation_rate)


def einsum(equation, a, w, table):
    """Every term looked up and added, axis by axis."""
    inputs, kernel, output = _written_out(equation, a.ndim)
    sizes = dict(zip(inputs, a.shape, strict=True)) | dict(zip(kernel, w.shape, strict=True))
    total = np.zeros([sizes[axis] for axis in output], np.int64)
    summed = [axis for axis in inputs if axis in kernel]
    free = [axis for axis in output if axis in kernel]
    for where in np.ndindex(*(sizes[axis] for axis in summed + free)):
        at = dict(zip(summed + free, where, strict=True))
        rows = a[tuple(at.get(axis, slice(None)) for axis in inputs)]
        rest = [axis for axis in inputs if axis not in at]
        target = total[tuple(at.get(axis, slice(None)) for axis in output)]
        order = [rest.index(axis) for axis in output if axis not in at]
        target += table[rows, w[tuple(at[axis] for axis in kernel)]].transpose(order)
    return total


def _written_out(equation, rank):
    """(inputs, kernel, output) with a letter for each axis of an ellipsis."""
    inputs, kernel, output = equation.replace("->", ",").split(",")
    rows = "XYZUVW"[: rank - len(inputs.replace("...", ""))]
    return inputs.replace("...", rows), kernel, output.replace("...", rows)


def contribution_table(circuit, activation_codes, weight_codes, encodings):
    """What each pair of codes adds to the accumulator, from the raw words and the exact corrections.

    `encodings` are the operands' ("plain", "sign_magnitude" or "offset"); codes are ranges of ints.
    """
    rows, columns = circuit.table.shape
    a = [_word(code, encodings[0], circuit.activation_bits) for code in activation_codes]
    b = [_word(code, encodings[1], circuit.weight_bits) for code in weight_codes]
    (word_a, sign_a, zero_a), (word_b, sign_b, zero_b) = (np.array(words, np.int64).T for words in (a, b))
    word_a, sign_a, zero_a = word_a[:, None], sign_a[:, None], zero_a[:, None]
    product = sign_a * sign_b * circuit.table[word_a % rows, word_b % columns].astype(np.int64)
    return product - zero_b * sign_a * word_a - zero_a * sign_b * word_b + zero_a * zero_b


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
    hardware = layer.hardware
    a, a_scale, zero_point = activation_codes(layer.hardware_state, x)
    kernel = np.asarray(layer.kernel)
    summed = _summed_axes(layer, kernel.ndim)
    w, w_scale = weight_codes(hardware, kernel, summed)
    sums = _layer_sums(layer, a - hardware.activation_codes[0], w + _limit(hardware), *_table(hardware, zero_point))
    correction, scale = zero_point * w.sum(axis=summed), a_scale * w_scale.reshape(-1)
    if type(layer).__name__.endswith("EinsumDense"):  # the kernel's own axes may lie anywhere in the output
        _, kernel_axes, output = _written_out(layer.equation, np.ndim(x))
        letters = "".join(axis for axis in kernel_axes if axis in output)
        shape = [sums.shape[i] if axis in letters else 1 for i, axis in enumerate(output)]
        order = [letters.index(axis) for axis in output if axis in letters]
        correction = correction.transpose(order).reshape(shape)
        return sums - correction, (a_scale * w_scale).squeeze(summed).transpose(order).reshape(shape)
    return sums - correction.reshape(-1), scale


def activation_codes(state, x):
    """(codes, scale, zero point) in float32 NumPy from a `HardwareState`'s range."""
    hardware, low, high = state.hardware, np.float32(state.low), np.float32(state.high)
    first, last = hardware.activation_codes
    if hardware.activations == "symmetric":
        scale, zero_point = max(abs(low), abs(high)) / np.float32(last), 0
    else:
        scale = (max(high, np.float32(0)) - min(low, np.float32(0))) / np.float32(last - first)
        zero_point = int(np.clip(np.round(first - min(low, np.float32(0)) / scale), first, last))
    codes = np.clip(np.round(np.asarray(x, np.float32) / scale) + zero_point, first, last)
    return codes.astype(int), scale, zero_point


def weight_codes(hardware, kernel, summed):
    """(codes, scale), one scale for each combination of the axes that are not summed over, or the largest for all."""
    kernel, limit = np.asarray(kernel), np.float32(_limit(hardware))
    scale = np.abs(kernel).max(axis=summed, keepdims=True) / limit
    if hardware.quantisation.weight_scale == "per_tensor":
        scale = np.full_like(scale, scale.max())
    scale = np.where(scale > 0, scale, np.float32(1))
    return np.round(kernel / scale).astype(int), scale


def dense_product(state, x, kernel):
    """(accumulators, real values) of ``x @ kernel``; x (M, K), kernel (K, N) of weights."""
    w, w_scale = weight_codes(state.hardware, kernel, (0,))
    return _product(state, x, w, w_scale.reshape(-1))


def pair_product(state, x, second):
    """(accumulators, real values) of ``x @ second``, both activations with ranges of their own."""
    limit = _limit(state.hardware)
    largest = max(abs(np.float32(state.second.low)), abs(np.float32(state.second.high)))
    scale = largest / np.float32(limit)
    w = np.clip(np.round(np.asarray(second, np.float32) / scale), -limit, limit).astype(int)
    return _product(state, x, w, np.array([scale]))


def _product(state, x, w, w_scale):
    hardware = state.hardware
    a, a_scale, zero_point = activation_codes(state, x)
    table, _ = _table(hardware, zero_point)
    sums = matmul(a - hardware.activation_codes[0], w + _limit(hardware), table) - zero_point * w.sum(axis=0)
    return sums, sums.astype(np.float32) * (a_scale * w_scale)


def _limit(hardware):
    return (1 << (hardware.weight_bits - 1)) - 1


def _table(hardware, zero_point):
    """The contributions over all codes in use, and the row of the zero-point code."""
    first, last = hardware.activation_codes
    codes = range(first, last + 1), range(-_limit(hardware), _limit(hardware) + 1)
    return _cached_table(hardware.circuit, *codes, hardware.operand_encodings), zero_point - first


@functools.lru_cache(maxsize=32)
def _cached_table(*arguments):
    return contribution_table(*arguments)


def _shared(layer):
    """The axes of an einsum that inputs and kernel share."""
    inputs, kernel = layer.equation.split("->")[0].split(",")
    return set(inputs) & set(kernel)


def _summed_axes(layer, rank):
    kind = type(layer).__name__
    if kind.endswith("EinsumDense"):
        kernel = layer.equation.split("->")[0].split(",")[1]
        return tuple(i for i, axis in enumerate(kernel) if axis in _shared(layer))
    if kind.endswith("Transpose"):
        return (0, 1, 3)
    return tuple(range(rank - (2 if "Depthwise" in kind else 1)))


def _layer_sums(layer, a, w, table, zero_index):
    """The layer's sum of products of table indices; 1D convolutions are 2D ones of height 1."""
    kind = type(layer).__name__
    if kind.endswith("EinsumDense"):
        return einsum(layer.equation, a, w, table)
    if kind.endswith("Dense"):
        return matmul(a.reshape(-1, a.shape[-1]), w, table).reshape(*a.shape[:-1], w.shape[-1])
    options = {"padding": layer.padding, "zero_point": zero_index}
    if kind.endswith("Transpose"):
        return conv2d_transpose(a, w, table, layer, **options)
    if kind.endswith("Conv1D"):
        if layer.padding == "causal":
            left = layer.dilation_rate[0] * (w.shape[0] - 1)
            a = np.pad(a, [(0, 0), (left, 0), (0, 0)], constant_values=zero_index)
            options["padding"] = "valid"
        options |= {"strides": (1, *layer.strides), "dilation_rate": (1, *layer.dilation_rate)}
        return conv2d(a[:, None], w[None], table, **options)[:, 0]
    options |= {"strides": layer.strides, "dilation_rate": layer.dilation_rate}
    return (depthwise_conv2d if "Depthwise" in kind else conv2d)(a, w, table, **options)
