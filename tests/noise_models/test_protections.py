"""Protections: exact where exactness can be checked, distributions elsewhere."""

import itertools
import json
import math

import numpy as np
import pytest
from scipy.stats import chi2

from axtrain.noise_models import secded
from axtrain.noise_models.encodings import ENCODINGS, code_range, encode
from axtrain.noise_models.memories import (
    SECDED,
    BitErrors,
    Clustering,
    NearThresholdSRAM,
    Parity,
    RobustBits,
    SignMasking,
    Triplication,
    memory_from_dict,
)
from axtrain.noise_models.read_distribution import distribution, word_values

PROTECTIONS = [
    RobustBits(count=2),
    RobustBits(count=1, rate=0.01),
    Parity(),
    SignMasking(),
    SignMasking(robust_sign=False),
    SECDED(data_bits=32),
    SECDED(data_bits=64, detected="zero"),
    Triplication(),
]


def combinations():
    for protection, encoding, fault in itertools.product(PROTECTIONS, ENCODINGS, ("random", "stuck")):
        if encoding in protection.encodings and not (isinstance(protection, SECDED) and fault == "stuck"):
            yield pytest.param(protection, encoding, fault, id=f"{protection}-{encoding}-{fault}")


@pytest.mark.parametrize(("protection", "encoding", "fault"), list(combinations()))
def test_reads_follow_the_closed_form(protection, encoding, fault):
    """n = 10,000 reads of each of three codes: mean, variance and the words' whole distribution."""
    rate = 5e-3 if isinstance(protection, SECDED) else 0.05
    memory, n = BitErrors(rate=rate, fault=fault, encoding=encoding, protection=protection, share_of_ones=0.3), 10_000
    low, high = code_range(8, encoding)
    codes = np.array([low, (low + 2 * high) // 3, 5])
    # Codes change slowly, so that a group of words holds equal ones; each column is one code's reads.
    reads = np.asarray(memory.read(np.repeat(codes, n), 8, 3)).reshape(3, n).astype(float)
    mean, variance = memory.expected(codes, 8), memory.variance(codes, 8)
    # Words of one SECDED group fail together; 8 words to a group bound the loss of information.
    effective = n / (8 if isinstance(protection, SECDED) else 1)
    assert np.all(np.abs(reads.mean(axis=1) - mean) <= 5 * np.sqrt(variance / effective))
    squares = (reads - mean[:, None]) ** 2
    assert np.all(np.abs(squares.mean(axis=1) - variance) <= 5 * squares.std(axis=1) / math.sqrt(effective))
    chances = distribution(memory, codes, 8)
    np.testing.assert_allclose(chances.sum(axis=1), 1.0, rtol=0, atol=1e-12)
    assert chances.min() >= -1e-15
    values = word_values(8, encoding)
    for code in range(3):
        shares = {value: chances[code][values == value].sum() for value in np.unique(values)}
        counts = {value: 0 for value in shares} | dict(zip(*np.unique(reads[code], return_counts=True), strict=True))
        often = [value for value, share in shares.items() if share * n >= 20]
        expected = np.array([shares[value] * n for value in often])
        seen = np.array([counts[value] for value in often])
        rest = n - expected.sum()
        if rest >= 20:
            expected, seen = np.append(expected, rest), np.append(seen, n - seen.sum())
        deviation = np.sum((seen - expected) ** 2 / expected) * effective / n
        assert len(often) < 2 or deviation < chi2.isf(2 * 2.87e-7, len(expected) - 1), code


@pytest.mark.parametrize("protection", [p for p in PROTECTIONS if not isinstance(p, SECDED)])
@pytest.mark.parametrize("fault", ["random", "stuck"])
def test_closed_forms_against_every_pattern_of_faults(protection, fault):
    """Three bits (two where copies are stored), every code, each combination of right, wrong and stuck cells."""
    import keras

    bits, rate, share = 2 if isinstance(protection, Triplication) else 3, 0.2, 0.3
    for encoding in protection.encodings:
        memory = BitErrors(rate=rate, fault=fault, encoding=encoding, protection=protection, share_of_ones=share)
        low, high = code_range(bits, encoding)
        codes = np.arange(low, high + 1)
        words = encode(codes[None], bits, encoding)
        stored = np.asarray(protection.store(words, bits))
        copies, width = stored.size // codes.size, protection.width(bits)
        rates = protection.rates(rate, 1.0, bits)
        rates = (rates if isinstance(rates, list) else [rates] * width) * copies
        states = [(0, 1.0), (1, 1.0)] if fault == "random" else [(0, 1.0), (1, 1 - share), (2, share)]
        first, second = np.zeros(len(codes)), np.zeros(len(codes))
        values = word_values(bits, encoding)
        for pattern in itertools.product(states, repeat=width * copies):
            chance = 1.0
            faulty, ones = np.zeros(copies, np.int32), np.zeros(copies, np.int32)
            for cell, (state, part) in enumerate(pattern):
                chance *= rates[cell] * part if state else 1 - rates[cell]
                faulty[cell // width] |= (state > 0) << cell % width
                ones[cell // width] |= (state == 2) << cell % width
            if chance == 0:
                continue
            faulty, ones = (m[None, None] if copies > 1 else m[0] for m in (faulty, ones))
            read = stored ^ faulty if fault == "random" else stored & ~faulty | ones & faulty
            got = protection.recover(
                keras.ops.convert_to_tensor(stored), keras.ops.convert_to_tensor(read), words, bits, encoding
            )
            value = values[np.asarray(got)[0]]
            first += chance * value
            second += chance * value**2
        np.testing.assert_allclose(memory.expected(codes, bits), first, rtol=0, atol=1e-12)
        np.testing.assert_allclose(memory.variance(codes, bits), second - first**2, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("data_bits", "bits"), [(32, 8), (64, 8), (32, 5), (64, 16), (32, 2)])
def test_the_decoder_on_every_single_and_double_error(data_bits, bits):
    """Exhaustive: each wrong bit of a group is put right, and each pair is detected and left as it is."""
    count, checks = data_bits // bits, secded.CHECK_BITS[data_bits]
    rng = np.random.default_rng(0)
    words = rng.integers(0, 1 << bits, count)
    check = int(np.asarray(secded.check_word(words[None].astype("int32"), bits, data_bits))[0])
    cells = count * bits + checks
    patterns = [(i,) for i in range(cells)] + list(itertools.combinations(range(cells), 2))
    read, read_checks = np.tile(words, (len(patterns), 1)), np.full(len(patterns), check)
    for row, pattern in enumerate(patterns):
        for cell in pattern:
            if cell < count * bits:
                read[row, cell // bits] ^= 1 << cell % bits
            else:
                read_checks[row] ^= 1 << (cell - count * bits)
    got, lost = secded.corrected(read.astype("int32"), read_checks.astype("int32"), bits, data_bits)
    got, lost = np.asarray(got), np.asarray(lost)
    np.testing.assert_array_equal(got[:cells], np.tile(words, (cells, 1)))
    assert not lost[:cells].any()
    np.testing.assert_array_equal(got[cells:], read[cells:])
    assert lost[cells:].all()
    clean, none = secded.corrected(words[None].astype("int32"), np.array([check], "int32"), bits, data_bits)
    np.testing.assert_array_equal(np.asarray(clean)[0], words)
    assert not np.asarray(none).any()


def test_the_codes_are_those_of_the_theory_page():
    """Words with two or more errors: about 741 p^2 for (39, 32) and 2556 p^2 for (72, 64)."""
    for data_bits, cells, pairs in ((32, 39, 741), (64, 72, 2556)):
        assert data_bits + secded.CHECK_BITS[data_bits] == cells and math.comb(cells, 2) == pairs
        numbers = secded.numbers(data_bits)
        assert len(set(numbers.tolist())) == data_bits and not np.any(numbers & (numbers - 1) == 0)
    p = 1e-4
    memory = BitErrors(rate=p, protection=SECDED(data_bits=32))
    wrong = 1 - distribution(memory, np.array([5]), 8)[0, 5]
    # A word holds 8 of 39 cells: the pairs that touch it.
    assert wrong == pytest.approx((741 - math.comb(31, 2)) * p**2, rel=0.01)


def test_three_errors_may_turn_a_right_bit():
    words = np.zeros((1, 4), "int32")
    checks = np.asarray(secded.check_word(words, 8, 32))
    wrong = words.copy()
    wrong[0, 0] = 0b111  # numbers 3 ^ 5 ^ 6 = 0: taken for the parity bit's own error
    got, lost = secded.corrected(wrong, checks, 8, 32)
    np.testing.assert_array_equal(np.asarray(got), wrong)
    assert not np.asarray(lost).any()


def test_cells_that_a_word_takes():
    def cells(protection, bits=8):
        return BitErrors(rate=0.1, protection=protection).cells_per_word(bits)

    assert cells(None) == 8 and cells(RobustBits(count=3)) == 8 and cells(SignMasking()) == 8
    assert cells(Parity()) == 9 and cells(Triplication()) == 24
    assert cells(SECDED(data_bits=32)) == 8 + 7 / 4 and cells(SECDED()) == 9
    assert cells(SECDED(data_bits=32), 5) == 5 + 7 / 6


@pytest.mark.parametrize("protection", PROTECTIONS)
@pytest.mark.parametrize("shape", [(7,), (3, 5, 2), (1,), ()])
def test_any_shape_and_a_clean_memory(protection, shape):
    memory = BitErrors(rate=0.0, protection=protection)
    codes = np.random.default_rng(0).integers(-127, 128, shape).astype("int32")
    np.testing.assert_array_equal(np.asarray(memory.read(codes, 8, 1)), codes)
    faulty = BitErrors(rate=0.05, protection=protection)
    assert np.asarray(faulty.read(codes, 8, 1)).shape == shape


@pytest.mark.parametrize("protection", [None, *PROTECTIONS])
@pytest.mark.parametrize("fault", ["random", "persistent"])
def test_images_in_one_buffer(protection, fault):
    """Samples stored in turn meet the same cells of a chip, and fresh faults of their own otherwise."""
    memory = BitErrors(rate=0.05, fault=fault, protection=protection)
    codes = np.tile(np.arange(-60, 61, dtype="int32"), (50, 1))
    read = np.asarray(memory.read(codes, 8, 2, batched=True))
    same = np.all(read == read[0], axis=1)
    assert same.all() if fault == "persistent" else not same[1:].any()
    if fault == "persistent":
        np.testing.assert_array_equal(read[0], np.asarray(memory.read(codes[0], 8, 2)))


@pytest.mark.parametrize("protection", PROTECTIONS)
def test_round_trip_through_json(protection):
    memory = NearThresholdSRAM(voltage=0.6, protection=protection, encoding="sign_magnitude")
    again = memory_from_dict(json.loads(json.dumps(memory.to_dict())))
    assert again == memory and hash(again) == hash(memory)
    clustered = BitErrors(rate=0.1, clustering=Clustering(row_cells=64, rows=0.2))
    assert memory_from_dict(json.loads(json.dumps(clustered.to_dict()))) == clustered


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RobustBits(count=0), "count=0"),
        (lambda: RobustBits(rate=0.6), r"rate=0\.6"),
        (lambda: SECDED(data_bits=16), r"\[32, 64\]. Received: data_bits=16"),
        (lambda: SECDED(detected="stop"), "detected='stop'"),
        (lambda: BitErrors(rate=0.1, protection="parity"), "must be a Protection.*'parity'"),
        (lambda: BitErrors(rate=0.1, protection=SignMasking(), encoding="offset"), "SignMasking needs.*'offset'"),
        (lambda: BitErrors(rate=0.1, protection=RobustBits(count=9)).read([1], 8, 1), "8 bits has no 9 top bits"),
        (lambda: BitErrors(rate=0.1, fault="stuck", protection=SECDED()).expected([1], 8), "other words of the group"),
        (lambda: BitErrors(rate=0.1, clustering=Clustering(row_cells=8)).variance([1], 8), "fail together"),
        (lambda: memory_from_dict({"kind": "bit_errors", "rate": 0.1, "protection": {"kind": "luck"}}), "kind='luck'"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
