"""Words: how a memory stores a signed integer code in n bits.

A fault hits a stored bit, not a number, so the encoding decides what a flip costs. The four encodings here:

===================  ==================================  ==============================================
encoding             word of code x                      codes it can represent
===================  ==================================  ==============================================
``twos_complement``  ``x mod 2^n``                       ``-2^(n-1) .. 2^(n-1) - 1``
``sign_magnitude``   ``|x|``, top bit set where x < 0    ``-(2^(n-1) - 1) .. 2^(n-1) - 1``
``offset``           ``x + 2^(n-1)``                     ``-2^(n-1) .. 2^(n-1) - 1``
``unsigned``         ``x``                               ``0 .. 2^n - 1``
===================  ==================================  ==============================================

Source: theory page, section 5 (encodings change resilience). Keras is imported only by the functions that
compute with tensors; the descriptions need NumPy alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

ENCODINGS = ("twos_complement", "sign_magnitude", "offset", "unsigned")
"""Names of the encodings."""

MAX_BITS = 16
"""Widest word: codes and words stay far inside int32."""


def check_word(bits: int, encoding: str) -> None:
    """Raises unless `bits` is an integer in 2..16 and `encoding` one of `ENCODINGS`.

    Raises:
        ValueError: otherwise.
    """
    if isinstance(bits, bool) or not isinstance(bits, (int, np.integer)) or not 2 <= bits <= MAX_BITS:
        raise ValueError(f"`bits` must be an integer from 2 to {MAX_BITS}. Received: bits={bits!r}")
    if encoding not in ENCODINGS:
        raise ValueError(f"`encoding` must be one of {', '.join(ENCODINGS)}. Received: encoding={encoding!r}")


def whole_codes(name: str, codes: Any, low: int = -(2**31), high: int = 2**31 - 1, of: str = "") -> Any:
    """Codes as an int32 tensor; NaN, infinity and fractions would be cast to codes that mean nothing.

    Args:
        name: what the error calls them.
        codes: Tensor or array, of an integer dtype or of floats that hold integers.
        low, high: Smallest and largest that is allowed.
        of: what has this range, as the error says it.

    Raises:
        ValueError: NaN, infinity, a fraction, or a code outside. In a graph of TensorFlow's, where values are not known
            yet, its `InvalidArgumentError` when it runs; XLA leaves that out.
    """
    import keras
    from keras import ops

    dtype = keras.backend.standardize_dtype(getattr(codes, "dtype", None) or np.asarray(codes).dtype)
    narrow = dtype in ("bool", "int8", "uint8", "int16", "uint16", "int32")
    if narrow and (low, high) == (-(2**31), 2**31 - 1):
        return ops.cast(codes, "int32")
    try:
        array = np.asarray(codes)
    except (NotImplementedError, TypeError, ValueError):  # a graph's tensor has no values yet
        return _whole_in_graph(name, codes, low, high, "int64" if "int" in dtype or dtype == "bool" else "float64")
    if array.dtype.kind not in "biu" and not (np.isfinite(array) & (array == np.rint(array))).all():
        raise ValueError(
            f"`{name}` must hold integer codes; quantise first, of finite values. Received: {dtype} values with NaN, "
            "infinity or fractions among them"
        )
    if array.size and (int(array.min()) < low or int(array.max()) > high):
        raise ValueError(
            f"`{name}` must lie in {low} .. {high}{of}. Received: values from {array.min()} to {array.max()}"
        )
    return ops.cast(codes, "int32")


def _whole_in_graph(name: str, codes: Any, low: int, high: int, wide: str) -> Any:
    import keras
    from keras import ops

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if tf.is_tensor(codes):
            values = tf.cast(codes, wide)
            sound = (values >= low) & (values <= high) & (tf.round(values) == values)
            told = [f"`{name}` must hold integer codes from {low} to {high}. Received: others among", codes]
            with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(sound), told)]):
                return tf.cast(codes, "int32")
    return ops.cast(codes, "int32")


def code_range(bits: int, encoding: str) -> tuple[int, int]:
    """Smallest and largest code that `encoding` represents in `bits` bits.

    Raises:
        ValueError: for `bits` outside 2..16 or an unknown encoding.

    >>> code_range(8, "sign_magnitude")
    (-127, 127)
    """
    check_word(bits, encoding)
    if encoding == "unsigned":
        return 0, 2**bits - 1
    half = 2 ** (bits - 1)
    return (1 - half if encoding == "sign_magnitude" else -half), half - 1


def encode(codes: Any, bits: int, encoding: str) -> Any:
    """Words that store `codes`.

    A code that does not fit wraps modulo `2^bits`, as a register would; in sign-magnitude it is clipped to
    `+-(2^(bits-1) - 1)` instead, so that the one code of a symmetric range too many, `-2^(bits-1)`, is stored
    as its neighbour.

    Args:
        codes: Tensor of any shape, of integers (an integer dtype, or a float dtype that holds integers).
        bits: Word length, 2 to 16.
        encoding: One of `ENCODINGS`.

    Returns:
        int32 tensor of the same shape, each in `0 .. 2^bits - 1`.

    Raises:
        ValueError: for `bits` outside 2..16, an unknown encoding, or codes that are no integers.
    """
    from keras import ops

    check_word(bits, encoding)
    codes = whole_codes("codes", codes)
    half = 2 ** (bits - 1)
    if encoding == "sign_magnitude":
        magnitude = ops.minimum(ops.abs(codes), half - 1)
        return ops.where(codes < 0, magnitude + half, magnitude)
    if encoding == "offset":
        codes = codes + half
    return ops.bitwise_and(codes, 2**bits - 1)


def decode(words: Any, bits: int, encoding: str) -> Any:
    """Codes that `words` store; `decode(encode(x)) == x` for every representable x.

    Sign-magnitude has two zeros; both are read as 0.

    Args:
        words: int32 tensor (or floats that hold integers) of any shape, each in `0 .. 2^bits - 1`.
        bits: Word length, 2 to 16.
        encoding: One of `ENCODINGS`.

    Returns:
        int32 tensor of the same shape.

    Raises:
        ValueError: for `bits` outside 2..16, an unknown encoding, or words that are no integers.
    """
    from keras import ops

    check_word(bits, encoding)
    words = whole_codes("words", words)
    half = 2 ** (bits - 1)
    if encoding == "sign_magnitude":
        magnitude = ops.bitwise_and(words, half - 1)
        return ops.where(words >= half, -magnitude, magnitude)
    if encoding == "offset":
        return words - half
    if encoding == "twos_complement":
        return ops.bitwise_xor(words, half) - half
    return words


def stored_bits(codes: Any, bits: int, encoding: str) -> np.ndarray:
    """The bits of `encode(codes, bits, encoding)`, in NumPy alone, lowest bit first.

    Args:
        codes: Array of integers, any shape S; in sign-magnitude `-2^(bits-1)` is stored as its neighbour.
        bits: Word length, 2 to 16.
        encoding: One of `ENCODINGS`.

    Returns:
        int64 array of shape S + (bits,), of zeros and ones.

    Raises:
        ValueError: for a bad word, or for codes that the encoding cannot represent.

    >>> stored_bits(-2, 3, "twos_complement").tolist()
    [0, 1, 1]
    """
    low, high = code_range(bits, encoding)
    given = np.asarray(codes)
    whole = np.rint(given.astype("float64")).astype("int64")
    lowest = low - 1 if encoding == "sign_magnitude" else low
    if whole.size and (np.any(whole != given) or whole.min() < lowest or whole.max() > high):
        raise ValueError(
            f"`codes` must be integers from {low} to {high} ({bits} bits, {encoding}); quantise or clip them "
            f"first. Received: codes from {given.min()} to {given.max()}"
        )
    if encoding == "sign_magnitude":
        words = np.minimum(np.abs(whole), high) + np.where(whole < 0, 2 ** (bits - 1), 0)
    elif encoding == "offset":
        words = whole + 2 ** (bits - 1)
    else:
        words = whole % 2**bits
    return words[..., None] >> np.arange(bits) & 1
