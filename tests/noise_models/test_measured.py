"""Retention, and maps of real chips."""

import itertools
import json
import math
import types

import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import norm

from axtrain.noise_models import measured, random_numbers
from axtrain.noise_models.measured import FaultMap, MeasuredMemory, is_nested
from axtrain.noise_models.memories import ApproximateDRAM, BitErrors, Parity, Retention, memory_from_dict


def test_decay_goes_one_way():
    """n = 100,000 words: charged cells are lost at the retention's rate, discharged ones never."""
    n, retention = 100_000, Retention(median_s=10.0, spread=1.0, source="test")
    for anti, lost_word, kept_word in ((0.0, 255, 0), (1.0, 0, 255)):
        memory = ApproximateDRAM(
            refresh_interval_s=2.0, retention=retention, share_of_anti_cells=anti, encoding="unsigned"
        )
        rate = norm.cdf(math.log(0.2))
        assert memory.rate == pytest.approx(rate) and memory.per_chip
        np.testing.assert_array_equal(np.asarray(memory.read(np.full(n, kept_word, "int32"), 8, 1)), kept_word)
        read = np.asarray(memory.read(np.full(n, lost_word, "int32"), 8, 1))
        share = (((read ^ lost_word)[:, None] >> np.arange(8)) & 1).mean()
        assert abs(share - rate) <= 5 * math.sqrt(rate * (1 - rate) / (8 * n))


def test_dram_closed_form_and_nesting():
    """n = 40,000 reads of 16 codes."""
    n, codes = 40_000, np.arange(-128, 128, 16)
    memory = ApproximateDRAM(refresh_interval_s=20.0, share_of_anti_cells=0.3)
    reads = np.asarray(memory.read(np.tile(codes, (n, 1)), 8, 5)).astype(float)
    assert np.all(np.abs(reads.mean(axis=0) - memory.expected(codes, 8)) <= 5 * np.sqrt(memory.variance(codes, 8) / n))
    wrong = [
        np.asarray(ApproximateDRAM(refresh_interval_s=t).read(np.zeros(50_000, "int32"), 8, 3))
        for t in (1.0, 5.0, 20.0)
    ]
    assert np.any(wrong[1]) and np.all((wrong[0] & wrong[1]) == wrong[0]) and np.all((wrong[1] & wrong[2]) == wrong[1])


def test_the_faults_of_an_sram_chip_grow_as_its_supply_falls():
    from axtrain.noise_models.memories import NearThresholdSRAM

    zeros = np.zeros(200_000, "int32")
    reads = [np.asarray(NearThresholdSRAM(voltage=v, encoding="unsigned").read(zeros, 8, 7)) for v in (0.6, 0.55, 0.5)]
    assert np.any(reads[0])
    for higher, lower in itertools.pairwise(reads):
        np.testing.assert_array_equal(higher & lower, higher)
        assert np.any(lower != higher)


FLIPS = FaultMap(words=4, word_bits=8, addresses=(0, 2, 2), bits=(1, 7, 0))


def test_measured_flips_lie_where_they_were_measured():
    memory = MeasuredMemory(maps=(FLIPS,))
    assert memory.fault == "persistent" and memory.rate == 3 / 32
    read = np.asarray(memory.read(np.zeros((2, 3), "int32"), 8, 1))
    # Six words in a memory of four: the last two are written over the first.
    np.testing.assert_array_equal(read, [[2, 0, -127], [0, 2, 0]])
    np.testing.assert_array_equal(np.asarray(memory.read(np.zeros(2, "int32"), 8, 1, address=2)), [-127, 0])
    np.testing.assert_array_equal(np.asarray(memory.read(np.zeros(3, "int32"), 8, 99)), [2, 0, -127])  # one chip


def test_measured_stuck_cells_show_where_the_bit_differs():
    stuck = FaultMap(words=2, word_bits=8, addresses=(0, 0, 1), bits=(0, 1, 3), values=(1, 0, 1))
    memory = MeasuredMemory(maps=(stuck,), encoding="unsigned")
    assert memory.fault == "stuck" and memory.share_of_ones == pytest.approx(2 / 3)
    np.testing.assert_array_equal(np.asarray(memory.read([0b10, 0], 8, 1)), [0b01, 0b1000])
    np.testing.assert_array_equal(np.asarray(memory.read([0b01, 0b1000], 8, 1)), [0b01, 0b1000])


def test_words_are_packed_into_rows():
    """A tester's row of 32 cells holds four 8-bit words, or two and a half of 12 bits with their parity."""
    row = FaultMap(words=2, word_bits=32, addresses=(0, 1), bits=(9, 31))
    assert np.asarray(MeasuredMemory(maps=(row,)).read(np.zeros(8, "int32"), 8, 0)).tolist() == [
        0,
        2,
        0,
        0,
        0,
        0,
        0,
        -128,
    ]
    memory = MeasuredMemory(maps=(row,), protection=Parity())
    # Nine cells to a word: cell 9 is the first of word 1, which is then read as 0; cell 63 begins word 7.
    assert np.asarray(memory.read(np.full(8, 5, "int32"), 8, 0)).tolist() == [5, 0, 5, 5, 5, 5, 5, 0]


@pytest.mark.parametrize("jit", [False, True])
def test_compiled_reads_and_strength(jit):
    rng = np.random.default_rng(0)
    cells = rng.choice(1000 * 8, 800, replace=False)
    found = FaultMap(words=1000, word_bits=8, addresses=tuple(cells // 8), bits=tuple(cells % 8))
    memory, codes = MeasuredMemory(maps=(found,)), np.zeros(1000, "int32")
    function = tf.function(lambda s: memory.read(codes, 8, 3, strength=s), jit_compile=jit)
    reads = [function(tf.constant(s)).numpy() for s in (0.0, 0.5, 1.0)]
    np.testing.assert_array_equal(reads[2], np.asarray(memory.read(codes, 8, 3)))
    counts = [np.unpackbits(read.astype(np.int8).view(np.uint8)).sum() for read in reads]
    assert counts[0] == 0 and counts[2] == 800
    assert abs(counts[1] - 400) <= 5 * math.sqrt(800 / 4)


def test_a_shifted_layout_for_each_chip():
    memory = MeasuredMemory(maps=(FLIPS,), rotate=True)
    reads = {tuple(np.asarray(memory.read(np.zeros(4, "int32"), 8, seed)).tolist()) for seed in range(40)}
    assert reads == {tuple(np.roll([2, 0, -127, 0], shift).tolist()) for shift in range(4)}


def test_operating_points():
    maps = tuple(
        FaultMap(words=4, word_bits=8, addresses=tuple(range(k)), bits=(0,) * k, voltage=v, temperature=25.0)
        for k, v in ((1, 0.6), (2, 0.55), (3, 0.5))
    )
    assert is_nested(maps)
    assert [MeasuredMemory(maps=maps, voltage=v).rate * 32 for v in (0.6, 0.58, 0.55, 0.5, 0.7)] == [1, 2, 2, 3, 1]
    assert MeasuredMemory(maps=maps, voltage=0.6).at(0.5).rate * 32 == 3
    with pytest.raises(ValueError, match=r"Measured .*Received: voltage=0\.4"):
        MeasuredMemory(maps=maps, voltage=0.4)
    with pytest.raises(ValueError, match=r"Received: voltage=0\.6, temperature=85\.0"):
        MeasuredMemory(maps=maps, voltage=0.6, temperature=85.0)
    with pytest.raises(ValueError, match="must name one map"):
        MeasuredMemory(maps=maps)
    other = FaultMap(words=4, word_bits=8, addresses=(3,), bits=(7,), voltage=0.6)
    assert not is_nested((other, maps[2]))


def test_files(tmp_path):
    (tmp_path / "map.csv").write_text("address, bit, value\n0x2, 7, 1\n0, 1, 0\n")
    found = FaultMap.from_csv(tmp_path / "map.csv", words=4, word_bits=8, voltage=0.5)
    assert (found.addresses, found.bits, found.values, found.voltage) == ((2, 0), (7, 1), (1, 0), 0.5)
    mask = np.zeros((4, 8), bool)
    mask[[0, 2, 2], [1, 7, 0]] = True
    np.save(tmp_path / "mask.npy", mask)
    read = FaultMap.from_npy(tmp_path / "mask.npy")
    assert set(zip(read.addresses, read.bits, strict=True)) == {(0, 1), (2, 7), (2, 0)} and read.words == 4
    np.save(tmp_path / "cells.npy", np.array([[0, 1], [2, 7], [2, 0]]))
    assert FaultMap.from_npy(tmp_path / "cells.npy", words=4, word_bits=8) == FLIPS
    with pytest.raises(ValueError, match="give words=.* and word_bits="):
        FaultMap.from_npy(tmp_path / "cells.npy")
    with (tmp_path / "cells.npy").open("ab") as file:
        file.write(b"\0" * 16)
    with pytest.raises(ValueError, match=r"192 bytes.*176 bytes"):
        FaultMap.from_npy(tmp_path / "cells.npy", words=4, word_bits=8)
    np.save(tmp_path / "twice.npy", np.array([[0, 1], [2, 7], [0, 1]]))
    with pytest.raises(ValueError, match="Received: address 0, bit 1 twice"):
        FaultMap.from_npy(tmp_path / "twice.npy", words=4, word_bits=8)
    np.save(tmp_path / "bad.npy", np.zeros((2, 5)))
    with pytest.raises(ValueError, match=r"booleans of shape.*Received: float64 of shape \(2, 5\)"):
        FaultMap.from_npy(tmp_path / "bad.npy")
    (tmp_path / "bad.csv").write_text("address,bit\n1,2\nx,3\n")
    with pytest.raises(ValueError, match=r"bad\.csv, line 3: address, bit must be integers"):
        FaultMap.from_csv(tmp_path / "bad.csv", words=4, word_bits=8)
    (tmp_path / "columns.csv").write_text("row,col\n1,2\n")
    with pytest.raises(ValueError, match=r"columns address and bit. Received: \['row', 'col'\]"):
        FaultMap.from_csv(tmp_path / "columns.csv", words=4, word_bits=8)


def test_round_trips_through_json():
    dram = ApproximateDRAM(refresh_interval_s=2.0, retention=Retention(median_s=5.0, spread=2.0, source="part x"))
    measured = MeasuredMemory(maps=(FLIPS,), rotate=True, encoding="offset")
    for memory in (dram, measured):
        again = memory_from_dict(json.loads(json.dumps(memory.to_dict())))
        assert again == memory and hash(again) == hash(memory)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FaultMap(words=0, word_bits=8, addresses=(), bits=()), "words=0"),
        (lambda: FaultMap(words=2, word_bits=8, addresses=(2,), bits=(0,)), r"`addresses` must lie in 0 .. 1.*\[2\]"),
        (lambda: FaultMap(words=2, word_bits=8, addresses=(1,), bits=(8,)), r"`bits` must lie in 0 .. 7"),
        (lambda: FaultMap(words=2, word_bits=8, addresses=(1,), bits=(1,), values=(2,)), "`values` must lie"),
        (lambda: FaultMap(words=2, word_bits=8, addresses=(1, 0), bits=(1,)), "2 addresses, 1 bits"),
        (lambda: FaultMap(words=2, word_bits=8, addresses=(1, 1), bits=(1, 1)), "address 1, bit 1 twice"),
        (lambda: MeasuredMemory(maps=()), "Received: 0 maps"),
        (lambda: MeasuredMemory(maps=(FLIPS, FaultMap(words=5, word_bits=8, addresses=(), bits=()))), "same words"),
        (lambda: ApproximateDRAM(refresh_interval_s=0.0), r"refresh_interval_s=0\.0"),
        (lambda: ApproximateDRAM(refresh_interval_s=1.0, share_of_anti_cells=2.0), r"share_of_anti_cells=2\.0"),
        (lambda: Retention(median_s=-1.0, spread=1.0, source=""), r"median_s=-1\.0"),
        (lambda: BitErrors(rate=0.1, clustering=3), "`clustering` must be a Clustering"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_map_larger_than_any_network_is_refused_before_it_is_laid_out():
    with pytest.raises(ValueError, match=r"at most 268435456 cells; give that of the part.*Received: words=1000000000"):
        FaultMap(words=10**9, word_bits=8, addresses=(1,), bits=(0,))


def test_cells_beyond_32_bits_are_the_right_ones(monkeypatch):
    """The words from 500,000,000 on of a layer of 2^30 words, whose cells have numbers above 2^31."""
    first, words = 500_000_000, 7
    found = FaultMap(words=words, word_bits=8, addresses=(3,), bits=(2,))
    monkeypatch.setattr(measured, "math", types.SimpleNamespace(prod=lambda lengths: 1 << 30))
    near = random_numbers.positions
    monkeypatch.setattr(random_numbers, "positions", lambda shape: near(shape) + tf.constant(first, tf.uint32))
    read = np.asarray(MeasuredMemory(maps=(found,)).read(np.zeros(2 * words, "int32"), 8, 1))
    assert read.tolist() == [4 if (first + i) % words == 3 else 0 for i in range(2 * words)]
