"""The native CPU engine: every way in which it computes a product, where it runs and where it does not."""

import itertools
import os
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import fresh
import keras
import numpy as np
import pytest
import reference
import tensorflow as tf

import axtrain as ax
from axtrain.emulation.code_table import CodeTable
from axtrain.emulation.geometry import Convolution, Dense
from axtrain.emulation.selection import engine_for
from axtrain.quantisers import Codes, Quantiser, affine_parameters, quantise_weights, symmetric_scale

pytest.importorskip("numba")
import native_loops
from native_loops import Case, counted, forced, loop, native

from axtrain.emulation.native import compiling, elementwise, products, row_groups, tables, threads
from axtrain.emulation.native import engine as native_engine
from axtrain.emulation.native.buffers import Buffers, ScratchPool
from axtrain.emulation.native.engine import NativeEngine, native_obstacle
from axtrain.emulation.native.threads import parts, run
from axtrain.emulation.native.weight_scales import weight_scales

ROOT = Path(__file__).resolve().parents[2]
RNG = np.random.default_rng(0)
CHANNELS = (1, 3, 15, 16, 17, 31, 33, 48, 100)
RANDOM = CodeTable(RNG.integers(-(1 << 12), 1 << 12, (256, 256)), -128, -128)
WIDE = CodeTable(RNG.integers(-(1 << 31), (1 << 31) - 1, (256, 256)), 0, -128)
EXACT = CodeTable.plain(ax.multipliers.get("exact", signed=True))


def made_table(kind, bits=(5, 6), lows=None):
    return native_loops.random_table(
        np.random.default_rng(len(kind)), kind, bits, lows or [-(1 << n - 1) for n in bits]
    )


def codes(values, *shape):
    return RNG.choice(values, shape).astype(np.int32)


def case(table, geometry, first, second, zero_point=0):
    """Codes of the whole range at random."""
    return Case(geometry, codes(table.activation_codes, *first), codes(table.weight_codes, *second), zero_point)


def same(made, one, way=None, split=False):
    """The engine's sums are the loop's, by that way, whatever lay in the memory that it works in."""
    native_loops.poison(RNG)
    with forced(made, way, split=split):
        found = native(made, one)
    np.testing.assert_array_equal(found, loop(made.table, one), err_msg=f"{way} {native_loops.described(one)}")


def some_dense(table, zero_point=0):
    """Both sides of pairs and quads of terms, of 16 and 32 channels, of six and sixteen pixels."""
    for n, (m, k) in zip(
        CHANNELS, [(1, 1), (2, 2), (5, 3), (6, 4), (7, 7), (17, 8), (33, 9), (3, 65), (100, 6)], strict=True
    ):
        yield case(table, Dense(), (m, k), (k, n), zero_point)


def some_convolutions(table, zero_point=0, depthwise=False, multiplier=1):
    """Windows, strides, dilations and paddings, unequal along the axes, and one spatial axis."""
    one, both = (1, 1), (2, 2)
    shapes = [
        ((1, 1), one, "valid", one), ((1, 1), (2, 3), "same", one), ((2, 3), one, "same", one),
        ((2, 3), (1, 2), "valid", (2, 1)), ((3, 3), one, "same", one), ((3, 3), one, "valid", one),
        ((3, 3), one, "same", both), ((3, 3), (2, 1), "same", one), ((3, 3), both, "same", (1, 2)),
        ((5, 5), one, "same", one), ((5, 5), (3, 2), "valid", one), ((7, 7), one, "same", one),
        ((4,), (1,), "same", (1,)), ((3,), (2,), "valid", (2,)), ((3,), (1,), "causal", (2,)),
    ]  # fmt: skip
    for i, (window, *options) in enumerate(shapes):
        channels, inputs = CHANNELS[i % len(CHANNELS)], (1, 2, 3, 4, 7, 8, 16)[i % 7]
        image = (1 + i % 3, *((8, 9) if len(window) == 2 else (11,)))
        geometry = Convolution(options[0], options[1], options[2], depthwise)
        if depthwise:
            yield case(table, geometry, (*image, channels), (*window, channels, multiplier), zero_point)
        else:
            yield case(table, geometry, (*image, inputs), (*window, inputs, channels), zero_point)


def test_the_loop_is_the_plain_one():
    """Against loops over every position, written apart from it."""
    table = made_table("32-bit rows")
    for one in [*some_dense(table), *some_convolutions(table, 3), *some_convolutions(table, 3, True, 2)]:
        a, w = one.activations - table.activation_low, one.weights - table.weight_low
        if isinstance(one.geometry, Dense):
            expected = reference.matmul(a, w, table.products)
        elif one.geometry.axes == 2:
            plain = reference.depthwise_conv2d if one.geometry.depthwise else reference.conv2d
            options = (one.geometry.strides, one.geometry.padding, one.geometry.dilation_rate, 3 - table.activation_low)
            expected = plain(a, w, table.products, *options)
        else:
            continue
        taken = (one.zero_point * one.weights.sum(axis=one.geometry.summed_axes(w.ndim), dtype=int)).reshape(-1)
        np.testing.assert_array_equal(loop(table, one), (expected - taken).astype(np.int32))


BY_FACTORS = ("line", "rank 1", "rank 2", "rank 3", "zero", "of one operand")
BY_ROWS = ("sums of four", "sums of two", "sums of one", "32-bit rows", "near exact", "extreme", "rank 2")


@pytest.mark.parametrize("kind", BY_FACTORS)
def test_products_by_factors(kind):
    """Odd and even numbers of pairs; all of a batch at once, and images and groups of channels apart."""
    made = native_loops.engine(made_table(kind))
    if kind != "of one operand":
        assert (made.products.factors.line is not None) == (kind in ("line", "zero"))
    with counted() as counts:
        for one in [*some_dense(made.table), *some_convolutions(made.table, -5)]:
            same(made, one, "factors")
            same(made, one, "factors", split=True)
    assert set(counts) == {"factors"}


@pytest.mark.parametrize("way", ["weights stay", "weights stay by images", "pixels stay", "taps apart"])
@pytest.mark.parametrize("kind", BY_ROWS)
def test_products_by_rows(kind, way):
    """Rows of 16-bit words whose sums of four, two or one fit, and of 32-bit words."""
    made = native_loops.engine(made_table(kind))
    lengths = {
        "sums of four": (False, 4),
        "sums of two": (False, 2),
        "sums of one": (False, 1),
        "32-bit rows": (True, 1),
    }
    if kind in lengths:
        assert (made.products.rows(0).wide, made.products.rows(0).length) == lengths[kind]
    with counted() as counts:
        for one in [*some_dense(made.table, 9), *some_convolutions(made.table, -5)]:
            same(made, one, way, split=way == "weights stay by images" or one.weights.size % 2)
    kernel = way.removesuffix(" by images")
    assert counts[kernel] and set(counts) <= {kernel, "pixels stay"}


@pytest.mark.parametrize("kind", ["line", "rank 2", "rank 3", "sums of four", "32-bit rows", "extreme"])
@pytest.mark.parametrize("multiplier", [1, 2, 3])
def test_depthwise_products(kind, multiplier):
    made = native_loops.engine(made_table(kind))
    with counted() as counts:
        for one in some_convolutions(made.table, 7, True, multiplier):
            for way in (None, "looked up"):
                same(made, one, way)
            same(made, one, split=True)
    by_factors = multiplier == 1 and ("rank" in kind or kind == "line")
    assert set(counts) == {"depthwise look-ups", *(["depthwise factors"] if by_factors else [])}


@pytest.mark.parametrize("size", [3, 5])
def test_depthwise_windows_that_share_a_codes_look_up(size):
    """Images large enough for it, 16 channels at a time and fewer, rows of pixels no multiple of anything."""
    made = native_loops.engine(made_table("32-bit rows", (3, 4)))
    for height, width, channels, multiplier in [(9, 21, 16, 1), (12, 11, 5, 1), (8, 23, 20, 2), (size, 40, 17, 1)]:
        for padding in ("same", "valid"):
            geometry, kernel = Convolution((1, 1), padding, (1, 1), True), (size, size, channels, multiplier)
            same(made, case(made.table, geometry, (2, height, width, channels), kernel, 2))


@pytest.mark.parametrize("bits", [(9, 8), (8, 9), (10, 10), (10, 4), (3, 10)])
@pytest.mark.parametrize("kind", ["rank 2", "sums of four", "32-bit rows"])
def test_codes_of_nine_and_ten_bits(kind, bits):
    signed = [-(1 << n - 1) for n in bits]
    for lows in ([0, 0], signed) if max(bits) < 10 else ([0, signed[1]],):
        made = native_loops.engine(made_table(kind, bits, lows))
        if kind != "rank 2":
            made.products.factors = None  # as it would be found in seconds
        for way in (
            ("factors", "weights stay", "pixels stay", "taps apart") if kind == "rank 2" else native_loops.WAYS[2:]
        ):
            same(made, case(made.table, Dense(), (9, 10), (10, 33), 3), way)
            geometry = Convolution((1, 1), "same", (1, 1), way == "looked up")
            same(made, case(made.table, geometry, (2, 5, 4, 3), (3, 3, 3, 1 if geometry.depthwise else 5), 3), way)


@pytest.mark.parametrize("table", [RANDOM, WIDE, EXACT], ids=["16-bit rows", "32-bit rows", "factors"])
@pytest.mark.parametrize("lowest, highest", [(0, 127), (100, 127), (-128, -1), (127, 127), (-128, -128), (0, 0)])
def test_codes_of_a_part_of_the_range(table, lowest, highest):
    """Fewer rows are then built, and those of non-negative codes come from a table of their own."""
    made, shift = native_loops.engine(table), 128 if table is WIDE else 0
    first = RNG.integers(lowest, highest + 1, (2, 6, 5, 8)) + shift
    for way in ("weights stay", "weights stay by images", "pixels stay", None):
        for padding, zero_point in (("valid", 0), ("same", lowest + shift)):
            one = Case(Convolution((1, 1), padding, (1, 1)), first, codes(table.weight_codes, 3, 3, 8, 17), zero_point)
            same(made, one, way, split=way is not None)


def test_ways_agree_with_each_other():
    """A product so large that all its parts are full."""
    made = native_loops.engine(made_table("rank 2"))
    one, found = case(made.table, Convolution((1, 1), "same", (1, 1)), (9, 13, 11, 20), (3, 3, 20, 70), 4), {}
    for way in native_loops.WAYS[:-1]:
        with forced(made, way), counted() as counts:
            found[way] = native(made, one)
        assert counts
    assert all(np.array_equal(sums, found[None]) for sums in found.values())


@pytest.mark.parametrize("way", ["factors", "weights stay", "pixels stay"])
def test_kernels_with_more_weights_than_one_thread_prepares(way):
    made = native_loops.engine(made_table("rank 2"))
    assert products._FEW_WEIGHTS < 280 * 280
    same(made, case(made.table, Dense(), (21, 280), (280, 280), -3), way)


@pytest.mark.parametrize("table", [EXACT, WIDE, RANDOM], ids=["factors", "32-bit rows", "16-bit rows"])
@pytest.mark.parametrize("way", [None, "weights stay", "pixels stay"])
def test_long_sums_wrap_as_32_bits_do(table, way):
    made, length = native_loops.engine(table), 140_001
    low, high = table.activation_low, table.weight_low
    one = Case(Dense(), np.full((2, length), low), np.full((length, 2), high), 77)
    one.weights[:, 1] = codes(table.weight_codes, length)
    if table is EXACT:
        assert length * 128 * 128 > 2**31
    same(made, one, way)


@pytest.mark.parametrize("table", [EXACT, RANDOM], ids=["factors", "rows"])
def test_products_of_two_activations(table):
    made = native_loops.engine(table)
    for lead in [(1,), (3,), (2, 3)]:
        same(made, case(table, Dense(True), (*lead, 4, 9), (*lead, 9, 17), 5))


def test_empty_products():
    for table in (EXACT, RANDOM):
        made = NativeEngine(table)
        assert made.matmul(tf.zeros((0, 5)), tf.zeros((5, 3))).shape == (0, 3)
        assert made.batched_matmul(tf.zeros((0, 2, 5)), tf.zeros((0, 5, 3))).shape == (0, 2, 3)
        one, kernel = (1, 1), tf.zeros((3, 3, 2, 4))
        assert made.conv(tf.zeros((0, 6, 5, 2)), kernel, one, one).shape == (0, 4, 3, 4)
        assert made.conv(tf.zeros((2, 2, 5, 2)), kernel, one, one).shape == (2, 0, 3, 4)
        assert made.depthwise_conv(tf.zeros((0, 6, 5, 2)), kernel, one, one).shape == (0, 4, 3, 8)
        np.testing.assert_array_equal(made.matmul(tf.zeros((3, 0)), tf.zeros((0, 2))), np.zeros((3, 2)))
        quantiser = Quantiser(tf.constant(1.0), tf.constant(0.0), 0, 127)
        weights = quantise_weights(tf.ones((5, 3)), 8, (0,))
        assert made.layer(Dense(), tf.zeros((0, 5)), quantiser, weights, None).shape == (0, 3)


@pytest.mark.parametrize("compiled", [False, True])
def test_the_public_products_of_tensors(compiled):
    """Any number of axes in front, open ones, integers as codes."""
    made = NativeEngine(RANDOM)
    dense, batched = case(RANDOM, Dense(), (2, 3, 9), (9, 5)), case(RANDOM, Dense(True), (2, 3, 4), (2, 4, 5))
    conv = case(RANDOM, Convolution((1, 2), "valid", (2, 1)), (2, 7, 6, 3), (3, 2, 3, 5))
    deep = case(RANDOM, Convolution((2, 1), "valid", (1, 1), True), (2, 7, 6, 3), (3, 2, 3, 2))
    for one, product in [
        (dense, made.matmul),
        (batched, made.batched_matmul),
        (conv, lambda a, w: made.conv(a, w, conv.geometry.strides, conv.geometry.dilation_rate)),
        (deep, lambda a, w: made.depthwise_conv(a, w, deep.geometry.strides, deep.geometry.dilation_rate)),
    ]:
        if compiled:
            open_batch = tf.TensorSpec((None, *one.activations.shape[1:]), tf.int32)
            product = tf.function(product, input_signature=[open_batch, tf.TensorSpec(one.weights.shape, tf.int32)])
        found = product(tf.constant(one.activations), tf.constant(one.weights))
        assert found.dtype == tf.int32
        np.testing.assert_array_equal(found, loop(RANDOM, one))


def test_what_another_product_left_in_memory_does_not_count():
    """Larger images of other tables before: words of another gain, factors where codes were, wide rows where narrow."""
    rng = np.random.default_rng(5)
    makers = [native_loops.engine(native_loops.any_table(rng, kind, (2, 8))) for kind in native_loops.KINDS]
    for turn in range(250):
        made = makers[rng.integers(len(makers))]
        way = native_loops.WAYS[turn % len(native_loops.WAYS)]
        one = native_loops.random_case(rng, made.table, 4000 if turn % 5 == 0 else 30)
        with forced(made, way, split=bool(rng.random() < 0.5)):
            np.testing.assert_array_equal(native(made, one), loop(made.table, one), native_loops.described(one))


GEOMETRIES = {
    "dense": (Dense(), (37, 30), (30, 19)),
    "conv, taps apart": (Convolution((1, 1), "same", (1, 1)), (3, 9, 8, 6), (3, 3, 6, 7)),
    "conv, strided": (Convolution((2, 1), "same", (1, 1)), (3, 9, 8, 6), (3, 2, 6, 18)),
    "conv, causal": (Convolution((1,), "causal", (2,)), (3, 9, 4), (3, 4, 17)),
    "depthwise": (Convolution((1, 1), "same", (1, 1), True), (3, 9, 8, 18), (3, 3, 18, 1)),
    "depthwise, two each": (Convolution((2, 2), "valid", (1, 1), True), (3, 9, 8, 6), (3, 3, 6, 2)),
}


@pytest.mark.parametrize("table", [EXACT, RANDOM, WIDE], ids=["factors", "16-bit rows", "32-bit rows"])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_a_whole_layer_equals_its_parts_bit_for_bit(name, table):
    """With float weights quantised on the way, with their codes, with and without a zero point and a bias."""
    geometry, first, second = GEOMETRIES[name]
    made, shift = NativeEngine(table), 128.0 if table is WIDE else 0.0
    x = tf.constant(RNG.normal(size=first), tf.float32)
    kernel = RNG.normal(size=second).astype("float32")
    kernel[..., 0, 0] = 0  # for a depthwise kernel a whole channel, whose scale is then 1
    summed = geometry.summed_axes(kernel.ndim)
    channels = second[-1] * (second[-2] if geometry.operation == "depthwise" else 1)
    bias = tf.constant(RNG.normal(size=channels), tf.float32)
    for zero_point, per_tensor in ((shift - 31, False), (shift, True)):
        # Affine signed codes: a zero point away from 0, values beyond both ends of the range.
        quantiser = Quantiser(tf.constant(0.013), tf.constant(zero_point), int(shift) - 128, int(shift) + 127)
        w = quantise_weights(tf.constant(kernel), 8, summed, per_tensor)
        assert w.kernel is not None
        sums = geometry.codes(made, quantiser.codes(x), w.codes, quantiser.zero_point)
        sums -= tf.cast(quantiser.zero_point, tf.int32) * geometry.per_output(tf.cast(w.codes, tf.int32))
        plain = tf.cast(sums, tf.float32) * (quantiser.scale * tf.reshape(w.scale, (-1,)))
        for weights in (w, w._replace(kernel=None)):
            np.testing.assert_array_equal(made.layer(geometry, x, quantiser, weights, bias), plain + bias)
            np.testing.assert_array_equal(made.layer(geometry, x, quantiser, weights, None), plain)


def test_a_layer_of_two_activations_equals_its_parts_bit_for_bit():
    made, geometry = NativeEngine(RANDOM), Dense(True)
    x, y = (tf.constant(RNG.normal(size=shape), tf.float32) for shape in ((2, 3, 4, 6), (2, 3, 6, 5)))
    quantiser = Quantiser(tf.constant(0.013), tf.constant(-31.0), -128, 127)
    second = Quantiser(tf.constant(0.02), tf.constant(0.0), -127, 127)
    w = Codes(second.codes(y), y, second.scale, second.zero_point)
    sums = made.batched_matmul(quantiser.codes(x), w.codes) + 31 * geometry.per_output(tf.cast(w.codes, tf.int32))
    plain = tf.cast(sums, tf.float32) * (quantiser.scale * second.scale)
    np.testing.assert_array_equal(made.layer(geometry, x, quantiser, w, None), plain)


@pytest.mark.parametrize("shape", [(255, 17), (9000, 4), (300, 200)])
@pytest.mark.parametrize("per_tensor", [False, True])
def test_weights_on_the_edge_between_two_codes_round_as_the_plain_quantiser_does(shape, per_tensor):
    """Ties, and a scale found in one pass by several threads: the same float32 as the plain one's."""
    kernel = (RNG.integers(-254, 255, shape) / 2).astype("float32")
    kernel[0], kernel[:, 1] = 127, RNG.normal(size=shape[0])
    kernel[:, 2] = 0
    scale = weight_scales(kernel, 127, per_tensor)
    largest = np.abs(kernel).max(axis=0)
    plain = np.where(largest > 0, largest / np.float32(127), np.float32(1))
    if per_tensor:
        plain = np.full_like(plain, largest.max() / np.float32(127))
    np.testing.assert_array_equal(scale, plain)
    w = quantise_weights(tf.constant(kernel), 8, (0,), per_tensor)
    np.testing.assert_array_equal(w.scale, plain[None])
    np.testing.assert_array_equal(w.codes, np.round(kernel / plain))
    # The kernels that quantise weights themselves, by each way: 1 x K products with a one at each place.
    made, eye = native_loops.engine(EXACT), tf.eye(shape[0])[:40]
    quantiser = Quantiser(tf.constant(1.0), tf.constant(0.0), -128, 127)
    for way in ("factors", "weights stay", "pixels stay"):
        with forced(made, way):
            found = made.layer(Dense(), eye, quantiser, w, None)
        np.testing.assert_array_equal(found, w.codes[:40] * plain)


def test_values_on_the_edge_between_two_codes_round_as_the_plain_quantiser_does():
    values = tf.constant(
        np.concatenate([np.arange(-600, 600) / 4, RNG.normal(size=5000) * 1e3, [1e30, -1e30]]), tf.float32
    )
    for quantiser in (
        Quantiser(tf.constant(0.5), tf.constant(3.0), 0, 255),
        Quantiser(tf.constant(0.1), tf.constant(0.0), -127, 127),
    ):
        plain = (quantiser.codes(values) - quantiser.zero_point) * quantiser.scale
        np.testing.assert_array_equal(elementwise.dequantised(values, quantiser), plain)
        low, high = quantiser.range
        inside = (values >= low) & (values <= high)
        np.testing.assert_array_equal(elementwise.inside(values, values, low, high), tf.where(inside, values, 0.0))
        # The product's own quantisation: each value alone, times the weight 1.
        one = Codes(tf.ones((1, 1)), tf.ones((1, 1)), tf.ones((1, 1)), tf.zeros(()))
        table = CodeTable(np.outer(np.arange(-128, 256), np.arange(-1, 2)), -128, -1)
        for made in (native_loops.engine(table), NativeEngine(table)):
            for way in ("factors", "weights stay", "pixels stay") if "products" in made.__dict__ else ():
                with forced(made, way):
                    np.testing.assert_array_equal(
                        made.layer(Dense(), values[:, None], quantiser, one, None)[:, 0], plain
                    )


def test_many_threads_at_once():
    made = NativeEngine(RANDOM)
    one = case(RANDOM, Dense(), (600, 40), (40, 20))
    expected, wrong = loop(RANDOM, one), []

    def work():
        for _ in range(20):
            wrong.append(int(np.sum(made.matmul(one.activations, one.weights).numpy() != expected)))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) == 160 and not any(wrong)


CHURN = """
import sys
import threading
import numpy as np
sys.path.insert(0, {folder!r})
import native_loops
from axtrain.emulation.code_table import CodeTable
from axtrain.emulation.geometry import Convolution
from axtrain.emulation.native.engine import NativeEngine

rng = np.random.default_rng(0)
wrong = []
for table in (CodeTable(rng.integers(-(1 << 14), 1 << 14, (256, 256)), -128, -128), CodeTable(np.outer(range(256), range(256)), -128, -128)):
    one = native_loops.Case(
        Convolution((1, 1), "valid", (1, 1)), rng.integers(-128, 128, (8, 20, 20, 16)), rng.integers(-128, 128, (3, 3, 16, 4)), 0
    )
    engine, expected = NativeEngine(table), native_loops.loop(table, one)

    def work():
        for _ in range(12):
            found = engine.conv(one.activations, one.weights, (1, 1), (1, 1)).numpy()
            wrong.append(int(np.sum(found != expected)))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
print(len(wrong), sum(wrong), *native_loops.compare(60_000, 3, tables=39, widths=(2, 8), report=print))
"""  # noqa: E501 - a program


def test_products_in_many_threads_and_after_each_other_keep_their_memory():
    """Numba once freed the image while patches were copied from it: wrong now and then, under load alone.

    glibc fills memory that is new and memory that is freed here, so that its use shows.
    """
    environment = {**os.environ, "MALLOC_PERTURB_": "165", "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", CHURN.format(folder=str(Path(__file__).parent))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    count, wrong, compared, differing = map(int, done.stdout.split()[-4:])
    assert count == 144 and compared >= 60_000 and wrong == differing == 0


def test_results_are_not_overwritten_while_someone_holds_them():
    buffers = Buffers()
    first = buffers.take((4, 8), np.float32)
    first[:] = 1
    view = first[1:]
    del first
    second = buffers.take((4, 8), np.float32)
    second[:] = 2
    assert (view == 1).all()
    address = view.ctypes.data - 32
    del view
    assert buffers.take((8, 4), np.int32).ctypes.data == address  # free again: given out again
    assert address % 64 == 0


def test_batches_of_many_sizes_share_the_memory_of_their_results():
    """Of 300 sizes, in falling and in random order; kept one by one, 150 times the largest."""
    largest = 300 * 1000
    for sizes in (range(300, 0, -1), np.random.default_rng(0).permutation(300) + 1):
        buffers = Buffers()
        tracemalloc.start()
        for size in sizes:
            assert buffers.take((int(size), 250), np.float32).shape == (size, 250)
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert held <= 8 * largest, held


def test_results_of_a_layer_outlive_the_next_ones():
    made = NativeEngine(RANDOM)
    one = [case(RANDOM, Dense(), (9, 12), (12, 7)) for _ in range(20)]
    found = [made.matmul(a, w) for _, a, w, _ in one]
    for sums, each in zip(found, one, strict=True):
        np.testing.assert_array_equal(sums, loop(RANDOM, each))


def test_memory_to_work_in_grows_and_has_one_user_at_a_time():
    pool = ScratchPool()
    with pool.borrowed() as scratch:
        small = scratch.take("image", (3, 4), np.uint16)
        large = scratch.take("image", (300, 4), np.float32)
        assert small.ctypes.data % 64 == large.ctypes.data % 64 == 0
        assert scratch.take("image", (5,), np.int64).ctypes.data == large.ctypes.data
        assert not np.shares_memory(scratch.take("weights", (5,), np.int64), large)
        with pool.borrowed() as another:
            assert not np.shares_memory(another.take("image", (300, 4), np.float32), large)


def test_memory_to_work_in_outlives_a_call_from_tensorflow():
    """Its threads enter Python anew for each call."""
    made = NativeEngine(RANDOM)
    _, first, second, _ = case(RANDOM, Dense(), (9, 12), (12, 7))
    product = tf.function(lambda: made.matmul(tf.constant(first), tf.constant(second)), autograph=False)
    product()
    before = [{name: one.ctypes.data for name, one in scratch._storage.items()} for scratch in products._SCRATCH.free]
    for _ in range(5):
        product()
    after = [{name: one.ctypes.data for name, one in scratch._storage.items()} for scratch in products._SCRATCH.free]
    assert after == before != []


def test_threads_wait_for_what_another_has_begun_and_for_nothing_else(monkeypatch):
    monkeypatch.setattr(threads, "cores", lambda: 2)
    caller, begun, release = threading.current_thread(), threading.Event(), threading.Event()

    def job(number):
        if threading.current_thread() is caller:
            assert begun.wait(60)
        else:
            begun.set()
            time.sleep(0.05)
        return number

    assert run([(job, n) for n in range(4)]) == [0, 1, 2, 3]

    class Long:
        def work(self):
            release.wait(60)

    for _ in range(max(1, os.cpu_count())):  # as many as there can be threads, and none comes
        threads._queue().put(Long())
    begun.set()
    start = time.monotonic()
    assert run([(job, n) for n in range(4)]) == [0, 1, 2, 3]
    assert not release.is_set() and time.monotonic() - start < 60
    release.set()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_threads_come_back_in_a_fork():
    """Those of every pool that is kept: a forked process has none, and would wait for them for ever."""
    script = """
import os, signal
import numpy as np
from axtrain.emulation.native import threads
from axtrain.noise_models.injection import flip_bits

threads.cores = lambda: 2
def all_pools():
    words = flip_bits(np.zeros(100_000, np.uint8), 0.01)
    return threads.run([(pow, n, 2) for n in range(9)]), int(words.sum())

expected = all_pools()
if (child := os.fork()) == 0:
    signal.alarm(60)
    os._exit(all_pools() != expected)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = fresh.run(script, cwd=ROOT)
    assert done.stdout.split() == ["0"], done.stderr[-2000:]


def test_parts_cover_everything_once():
    for length, count, multiple in [(0, 2, 1), (1, 4, 1), (7, 3, 1), (1000, 4, 256), (513, 2, 256)]:
        cut = parts(length, count, multiple)
        assert [first for first, _ in cut[1:]] == [last for _, last in cut[:-1]]
        assert cut[0][0] == 0 and cut[-1][1] == length and len(cut) <= count


def test_jobs_give_their_results_in_order_and_their_errors():
    assert run([(pow, n, 2) for n in range(50)]) == [n * n for n in range(50)]
    assert run([]) == []
    with pytest.raises(ZeroDivisionError):
        run([(divmod, 1, n) for n in (1, 0, 1, 1)])
    assert run([(max, 1, 2)]) == [2]


def test_rows_are_centred_where_that_makes_them_narrow():
    products = np.array([[0, 70_000], [10, 70_010], [-10, 60_000]])
    rows = tables.RowTable(products)
    assert (rows.wide, rows.length) == (False, 4)
    columns, *kind = rows.by_weight
    np.testing.assert_array_equal(columns[:2, :3] + rows.added[:, None], products.T)
    assert not columns[-1].any() and columns.shape == (3, 8) and kind == [4, False]
    assert tables.RowTable(products, 1).added[1] == 65_005
    columns, *kind = tables.RowTable(np.array([[0, 0], [0, 1 << 17]])).by_weight
    assert columns.view(np.int32)[1, 1] == 1 << 17 and kind == [1, True]


def test_kernels_are_compiled_anew_when_any_of_their_sources_changes(tmp_path):
    """Numba itself looks at the one file in which the function stands."""
    folder = Path(compiling.__file__).parent
    *_, digest = row_groups.weights_stay._cache._cache_file._source_stamp
    assert digest == compiling.sources_digest(folder)
    for path in folder.glob("*.py"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert compiling.sources_digest.__wrapped__(tmp_path) == digest
    (tmp_path / "vectors.py").write_text((tmp_path / "vectors.py").read_text() + "\n")
    assert compiling.sources_digest.__wrapped__(tmp_path) != digest


def layer(**options):
    made = ax.layers.ApproxDense(3, hardware=ax.Hardware(multiplier=ax.multipliers.get("mitchell")), **options)
    made.build((None, 5))
    made.kernel.assign(np.random.default_rng(0).normal(size=(5, 3)))
    made.hardware_state.set_range(0.0, 1.0)
    return made


def test_chosen_for_a_table_of_high_rank_and_said_in_the_log(caplog):
    with caplog.at_level("INFO", logger="axtrain"):
        assert layer().chosen_engine.name == "numba"
    assert "Engine 'numba' computes a dense table of rank" in caplog.text


def test_under_xla_another_engine_gives_the_same_sums(caplog):
    x, made = tf.random.uniform((4, 5), seed=1), layer(engine="numba")
    with caplog.at_level("WARNING", logger="axtrain"):
        compiled = tf.function(made.accumulator, jit_compile=True)(x)
    assert "compiled by XLA" in caplog.text
    np.testing.assert_array_equal(compiled, made.accumulator(x))


def test_a_saved_graph_holds_no_python(tmp_path):
    model = keras.Sequential([keras.Input((5,)), layer()])
    x = np.random.default_rng(0).uniform(size=(4, 5)).astype("float32")
    expected = model.predict(x, verbose=0)
    model.export(tmp_path / "saved", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "saved")
    # The same sums; TensorFlow divides by a constant in a saved graph as it likes, so the scales' last bits may differ.
    np.testing.assert_allclose(loaded.serve(x), expected, rtol=1e-6)
    graph = loaded.signatures["serving_default"].graph.as_graph_def()
    names = {node.op for function in graph.library.function for node in function.node_def} | {
        node.op for node in graph.node
    }
    assert not any("PyFunc" in name for name in names)


def test_more_than_2048_codes_take_another_engine(caplog):
    table = CodeTable(RNG.integers(0, 1000, (2049, 16)), 0, 0)
    for one in (table, CodeTable(table.products.T, 0, 0)):
        with pytest.raises(ValueError, match="at most 2048 codes of an operand; use another.*Received: a table of"):
            NativeEngine(one)
        with caplog.at_level("WARNING", logger="axtrain"):
            assert engine_for(one, "numba").name != "numba"
    assert "more than 2048 codes of an operand" in caplog.text
    made = native_loops.engine(CodeTable(RNG.integers(0, 1000, (2048, 16)), -1000, -8))
    for way in ("weights stay", "pixels stay"):
        same(made, case(made.table, Dense(), (9, 11), (11, 5), 3), way)


def test_without_numba_another_engine_computes(monkeypatch, caplog):
    monkeypatch.setattr(native_engine.importlib.util, "find_spec", lambda name: None)
    assert "pip install" in native_obstacle()
    with caplog.at_level("WARNING", logger="axtrain"):
        assert engine_for(RANDOM, "numba").name == "gather"
    assert "numba is not installed" in caplog.text


def test_the_activations_scale_is_the_quantisers():
    """Worked out within the layer's call, bit for bit as TensorFlow does, for every range but those of denormals."""
    edges = [0.0, -0.0, 1e-30, 3e38, -3e38, np.inf, -np.inf, np.nan, 1.0, -1.0]
    drawn = RNG.normal(size=(300, 2)) * 10 ** RNG.uniform(-6, 6, (300, 1))
    low, high = np.float32([*itertools.product(edges, edges), *drawn]).T
    for codes_of in ((0, 255), (-128, 127), (0, 15), (-2, 1), (0, 1023)):
        for symmetric in (False, True):
            if symmetric:
                expected = symmetric_scale(low, high, codes_of[1]), np.zeros_like(low)
            else:
                expected = affine_parameters(low, high, *codes_of)
            found = [elementwise.parameters(*pair, *codes_of, symmetric) for pair in zip(low, high, strict=True)]
            np.testing.assert_array_equal(np.array(found), np.stack(expected, axis=-1))
