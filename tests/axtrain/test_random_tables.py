"""Zero differences to plain integer loops, for every engine of the registry, on tables of every kind."""

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

import axtrain as ax
from axtrain.emulation import conv2d, depthwise_conv2d, gather, matmul
from axtrain.emulation.code_table import CodeTable
from axtrain.emulation.factorisation import factorise, factorise_rest
from axtrain.emulation.int8_products import Int8Product, int8_factors
from axtrain.emulation.selection import ENGINES, engine_for

UNSIGNED = ["1JFF", "L40", "YX7", "2AC", "125K", "12N4", "DM1", "17KS", "JV3"]
SIGNED = ["1KR3", "1KV8", "1L2H", "1KVA", "1L1G", "1KRC", "1KX2"]
TABLES = [f"mul8u_{name}" for name in UNSIGNED] + [f"mul8s_{name}" for name in SIGNED]
WIDTHS = [(2, 2), (3, 2), (2, 5), (4, 4), (6, 3), (8, 2), (2, 10), (10, 4)]
KINDS = ["full rank", "rank 1", "rank 2", "zero", "of the weight alone", "of the activation alone", "extreme"]
LIMIT = 2**31 - 1


def words(shape, bits, seed):
    return np.random.default_rng(seed).integers(0, 1 << bits, shape)


def random_circuit(kind, bits, signed, seed):
    rng = np.random.default_rng(seed)
    shape = (1 << bits[0], 1 << bits[1])
    table = {
        "full rank": lambda: rng.integers(-70000, 70000, shape),
        "rank 1": lambda: np.outer(rng.integers(-99, 99, shape[0]), rng.integers(-99, 99, shape[1])),
        "rank 2": lambda: rng.integers(-99, 99, (shape[0], 2)) @ rng.integers(-99, 99, (2, shape[1])),
        "zero": lambda: np.zeros(shape, int),
        "of the weight alone": lambda: np.tile(rng.integers(-LIMIT, LIMIT, shape[1]), (shape[0], 1)),
        "of the activation alone": lambda: np.tile(rng.integers(-LIMIT, LIMIT, shape[0])[:, None], (1, shape[1])),
        "extreme": lambda: rng.choice([-LIMIT - 1, -LIMIT, -(2**24) - 1, -1, 0, 1, 2**24 + 1, LIMIT], shape),
    }[kind]()
    return ax.Multiplier(table, name=f"{kind} {bits}", bits=bits, signed=signed)


def available(circuit, engine):
    """Skips, with the engine's own reason, where it cannot be had for this table or on this machine."""
    try:
        chosen = engine_for(CodeTable.plain(circuit), engine)
    except (ValueError, ImportError) as reason:
        pytest.skip(f"{engine}: {reason}")
    if chosen.name != engine:
        pytest.skip(f"{engine} cannot run here; {chosen.name} would play")


def equal(found, expected):
    found = np.asarray(found)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, expected.astype(np.int32))  # an accumulator of 32 bits wraps, as int32 does


def check_products(circuit, engine, seed):
    """A matrix product, a convolution and a depthwise one of words drawn from a seed."""
    a_bits, b_bits = circuit.activation_bits, circuit.weight_bits
    a, b = words((3, 11), a_bits, seed), words((11, 4), b_bits, seed + 1)
    equal(matmul(a, b, circuit, engine), reference.matmul(a, b, circuit.table))
    a, b = words((2, 4, 5, 3), a_bits, seed + 2), words((2, 3, 3, 2), b_bits, seed + 3)
    options = {"padding": "same", "zero_point": int(words((), a_bits, seed + 4))}
    strided = {**options, "strides": (2, 1)}
    equal(conv2d(a, b, circuit, engine=engine, **strided), reference.conv2d(a, b, circuit.table, **strided))
    found = depthwise_conv2d(a, b, circuit, engine=engine, **options)
    equal(found, reference.depthwise_conv2d(a, b, circuit.table, **options))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", TABLES)
@pytest.mark.cases("17KS", "12N4", "YX7", "1KR3", "1L2H", "1KX2")  # each signedness coarse, medium and fine
def test_real_tables(name, engine, shared):
    circuit = ax.Multiplier.load(shared / "luts" / f"{name}.npy", signed="mul8s" in name)
    available(circuit, engine)
    check_products(circuit, engine, seed=0)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=3, deadline=None, derandomize=True)
@given(bits=st.sampled_from(WIDTHS), signed=st.booleans(), seed=st.integers(0, 2**31))
def test_random_tables(kind, engine, bits, signed, seed):
    circuit = random_circuit(kind, bits, signed, seed)
    if kind == "extreme" and engine == "low_rank":
        with pytest.raises(ValueError, match="too large for exact float32 sums"):
            matmul([[0]], [[0]], circuit, engine)
        return
    available(circuit, engine)
    check_products(circuit, engine, seed)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("bits", [(8, 8), (10, 8), (8, 10)])
@pytest.mark.parametrize("kind", ["rank 1", "rank 2", "full rank"])
def test_wide_random_tables(kind, bits, engine):
    if kind == "full rank" and bits != (8, 8) and engine == "low_rank":
        pytest.skip("256 products for each one: never chosen, and minutes long")
    circuit = random_circuit(kind, bits, signed=bits[0] == 8, seed=sum(bits))
    available(circuit, engine)
    check_products(circuit, engine, seed=1)


def test_low_rank_is_never_skipped_for_what_it_is_for(shared):
    """The skips above may not hide it: each signed real table and each random low rank has exact terms."""
    circuits = [ax.Multiplier.load(shared / "luts" / f"mul8s_{name}.npy", signed=True) for name in SIGNED]
    circuits += [random_circuit(kind, (8, 8), False, 3) for kind in ("rank 1", "rank 2", "zero")]
    assert all(engine_for(CodeTable.plain(circuit), "low_rank").name == "low_rank" for circuit in circuits)


def test_the_native_engine_is_skipped_for_no_width():
    pytest.importorskip("numba")
    for kind, bits in [("zero", (10, 10)), *(("extreme", bits) for bits in WIDTHS)]:
        assert engine_for(CodeTable.plain(random_circuit(kind, bits, False, 0)), "numba").name == "numba"


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("kind, bits", [("full rank", (8, 8)), ("extreme", (2, 10)), ("rank 2", (10, 4))])
def test_gathers_compiled_or_at_once(kind, bits, compiled, monkeypatch):
    """Few products are looked up at once, many by a program for their shapes; their number decides nothing else."""
    monkeypatch.setattr(gather, "_FEW_PRODUCTS", 0 if compiled else 1 << 40)
    circuit = random_circuit(kind, bits, True, 7)
    check_products(circuit, "gather", seed=3)
    table, (rows, columns) = CodeTable.plain(circuit), circuit.table.shape
    engine = engine_for(table, "gather")
    assert bool(engine._compiled) == compiled
    a, b = words((2, 3, 5), bits[0], 0), words((2, 5, 4), bits[1], 1)
    expected = [reference.matmul(*pair, circuit.table) for pair in zip(a, b, strict=True)]
    a, b = (np.where(x >= n // 2, x - n, x) for x, n in ((a, rows), (b, columns)))  # words as signed codes
    equal(engine.batched_matmul(a, b), np.array(expected))


def worst_operands(circuit, length):
    """Raw words (1, K) and (K, 2): every term the pair of codes at which the factors' parts are the largest."""
    table = CodeTable.plain(circuit)
    factors = factorise_rest(table)
    each = factors.activation[:, :, None] * factors.weight[None, :, :]
    parts = np.maximum(np.maximum(each, 0).sum(axis=1), np.maximum(-each, 0).sum(axis=1))
    a, b = np.unravel_index(parts.argmax(), parts.shape)
    rows, columns = circuit.table.shape
    left = np.full((1, length), (a + table.activation_low) % rows)
    right = np.full((length, 2), (b + table.weight_low) % columns)
    right[::3, 1] = words((len(right[::3]),), circuit.weight_bits, 0)
    return left, right


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("beyond", [-1, 0, 1])
@pytest.mark.parametrize("name", ["exact", "kulkarni", "truncated6", "rank 2"])
def test_contractions_on_both_sides_of_the_exact_terms(name, beyond, engine):
    """Up to floor(2^24 / bound) terms float32 needs no cut, one more needs it."""
    circuit = random_circuit(name, (8, 8), True, 0) if "rank" in name else ax.multipliers.get(name)
    available(circuit, engine)
    a, b = worst_operands(circuit, factorise_rest(CodeTable.plain(circuit)).exact_terms + beyond)
    equal(matmul(a, b, circuit, engine), reference.matmul(a, b, circuit.table))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("channels", [128, 129])
def test_windows_on_both_sides_of_the_exact_terms(channels, engine):
    """2x2 windows of 128 channels sum 512 products of the largest codes, within the 514 exact ones; 129 do not."""
    circuit = ax.multipliers.get("exact")
    assert 4 * 128 <= factorise_rest(CodeTable.plain(circuit)).exact_terms < 4 * 129
    available(circuit, engine)
    a, b = np.full((1, 3, 2, channels), 255), np.full((2, 2, channels, 2), 255)
    b[0, 0, :, 1] = words((channels,), 8, 0)
    equal(conv2d(a, b, circuit, engine=engine), reference.conv2d(a, b, circuit.table))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("length", [255, 256, 257, 258, 259])
@pytest.mark.parametrize("words_of", [(255, 255), (255, 1), (0, 255)])
def test_contractions_where_narrow_accumulators_overflow(words_of, length, engine):
    """16 bits hold 257 terms of 255 unsigned; a table of -1 at zero operands needs a sign as well."""
    table = np.outer(np.arange(256), np.arange(256))
    table[0] = -255
    circuit = ax.Multiplier(table, name="with an error at zero", bits=8, signed=False)
    available(circuit, engine)
    a, b = np.full((2, length), words_of[0]), np.full((length, 3), words_of[1])
    equal(matmul(a, b, circuit, engine), reference.matmul(a, b, circuit.table))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("length", [65535, 65536, 65537])
def test_contractions_as_long_as_a_16_bit_counter(length, engine):
    circuit = ax.multipliers.get("operand_truncated2", signed=True)
    available(circuit, engine)
    a, b = np.full((1, length), 128), np.full((length, 1), 128)  # -128 times -128: sums up to 2^30
    equal(matmul(a, b, circuit, engine), np.array([[length * int(circuit.table[128, 128])]]))


@pytest.mark.parametrize("length", [131071, 131072, 131073, 300000])
def test_int8_products_wrap_where_a_32_bit_accumulator_wraps(length):
    circuit = ax.multipliers.get("exact", signed=True)
    table = CodeTable.plain(circuit)
    product = Int8Product(int8_factors(factorise(table)), table)
    a, b = np.full((1, length), -128), np.full((length, 1), -128)
    found = product(ops.convert_to_tensor(a, "int32"), ops.convert_to_tensor(b, "int32"))
    equal(found, np.array([[length * 128 * 128]]))


ENCODED = {
    "a factor that is the code, int8": ("exact", True, ("plain", "plain")),
    "five factors, int8": ("truncated4", True, ("plain", "plain")),
    "two factors, float32": ("kulkarni", False, ("plain", "plain")),
    "a shift per activation": ("drum4", False, ("plain", "offset")),
}


@pytest.mark.parametrize("name", ENCODED)
def test_products_large_enough_for_compiled_look_ups_and_int8(name):
    of, signed, encodings = ENCODED[name]
    circuit = ax.multipliers.get(of, signed=signed)
    table = (
        CodeTable.encoded(circuit, activations=encodings[0], weights=encodings[1]).restricted(weights=(-127, 127))
        if "offset" in encodings or signed
        else CodeTable.plain(circuit)
    )
    engine = engine_for(table, "low_rank")
    assert ("int8" in name) == (int8_factors(engine.rest) is not None)
    assert ("per activation" in name) == engine.rest.activation_shift.any()
    rows, columns = table.products.shape
    a, b = (
        np.random.default_rng(0).integers(0, rows, (420, 80)),
        np.random.default_rng(1).integers(0, columns, (80, 450)),
    )
    expected = reference.matmul(a, b, table.products)
    equal(engine.matmul(a + table.activation_low, b + table.weight_low), expected)
    image, kernel = a.reshape(1, 21, 20, 80) + table.activation_low, b.reshape(1, 1, 80, 450) + table.weight_low
    equal(engine.conv(image, kernel, (1, 1), (1, 1)), expected.reshape(1, 21, 20, 450))
    each = table.products[a[:, :, None], b[None, :, :4]]  # the products of one channel are not summed
    equal(
        engine.depthwise_conv(image, kernel[..., :4], (1, 1), (1, 1)),
        each.reshape(1, 21, 20, 320),
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_one_product_for_each_of_a_batch_of_weights(engine):
    """Where both operands are activations, as in attention: (2, 3, M, K) with (2, 3, K, N)."""
    for name in ("exact", "kulkarni"):
        circuit = ax.multipliers.get(name)
        a, b = words((2, 3, 4, 9), 8, 0), words((2, 3, 9, 5), 8, 1)
        available(circuit, engine)
        chosen = engine_for(CodeTable.plain(circuit), engine, operation="batched")
        assert chosen.name == engine
        expected = [
            [reference.matmul(*pair, circuit.table) for pair in zip(*pairs, strict=True)]
            for pairs in zip(a, b, strict=True)
        ]
        equal(chosen.batched_matmul(a, b), np.array(expected))
