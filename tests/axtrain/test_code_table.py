"""A table over a layer's codes, against plain loops for each encoding."""

import itertools

import numpy as np
import pytest
import reference

import axtrain as ax
from axtrain.emulation.code_table import CodeTable, encoded_table


@pytest.fixture(params=["drum4", "roba", "mul8u_2AC", "mul8u_L40"])
def circuit(request):
    if request.param.startswith("mul8u"):
        shared = request.getfixturevalue("shared")
        return ax.Multiplier.load(shared / "luts" / f"{request.param}.npy", signed=False)
    return ax.multipliers.get(request.param)


def sign(value):
    return -1 if value < 0 else 1  # from the sign bit: +1 for 0


def test_sign_magnitude_weights(circuit):
    table = CodeTable.encoded(circuit, activations="plain", weights="sign_magnitude")
    assert (table.activation_low, table.weight_low) == (0, -128)
    expected = [[sign(b) * int(circuit.table[a, abs(b)]) for b in range(-128, 128)] for a in range(256)]
    np.testing.assert_array_equal(table.products, expected)


def test_sign_magnitude_of_both(circuit):
    table = CodeTable.encoded(circuit, activations="sign_magnitude", weights="sign_magnitude")
    assert (table.activation_low, table.weight_low) == (-128, -128)
    codes = range(-128, 128)
    expected = [[sign(a) * sign(b) * int(circuit.table[abs(a), abs(b)]) for b in codes] for a in codes]
    np.testing.assert_array_equal(table.products, expected)


def test_sign_magnitude_keeps_the_error_of_a_zero_operand(shared):
    circuit = ax.Multiplier.load(shared / "luts" / "mul8u_2AC.npy", signed=False)
    table = CodeTable.encoded(circuit, activations="sign_magnitude", weights="sign_magnitude")
    zero_row = table.products[128]
    assert zero_row.any()
    np.testing.assert_array_equal(zero_row[128:], circuit.table[0, :128])
    np.testing.assert_array_equal(zero_row[:128], -circuit.table[0, 128:0:-1])


@pytest.mark.parametrize("activations", ["plain", "offset"])
def test_offset_equals_the_raw_words_and_the_zero_point_corrections(circuit, activations):
    """``sum M[raw] - z_b sum raw_a - z_a sum raw_b + K z_a z_b``, by loops (theory page, section 1)."""
    table = CodeTable.encoded(circuit, activations=activations, weights="offset")
    z_a, z_b = (128 if activations == "offset" else 0), 128
    rng = np.random.default_rng(0)
    raw_a, raw_b = rng.integers(0, 256, (6, 50)), rng.integers(0, 256, (50, 7))
    corrected = (
        reference.matmul(raw_a, raw_b, circuit.table)
        - z_b * raw_a.sum(1)[:, None]
        - z_a * raw_b.sum(0)[None, :]
        + 50 * z_a * z_b
    )
    assert (table.activation_low, table.weight_low) == (-z_a, -z_b)
    # Row i of the table is the raw word i here, so the words index it directly.
    np.testing.assert_array_equal(reference.matmul(raw_a, raw_b, table.products), corrected)


@pytest.mark.parametrize("name", ["exact", "drum4"])
def test_plain_signed_tables_are_in_the_order_of_the_values(name):
    circuit = ax.multipliers.get(name, signed=True)
    for table in (CodeTable.plain(circuit), CodeTable.encoded(circuit, activations="plain", weights="plain")):
        assert (table.activation_low, table.weight_low) == (-128, -128)
        codes = np.arange(-128, 128)
        np.testing.assert_array_equal(table.products, circuit.table[np.ix_(codes % 256, codes % 256)])


@pytest.mark.parametrize("bits", [2, 4, (8, 4)])
@pytest.mark.parametrize(
    ("activations", "weights"),
    list(itertools.product(["plain", "sign_magnitude", "offset"], repeat=2)),
)
def test_the_exact_circuit_is_exact_under_every_encoding(bits, activations, weights):
    table = CodeTable.encoded(ax.multipliers.get("exact", bits=bits), activations=activations, weights=weights)
    np.testing.assert_array_equal(table.products, np.outer(table.activation_codes, table.weight_codes))
    assert not table.error.any()


def test_error_is_products_minus_the_product_of_the_codes(circuit):
    table = CodeTable.encoded(circuit, activations="plain", weights="sign_magnitude")
    a, b = 200, -77
    assert table.error[a, b + 128] == -int(circuit.table[200, 77]) - a * b


def test_tables_are_values():
    circuit = ax.multipliers.get("drum4")
    first = CodeTable.encoded(circuit, activations="plain", weights="offset")
    second = CodeTable.encoded(circuit, activations="plain", weights="offset")
    assert first == second and hash(first) == hash(second) and first is not second
    assert first != CodeTable(first.products, first.activation_low + 1, first.weight_low)
    assert first != CodeTable.encoded(circuit, activations="plain", weights="sign_magnitude")
    assert first != "a table"
    assert encoded_table(circuit, "plain", "offset") == first
    with pytest.raises(ValueError, match="read-only"):
        first.products[0, 0] = 1
