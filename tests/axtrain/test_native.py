"""The native CPU engine: where it runs, where it does not, and that its parts do what the plain ones do."""

import os
import subprocess
import sys
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

import axtrain as ax
from axtrain.emulation import selection
from axtrain.emulation.code_table import CodeTable
from axtrain.emulation.geometry import Convolution, Dense
from axtrain.emulation.selection import engine_for, native_obstacle
from axtrain.quantisers import Quantiser, quantise_weights

pytest.importorskip("numba")
from axtrain.emulation.native.kept import KeptWeights

from axtrain.emulation.native import elementwise, engine, sums
from axtrain.emulation.native.buffers import Buffers
from axtrain.emulation.native.engine import NativeEngine
from axtrain.emulation.native.threads import parts

RNG = np.random.default_rng(0)
RANDOM = CodeTable(RNG.integers(-(1 << 14), 1 << 14, (256, 256)), -128, -128)
WIDE = CodeTable(RNG.integers(-(1 << 31), (1 << 31) - 1, (256, 256)), 0, -128)
EXACT = CodeTable.plain(ax.multipliers.get("exact", signed=True))
METHODS = {"products of bytes": EXACT, "byte permutes": RANDOM, "two planes": WIDE, "row tables": RANDOM}


def native(method: str) -> NativeEngine:
    made = NativeEngine(METHODS[method])
    if method == "row tables":
        made.how, made.factors = sums.ROWS, None
        made._table = (sums.ROWS, *made._table[1:3], np.empty((0, 256), np.uint8))
    elif made.how == sums.ROWS:
        pytest.skip("this CPU has no AVX-512 VBMI")
    return made


def codes(values, *shape):
    return RNG.choice(values, shape).astype(np.int32)


def loop(table: CodeTable, a, w):
    """int32 ``sum_k T[a_mk, w_kn]``, one product at a time, wrapping as int32 does."""
    total = np.zeros((a.shape[0], w.shape[1]), np.int64)
    for k in range(a.shape[1]):
        total += table.products[np.ix_(a[:, k] - table.activation_low, w[k] - table.weight_low)]
    return total.astype(np.int32)


@pytest.mark.parametrize("method", METHODS)
# Both sides of: one, two and four vectors; a block; a group of channels; pairs and quads of rows; 16-bit sums.
@pytest.mark.parametrize("m, k, n", [(1, 1, 1), (64, 2, 3), (65, 3, 16), (128, 4, 17), (129, 5, 2), (257, 258, 33)])
def test_matrix_products_are_bit_exact(method, m, k, n):
    made = native(method)
    a, w = codes(made.table.activation_codes, m, k), codes(made.table.weight_codes, k, n)
    np.testing.assert_array_equal(made.matmul(a, w), loop(made.table, a, w))


@pytest.mark.parametrize("method", METHODS)
def test_long_sums_wrap_as_32_bits_do(method):
    made = native(method)
    a, w = codes(made.table.activation_codes, 2, 70_001), codes(made.table.weight_codes, 70_001, 2)
    np.testing.assert_array_equal(made.matmul(a, w), loop(made.table, a, w))


@pytest.mark.parametrize("method", METHODS)
def test_small_codes_take_the_shorter_table(method):
    made = native(method)
    small = made.table.activation_codes[(made.table.activation_codes >= 0) & (made.table.activation_codes < 128)]
    a, w = codes(small, 70, 9), codes(made.table.weight_codes, 9, 5)
    np.testing.assert_array_equal(made.matmul(a, w), loop(made.table, a, w))
    a[-1, -1] = made.table.activation_codes[0]
    np.testing.assert_array_equal(made.matmul(a, w), loop(made.table, a, w))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("strides, dilation", [((1, 1), (1, 1)), ((2, 2), (1, 1)), ((1, 3), (2, 1)), ((2, 1), (1, 2))])
def test_convolutions_are_bit_exact(method, strides, dilation):
    made = native(method)
    a, w = codes(made.table.activation_codes, 3, 11, 13, 4), codes(made.table.weight_codes, 3, 2, 4, 5)
    found = made.conv(a, w, strides, dilation).numpy()
    height, width = 11 - 2 * dilation[0], 13 - dilation[1]
    patches = [
        a[
            :,
            i * dilation[0] : i * dilation[0] + height : strides[0],
            j * dilation[1] : j * dilation[1] + width : strides[1],
        ]
        for i in range(3)
        for j in range(2)
    ]
    columns = np.concatenate(patches, axis=-1).reshape(-1, 24)
    np.testing.assert_array_equal(found.reshape(-1, 5), loop(made.table, columns, w.reshape(24, 5)))
    depthwise = made.depthwise_conv(a, w, strides, dilation).numpy()
    for channel in range(4):
        expected = loop(made.table, columns.reshape(-1, 6, 4)[:, :, channel], w[:, :, channel].reshape(6, 5))
        np.testing.assert_array_equal(depthwise[..., channel * 5 : channel * 5 + 5].reshape(-1, 5), expected)


@pytest.mark.parametrize(
    "geometry", [Dense(), Convolution((2, 2), "same", (1, 1)), Convolution((1, 1), "same", (1, 1), True)]
)
@pytest.mark.parametrize("method", ["products of bytes", "byte permutes"])
def test_a_whole_layer_equals_its_parts_bit_for_bit(method, geometry):
    made = native(method)
    x = tf.constant(RNG.normal(size=(5, 9, 8, 6)), tf.float32)
    kernel = (6, 7) if isinstance(geometry, Dense) else (3, 3, 6, 2)
    w = quantise_weights(tf.constant(RNG.normal(size=kernel), tf.float32), 8, geometry.summed_axes(len(kernel)))
    # Affine signed codes: a zero point away from 0, values beyond both ends of the range.
    quantiser = Quantiser(tf.constant(0.013), tf.constant(-31.0), -128, 127)
    bias = tf.constant(RNG.normal(size=12 if geometry.operation == "depthwise" else kernel[-1]), tf.float32)
    whole = made.played(geometry, x, quantiser, w, bias)
    accumulator = geometry.codes(made, quantiser.codes(x), w.codes, quantiser.zero_point)
    accumulator -= tf.cast(quantiser.zero_point, tf.int32) * geometry.per_output(tf.cast(w.codes, tf.int32))
    parts_ = tf.cast(accumulator, tf.float32) * (quantiser.scale * tf.reshape(w.scale, (-1,))) + bias
    np.testing.assert_array_equal(whole, parts_)


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


def test_many_threads_at_once():
    made = native("byte permutes")
    a, w = codes(made.table.activation_codes, 600, 40), codes(made.table.weight_codes, 40, 20)
    expected, wrong = loop(made.table, a, w), []

    def work():
        for _ in range(20):
            wrong.append(int(np.sum(made.matmul(a, w).numpy() != expected)))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) == 160 and not any(wrong)


CHURN = """
import threading
import numpy as np
from axtrain.emulation.code_table import CodeTable
from axtrain.emulation.gather import GatherEngine
from axtrain.emulation.native.engine import NativeEngine

rng = np.random.default_rng(0)
table = CodeTable(rng.integers(-(1 << 14), 1 << 14, (256, 256)), -128, -128)
a, w = rng.integers(-128, 128, (8, 20, 20, 16)), rng.integers(-128, 128, (3, 3, 16, 4))
engine, expected = NativeEngine(table), GatherEngine(table).conv(a, w, (1, 1), (1, 1)).numpy()
wrong = []

def work():
    for _ in range(25):
        wrong.append(int(np.sum(engine.conv(a, w, (1, 1), (1, 1)).numpy() != expected)))

threads = [threading.Thread(target=work) for _ in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(wrong), sum(wrong))
"""


def test_convolutions_in_many_threads_keep_their_memory():
    """Numba once freed the image while patches were copied from it: wrong now and then, under load alone.

    glibc fills memory that is freed here, so that its use shows.
    """
    environment = {**os.environ, "MALLOC_PERTURB_": "165", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, "-c", CHURN], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split()[-2:] == ["150", "0"]


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


def test_parts_cover_everything_once():
    for length, count, multiple in [(0, 2, 1), (1, 4, 1), (7, 3, 1), (1000, 4, 256), (513, 2, 256)]:
        cut = parts(length, count, multiple)
        assert [first for first, _ in cut[1:]] == [last for _, last in cut[:-1]]
        assert cut[0][0] == 0 and cut[-1][1] == length and len(cut) <= count


def layer(**options):
    made = ax.layers.ApproxDense(3, hardware=ax.Hardware(multiplier=ax.multipliers.get("mitchell")), **options)
    made.build((None, 5))
    made.hardware_state.set_range(0.0, 1.0)
    return made


def test_chosen_for_a_table_of_high_rank_and_said_in_the_log(caplog):
    with caplog.at_level("INFO", logger="axtrain"):
        assert layer().chosen_engine.name == "numba"
    assert "Engine 'numba' plays a dense table of rank" in caplog.text


def test_under_xla_another_engine_gives_the_same_sums(caplog):
    x, made = tf.random.uniform((4, 5), seed=1), layer(engine="numba")
    with caplog.at_level("WARNING", logger="axtrain"):
        compiled = tf.function(made.accumulator, jit_compile=True)(x)
    assert "compiled by XLA" in caplog.text
    np.testing.assert_array_equal(compiled, made.accumulator(x))


def test_a_saved_graph_holds_no_python(tmp_path):
    model = keras.Sequential([keras.Input((5,)), layer()])
    x = RNG.uniform(size=(4, 5)).astype("float32")
    expected = model.predict(x, verbose=0)
    model.export(tmp_path / "saved", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "saved")
    np.testing.assert_array_equal(loaded.serve(x), expected)
    graph = loaded.signatures["serving_default"].graph.as_graph_def()
    names = {node.op for function in graph.library.function for node in function.node_def} | {
        node.op for node in graph.node
    }
    assert not any("PyFunc" in name for name in names)


def test_more_than_256_codes_take_another_engine():
    table = CodeTable(RNG.integers(0, 1000, (512, 16)), 0, 0)
    with pytest.raises(ValueError, match="at most 256 activation codes.*Received: 512"):
        NativeEngine(table)
    assert engine_for(table, "numba").name != "numba"


def test_without_numba_another_engine_plays(monkeypatch, caplog):
    monkeypatch.setattr(selection.importlib.util, "find_spec", lambda name: None)
    assert "pip install" in native_obstacle()
    with caplog.at_level("WARNING", logger="axtrain"):
        assert engine_for(RANDOM, "numba").name == "gather"
    assert "numba is not installed" in caplog.text


def test_this_cpu_is_asked_for_its_instructions(monkeypatch):
    monkeypatch.setattr(engine, "has_byte_permutes", lambda: False)
    assert NativeEngine(EXACT).method == "row tables"


def test_kept_weights_are_made_anew_when_one_of_them_changes():
    made = []
    kept = KeptWeights(lambda codes, zero_point: made.append(codes.sum()) or len(made))
    weights = np.zeros((50, 7), np.float32)
    assert [kept(weights, 0), kept(weights.copy(), 0)] == [1, 1]
    for place in [(0, 0), (3, 2), (49, 6)]:
        weights[place] += 1  # in place, as TensorFlow's memory may change
        assert kept(weights, 0) == len(made) == weights.sum() + 1
    assert kept(weights, 5) == 5 and kept(weights[:49], 5) == 6
