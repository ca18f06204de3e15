"""Integer factors rebuild every table exactly, and their bound really bounds every partial sum."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import axtrain as ax
from axtrain.emulation.bounds import smallest_possible
from axtrain.emulation.code_table import CodeTable
from axtrain.emulation.factorisation import EXACT_FLOAT32, exact_rank, factorise, factorise_rest
from axtrain.emulation.int8_products import int8_factors

LOW_RANK = [name for name in ax.multipliers.names() if name != "mitchell"]


def family_table(name, signed=False):
    return CodeTable.plain(ax.multipliers.get(name, signed=signed))


def rebuilt(factors):
    whole = (factors.activation + factors.shift) @ factors.weight
    return whole + factors.weight_shift[None, :] + factors.activation_shift[:, None]


def check(table, factorise=factorise):
    factors = factorise(table)
    np.testing.assert_array_equal(rebuilt(factors), table.products)
    for part in (factors.activation, factors.weight, factors.shift, factors.weight_shift, factors.activation_shift):
        assert part.dtype == np.int64
    if factorise is not factorise_rest:
        assert not factors.weight_shift.any() and not factors.activation_shift.any()
    # The positive and the negative part of each pair's sum, product by product.
    each = factors.activation[:, :, None] * factors.weight[None, :, :]
    parts = np.maximum(each, 0).sum(axis=1), np.maximum(-each, 0).sum(axis=1)
    assert factors.bound == max(parts[0].max(), parts[1].max())
    assert factors.bound >= smallest_possible(table.products - factors.activation_shift[:, None])
    assert factors.exact_terms * factors.bound <= EXACT_FLOAT32 < (factors.exact_terms + 1) * max(factors.bound, 1)
    return factors


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("name", LOW_RANK)
def test_factors_of_the_families(name, signed):
    table = family_table(name, signed)
    assert check(table).rank == exact_rank(table) == np.linalg.matrix_rank(table.products.astype(float))


def test_partial_sums_stay_within_the_bound_in_any_order():
    """All K at one pair, added in the order that gets furthest from zero: all positive products first."""
    table = family_table("truncated6")
    factors = factorise(table)
    each = factors.activation[:, :, None] * factors.weight[None, :, :]
    furthest = 0
    for a, b in np.random.default_rng(0).integers(0, 256, (200, 2)):
        for order in (np.sort(each[a, :, b]), np.sort(each[a, :, b])[::-1]):
            sums = np.cumsum(np.repeat(order, 3))  # K = 3
            furthest = max(furthest, np.abs(sums).max())
    assert 1.5 * factors.bound < furthest <= 3 * factors.bound


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
    assert exact_rank(table) == np.linalg.matrix_rank(products.astype(float))
    assert check(table).rank == max(exact_rank(table), 1)
    without_rows = products - products[:1]
    without = without_rows - without_rows[:, :1]
    assert check(table, factorise_rest).rank == max(np.linalg.matrix_rank(without.astype(float)), 1)


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


@pytest.mark.parametrize("values", [[0, 1, -1, 7], [2**31 - 1, -(2**31), 2**24 + 1, -(2**24) - 1]])
@pytest.mark.parametrize("of", ["weights", "activations"])
def test_a_function_of_one_code_alone_costs_no_product(of, values):
    products = np.tile(values, (4, 1))
    factors = check(CodeTable(products if of == "weights" else products.T, 0, 0), factorise_rest)
    assert factors.bound == 0


def test_offset_weights_cost_no_product():
    """Their zero-point term is a function of the activation: rank 2 becomes one product."""
    table = CodeTable.encoded(ax.multipliers.get("drum4"), activations="plain", weights="offset")
    factors = check(table, factorise_rest)
    assert (exact_rank(table), check(table).rank, factors.rank) == (2, 2, 1)
    assert factors.activation_shift.any()


def test_an_error_at_zero_costs_no_product(shared):
    """2AC: M(0, b) is not 0, and is a function of the weight alone."""
    table = CodeTable.plain(ax.Multiplier.load(shared / "luts" / "mul8u_2AC.npy", signed=False))
    factors = check(table, factorise_rest)
    assert (exact_rank(table), check(table).rank, factors.rank) == (11, 11, 10)
    assert factors.weight_shift.any() and not factors.activation_shift.any()


@pytest.mark.parametrize("name", ["mul8s_1KRC", "mul8s_1KVA", "mul8s_1KX2", "mul8u_125K"])
def test_the_bound_of_the_real_tables_is_within_a_percent_of_the_smallest_possible(name, shared):
    table = CodeTable.plain(ax.Multiplier.load(shared / "luts" / f"{name}.npy", signed="mul8s" in name))
    floor = smallest_possible(table.products)
    assert floor <= check(table).bound <= 1.01 * floor


def test_the_error_form_is_taken_where_its_bound_is_smaller():
    """M = a b + 100 [a = 3][b = 3]: both forms have two products."""
    products = np.outer(np.arange(-8, 8), np.arange(-8, 8))
    products[11, 11] += 100
    table = CodeTable(products, -8, -8)
    factors = check(table)
    assert factors.rank == exact_rank(table) == 2 == 1 + np.linalg.matrix_rank(table.error.astype(float))
    assert factors.bound <= 109


def test_ranks_too_high_to_reduce_fall_back_on_the_distinct_rows():
    rng = np.random.default_rng(0)
    products = rng.integers(-9, 9, (80, 60)) @ rng.integers(-9, 9, (60, 100))
    table = CodeTable(np.concatenate([products, products[:10]]), 0, 0)
    assert exact_rank(table) == 60
    assert check(table).rank == 80


@pytest.mark.parametrize("name", ["exact", "drum4", "roba", "truncated4", "operand_truncated2"])
def test_factors_of_symmetric_codes_fit_int8(name):
    table = family_table(name, signed=True).restricted(activations=(-127, 127), weights=(-127, 127))
    fitting = int8_factors(factorise(table))
    np.testing.assert_array_equal(rebuilt(fitting), table.products)
    for factor in (fitting.activation, fitting.weight):
        assert -128 <= factor.min() <= factor.max() <= 127


@pytest.mark.parametrize("name", ["exact", "kulkarni"])
def test_factors_of_unsigned_weights_do_not_fit_int8(name):
    assert int8_factors(factorise(family_table(name))) is None


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    arrays(np.int64, (16, 2), elements=st.integers(-90, 90)),
    arrays(np.int64, (2, 16), elements=st.integers(-90, 90)),
    st.sampled_from([1, 4, 12]),
)
def test_int8_factors_of_random_tables(left, right, common):
    factors = factorise(CodeTable(common * (left @ right), 0, 0))
    fitting = int8_factors(factors)
    if fitting is None:  # only where some column and row really are too wide for 8 bits each
        ranges = np.ptp(factors.activation, axis=0) * np.abs(factors.weight).max(axis=1)
        assert ranges.max() > 127
    else:
        np.testing.assert_array_equal(rebuilt(fitting), rebuilt(factors))


def test_restricted_tables_leave_out_codes_and_with_them_rank(shared):
    circuit = ax.Multiplier.load(shared / "luts" / "mul8u_JV3.npy", signed=False)
    table = CodeTable.encoded(circuit, activations="sign_magnitude", weights="sign_magnitude")
    without = table.restricted(activations=(-127, 127), weights=(-127, 127))
    np.testing.assert_array_equal(without.products, table.products[1:, 1:])
    assert (without.activation_low, without.weight_low) == (-127, -127)
    assert [check(each).rank for each in (table, without)] == [6, 4]
    behind_relu = table.restricted(activations=(0, 127))
    np.testing.assert_array_equal(behind_relu.products, table.products[128:])
    assert (behind_relu.activation_low, behind_relu.weight_low) == (0, -128)
    assert table.restricted() == table


@pytest.mark.parametrize("codes", [(-129, 0), (0, 128), (5, 4), (200, 300)])
@pytest.mark.parametrize("name", ["activations", "weights"])
def test_codes_that_a_table_does_not_have_raise(name, codes):
    table = family_table("exact", signed=True)
    with pytest.raises(ValueError, match=f"`{name}` must be a range.*-128 .. 127.*Received: {name}="):
        table.restricted(**{name: codes})
