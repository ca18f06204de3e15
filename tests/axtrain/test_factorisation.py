"""Integer factors rebuild every table exactly, and their bound really bounds every partial sum."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import axtrain as ax
from axtrain.emulation.code_table import CodeTable
from axtrain.emulation.factorisation import EXACT_FLOAT32, exact_rank, factorise

LOW_RANK = [name for name in ax.multipliers.names() if name != "mitchell"]


def family_table(name, signed=False):
    return CodeTable.plain(ax.multipliers.get(name, signed=signed))


def check(table):
    factors = factorise(table)
    rebuilt = (factors.activation + factors.shift) @ factors.weight
    np.testing.assert_array_equal(rebuilt, table.products)
    for part in (factors.activation, factors.weight, factors.shift):
        assert part.dtype == np.int64
    assert factors.bound == (np.abs(factors.activation) @ np.abs(factors.weight)).max()
    assert factors.exact_terms * factors.bound <= EXACT_FLOAT32 < (factors.exact_terms + 1) * max(factors.bound, 1)
    return factors


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("name", LOW_RANK)
def test_factors_of_the_families(name, signed):
    table = family_table(name, signed)
    assert check(table).rank == exact_rank(table) == np.linalg.matrix_rank(table.products.astype(float))


@pytest.mark.parametrize("encodings", [("plain", "sign_magnitude"), ("plain", "offset"), ("offset", "sign_magnitude")])
@pytest.mark.parametrize("name", ["exact", "drum4", "roba", "broken_array_2_8"])
def test_factors_of_encoded_tables(name, encodings):
    circuit = ax.multipliers.get(name)
    check(CodeTable.encoded(circuit, activations=encodings[0], weights=encodings[1]))


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("exact", 1, 1),
        *((f"drum{k}", 1, 1) for k in range(3, 8)),
        *((f"operand_truncated{k}", 1, 1) for k in range(1, 5)),
        ("roba", 2, 2),
        ("kulkarni", 2, 2),
        *((f"truncated{t}", 5, 7) for t in (4, 6, 8)),
        *((f"broken_array_{levels}", 3, 6) for levels in ("2_4", "2_8", "4_8")),
        ("mitchell", 128, 128),
    ],
)
def test_ranks_on_the_theory_page(name, least, most):
    assert least <= exact_rank(family_table(name)) <= most


def test_ranks_of_the_real_tables(shared):
    ranks = {}
    for path in sorted((shared / "luts").glob("*.npy")):
        ranks[path.stem] = exact_rank(CodeTable.plain(ax.Multiplier.load(path, signed="mul8s" in path.stem)))
    assert {name: ranks[f"mul8u_{name}"] for name in ("L40", "12N4")} == {"L40": 193, "12N4": 229}
    assert all(rank <= 5 for name, rank in ranks.items() if name.startswith("mul8s"))
    assert sum(name.startswith("mul8s") for name in ranks) == 7


@settings(max_examples=60, deadline=None, derandomize=True)
@given(arrays(np.int32, (8, 8), elements=st.integers(-50, 50)))
def test_rank_and_factors_of_small_random_tables(products):
    table = CodeTable(products, 0, 0)
    rank = np.linalg.matrix_rank(products.astype(float))
    assert exact_rank(table) == rank
    factors = check(table)
    assert factors.rank == max(rank, 1)  # the zero table still has one column of zeros


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    arrays(np.int64, (16, 3), elements=st.integers(-20, 20)), arrays(np.int64, (3, 16), elements=st.integers(-20, 20))
)
def test_tables_made_of_few_integer_factors(left, right):
    products = left @ right
    table = CodeTable(products, -3, 5)
    assert exact_rank(table) == np.linalg.matrix_rank(products.astype(float)) <= 3
    check(table)


def test_centring_halves_the_bound_of_the_exact_unsigned_table():
    factors = factorise(family_table("exact"))
    assert factors.bound == 128 * 255
    assert factors.exact_terms == 514


def test_a_lattice_that_the_pivot_rows_do_not_span():
    """Rows 2x and 3x: only the greatest common divisor x gives integer coordinates to both."""
    row = np.array([1, 2, 3, 4])
    check(CodeTable(np.array([2 * row, 3 * row, 0 * row, 5 * row]), 0, 0))
