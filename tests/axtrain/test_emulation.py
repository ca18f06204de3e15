"""Every engine equals plain integer loops, with zero differences."""

import numpy as np
import pytest
import reference
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import axtrain as ax
from axtrain.emulation import conv2d, depthwise_conv2d, matmul
from axtrain.emulation.code_table import CodeTable
from axtrain.emulation.factorisation import factorise
from axtrain.emulation.selection import engine_for

UNSIGNED = ["1JFF", "L40", "YX7", "2AC", "125K", "12N4", "DM1", "17KS", "JV3"]
SIGNED = ["1KR3", "1KV8", "1L2H", "1KVA", "1L1G", "1KRC", "1KX2"]
TABLES = [f"mul8u_{name}" for name in UNSIGNED] + [f"mul8s_{name}" for name in SIGNED]
BOTH_ENGINES = ["mul8u_1JFF", "mul8u_2AC", "mul8u_17KS", "mul8s_1KVA", "mul8s_1KX2"]
SHAPES = ((2, 7, 6, 3), (3, 2, 3, 5))
OPTIONS = {"strides": (2, 1), "padding": "same", "dilation_rate": (1, 1), "zero_point": 3}


@pytest.fixture(scope="module")
def load(shared):
    def load(name):
        return ax.Multiplier.load(shared / "luts" / f"{name}.npy", signed=name.startswith("mul8s"))

    return load


def codes(shape, multiplier=None, seed=0, bits=8):
    bits = bits if multiplier is None else multiplier.weight_bits
    return np.random.default_rng(seed).integers(0, 1 << bits, shape)


def equal(found, expected):
    found = np.asarray(found)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", TABLES)
def test_real_tables_through_matmul(name, load):
    circuit, a, b = load(name), codes((5, 37)), codes((37, 4), seed=1)
    equal(matmul(a, b, circuit), reference.matmul(a, b, circuit.table))


@pytest.mark.parametrize("name", TABLES)
def test_real_tables_through_conv2d(name, load):
    circuit, a, b = load(name), codes(SHAPES[0]), codes(SHAPES[1], seed=1)
    equal(conv2d(a, b, circuit, **OPTIONS), reference.conv2d(a, b, circuit.table, **OPTIONS))


@pytest.mark.parametrize("name", TABLES)
def test_real_tables_through_depthwise_conv2d(name, load):
    circuit, a, b = load(name), codes(SHAPES[0]), codes((3, 2, 3, 2), seed=1)
    options = {**OPTIONS, "strides": (1, 1)}
    equal(depthwise_conv2d(a, b, circuit, **options), reference.depthwise_conv2d(a, b, circuit.table, **options))


@pytest.mark.parametrize("engine", ["low_rank", "gather"])
@pytest.mark.parametrize("name", BOTH_ENGINES)
def test_real_tables_with_the_engine_forced(name, engine, load):
    circuit, a, b = load(name), codes(SHAPES[0]), codes(SHAPES[1], seed=1)
    options = {**OPTIONS, "strides": (1, 1)}
    equal(matmul(a[0, 0], b[0, 0], circuit, engine), reference.matmul(a[0, 0], b[0, 0], circuit.table))
    equal(conv2d(a, b, circuit, engine=engine, **OPTIONS), reference.conv2d(a, b, circuit.table, **OPTIONS))
    b = codes((2, 2, 3, 2), seed=2)
    equal(
        depthwise_conv2d(a, b, circuit, engine=engine, **options),
        reference.depthwise_conv2d(a, b, circuit.table, **options),
    )


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("name", ax.multipliers.names())
@pytest.mark.parametrize("engine", ["low_rank", "gather"])
def test_every_product_of_every_family(name, signed, engine):
    circuit = ax.multipliers.get(name, signed=signed)
    words = np.arange(256)
    equal(matmul(words[:, None], words[None, :], circuit, engine), circuit.table)


@pytest.mark.parametrize("name", TABLES)
def test_every_product_of_every_real_table(name, load):
    words, circuit = np.arange(256), load(name)
    equal(matmul(words[:, None], words[None, :], circuit), circuit.table)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [2, 3, 4, 6, 10, (8, 4), (4, 8)])
@pytest.mark.parametrize("name", ["exact", "drum2", "kulkarni", "truncated2"])
# Of the widest tables one sign of each circuit: their codes differ by an offset alone.
@pytest.mark.cases("-2-", "-3-", "-4-", "-6-", "-bits", "exact-10-True", "drum2-10-False", "kulkarni-10-T", "ed2-10-F")
def test_other_widths(name, bits, signed):
    if name == "kulkarni" and bits == 3:
        pytest.skip("made of 2x2 blocks: even widths only")
    circuit = ax.multipliers.get(name, bits=bits, signed=signed)
    a = codes((4, 21), bits=circuit.activation_bits)
    b = codes((21, 3), bits=circuit.weight_bits, seed=1)
    equal(matmul(a, b, circuit), reference.matmul(a, b, circuit.table))
    a = codes((1, 5, 5, 2), bits=circuit.activation_bits)
    b = codes((3, 3, 2, 2), bits=circuit.weight_bits, seed=1)
    equal(conv2d(a, b, circuit, padding="same"), reference.conv2d(a, b, circuit.table, padding="same"))


def raw(value, circuit):
    return value % (1 << circuit.activation_bits)


@pytest.mark.parametrize("engine", [None, "low_rank", "gather"])
@pytest.mark.parametrize("length", [514, 515, 1029, 4099])
@pytest.mark.parametrize(
    ("signed", "a_value", "b_value"),
    [(False, 255, 255), (False, 255, 0), (False, 0, 255), (True, -128, -128), (True, 127, -128), (True, 127, 127)],
)
def test_extreme_operands_beyond_the_exactness_bound(engine, length, signed, a_value, b_value):
    circuit = ax.multipliers.get("exact", signed=signed)
    a, b = np.full((2, length), a_value), np.full((length, 3), b_value)
    b[::7] += -1 if b_value > 0 else 1  # odd sums, which float32 loses first
    equal(matmul(a, b, circuit, engine), reference.matmul(raw(a, circuit), raw(b, circuit), circuit.table))


@pytest.mark.parametrize("name", ["mul8u_2AC", "mul8u_125K", "mul8s_1KX2"])
def test_the_worst_pair_of_codes_beyond_the_exactness_bound(name, load):
    """All terms at the pair where the products of the factors are largest in sum."""
    circuit = load(name)
    table = CodeTable.plain(circuit)
    factors = factorise(table)
    bounds = np.abs(factors.activation) @ np.abs(factors.weight)
    a_code, b_code = np.unravel_index(bounds.argmax(), bounds.shape)
    length = 3 * factors.exact_terms + 5
    a = np.full((1, length), raw(int(a_code) + table.activation_low, circuit))
    b = np.full((length, 2), raw(int(b_code) + table.weight_low, circuit))
    b[:, 1] = codes(length)
    equal(matmul(a, b, circuit, "low_rank"), reference.matmul(a, b, circuit.table))


@pytest.mark.parametrize("channels", [57, 58, 130])
def test_convolution_with_channels_beyond_the_exactness_bound(channels):
    """3x3 windows of 57 channels sum 513 products of at most 255^2: the last contraction without a cut."""
    circuit = ax.multipliers.get("exact")
    a, b = np.full((1, 4, 4, channels), 255), np.full((3, 3, channels, 2), 255)
    b[..., 1] = codes((3, 3, channels))
    equal(
        conv2d(a, b, circuit, engine="low_rank", padding="same", zero_point=255),
        reference.conv2d(a, b, circuit.table, padding="same", zero_point=255),
    )


@pytest.mark.parametrize("engine", [None, "low_rank", "gather"])
@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("dilation_rate", [1, 2])
def test_one_window_beyond_the_exactness_bound(engine, strides, dilation_rate):
    """10 bits: 32 products of the exact table are exact in float32, and the window alone has 49."""
    circuit = ax.multipliers.get("exact", bits=10)
    a, b = np.full((1, 15, 14, 2), 1023), np.full((7, 7, 2, 1), 1023)
    b[::2] = codes((4, 7, 2, 1), bits=10)
    pairs = {"strides": (strides, strides), "dilation_rate": (dilation_rate, dilation_rate)}
    equal(conv2d(a, b, circuit, engine=engine, **pairs), reference.conv2d(a, b, circuit.table, **pairs))


@pytest.mark.parametrize("engine", [None, "low_rank", "gather"])
def test_a_depthwise_window_beyond_the_exactness_bound(engine):
    circuit = ax.multipliers.get("exact", bits=10)
    a, b = np.full((1, 6, 8, 2), 1023), np.full((5, 7, 2, 2), 1023)
    b[::2] = codes((3, 7, 2, 2), bits=10)
    equal(depthwise_conv2d(a, b, circuit, engine=engine), reference.depthwise_conv2d(a, b, circuit.table))


@st.composite
def convolutions(draw):
    size = draw(st.tuples(st.integers(3, 9), st.integers(3, 9)))
    window = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    padding = draw(st.sampled_from(["valid", "same"]))
    if padding == "valid":  # the dilated window has to fit
        dilation = tuple(d if (k - 1) * d < n else 1 for k, d, n in zip(window, dilation, size, strict=True))
    options = {
        "strides": draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        "padding": padding,
        "dilation_rate": dilation,
        "zero_point": draw(st.integers(0, 255)),
    }
    channels, filters = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    seed = draw(st.integers(0, 2**31))
    a = codes((draw(st.integers(1, 2)), *size, channels), seed=seed)
    return a, codes((*window, channels, filters), seed=seed + 1), options


# 2AC has rank 11 and M(0, b) != 0; the random table has full rank and goes through the gather.
CIRCUITS = {
    "drum4": lambda load: ax.multipliers.get("drum4"),
    "2AC": lambda load: load("mul8u_2AC"),
    "random": lambda load: ax.Multiplier(
        np.random.default_rng(0).integers(-70000, 70000, (256, 256)), name="random", bits=8, signed=False
    ),
}


@pytest.mark.parametrize("circuit", CIRCUITS)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(case=convolutions())
def test_any_convolution(circuit, load, case):
    multiplier, (a, b, options) = CIRCUITS[circuit](load), case
    equal(conv2d(a, b, multiplier, **options), reference.conv2d(a, b, multiplier.table, **options))
    equal(depthwise_conv2d(a, b, multiplier, **options), reference.depthwise_conv2d(a, b, multiplier.table, **options))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(1, 6), st.integers(1, 700), st.integers(1, 5), st.integers(0, 2**31))
def test_any_matrix_product(rows, length, columns, seed):
    circuit = ax.multipliers.get("roba")
    a, b = codes((rows, length), seed=seed), codes((length, columns), seed=seed + 1)
    equal(matmul(a, b, circuit), reference.matmul(a, b, circuit.table))


@pytest.mark.parametrize("engine", ["low_rank", "gather"])
def test_leading_axes_are_kept(engine):
    circuit, a, b = ax.multipliers.get("kulkarni"), codes((2, 3, 4, 5)), codes((5, 6), seed=1)
    expected = reference.matmul(a.reshape(-1, 5), b, circuit.table).reshape(2, 3, 4, 6)
    equal(matmul(a, b, circuit, engine), expected)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("name", ["mul8s_1KVA", "mul8u_17KS"])
def test_inside_a_compiled_function_with_an_open_batch(name, jit_compile, load):
    circuit, b = load(name), codes((3, 3, 2, 2), seed=1)

    @tf.function(jit_compile=jit_compile, input_signature=[tf.TensorSpec((None, 6, 6, 2), tf.int32)])
    def product(a):
        return conv2d(a, b, circuit, padding="same", zero_point=7)

    for batch in (1, 3):
        a = codes((batch, 6, 6, 2)).astype(np.int32)
        equal(product(a), reference.conv2d(a, b, circuit.table, padding="same", zero_point=7))


def test_signed_codes_by_value_and_by_raw_byte_agree():
    circuit = ax.multipliers.get("drum4", signed=True)
    a, b = codes((4, 9)) - 128, codes((9, 3), seed=1) - 128
    equal(matmul(a, b, circuit), np.asarray(matmul(a % 256, b % 256, circuit)))
    assert np.asarray(matmul(a, b, circuit)).min() < 0


def test_operand_order_is_activation_first(load):
    circuit = load("mul8u_17KS")
    rows, columns = np.nonzero(circuit.table != circuit.table.T)
    a, b = int(rows[0]), int(columns[0])
    assert int(matmul([[a]], [[b]], circuit)[0, 0]) == circuit.table[a, b] != circuit.table[b, a]


def test_padding_contributes_the_product_of_the_zero_point(load):
    circuit = load("mul8u_2AC")
    weight = int(np.flatnonzero(circuit.table[0])[0])
    found = conv2d(np.zeros((1, 1, 1, 1), int), np.full((3, 3, 1, 1), weight), circuit, padding="same")
    assert int(found[0, 0, 0, 0]) == 9 * circuit.table[0, weight] != 0


@pytest.mark.parametrize("wrap", [np.asarray, list, tf.constant])
@pytest.mark.parametrize(("signed", "bad"), [(False, 256), (False, -1), (True, 256), (True, -129)])
def test_codes_out_of_range_raise(wrap, signed, bad):
    circuit = ax.multipliers.get("exact", signed=signed)
    with pytest.raises(ValueError, match="a_codes.*must lie in"):
        matmul(wrap([[bad]]), [[1]], circuit)
    with pytest.raises(ValueError, match="b_codes.*must lie in"):
        matmul([[1]], wrap([[bad]]), circuit)


def test_codes_that_are_not_integers_raise():
    with pytest.raises(ValueError, match="must hold integer codes"):
        matmul([[1.5]], [[1]], ax.multipliers.get("exact"))


@pytest.mark.parametrize("shapes", [((2, 3), (4, 2)), ((2, 3), (3,)), ((), (1, 1))])
def test_matmul_shapes_that_do_not_match_raise(shapes):
    with pytest.raises(ValueError, match="matmul needs codes"):
        matmul(codes(shapes[0]), codes(shapes[1]), ax.multipliers.get("exact"))


@pytest.mark.parametrize("product", [conv2d, depthwise_conv2d])
@pytest.mark.parametrize("shapes", [((1, 4, 4, 2), (3, 3, 3, 1)), ((4, 4, 2), (3, 3, 2, 1)), ((1, 4, 4, 2), (3, 3, 2))])
def test_convolution_shapes_that_do_not_match_raise(product, shapes):
    with pytest.raises(ValueError, match="needs codes of shapes"):
        product(codes(shapes[0]), codes(shapes[1]), ax.multipliers.get("exact"))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"padding": "causal"}, "`padding` must be"),
        ({"strides": 0}, "`strides` must be"),
        ({"strides": (1, 1, 1)}, "`strides` must be"),
        ({"dilation_rate": -1}, "`dilation_rate` must be"),
        ({"padding": "same", "zero_point": 256}, "zero_point.*must lie in"),
        ({"engine": "magic"}, "Unknown engine.*magic"),
    ],
)
def test_bad_convolution_options_raise(option, message):
    with pytest.raises(ValueError, match=message):
        conv2d(codes((1, 4, 4, 2)), codes((2, 2, 2, 1)), ax.multipliers.get("exact"), **option)


def test_an_unknown_engine_raises():
    with pytest.raises(ValueError, match="Unknown engine.*Received: engine='magic'"):
        matmul([[1]], [[1]], ax.multipliers.get("exact"), "magic")


def test_low_ranks_are_played_by_factors_and_high_ones_by_look_ups(load):
    names = {}

    @tf.function(jit_compile=True)  # native kernels cannot run under XLA, so factors and look-ups are what is left
    def choose(x):
        for name in ("mul8s_1KX2", "mul8u_17KS", "mul8u_L40"):
            table = CodeTable.plain(load(name))
            names[name] = [engine_for(table, operation=of, device="cpu").name for of in ("dense", "conv")]
        return x

    choose(tf.constant(0))
    # Ranks 5, 18 and 193: a look-up costs a dense product 12 times a float one, a convolution 20 times.
    assert names == {
        "mul8s_1KX2": ["low_rank", "low_rank"],
        "mul8u_17KS": ["gather", "low_rank"],
        "mul8u_L40": ["gather", "gather"],
    }


def test_a_table_of_wild_entries_still_comes_out_exactly():
    """Entries up to 2^31 - 1 leave float32 no exact term: by default they are looked up."""
    table = np.zeros((4, 4), np.int64)
    table[1:, 1:] = [[2**31 - 1, 1, -7], [3, -(2**31), 5], [11, 2**30 + 1, 2**31 - 9]]
    circuit = ax.Multiplier(table, name="wild", bits=2, signed=False)
    words = np.arange(4)
    equal(matmul(words[:, None], words[None, :], circuit), table)
    with pytest.raises(ValueError, match="too large for exact float32 sums"):
        matmul([[1]], [[1]], circuit, "low_rank")
