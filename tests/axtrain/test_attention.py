"""Attention plays its projections and both products of activations; masks and softmax are Keras's."""

import inspect
import io

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from keras import ops
from rich.console import Console

import axtrain as ax
from axtrain.emulation.selection import engine_for

pytestmark = pytest.mark.eager

BATCH, QUERIES, KEYS, FEATURES = 2, 4, 5, 6
ARGUMENTS = {"num_heads": 2, "key_dim": 3, "value_dim": 4}
TEN_BITS = ax.Hardware(quantisation=ax.Quantisation(activation_bits=10, weight_bits=10))
MASK = np.random.default_rng(5).uniform(size=(BATCH, QUERIES, KEYS)) > 0.3


def operands(seed=1):
    rng = np.random.default_rng(seed)
    query = rng.normal(0.2, 1, (BATCH, QUERIES, FEATURES))
    return np.clip(query, -2, 2).astype(np.float32), np.clip(rng.normal(size=(BATCH, KEYS, 3)), -2, 2).astype(
        np.float32
    )


def make(hardware=None, shapes=((BATCH, QUERIES, FEATURES), (BATCH, KEYS, 3)), **kwargs):
    """A layer with random weights and wide ranges; Keras's own layer without hardware."""
    kind = keras.layers.MultiHeadAttention if hardware is None else ax.layers.ApproxMultiHeadAttention
    layer = kind(**{**ARGUMENTS, "name": "attention", **kwargs}, **({} if hardware is None else {"hardware": hardware}))
    layer.build(*shapes)
    rng = np.random.default_rng(0)
    for weight in layer.trainable_weights:
        weight.assign(rng.normal(0, 0.5, weight.shape))
    if hardware is not None:
        ranges = {"scores": (-5.0, 5.0), "combine": (0.0, 1.0), "attention_output": (-5.0, 5.0)}
        for name, product in zip(layer.product_names, layer.products, strict=True):
            product.state.set_range(*ranges.get(name, (-2.0, 2.0)))
            if product.kernel is None:
                product.state.second.set_range(-5.0, 4.0)
    return layer


def integer_attention(layer, query, value, mask=None):
    """Accumulators by product name and the output: plain NumPy, one head and one sample at a time."""
    sums = {}

    def projection(dense, x, axes):
        kernel = np.asarray(dense.kernel)
        matrix = kernel.reshape(int(np.prod(kernel.shape[:axes])), -1)
        rows = x.reshape(-1, matrix.shape[0])
        accumulators, real = reference.dense_product(dense.hardware_state, rows, matrix)
        shape = (*x.shape[: x.ndim - axes], *kernel.shape[axes:])
        sums[dense.name] = accumulators.reshape(shape)
        return real.reshape(shape) + np.asarray(dense.bias)

    def pairs(name, state, first, second):
        played = [
            [reference.pair_product(state, a, b) for a, b in zip(*both, strict=True)]
            for both in zip(first, second, strict=True)
        ]
        sums[name] = np.array([[accumulators for accumulators, _ in heads] for heads in played])
        return np.array([[real for _, real in heads] for heads in played], np.float32)

    q = projection(layer.query_dense, query, 1) * np.float32(1 / np.sqrt(layer.key_dim))
    k, v = projection(layer.key_dense, value, 1), projection(layer.value_dense, value, 1)
    scores = pairs("scores", layer.hardware_state, q.transpose(0, 2, 1, 3), k.transpose(0, 2, 3, 1))
    mask = None if mask is None else mask[:, None]
    probabilities = np.asarray(keras.layers.Softmax(axis=-1)(ops.convert_to_tensor(scores), mask=mask))
    combined = pairs("combine", layer.combine_state, probabilities, v.transpose(0, 2, 1, 3))
    return sums, projection(layer.output_dense, combined.transpose(0, 2, 1, 3), 2)


@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize(("circuit", "engine"), reference.CIRCUITS_AND_ENGINES)
def test_accumulators_of_every_product(circuit, engine, mask, monkeypatch):
    layer = make(ax.Hardware(multiplier=reference.circuit(circuit)), engine=engine)
    seen = reference.recorded(monkeypatch)
    outputs = layer(*operands(), attention_mask=mask)
    expected, real = integer_attention(layer, *operands(), mask)
    names = ["query", "key", "value", "scores", "combine", "attention_output"]
    assert [name.removeprefix("attention_").removesuffix("_hardware") for name, _ in seen] == [*names[:-1], "output"]
    for name, (_, found) in zip(names, seen, strict=True):
        reference.same(found.reshape(expected[name].shape), expected[name])
        assert np.abs(found).max() > 0
    np.testing.assert_allclose(outputs, real, rtol=1e-4, atol=1e-4)


CALLS = {
    "plain": {},
    "mask": {"attention_mask": MASK},
    "causal": {"use_causal_mask": True},
    "scores": {"return_attention_scores": True},
    "all": {"attention_mask": MASK, "use_causal_mask": True, "return_attention_scores": True},
}
VARIANTS = {
    "plain": {},
    "gate": {"use_gate": True, "output_shape": (2, 3)},
    "window": {"sliding_window": 2, "use_bias": False},
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_option_is_kerass(variant, call):
    unknown = set(VARIANTS[variant]) - set(inspect.signature(keras.layers.MultiHeadAttention).parameters)
    if unknown:
        pytest.skip(f"Keras {keras.__version__} has no {', '.join(sorted(unknown))}")
    layer, plain = make(TEN_BITS, **VARIANTS[variant]), make(**VARIANTS[variant])
    without = ax.layers.ApproxMultiHeadAttention(**{**ARGUMENTS, **VARIANTS[variant]})
    without.build(*(x.shape for x in operands()))
    without.set_weights(plain.get_weights())
    expected = keras.tree.flatten(plain(*operands(), **CALLS[call]))
    found, same = (keras.tree.flatten(made(*operands(), **CALLS[call])) for made in (layer, without))
    for ours, exactly, theirs in zip(found, same, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=0.03)
        np.testing.assert_array_equal(exactly, theirs)
        assert np.abs(theirs).max() > 0.3


def test_masks_that_come_with_the_inputs():
    tokens = np.array([[1, 2, 3, 0], [4, 0, 0, 0]])
    embedding = keras.layers.Embedding(5, FEATURES, mask_zero=True)
    embedding.build()
    embedding.embeddings.assign(np.random.default_rng(0).normal(size=(5, FEATURES)))
    shapes = ((BATCH, 4, FEATURES),) * 2
    layer, plain = make(TEN_BITS, shapes), make(None, shapes)
    for product in layer.products[2:5]:
        product.state.set_range(-3.0, 3.0)
    found = layer(embedding(tokens), embedding(tokens))
    # A masked query may attend to nothing; of what Keras makes of that, the path with scores is ours.
    expected, _ = plain(embedding(tokens), embedding(tokens), return_attention_scores=True)
    np.testing.assert_allclose(found, expected, atol=0.04)
    unmasked = plain(*(np.asarray(embedding(tokens)),) * 2)
    assert np.abs(np.asarray(unmasked) - np.asarray(expected)).max() > 0.1


@pytest.mark.parametrize("axes", [None, 1, (2,)])
def test_attention_over_some_of_several_axes(axes):
    shapes = ((2, 3, 4, FEATURES),) * 2
    x = np.clip(np.random.default_rng(0).normal(size=shapes[0]), -2, 2).astype(np.float32)
    layer, plain = make(TEN_BITS, shapes, attention_axes=axes), make(None, shapes, attention_axes=axes)
    np.testing.assert_allclose(layer(x, x), plain(x, x), atol=0.05)
    inputs = keras.Input(shapes[0][1:])
    counted = ax.energy(keras.Model(inputs, plain(inputs, inputs)), ax.Hardware()).layers[0].multiplications
    attended = {None: 12, 1: 3, (2,): 4}[axes]
    projected = 12 * 2 * (3 + 3 + 4) * FEATURES + 12 * 2 * 4 * FEATURES
    assert counted == projected + 12 * attended * 2 * (3 + 4)


def test_dropout_is_kerass_own():
    layer, plain = make(TEN_BITS, dropout=0.4, seed=3), make(dropout=0.4, seed=3)
    layer.combine_state.set_range(0.0, 2.0)
    expected = np.asarray(plain(*operands(), training=True))
    np.testing.assert_allclose(layer(*operands(), training=True), expected, atol=0.05)
    assert np.abs(np.asarray(plain(*operands())) - expected).max() > 0.2


def attention_model(**kwargs):
    query, value = keras.Input((QUERIES, FEATURES)), keras.Input((KEYS, 3))
    return keras.Model([query, value], make(**kwargs)(query, value))


def many(count=40):
    rng = np.random.default_rng(2)
    return [rng.normal(size=(count, *shape)).astype(np.float32) for shape in ((QUERIES, FEATURES), (KEYS, 3))]


def test_every_operand_is_calibrated_on_its_own_values():
    model, (query, value) = attention_model(), many()
    minmax = ax.Hardware(quantisation=ax.Quantisation(activation_range="minmax"))
    layer = ax.convert(model, minmax, [query, value]).layers[-1]
    plain = model.layers[-1]
    q = np.asarray(plain.query_dense(query)) / np.sqrt(3)
    k, v = plain.key_dense(value), plain.value_dense(value)
    probabilities = plain(query, value, return_attention_scores=True)[1]
    states = dict(zip(layer.product_names, (product.state for product in layer.products), strict=True))
    pairs = {"scores": (q, k), "combine": (probabilities, v)}
    for name, values in {"query": query, "key": value, "value": value, **{n: x for n, (x, _) in pairs.items()}}.items():
        found, x = (float(states[name].low), float(states[name].high)), np.asarray(values)
        assert found == pytest.approx((x.min(), x.max()), rel=1e-4, abs=1e-6), name
    for name, (_, second) in pairs.items():
        largest = max(abs(float(states[name].second.low)), abs(float(states[name].second.high)))
        assert largest == pytest.approx(np.abs(second).max(), rel=1e-4), name
    assert all(state.calibrated for state in states.values())


def test_without_calibration_both_ranges_follow_the_batches():
    layer = make(ax.Hardware(quantisation=ax.Quantisation(activation_range="moving_average")))
    plain, state = make(), layer.hardware_state
    for one in (state, state.second):
        one.seen.assign(0.0)
    np.testing.assert_allclose(layer(*operands()), plain(*operands()), atol=0.2)
    assert float(state.second.seen) == 0
    layer(*operands(), training=True)
    keys = np.asarray(plain.key_dense(operands()[1]))
    assert (float(state.second.low), float(state.second.high)) == pytest.approx((keys.min(), keys.max()), abs=0.05)


def test_no_weight_memory_stands_behind_activations():
    """Every cell fails: the projections drown, the products of activations are untouched."""
    memory = ax.memories.BitErrors(rate=0.5, fault="persistent")
    clean, faulty = make(ax.Hardware()), make(ax.Hardware(weight_memory=memory))
    values = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    codes = [made.combine_state.read_weights(values, (1,), training=False).codes for made in (clean, faulty)]
    np.testing.assert_array_equal(*codes)
    dense = [made.query_dense(operands()[0]) for made in (clean, faulty)]
    assert np.abs(dense[0] - dense[1]).max() > 0.1


def test_the_gradient_reaches_both_operands_straight_through():
    """The float product of the dequantised operands, 0 where one was clipped, whatever the circuit."""
    layer = make(ax.Hardware(multiplier=ax.multipliers.get("drum2")))
    rng = np.random.default_rng(0)
    a, b = (tf.constant(rng.normal(0, 4, shape), tf.float32) for shape in ((2, 3, 4, 3), (2, 3, 5, 3)))
    state, equation = layer.hardware_state, "xhtd,xhsd->xhts"
    state.set_range(-4.0, 6.0)  # 102 steps below 0 and 153 above
    upstream = tf.constant(rng.normal(size=(2, 3, 4, 5)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch([a, b])
        loss = tf.reduce_sum(upstream * layer._play_pair(state, equation, a, b, training=False))
    found = tape.gradient(loss, [a, b])
    second = state.read_weights(b, (), training=False)
    first = state.quantise_activations(a, training=False)
    inside_a = (np.asarray(a) >= -4) & (np.asarray(a) <= 6)
    inside_b = np.abs(b) <= 5  # symmetric: the larger of -5 and 4
    np.testing.assert_allclose(found[0], np.einsum("xhts,xhsd->xhtd", upstream, second.real) * inside_a, atol=1e-4)
    np.testing.assert_allclose(found[1], np.einsum("xhts,xhtd->xhsd", upstream, first.real) * inside_b, atol=1e-4)
    assert not inside_a.all() and not inside_b.all()


def test_every_dial_reaches_every_product():
    model = attention_model()
    noisy = ax.convert(model, ax.Hardware(multiplier=ax.multipliers.get("mitchell")), many(), engine="gather")
    layer, x = noisy.layers[-1], list(operands())
    assert layer.chosen_engines[0].name == layer.chosen_engines[-1].name == "gather"
    expected, plain = np.asarray(noisy(x)), np.asarray(model(x))
    ax.set_fidelity(noisy, "gaussian")
    assert layer.query_dense.fidelity == layer.output_dense.fidelity == "gaussian"
    found = np.asarray(noisy(x))
    assert np.abs(found - np.asarray(noisy(x))).max() > 0
    assert np.sqrt(np.mean((found - expected) ** 2)) < np.sqrt(np.mean((plain - expected) ** 2))
    ax.set_fidelity(noisy, "exact")
    np.testing.assert_array_equal(noisy(x), expected)
    ax.set_chip(noisy, 5)
    places = {tuple(np.asarray(product.state.chip_seed.state)) for product in layer.products}
    assert len(places) == 6 and all(chip == 5 for chip, _ in places)


@pytest.mark.graph
def test_sequences_of_any_length():
    layer = make(ax.Hardware(), ((None, None, FEATURES),) * 2, engine="low_rank")
    compiled = tf.function(lambda x: layer(x, x), input_signature=[tf.TensorSpec((None, None, FEATURES))])
    for length in (2, 7):
        x = np.random.default_rng(0).normal(size=(2, length, FEATURES)).astype(np.float32)
        np.testing.assert_allclose(compiled(x), layer(x, x), rtol=1e-4, atol=1e-4)


def test_the_integers_and_the_summary(tmp_path):
    noisy = ax.convert(attention_model(), ax.Hardware(), many())
    export = ax.export(noisy, tmp_path / "out")
    written, (entry,) = export.integers["attention"], export.manifest["layers"]
    shapes = {part["name"]: part["kernel_shape"] for part in entry["products"]}
    assert shapes == {
        "scores": None,
        "combine": None,
        "query": [FEATURES, 6],
        "key": [3, 6],
        "value": [3, 8],
        "attention_output": [8, FEATURES],
    }
    layer = noisy.layers[-1]
    assert written["query/codes"].shape == (FEATURES, 6) and written["query/bias"].shape == (2, 3)
    second = layer.hardware_state.second
    largest = max(abs(float(second.low)), abs(float(second.high)))
    assert float(written["scores/scale"]) == pytest.approx(largest / 127)
    assert "scores/codes" not in written
    again = export.model()
    np.testing.assert_array_equal(
        again.predict(list(operands()), verbose=0), noisy.predict(list(operands()), verbose=0)
    )
    text = io.StringIO()
    (part,) = ax.summary(noisy, console=Console(file=text, width=200)).layers
    assert [product.name for product in part.products] == list(shapes)
    assert [product.second_range is None for product in part.products] == [False, False, True, True, True, True]
    assert all(f"{name}: " in text.getvalue() for name in shapes)


@pytest.mark.parametrize("length", [1, 30, 700])
@pytest.mark.parametrize("engine", ["low_rank", "gather"])
@pytest.mark.parametrize("circuit", ["kulkarni", "zero is not zero", "signed exact"])
def test_batched_products_beyond_the_exactness_bound(circuit, engine, length):
    """700 terms of the exact signed table pass 2^24, and the second operand has batch axes too."""
    table = ax.Hardware(multiplier=reference.circuit(circuit)).code_table
    rng = np.random.default_rng(0)
    a = rng.integers(table.activation_codes[0], table.activation_codes[-1] + 1, (2, 3, 4, length))
    w = rng.integers(-127, 128, (2, 3, length, 5))
    a[0], w[0] = table.activation_codes[-1], -127  # the longest sums that can be
    index = a[..., :, :, None] - table.activation_low, w[..., None, :, :] - table.weight_low
    expected = table.products[index].sum(axis=-2)
    chosen = engine_for(table, engine)
    for kind in (np.float32, np.int32):
        reference.same(np.asarray(chosen.batched_matmul(a.astype(kind), w.astype(kind))), expected)


@pytest.mark.graph
def test_batched_products_of_open_length_inside_compiled_functions():
    table = ax.Hardware(multiplier=reference.circuit("zero is not zero")).code_table
    rng = np.random.default_rng(0)
    a, w = rng.integers(0, 256, (2, 3, 650)).astype(np.float32), rng.integers(-127, 128, (2, 650, 4)).astype(np.float32)
    index = a[..., :, :, None].astype(int), w[..., None, :, :].astype(int) - table.weight_low
    expected = table.products[index].sum(axis=-2)
    signature = [tf.TensorSpec((None, None, None))] * 2
    for engine in ("low_rank", "gather"):
        for jit_compile in (False, True):
            product = tf.function(
                lambda a, w, engine=engine: engine_for(table, engine, operation="batched").batched_matmul(a, w),
                input_signature=signature,
                jit_compile=jit_compile,
            )
            reference.same(np.asarray(product(a, w)), expected)
