"""Table files: what is written comes back, and what is not exactly one table is refused."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from axtrain.noise_models import multipliers
from axtrain.noise_models.multiplier import Multiplier
from axtrain.noise_models.table_files import read_table, write_table

SUFFIXES = [".npy", ".npz", ".csv", ".bin"]
TABLE = np.arange(32).reshape(4, 8) * 3 - 5  # bits=(2, 3)
BITS = (2, 3)


def c_source(values, declaration="static const int32_t table[32]"):
    return f"#include <stdint.h>\n{declaration} = {{{values}}};\n"


FLAT = ", ".join(map(str, TABLE.ravel()))


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), a_bits=st.integers(2, 5), b_bits=st.integers(2, 5), signed=st.booleans())
def test_round_trip(tmp_path, suffix, data, a_bits, b_bits, signed):
    values = st.integers(-(2**15), 2**15 - 1) if signed else st.integers(0, 2**16 - 1)
    table = data.draw(arrays(np.int32, (2**a_bits, 2**b_bits), elements=values))
    path = tmp_path / f"table{suffix}"
    write_table(path, table, (a_bits, b_bits), signed)
    assert np.array_equal(read_table(path, (a_bits, b_bits), signed), table)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]  # no temporary file stays


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("suffix", [*SUFFIXES, ".NPY"])
def test_multiplier_load_and_save(tmp_path, suffix, signed):
    multiplier = multipliers.get("drum4", signed=signed)
    multiplier.save(tmp_path / f"drum4{suffix}")
    assert Multiplier.load(str(tmp_path / f"drum4{suffix}"), signed=signed) == multiplier
    named = Multiplier.load(tmp_path / f"drum4{suffix}", signed=signed, name="mine", power=0.5, source="here")
    assert (named.name, named.power, named.source) == ("mine", 0.5, "here")


def test_bin_is_the_format_of_tf_approximate(tmp_path):
    words = b"".join((a * b).to_bytes(2, "little") for a in range(256) for b in range(256))
    (tmp_path / "exact.bin").write_bytes(words)
    assert Multiplier.load(tmp_path / "exact.bin", signed=False).is_exact
    multipliers.get("exact").save(tmp_path / "saved.bin")
    assert (tmp_path / "saved.bin").read_bytes() == words


def test_signed_bin_is_two_s_complement(tmp_path):
    multipliers.get("exact", signed=True).save(tmp_path / "exact.bin")
    words = (tmp_path / "exact.bin").read_bytes()
    assert words[2 * (256 * 1 + 255) :][:2] == b"\xff\xff"  # 1 * -1
    assert Multiplier.load(tmp_path / "exact.bin", signed=True).is_exact


@pytest.mark.parametrize(("signed", "value"), [(False, 65536), (False, -1), (True, 32768), (True, -32769)])
def test_bin_refuses_products_beyond_16_bits_and_leaves_nothing(tmp_path, signed, value):
    with pytest.raises(ValueError, match=r"save this table as \.npy.*Received"):
        write_table(tmp_path / "t.bin", np.full((4, 4), value), 2, signed)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_keeps_the_old_file(tmp_path):
    write_table(tmp_path / "t.bin", np.ones((4, 4), int), 2, False)
    with pytest.raises(ValueError, match="save this table"):
        write_table(tmp_path / "t.bin", np.full((4, 4), -1), 2, False)
    assert read_table(tmp_path / "t.bin", 2, False).sum() == 16


@pytest.mark.parametrize("change", [-1, -2, +1, +2, None])
def test_bin_of_another_length(tmp_path, change):
    data = bytes(131072)
    (tmp_path / "t.bin").write_bytes(b"" if change is None else data[:change] if change < 0 else data + bytes(change))
    received = 0 if change is None else 131072 + change
    with pytest.raises(ValueError, match=rf"t\.bin must hold 131072 bytes.*Received: {received} bytes"):
        Multiplier.load(tmp_path / "t.bin", signed=False)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<i4", ">i2", "<f8", "u1", "<i8"])
def test_npy_of_any_number_type(tmp_path, dtype, order):
    np.save(tmp_path / "t.npy", np.asarray(np.abs(TABLE), dtype, order=order))
    assert np.array_equal(read_table(tmp_path / "t.npy", BITS, False), np.abs(TABLE))


def test_npy_refusals(tmp_path):
    path = tmp_path / "t.npy"
    np.save(path, TABLE)
    whole = path.read_bytes()
    objects = np.array([[object()]])
    for content, message in [
        (whole[:-1], r"save the table.*Received: 383 bytes.*384 bytes"),
        (whole + b"12", r"save the table.*Received: 386 bytes.*384 bytes"),
        (whole[:20], "written by np.save"),
        (b"", "written by np.save"),
        (pickle.dumps(TABLE), "pickles are never read"),
        (b"\x93NUMPY\x09\x00" + whole[8:], "written by np.save"),
    ]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message) as error:
            read_table(path, BITS, True)
        assert str(path) in str(error.value)
    np.save(path, objects, allow_pickle=True)
    with pytest.raises(ValueError, match="pickled objects are never read"):
        read_table(path, BITS, True)
    for wrong in (TABLE.T, TABLE.ravel(), TABLE[None]):
        np.save(path, wrong)
        with pytest.raises(ValueError, match=r"shape \(4, 8\).*Received: shape="):
            read_table(path, BITS, True)


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


def test_a_pickle_is_never_run(tmp_path):
    for suffix in (".npy", ".npz"):
        (tmp_path / f"t{suffix}").write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(ValueError, match="Received"):
            read_table(tmp_path / f"t{suffix}", BITS, True)
    np.savez(tmp_path / "t.npz", table=np.array([Bomb()], object))
    with pytest.raises(ValueError, match="never read"):
        read_table(tmp_path / "t.npz", BITS, True)


def test_npz(tmp_path):
    path = tmp_path / "t.npz"
    np.savez(path, anything=TABLE)
    assert np.array_equal(read_table(path, BITS, True), TABLE)
    np.savez_compressed(path, other=np.zeros(3), table=TABLE)
    assert np.array_equal(read_table(path, BITS, True), TABLE)
    np.savez(path, one=TABLE, two=TABLE)
    with pytest.raises(ValueError, match=r"one named 'table'\. Received: \['one', 'two'\]"):
        read_table(path, BITS, True)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"a whole \.npz"):
        read_table(path, BITS, True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b,c,d\n" + "1,2,3,4\n" * 4, r"line 1: every cell must be an integer.*Received: 'a'"),
        ("1,2,3,4\n" * 3 + "1,2,3\n", "line 4: expected 4 cells.*Received: 3 cells"),
        ("1,2,3,4\n" * 3 + "1,2,3,4,\n", "line 4: every cell"),
        ("1,2,3,4\n" * 2 + "\n" + "1,2,3,4\n" * 2, "line 3: every cell"),
        ("1,2,3,4\n" * 3 + "1,2,3,4.5\n", r"Received: '4\.5'"),
        ("1,2,3,4\n" * 3, "must have 4 lines.*Received: 3 lines"),
        ("1,2,3,4\n" * 5, "must have 4 lines.*Received: 5 lines"),
        ("", "Received: 0 lines"),
        ("1_0,2,3,4\n" * 4, "Received: '1_0'"),
        ("\ufffd", "line 1"),
    ],
)
def test_csv_refusals(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_table(tmp_path / "t.csv", 2, False)


@pytest.mark.parametrize(
    "source",
    [
        c_source(FLAT),
        c_source(FLAT + ","),
        c_source(", ".join(hex(v) for v in TABLE.ravel())),
        c_source(FLAT.replace("1,", "1L,")),
        c_source("\n".join("{" + ", ".join(map(str, row)) + ",}," for row in TABLE), "int table[4][8]"),
        c_source(FLAT) + "int small[2] = {1, 2};\nint zero = 0;\nint main(void) { int x = 3; return x; }\n",
        c_source(f"/* {FLAT} = {{1}} */ {FLAT} // 1, 2 = {{\n"),
        f'const char *text = "= {{{FLAT}}}";\n' + c_source(FLAT),
        f"struct lut t = {{ .bits = 8, .data = {{{FLAT}}} }};",
        c_source(", ".join(str(v % 2**16) for v in TABLE.ravel()), "const uint16_t table[]"),
        c_source(", ".join(hex(v % 2**16) for v in TABLE.ravel()), "const int16_t table[]"),
        c_source(", ".join(hex(v % 2**32) + "u" for v in TABLE.ravel()), "const uint32_t table[]"),
    ],
)
@pytest.mark.parametrize("suffix", [".c", ".h"])
def test_c_sources(tmp_path, source, suffix):
    (tmp_path / f"t{suffix}").write_text(source)
    assert np.array_equal(read_table(tmp_path / f"t{suffix}", BITS, True), TABLE)


def test_c_octal_and_unsigned_words(tmp_path):
    (tmp_path / "t.c").write_text("unsigned short t[] = {010, 0, 65535, 0xFFFF" + ", 1" * 12 + "};")
    assert read_table(tmp_path / "t.c", 2, False).ravel()[:4].tolist() == [8, 0, 65535, 65535]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (c_source(FLAT) + c_source(FLAT), r"exactly one.*found 2\).*Received: initialisers of \[32, 32\]"),
        (c_source(FLAT.partition(",")[2]), r"found 0\).*Received: initialisers of \[31\]"),
        (c_source(FLAT + ", 7"), r"Received: initialisers of \[33\]"),
        (c_source(FLAT.replace("1", "x", 1)), "found 0"),
        (c_source(FLAT.replace("1", "08", 1)), "found 0"),
        (c_source("{" + FLAT.replace("4,", "4}, {", 1) + "}"), "found 0"),
        (f"// {c_source(FLAT)}".replace("\n", " "), "found 0"),
        ("int f(int a, int b) { return a * b; }", r"initialisers of \[\]"),
        (c_source(FLAT)[:-20], "ends inside a brace"),
        (c_source(FLAT.replace("-5", str(2**40), 1)), "fit 32 bits"),
        ("", "found 0"),
    ],
)
def test_c_refusals(tmp_path, source, message):
    (tmp_path / "t.c").write_text(source)
    with pytest.raises(ValueError, match=rf"(?s)t\.c.*{message}") as error:
        read_table(tmp_path / "t.c", BITS, True)
    assert "Received: " in str(error.value)


def test_c_source_of_a_whole_multiplier(tmp_path):
    multiplier = multipliers.get("drum4", signed=True)
    rows = ",\n".join("{" + ",".join(map(str, row)) + "}" for row in multiplier.table.tolist())
    (tmp_path / "drum4.h").write_text(c_source(rows, "static const int16_t lut[256][256]"))
    assert Multiplier.load(tmp_path / "drum4.h", signed=True) == multiplier


@pytest.mark.parametrize("suffix", [".c", ".h"])
def test_c_is_read_only(tmp_path, suffix):
    with pytest.raises(ValueError, match="read only"):
        multipliers.get("exact").save(tmp_path / f"t{suffix}")


def test_unknown_suffix_missing_file_and_wrong_table(tmp_path):
    for name in ("t.txt", "t", "t.pkl"):
        with pytest.raises(ValueError, match=r"one of \.bin, \.c, \.csv, \.h, \.npy, \.npz"):
            read_table(tmp_path / name, 8, False)
        with pytest.raises(ValueError, match=r"one of \.bin, \.csv, \.npy, \.npz"):
            write_table(tmp_path / name, TABLE, BITS, True)
    for suffix in (".npy", ".npz", ".csv", ".bin", ".c"):
        with pytest.raises(FileNotFoundError, match="Received: path="):
            read_table(tmp_path / f"missing{suffix}", 8, False)
    with pytest.raises(ValueError, match=r"integers of shape \(256, 256\)"):
        write_table(tmp_path / "t.npy", TABLE, 8, True)
    with pytest.raises(ValueError, match=r"Received: shape=\(4, 8\), dtype=float64"):
        write_table(tmp_path / "t.npy", TABLE * 1.0, BITS, True)
