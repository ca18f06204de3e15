"""Memories: reads, closed forms against enumeration and simulation, configurations."""

import itertools
import json
import math
import subprocess
import sys
from dataclasses import FrozenInstanceError

import keras
import numpy as np
import pytest
import tensorflow as tf

from axtrain.noise_models import faults, random_numbers
from axtrain.noise_models.curves import ILLUSTRATIVE, ProbitCurve, TabulatedCurve
from axtrain.noise_models.encodings import ENCODINGS, code_range, decode, encode
from axtrain.noise_models.memories import FAULTS, BitErrors, Memory, NearThresholdSRAM, memory_from_dict
from axtrain.noise_models.random_numbers import seed_words


class Chip(keras.random.SeedGenerator):
    def next(self, ordered=True):
        return keras.ops.convert_to_tensor(self.state)


def all_codes(bits, encoding):
    low, high = code_range(bits, encoding)
    return np.arange(low, high + 1, dtype="int32")


def enumerate_reads(memory, bits):
    """Every code, each pattern of faulty cells and stuck values: mean and variance, exactly."""
    codes = all_codes(bits, memory.encoding)
    words = np.asarray(encode(codes, bits, memory.encoding))
    p, share = memory.rate, memory.share_of_ones
    cells = [(0, 1 - p), (1, p)]
    if memory.fault == "stuck":
        cells = [(0, 1 - p), (1, p * (1 - share)), (2, p * share)]
    patterns = list(itertools.product(cells, repeat=bits))
    first = np.zeros(codes.size)
    second = np.zeros(codes.size)
    for pattern in patterns:
        probability = math.prod(chance for _, chance in pattern)
        ones = sum(2**i for i, (state, _) in enumerate(pattern) if state == 1)
        twos = sum(2**i for i, (state, _) in enumerate(pattern) if state == 2)
        read = words & ~ones | twos if memory.fault == "stuck" else words ^ ones
        value = np.asarray(decode(read.astype("int32"), bits, memory.encoding)).astype(float)
        first += probability * value
        second += probability * value**2
    return codes, first, second - first**2


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    ("fault", "rate", "share"),
    [
        ("random", 0.1, 0.5),
        ("persistent", 0.37, 0.5),
        ("stuck", 0.2, 0.5),
        ("stuck", 0.9, 0.8),
        ("stuck", 1.0, 0.0),
    ],
)
@pytest.mark.parametrize("bits", [2, 4])
def test_closed_forms_against_enumeration(bits, fault, rate, share, encoding):
    memory = BitErrors(rate=rate, fault=fault, encoding=encoding, share_of_ones=share)
    codes, mean, variance = enumerate_reads(memory, bits)
    np.testing.assert_allclose(memory.expected(codes, bits), mean, rtol=0, atol=1e-12)
    np.testing.assert_allclose(memory.variance(codes, bits), variance, rtol=0, atol=1e-11)


@pytest.mark.parametrize("bits", [2, 8, 10])
def test_closed_forms_for_flips_are_those_of_the_theory_page(bits):
    p, full = 0.07, 2**bits - 1
    spread = p * (1 - p) * (4**bits - 1) / 3
    centre = {
        "twos_complement": lambda w: (1 - 2 * p) * w - p,
        "unsigned": lambda w: (1 - 2 * p) * w + p * full,
        "offset": lambda w: (1 - 2 * p) * w + p * (full - 2 * 2 ** (bits - 1)),
    }
    for encoding, formula in centre.items():
        memory, codes = BitErrors(rate=p, encoding=encoding), all_codes(bits, encoding)
        np.testing.assert_allclose(memory.expected(codes, bits), formula(codes), rtol=1e-12, atol=1e-10)
        np.testing.assert_allclose(memory.variance(codes, bits), spread, rtol=1e-12)
    memory, codes = BitErrors(rate=p, encoding="sign_magnitude"), all_codes(bits, "sign_magnitude")
    mu = (1 - 2 * p) * np.abs(codes) + p * (2 ** (bits - 1) - 1)
    sign = np.where(codes < 0, -1, 1)
    np.testing.assert_allclose(memory.expected(codes, bits), (1 - 2 * p) * sign * mu, rtol=1e-12)
    spread = p * (1 - p) * ((4 ** (bits - 1) - 1) / 3 + 4 * mu**2)
    np.testing.assert_allclose(memory.variance(codes, bits), spread, rtol=1e-12)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_half_and_half_stuck_cells_are_flips_at_half_the_rate(encoding):
    codes = all_codes(8, encoding)
    cells = BitErrors(rate=0.3, fault="stuck", encoding=encoding)
    flips = BitErrors(rate=0.15, encoding=encoding)
    np.testing.assert_allclose(cells.expected(codes, 8), flips.expected(codes, 8), rtol=1e-12)
    np.testing.assert_allclose(cells.variance(codes, 8), flips.variance(codes, 8), rtol=1e-12)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(("fault", "rate", "share"), [("random", 0.02, 0.5), ("stuck", 0.1, 0.5), ("stuck", 0.3, 0.9)])
def test_closed_forms_against_reads_of_8_bits(fault, rate, share, encoding):
    memory, n = BitErrors(rate=rate, fault=fault, encoding=encoding, share_of_ones=share), 40_000
    codes = all_codes(8, encoding)[::17]
    reads = np.asarray(memory.read(np.tile(codes, (n, 1)), 8, 3)).astype(float)
    mean, variance = memory.expected(codes, 8), memory.variance(codes, 8)
    assert np.all(np.abs(reads.mean(axis=0) - mean) <= 5 * np.sqrt(variance / n))
    squares = (reads - mean) ** 2  # their own spread, since rare flips make heavy tails
    assert np.all(np.abs(squares.mean(axis=0) - variance) <= 5 * squares.std(axis=0) / math.sqrt(n))


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("fault", FAULTS)
def test_one_bit_read_is_the_fault_mask_applied(fault, encoding):
    codes = np.random.default_rng(0).choice(all_codes(6, encoding), (50, 40))
    memory = BitErrors(rate=0.1, fault=fault, encoding=encoding, share_of_ones=0.25)
    words = encode(codes, 6, encoding)
    faulty, ones = faults.faulty_cells((50, 40), 6, seed_words(5), 0.1, share_of_ones=0.25)
    words = faults.stuck(words, faulty, ones) if fault == "stuck" else faults.flip(words, faulty)
    read = memory.read(codes, 6, 5)
    assert keras.backend.standardize_dtype(read.dtype) == "int32"
    np.testing.assert_array_equal(np.asarray(read), np.asarray(decode(words, 6, encoding)))
    np.testing.assert_array_equal(np.asarray(read), np.asarray(memory.read(codes.astype("float32"), 6, 5)))


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("jit", [False, True])
def test_compiled_reads_equal_eager_ones(fault, jit):
    memory = BitErrors(rate=0.05, fault=fault)
    codes = np.random.default_rng(1).integers(-128, 128, (300, 7)).astype("int32")
    function = tf.function(
        lambda x, strength: memory.read(x, 8, 41, strength=strength),
        jit_compile=jit,
        input_signature=[tf.TensorSpec((None, 7), "int32"), tf.TensorSpec((), "float32")],
    )
    for strength in (0.0, 0.4, 1.0):
        eager = np.asarray(memory.read(codes, 8, 41, strength=strength))
        np.testing.assert_array_equal(function(codes, strength).numpy(), eager)
    np.testing.assert_array_equal(function(codes, 0.0).numpy(), codes)


@pytest.mark.parametrize("fault", FAULTS)
def test_reads_of_a_chip_and_reads_at_random(fault):
    memory, codes = BitErrors(rate=0.05, fault=fault), np.zeros((1000,), "int32")
    seed = Chip(7) if memory.per_chip else keras.random.SeedGenerator(7)
    function = tf.function(lambda: memory.read(codes, 8, seed))
    reads = [function().numpy() for _ in range(3)]
    assert memory.per_chip is (fault != "random")
    for one, other in itertools.combinations(reads, 2):
        assert np.array_equal(one, other) is memory.per_chip
    assert np.any(reads[0] != np.asarray(memory.read(codes, 8, Chip(8))))


@pytest.mark.parametrize("fault", ["persistent", "stuck"])
def test_faults_of_a_chip_grow_with_the_strength(fault):
    memory, codes = BitErrors(rate=0.2, fault=fault, encoding="unsigned"), np.zeros((5000,), "int32")
    n = codes.size * 8
    previous = np.zeros_like(codes)
    for strength in (0.1, 0.5, 1.0):
        read = np.asarray(memory.read(codes, 8, 3, strength=tf.constant(strength)))
        np.testing.assert_array_equal(read & previous, previous)
        rate = memory.expected(0, 8, strength=strength) / 255
        share = (read[:, None] >> np.arange(8) & 1).mean()
        assert abs(share - rate) <= 5 * math.sqrt(rate * (1 - rate) / n)
        previous = read


@pytest.mark.parametrize("fault", FAULTS)
def test_no_fault_no_draw(monkeypatch, fault):
    monkeypatch.setattr(random_numbers, "hashed", None)  # a call would fail
    codes = np.array([-128, 0, 127], "int32")
    for encoding in ENCODINGS:
        read = BitErrors(rate=0.0, fault=fault, encoding=encoding).read(codes, 8, None)
        np.testing.assert_array_equal(np.asarray(read), codes)
        read = BitErrors(rate=0.4, fault=fault, encoding=encoding).read(codes, 8, None, strength=0.0)
        np.testing.assert_array_equal(np.asarray(read), codes)
        assert np.all(BitErrors(rate=0.0, fault=fault).variance(codes, 8) == 0.0)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_all_cells_stuck(encoding):
    codes = all_codes(8, encoding)
    for share, word in ((0.0, 0), (1.0, 255)):
        memory = BitErrors(rate=1.0, fault="stuck", encoding=encoding, share_of_ones=share)
        expected = np.full(codes.size, np.asarray(decode(np.int32(word), 8, encoding)))
        np.testing.assert_array_equal(np.asarray(memory.read(codes, 8, 1)), expected)
        np.testing.assert_array_equal(memory.expected(codes, 8), expected)


def test_sram_takes_its_rate_from_the_curve():
    assert NearThresholdSRAM(voltage=0.56).rate == ILLUSTRATIVE(0.56)
    table = TabulatedCurve(voltages=(0.5, 0.7), rates=(1e-2, 1e-4), source="test")
    memory = NearThresholdSRAM(voltage=0.6, curve=table)
    assert math.isclose(memory.rate, 1e-3) and memory.voltage == 0.6 and memory.per_chip
    codes = np.arange(-128, 128)
    same = BitErrors(rate=memory.rate, fault="persistent")
    np.testing.assert_array_equal(memory.expected(codes, 8), same.expected(codes, 8))
    codes = np.zeros(10_000, "int32")
    np.testing.assert_array_equal(np.asarray(memory.read(codes, 8, 1)), np.asarray(same.read(codes, 8, 1)))
    assert BitErrors(rate=0.1).voltage is None


@pytest.mark.parametrize(
    "memory",
    [
        BitErrors(rate=0.03, fault="stuck", encoding="offset", share_of_ones=0.7),
        NearThresholdSRAM(
            voltage=0.6,
            curve=TabulatedCurve(voltages=(0.5, 0.7), rates=(1e-2, 1e-4), source="measured"),
            fault="random",
            encoding="sign_magnitude",
            nominal_voltage=0.9,
            share_of_ones=0.1,
        ),
        NearThresholdSRAM(voltage=0.6, curve=ProbitCurve(mean_v=0.4, deviation_v=0.04, source="fit")),
    ],
)
def test_round_trip_through_json(memory):
    config = json.loads(json.dumps(memory.to_dict()))
    again = memory_from_dict(config)
    assert again == memory and hash(again) == hash(memory) and isinstance(again, Memory)
    assert type(memory).from_dict(config) == memory


def test_frozen_and_keyword_only():
    with pytest.raises(FrozenInstanceError):
        BitErrors(rate=0.1).rate = 0.2
    with pytest.raises(TypeError):
        BitErrors(0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rate": 0.6}, r"in \[0, 0\.5\] for fault='random'.*complement.*Received: rate=0\.6"),
        ({"rate": 0.6, "fault": "persistent"}, r"Received: rate=0\.6"),
        ({"rate": 1.1, "fault": "stuck"}, r"in \[0, 1\.0\].*Received: rate=1\.1"),
        ({"rate": -0.1}, r"Received: rate=-0\.1"),
        ({"rate": math.nan}, "Received: rate=nan"),
        ({"rate": "0.1"}, "Received: rate='0.1'"),
        ({"rate": 0.1, "fault": "weak"}, "random, persistent, stuck. Received: fault='weak'"),
        ({"rate": 0.1, "encoding": "gray"}, "unsigned. Received: encoding='gray'"),
        ({"rate": 0.1, "share_of_ones": 1.5}, r"Received: share_of_ones=1\.5"),
    ],
)
def test_bad_bit_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        BitErrors(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"voltage": 0.3}, r"\[0, 0\.5\].*raise the voltage.*Received: rate=.* at 0\.3 V"),
        ({"voltage": 0.0}, r"`voltage` must be a positive.*Received: voltage=0\.0"),
        ({"voltage": "low"}, "Received: voltage='low'"),
        ({"voltage": math.inf}, "Received: voltage=inf"),
        ({"voltage": 0.6, "nominal_voltage": -1}, "`nominal_voltage` must be .*Received: nominal_voltage=-1"),
        ({"voltage": 0.6, "nominal_voltage": 0.5}, r"exceed nominal_voltage=0\.5.*Received: voltage=0\.6"),
        ({"voltage": 0.6, "curve": 1e-3}, r"from_csv.*Received: curve=0\.001"),
        ({"voltage": 0.6, "curve": None}, "Received: curve=None"),
        ({"voltage": 0.6, "fault": None}, "Received: fault=None"),
    ],
)
def test_bad_sram(arguments, message):
    with pytest.raises(ValueError, match=message):
        NearThresholdSRAM(**arguments)


def test_voltage_outside_the_table():
    table = TabulatedCurve(voltages=(0.5, 0.7), rates=(1e-2, 1e-4), source="test")
    with pytest.raises(ValueError, match=r"not extrapolated.*Received: voltage=0\.8"):
        NearThresholdSRAM(voltage=0.8, curve=table)


def test_bad_reads():
    memory = BitErrors(rate=0.1)
    for strength in (-0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match=r"`strength` must be in .* Received: strength="):
            memory.read([1], 8, 1, strength=strength)
        with pytest.raises(ValueError, match=r"`strength` must be a number in .* Received: strength="):
            memory.expected([1], 8, strength=strength)
    with pytest.raises(ValueError, match="Received: bits=1"):
        memory.read([1], 1, 1)
    with pytest.raises(ValueError, match="`codes` must be integers from -128 to 127"):
        memory.variance([128], 8)


def test_bad_configurations():
    with pytest.raises(ValueError, match=r"bit_errors, near_threshold_sram, .* Received: kind='dram'"):
        memory_from_dict({"kind": "dram"})
    with pytest.raises(ValueError, match=r"'bit_errors' has the entries encoding, .*Received: \['volts'\]"):
        memory_from_dict({"kind": "bit_errors", "rate": 0.1, "volts": 1})


def test_descriptions_need_numpy_alone():
    code = (
        "import sys; from axtrain.noise_models.memories import NearThresholdSRAM as S; "
        "m = S(voltage=0.56); m.to_dict(); m.variance([1, 2], 8); "
        "sys.exit('keras' in sys.modules or 'tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
