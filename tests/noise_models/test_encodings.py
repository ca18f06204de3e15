"""Words and codes: round trips, and the layouts themselves."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from axtrain.noise_models.encodings import ENCODINGS, code_range, decode, encode, stored_bits


def all_codes(bits, encoding):
    low, high = code_range(bits, encoding)
    return np.arange(low, high + 1, dtype="int32")


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("bits", [2, 3, 5, 8, 10, 16])
def test_every_code_survives_the_round_trip(bits, encoding):
    codes = all_codes(bits, encoding)
    words = keras.ops.convert_to_numpy(encode(codes, bits, encoding))
    back = decode(words, bits, encoding)
    assert words.dtype == np.int32 and words.min() >= 0 and words.max() < 2**bits
    assert len(set(words.tolist())) == codes.size
    assert keras.backend.standardize_dtype(back.dtype) == "int32"
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(back), codes)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_word_has_a_code_that_maps_back(encoding):
    words = np.arange(256, dtype="int32")
    codes = decode(words, 8, encoding)
    again = keras.ops.convert_to_numpy(encode(codes, 8, encoding))
    expected = words.copy()
    if encoding == "sign_magnitude":
        expected[128] = 0  # the second zero
    np.testing.assert_array_equal(again, expected)


def test_layouts():
    codes = np.array([-3, -1, 0, 1, 3])
    words = {e: np.asarray(encode(codes, 3, e)).tolist() for e in ENCODINGS[:3]}
    assert words == {
        "twos_complement": [0b101, 0b111, 0b000, 0b001, 0b011],
        "sign_magnitude": [0b111, 0b101, 0b000, 0b001, 0b011],
        "offset": [0b001, 0b011, 0b100, 0b101, 0b111],
    }
    assert np.asarray(encode([0, 5, 7], 3, "unsigned")).tolist() == [0, 5, 7]


def test_codes_that_do_not_fit():
    assert np.asarray(encode([-128, 200, -200], 8, "sign_magnitude")).tolist() == [255, 127, 255]
    assert np.asarray(encode([128, -129], 8, "twos_complement")).tolist() == [128, 127]
    assert np.asarray(encode([256, -1], 8, "unsigned")).tolist() == [0, 255]
    assert np.asarray(encode([128], 8, "offset")).tolist() == [0]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("dtype", ["int32", "int8", "float32", "float16"])
@pytest.mark.parametrize("jit", [False, True])
def test_dtypes_and_compilation(encoding, dtype, jit):
    codes = np.clip(all_codes(8, encoding), -128, 127).reshape(-1, 1)
    there_and_back = tf.function(
        lambda x: decode(encode(x, 8, encoding), 8, encoding),
        jit_compile=jit,
        input_signature=[tf.TensorSpec((None, 1), dtype)],
    )
    np.testing.assert_array_equal(there_and_back(codes.astype(dtype)).numpy(), codes)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("bits", [2, 5, 8])
def test_stored_bits_are_those_of_the_words(bits, encoding):
    codes = all_codes(bits, encoding)
    if encoding == "sign_magnitude":
        codes = np.concatenate([codes, [-(2 ** (bits - 1))]])
    words = np.asarray(encode(codes, bits, encoding))
    np.testing.assert_array_equal(stored_bits(codes, bits, encoding) @ 2 ** np.arange(bits), words)


@pytest.mark.parametrize(("codes", "encoding"), [([128], "twos_complement"), ([-1], "unsigned"), ([0.5], "offset")])
def test_stored_bits_refuse_other_codes(codes, encoding):
    with pytest.raises(ValueError, match=r"`codes` must be integers from .* Received: codes from"):
        stored_bits(codes, 8, encoding)


@pytest.mark.parametrize("function", [encode, decode, stored_bits])
@pytest.mark.parametrize("bits", [1, 17, 8.0, True, None])
def test_bad_bits(function, bits):
    with pytest.raises(ValueError, match=r"`bits` must be an integer from 2 to 16\. Received: bits="):
        function([0], bits, "offset")


@pytest.mark.parametrize("function", [encode, decode, stored_bits])
def test_bad_encoding(function):
    with pytest.raises(ValueError, match=r"twos_complement, .* Received: encoding='gray'"):
        function([0], 8, "gray")
