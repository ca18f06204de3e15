"""One table of layers and arguments; every layer keeps every promise."""

import inspect
import subprocess
import sys

import fresh
import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from keras import ops

import axtrain as ax
from axtrain.layers.registry import LAYERS as REGISTERED

LAYERS = {
    "dense": (ax.layers.ApproxDense, {"units": 5}, (3, 7)),
    "dense_3d": (ax.layers.ApproxDense, {"units": 3, "activation": "tanh"}, (2, 4, 6)),
    "dense_no_bias": (ax.layers.ApproxDense, {"units": 3, "use_bias": False}, (2, 6)),
    "conv1d_causal": (
        ax.layers.ApproxConv1D,
        {"filters": 3, "kernel_size": 3, "padding": "causal", "dilation_rate": 2},
        (2, 9, 2),
    ),
    "conv1d_same": (
        ax.layers.ApproxConv1D,
        {"filters": 3, "kernel_size": 4, "padding": "same", "strides": 2},
        (2, 9, 2),
    ),
    "conv2d_same": (
        ax.layers.ApproxConv2D,
        {"filters": 4, "kernel_size": 3, "padding": "same", "strides": 2},
        (2, 7, 6, 3),
    ),
    "conv2d_valid": (
        ax.layers.ApproxConv2D,
        {"filters": 2, "kernel_size": (3, 2), "dilation_rate": 2, "activation": "relu"},
        (2, 7, 6, 3),
    ),
    "conv2d_1x1": (ax.layers.ApproxConv2D, {"filters": 4, "kernel_size": 1, "use_bias": False}, (1, 5, 4, 6)),
    "depthwise_same": (
        ax.layers.ApproxDepthwiseConv2D,
        {"kernel_size": 3, "padding": "same", "depth_multiplier": 2},
        (2, 6, 5, 3),
    ),
    "depthwise_strided": (ax.layers.ApproxDepthwiseConv2D, {"kernel_size": 3, "strides": 2}, (2, 7, 7, 2)),
    "einsum_heads": (
        ax.layers.ApproxEinsumDense,
        {"equation": "btd,dhk->bhtk", "output_shape": (2, 4, 3), "bias_axes": "hk"},
        (2, 4, 5),
    ),
    "einsum_merged": (
        ax.layers.ApproxEinsumDense,
        {"equation": "...hk,hkd->...d", "output_shape": 4, "bias_axes": "d", "activation": "tanh"},
        (2, 3, 2, 3),
    ),
    "transposed_same": (
        ax.layers.ApproxConv2DTranspose,
        {"filters": 3, "kernel_size": 3, "padding": "same", "strides": 2},
        (2, 4, 3, 2),
    ),
    "transposed_valid": (
        ax.layers.ApproxConv2DTranspose,
        {"filters": 2, "kernel_size": (3, 2), "strides": (2, 3), "output_padding": (1, 2), "activation": "relu"},
        (1, 3, 4, 2),
    ),
    "transposed_dilated": (
        ax.layers.ApproxConv2DTranspose,
        {"filters": 2, "kernel_size": 3, "dilation_rate": 2},
        (1, 3, 4, 2),
    ),
    "separable": (
        ax.layers.ApproxSeparableConv2D,
        {"filters": 4, "kernel_size": 3, "padding": "same", "depth_multiplier": 2, "activation": "relu"},
        (2, 5, 4, 2),
    ),
    "lstm": (ax.layers.ApproxLSTM, {"units": 4, "return_sequences": True}, (2, 5, 3)),
    "gru": (ax.layers.ApproxGRU, {"units": 4}, (2, 5, 3)),
    "gru_reset_before": (ax.layers.ApproxGRU, {"units": 4, "reset_after": False, "use_bias": False}, (2, 5, 3)),
    "attention": (ax.layers.ApproxMultiHeadAttention, {"num_heads": 2, "key_dim": 3, "value_dim": 4}, (2, 5, 6)),
}
SEVERAL_PRODUCTS = {"separable", "lstm", "gru", "gru_reset_before", "attention"}
PLAIN = {entry.approximate_class: entry.keras_class for entry in REGISTERED.values()}
every_layer = pytest.mark.parametrize("case", LAYERS)
# Layers of several products have accumulators for each; tests/axtrain has those.
every_single_product = pytest.mark.parametrize("case", [case for case in LAYERS if case not in SEVERAL_PRODUCTS])


def inputs(shape, seed=0):
    return np.random.default_rng(seed).normal(0.3, 1, shape).astype(np.float32)


def zeros_matter():
    """A circuit with large M(0, b) and M(a, 0): padding and zero weights must contribute them."""
    table = np.outer(np.arange(256), np.arange(256)) + np.random.default_rng(0).integers(-300, 900, (256, 256))
    return ax.Multiplier(table, name="zeros matter", bits=8, signed=False)


def make(case, hardware=None, **kwargs):
    """A built layer with a random kernel and bias and its range set by hand, and an input for it."""
    kind, arguments, shape = LAYERS[case]
    layer = kind(**{"name": case, **arguments, **kwargs}, hardware=hardware)
    layer.build(*operands(layer, shape))
    rng = np.random.default_rng(1)
    for weight in layer.trainable_weights:
        weight.assign(rng.normal(size=weight.shape))
    for product in layer.products:
        product.state.set_range(-1.7, 2.1)
        if product.kernel is None:
            product.state.second.set_range(-2.0, 1.5)
    return layer, inputs(shape)


def operands(layer, value):
    """What the layer is built or called with: attention takes its sequence as query and as value."""
    return (value, value) if isinstance(layer, keras.layers.MultiHeadAttention) else (value,)


def hardware(multiplier=None, **quantisation):
    return ax.Hardware(multiplier=multiplier, quantisation=ax.Quantisation(**quantisation))


def test_the_table_has_every_layer():
    shipped = {kind for kind in PLAIN if kind.__module__.startswith("axtrain.layers.")}
    assert {kind for kind, _, _ in LAYERS.values()} == shipped


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@every_layer
def test_without_hardware_it_is_the_keras_layer(case, policy):
    kind, arguments, shape = LAYERS[case]
    layer, x = make(case, dtype=policy)
    plain = PLAIN[kind](**arguments, dtype=policy)
    plain.build(*operands(plain, shape))
    plain.set_weights(layer.get_weights())
    found, expected = layer(*operands(layer, x)), plain(*operands(plain, x))
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(ops.cast(found, "float32"), ops.cast(expected, "float32"))
    assert [w.shape for w in layer.weights] == [w.shape for w in plain.weights]


def check_accumulator(layer, x):
    found = np.asarray(layer.accumulator(x))
    expected, scale = reference.layer_accumulator(layer, x)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, expected)
    outputs = expected * scale
    if layer.use_bias:
        outputs = outputs + np.asarray(layer.bias)
    outputs = np.asarray(layer.activation(outputs.astype(np.float32)))
    np.testing.assert_allclose(layer(x), outputs, rtol=1e-5, atol=1e-5)


@every_single_product
def test_exact_accumulators(case):
    layer, x = make(case, ax.Hardware())
    check_accumulator(layer, x)
    # 8 bits leave the Keras layer's own output within the rounding of inputs (0.0075) and weights.
    plain, _ = make(case)
    clipped = np.clip(x, -1.7, 2.1)
    largest = np.abs(np.asarray(layer.products[0].kernel)).sum(axis=layer._summed_axes).max() * 0.0075
    terms = layer.multiplications_per_output * 2.1 * np.abs(np.asarray(plain.kernel)).max() / 127
    assert np.abs(np.asarray(layer(x)) - np.asarray(plain(clipped))).max() <= largest + terms


@pytest.mark.parametrize("engine", [None, "gather"])
@every_single_product
def test_approximate_accumulators_where_zero_is_not_zero(case, engine):
    layer, x = make(case, hardware(zeros_matter()), engine=engine)
    check_accumulator(layer, x)


ENCODINGS = {
    "unsigned affine": [{"weight_encoding": w} for w in (None, "sign_magnitude", "offset")],
    "unsigned symmetric": [
        {"activations": "symmetric", "activation_encoding": a, "weight_encoding": w}
        for a in (None, "sign_magnitude", "offset")
        for w in ("sign_magnitude", "offset")
    ],
    "signed": [
        {},
        {"activation_encoding": "offset"},
        {"activations": "affine", "activation_encoding": "offset"},
    ],
}


@pytest.mark.parametrize("bits", [{}, {"activation_bits": 5, "weight_bits": 4}])
@pytest.mark.parametrize(
    ("kind", "choice"), [(kind, choice) for kind, choices in ENCODINGS.items() for choice in choices]
)
@pytest.mark.parametrize("case", ["dense", "conv2d_same"])
def test_every_encoding(case, kind, choice, bits):
    circuit = zeros_matter()
    if kind == "signed":
        circuit = ax.Multiplier(circuit.table - 128 * 128, name="signed", bits=8, signed=True)
    layer, x = make(case, hardware(circuit, **choice, **bits))
    check_accumulator(layer, x)


@pytest.mark.parametrize("bits", [2, 3, 6, 10])
@pytest.mark.parametrize("activations", ["affine", "symmetric"])
def test_other_widths(bits, activations):
    quantisation = {"activation_bits": bits, "weight_bits": bits, "activations": activations}
    layer, x = make("conv2d_same", hardware(**quantisation))
    check_accumulator(layer, x)


def test_a_channel_of_zero_weights_gives_the_bias():
    layer, x = make("dense", hardware(ax.multipliers.get("drum4")))
    kernel = np.asarray(layer.kernel).copy()
    kernel[:, 2] = 0
    layer.kernel.assign(kernel)
    check_accumulator(layer, x)
    np.testing.assert_array_equal(np.asarray(layer(x))[:, 2], np.asarray(layer.bias)[2])


@every_single_product
def test_mixed_bfloat16_keeps_the_accumulators(case):
    described = hardware(ax.multipliers.get("drum4"))
    layer, x = make(case, described)
    mixed, _ = make(case, described, dtype="mixed_bfloat16")
    x = np.asarray(ops.cast(ops.cast(x, "bfloat16"), "float32"))  # what Keras hands to the mixed layer
    np.testing.assert_array_equal(mixed.accumulator(x), layer.accumulator(x))
    outputs = mixed(x)
    assert outputs.dtype == tf.bfloat16
    if layer.activation is keras.activations.linear:
        expected = ops.cast(layer(x), "bfloat16")
        np.testing.assert_array_equal(ops.cast(outputs, "float32"), ops.cast(expected, "float32"))


@every_layer
def test_one_weight_scale_for_the_kernel(case):
    described = hardware(ax.multipliers.get("drum4"), weight_scale="per_tensor")
    layer, x = make(case, described)
    if case not in SEVERAL_PRODUCTS:
        check_accumulator(layer, x)
    assert np.isfinite(np.asarray(layer(*operands(layer, x)))).all()
    for product in layer.products:
        if product.kernel is not None:
            axes = product.geometry.summed_axes(len(product.kernel.shape))
            held = described.weight_codes(ops.convert_to_tensor(product.kernel), axes)
            assert len(np.unique(held.scale)) == 1
            limit = np.float32(np.abs(np.asarray(product.kernel)).max())
            np.testing.assert_array_equal(held.codes, np.round(np.asarray(product.kernel) / (limit / np.float32(127))))


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_accumulator_inside_compiled_functions(jit_compile):
    """Of every layer, in one function: to compile one for each takes longer than all the rest."""
    made = {case: make(case, hardware(zeros_matter())) for case in LAYERS if case not in SEVERAL_PRODUCTS}

    @tf.function(jit_compile=jit_compile)
    def accumulators(samples):
        return {case: layer.accumulator(samples[case]) for case, (layer, _) in made.items()}

    found = accumulators({case: tf.constant(x) for case, (_, x) in made.items()})
    for case, (layer, x) in made.items():
        np.testing.assert_array_equal(found[case], reference.layer_accumulator(layer, x)[0], err_msg=case)


# Every argument of each Keras layer at another value than its default.
FULL = {
    "activation": "relu",
    "use_bias": False,
    "kernel_initializer": "ones",
    "bias_initializer": "ones",
    "kernel_regularizer": keras.regularizers.L2(0.1),
    "bias_regularizer": keras.regularizers.L1(0.1),
    "activity_regularizer": keras.regularizers.L2(0.2),
    "kernel_constraint": keras.constraints.MaxNorm(2),
    "bias_constraint": keras.constraints.NonNeg(),
}
# Keras refuses strides and dilation together in Conv: one of them in each configuration.
FULL_CONV = {**FULL, "strides": 2, "padding": "same", "kernel_size": 3}
FULL_DEPTHWISE = {
    name.replace("kernel_i", "depthwise_i").replace("kernel_r", "depthwise_r").replace("kernel_c", "depthwise_c"): value
    for name, value in FULL_CONV.items()
}
FULL_EINSUM = {**FULL, "equation": "abc,cd->abd", "output_shape": (None, 4), "bias_axes": "d"}
del FULL_EINSUM["use_bias"]
FULL_SEPARABLE = {name.replace("depthwise", "pointwise"): x for name, x in FULL_DEPTHWISE.items()} | FULL_DEPTHWISE
FULL_RECURRENT = {
    **FULL,
    **{name.replace("kernel", "recurrent"): x for name, x in FULL.items() if name.startswith("kernel")},
    **{"recurrent_activation": "tanh", "dropout": 0.1, "recurrent_dropout": 0.2, "seed": 3, "units": 4},
    **dict.fromkeys(("return_sequences", "return_state", "go_backwards", "stateful", "unroll"), True),
}
FULL_ATTENTION = {
    **{name: x for name, x in FULL.items() if name != "activation"},
    **{"num_heads": 2, "key_dim": 3, "value_dim": 4, "dropout": 0.1, "output_shape": 5, "attention_axes": 1},
    **{"sliding_window": 2, "use_gate": True, "seed": 3},
}
for newer in {"sliding_window", "use_gate"} - set(inspect.signature(keras.layers.MultiHeadAttention).parameters):
    del FULL_ATTENTION[newer]  # Keras 3.10 has not got them
FLOAT_CONV = {"data_format": "channels_first", "strides": 1, "dilation_rate": 3}
FULL_ARGUMENTS = [
    (ax.layers.ApproxDense, {**FULL, "units": 3}, {"lora_rank": 2}),
    (ax.layers.ApproxConv1D, {**FULL_CONV, "filters": 4}, {**FLOAT_CONV, "groups": 2}),
    (ax.layers.ApproxConv2D, {**FULL_CONV, "filters": 4}, {**FLOAT_CONV, "groups": 2}),
    (ax.layers.ApproxDepthwiseConv2D, {**FULL_DEPTHWISE, "depth_multiplier": 2}, FLOAT_CONV),
    (ax.layers.ApproxEinsumDense, FULL_EINSUM, {}),
    (
        ax.layers.ApproxConv2DTranspose,
        {**FULL_CONV, "filters": 4, "output_padding": 1},
        {**FLOAT_CONV, "output_padding": None},
    ),
    (ax.layers.ApproxSeparableConv2D, {**FULL_SEPARABLE, "filters": 4, "depth_multiplier": 2}, FLOAT_CONV),
    (ax.layers.ApproxLSTM, {**FULL_RECURRENT, "unit_forget_bias": False}, {}),
    (ax.layers.ApproxGRU, {**FULL_RECURRENT, "reset_after": False}, {}),
    (ax.layers.ApproxMultiHeadAttention, FULL_ATTENTION, {}),
]
RICH = ax.Hardware(
    multiplier=ax.multipliers.get("drum4"),
    weight_memory=ax.memories.BitErrors(rate=0.01, fault="stuck"),
    quantisation=ax.Quantisation(weight_encoding="offset", percentile=99.0),
    name="rich",
)


@pytest.mark.parametrize(("kind", "arguments", "float_only"), FULL_ARGUMENTS)
def test_configuration_round_trip_with_every_argument(kind, arguments, float_only):
    everything = {**arguments, **float_only}
    parameters = inspect.signature(PLAIN[kind].__init__).parameters.values()
    # Quantisation and LoRA of Keras's own need options that exclude each other; they are Keras's to test.
    skipped = {"self", "kwargs", "lora_rank", "lora_alpha", "quantization_config", "gptq_unpacked_column_size"}
    skipped |= {"use_cudnn", "flash_attention"}  # Keras leaves these out of its own configuration
    for p in parameters:
        if p.name not in skipped and p.default is not inspect.Parameter.empty:
            assert any(given.get(p.name, p.default) != p.default for given in (arguments, float_only)), p.name
    ours = {"fidelity": "gaussian", "engine": "gather"}
    assert kind.from_config(kind(**arguments, hardware=RICH, calibrated=True).get_config()).hardware_state.calibrated
    common = {"name": "other", "dtype": "mixed_bfloat16", "trainable": False}
    everything.pop("lora_rank", None)
    for variant in ({**arguments, **ours, **common, "hardware": RICH}, {**everything, **ours, **common}):
        layer = kind(**variant)
        again = kind.from_config(layer.get_config())
        assert again.get_config() == layer.get_config()
        assert again.hardware == layer.hardware == variant.get("hardware")
        assert (again.fidelity, again.engine) == ("gaussian", "gather")
        for name in common.keys() - {"dtype"}:
            assert getattr(again, name) == common[name]
        config = layer.get_config()
        given = arguments if "hardware" in variant else everything
        plain = PLAIN[kind](**given).get_config()
        for name in given.keys() & plain.keys():
            assert config[name] == plain[name]
        rebuilt = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
        assert type(rebuilt) is kind
        assert rebuilt.get_config() == layer.get_config()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Every layer as a saved model, and the outputs it had: {case: (path, input, output)}."""
    folder, cases = tmp_path_factory.mktemp("saved"), {}
    described = ax.Hardware(
        multiplier=ax.multipliers.get("roba"), weight_memory=ax.memories.BitErrors(rate=0.02, fault="persistent")
    )
    for case in LAYERS:
        layer, x = make(case, described)
        whole = keras.Input(x.shape[1:])
        model = keras.Model(whole, layer(*operands(layer, whole)))
        ax.set_chip(model, 7)
        model.save(folder / f"{case}.keras")
        np.save(folder / f"{case}.npy", x)
        cases[case] = (folder / f"{case}.keras", x, np.asarray(model(x)))
    return folder, cases


@every_layer
def test_saved_and_loaded_in_the_same_process(case, saved):
    path, x, outputs = saved[1][case]
    for load in (ax.load_model, keras.saving.load_model):
        loaded = load(path)
        assert type(loaded.layers[-1]) is LAYERS[case][0]
        np.testing.assert_array_equal(loaded(x), outputs)


def real_process(code, folder):
    """Where axtrain is the first thing that is imported."""
    return subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("how", "process"),
    [
        ("import axtrain as ax; load = ax.load_model", real_process),
        ("import keras, axtrain; load = keras.saving.load_model", fresh.run),
        pytest.param(
            "import axtrain, keras; axtrain.layers; load = keras.saving.load_model", fresh.run, marks=pytest.mark.slow
        ),
    ],
)
def test_loaded_in_a_fresh_process(how, process, saved):
    folder, cases = saved
    code = (
        f"{how}\n"
        "import sys, pathlib, numpy as np\n"
        "for path in pathlib.Path(sys.argv[1]).glob('*.keras'):\n"
        "    np.save(path.with_suffix('.fresh.npy'), load(str(path))(np.load(path.with_suffix('.npy'))))\n"
    )
    done = process(code, folder)
    assert done.returncode == 0, done.stderr[-2000:]
    for case, (path, _, outputs) in cases.items():
        found = path.with_suffix(".fresh.npy")
        np.testing.assert_array_equal(np.load(found), outputs, err_msg=case)
        found.unlink()


def network(described, **kwargs):
    """All four layers in one small network."""
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            ax.layers.ApproxConv2D(4, 3, padding="same", hardware=described, activation="tanh"),
            ax.layers.ApproxDepthwiseConv2D(3, hardware=described),
            keras.layers.Reshape((4, 16)),
            ax.layers.ApproxConv1D(5, 2, hardware=described, activation="tanh"),
            keras.layers.Flatten(),
            ax.layers.ApproxDense(3, hardware=described),
        ],
        **kwargs,
    )


# Every pair of an engine, a way to run and a policy.
@pytest.mark.parametrize(
    ("engine", "compile_arguments", "policy"),
    [
        ("low_rank", {"jit_compile": True}, "float32"),
        ("low_rank", {"jit_compile": False}, "mixed_bfloat16"),
        ("low_rank", {"run_eagerly": True}, "float32"),
        pytest.param("gather", {"jit_compile": True}, "mixed_bfloat16", marks=pytest.mark.slow),
        ("gather", {"jit_compile": False}, "float32"),
        ("gather", {"run_eagerly": True}, "float32"),
    ],
)
def test_one_training_step_moves_every_weight(engine, compile_arguments, policy, float_policy):
    keras.config.set_dtype_policy(policy)
    described = ax.Hardware(
        multiplier=ax.multipliers.get("drum4"),
        weight_memory=ax.memories.BitErrors(rate=0.001),
        quantisation=ax.Quantisation(activation_range="moving_average"),
    )
    model = network(described)
    for layer in model.layers:
        if hasattr(layer, "engine"):
            layer.engine = engine
    model.compile(keras.optimizers.SGD(0.1), "mse", **compile_arguments)
    before = [np.asarray(w) for w in model.trainable_weights]
    assert len(before) == 8
    x = inputs((8, 6, 6, 2))
    history = model.fit(x, np.ones((8, 3)), batch_size=8, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    for weight, old in zip(model.trainable_weights, before, strict=True):
        assert np.abs(np.asarray(weight) - old).max() > 0, weight.path
    assert all(float(layer.hardware_state.seen) == 1 for layer in model.layers if hasattr(layer, "hardware_state"))
    assert all(w.dtype == "float32" for w in model.weights if "seed" not in w.path)


def sequences(described, engine):
    """Pictures that become sequences: every layer of several products, and the two others that came with them."""
    played = {"hardware": described, "engine": engine}
    pictures = keras.Input((2, 3, 2))
    x = ax.layers.ApproxConv2DTranspose(3, 3, strides=2, padding="same", activation="tanh", **played)(pictures)
    x = ax.layers.ApproxSeparableConv2D(4, 3, activation="tanh", **played)(x)
    x = keras.layers.Reshape((4, 8))(x)
    x = ax.layers.ApproxEinsumDense("abc,cd->abd", (None, 6), bias_axes="d", **played)(x)
    x = ax.layers.ApproxMultiHeadAttention(2, 3, dropout=0.1, name="attention", **played)(x, x)
    x = ax.layers.ApproxLSTM(4, return_sequences=True, **played)(x)
    x = ax.layers.ApproxGRU(4, **played)(x)
    return keras.Model(pictures, x)


@pytest.mark.parametrize(
    ("engine", "compile_arguments", "policy"),
    [
        ("low_rank", {"run_eagerly": True}, "float32"),
        # Slow: layers of one product train under XLA, too, and these in a graph.
        pytest.param("low_rank", {"jit_compile": True}, "mixed_bfloat16", marks=pytest.mark.slow),
        ("gather", {"jit_compile": False}, "float32"),
    ],
)
def test_one_training_step_moves_every_weight_of_several_products(engine, compile_arguments, policy, float_policy):
    keras.config.set_dtype_policy(policy)
    model = sequences(ax.Hardware(multiplier=ax.multipliers.get("drum4")), engine)
    model.compile(keras.optimizers.SGD(0.1), "mse", **compile_arguments)
    before = {weight.path: np.asarray(weight) for weight in model.trainable_weights}
    history = model.fit(inputs((8, 2, 3, 2)), np.ones((8, 4)), batch_size=8, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    for weight in model.trainable_weights:
        if not weight.path.endswith("attention/key/bias"):  # it adds one number to all scores of a query
            assert np.abs(np.asarray(weight) - before[weight.path]).max() > 0, weight.path
    states = [product.state for layer in model.layers for product in getattr(layer, "products", ())]
    assert len(states) == 1 + 2 + 1 + 6 + 2 + 2
    assert all(float(state.seen) == 1 for state in states)
    assert all(float(state.high) > float(state.low) for state in states)
    assert all(w.dtype == "float32" for w in model.weights if "seed" not in w.path)


@pytest.mark.parametrize("kind", PLAIN)
def test_bad_arguments_raise(kind):
    required = {
        name: LAYERS[c][1][name]
        for c in LAYERS
        for name in ("units", "filters", "kernel_size", "equation", "output_shape", "num_heads", "key_dim")
        if LAYERS[c][0] is kind and name in LAYERS[c][1]
    }
    with pytest.raises(TypeError, match="`hardware` must be.*Received: hardware='drum4'"):
        kind(**required, hardware="drum4")
    with pytest.raises(ValueError, match="`engine` must be.*Received: engine='magic'"):
        kind(**required, engine="magic")
    with pytest.raises(ValueError, match="`fidelity` must be.*Received: fidelity='vague'"):
        kind(**required, fidelity="vague")
    with pytest.raises(ValueError, match="Not a hardware description"):
        kind(**required, hardware={})
    if hasattr(kind(**required), "data_format"):
        with pytest.raises(ValueError, match="channels_last"):
            kind(**required, data_format="channels_first", hardware=ax.Hardware())
        kind(**required, data_format="channels_first")  # without hardware it is Keras's business
    if kind in (ax.layers.ApproxConv1D, ax.layers.ApproxConv2D):
        with pytest.raises(ValueError, match="groups=2"):
            kind(**{**required, "filters": 4}, groups=2, hardware=ax.Hardware())


def test_an_accumulator_needs_hardware():
    layer, x = make("dense")
    with pytest.raises(ValueError, match="hardware"):
        layer.accumulator(x)
