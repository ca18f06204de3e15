"""convert and strip on every shape of model; the model given is never changed."""

import json
from functools import lru_cache

import keras
import numpy as np
import pytest
from keras import layers

import axtrain as ax
from axtrain.controls import hardware_layers
from axtrain.model_walk import all_layers

pytestmark = pytest.mark.eager

HARDWARE = ax.Hardware(multiplier=ax.multipliers.get("drum4"))


@keras.saving.register_keras_serializable("axtrain_tests")
class CountingModel(keras.Model):
    """A Functional model with behaviour of its own."""

    def describe(self):
        return f"{self.name} with {len(self.layers)} layers"


def sequential():
    return keras.Sequential(
        [
            keras.Input((6, 6, 2), name="picture"),
            layers.Conv2D(3, 3, padding="same", name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(name="relu"),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.Flatten(name="flat"),
            layers.Dropout(0.5, name="drop"),
            layers.Dense(4, activation="softmax", name="head"),
        ],
        name="sequential",
    )


def functional(kind=keras.Model):
    x = inputs = keras.Input((6, 6, 2), name="picture")
    x = layers.Conv2D(2, 3, padding="same", name="conv1")(x)
    x = layers.Add(name="add")([x, inputs])
    y = layers.Conv2D(2, 1, use_bias=False, name="conv2")(x)
    x = layers.Add(name="residual")([x, y])
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return kind(inputs, layers.Dense(3, name="head")(x), name="functional")


def nested():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(5, activation="relu", name="inner_dense")], name="inner")
    block_input = keras.Input((5,), name="block_input")
    block = keras.Model(block_input, layers.Dense(4, name="block_dense")(block_input), name="block")
    inputs = keras.Input((4,), name="features")
    x = block(inner(inputs))
    x = block(inner(x))  # both used twice
    return keras.Model(inputs, layers.Dense(2, name="head")(x), name="nested")


def shared_layer():
    inputs = keras.Input((4,), name="features")
    dense = layers.Dense(4, activation="tanh", name="shared")
    return keras.Model(inputs, layers.Dense(2, name="head")(dense(dense(inputs))), name="shared_layer")


def two_inputs(as_dict):
    left, right = keras.Input((4,), name="left"), keras.Input((3,), name="right")
    x = layers.Concatenate(name="join")(
        [layers.Dense(3, name="dense_left")(left), layers.Dense(2, name="dense_right")(right)]
    )
    inputs = {"left": left, "right": right} if as_dict else [left, right]
    return keras.Model(inputs, layers.Dense(2, name="head")(x), name="two_inputs")


def conv1d():
    return keras.Sequential(
        [
            keras.Input((8, 2)),
            layers.Conv1D(3, 3, padding="causal", name="conv"),
            layers.Flatten(),
            layers.Dense(1, name="head"),
        ]
    )


def transformer():
    sequence = keras.Input((4, 6), name="sequence")
    x = layers.EinsumDense("abc,cd->abd", (None, 6), bias_axes="d", name="embedding")(sequence)
    y = layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    x = layers.LayerNormalization(name="norm1")(layers.Add(name="add1")([x, y]))
    y = layers.Dense(6, name="widen")(x)
    x = layers.LayerNormalization(name="norm2")(layers.Add(name="add2")([x, y]))
    x = layers.GlobalAveragePooling1D(name="pool")(x)
    return keras.Model(sequence, layers.Dense(3, name="head")(x), name="transformer")


def recurrent():
    return keras.Sequential(
        [
            keras.Input((3, 4)),
            layers.LSTM(3, name="lstm"),
            layers.Dense(2, name="head"),
        ]
    )


def autoencoder():
    return keras.Sequential(
        [
            keras.Input((4, 4, 2)),
            layers.SeparableConv2D(3, 3, strides=2, padding="same", name="separable"),
            layers.Conv2DTranspose(2, 3, strides=2, padding="same", name="transposed"),
        ]
    )


MODELS = {
    "sequential": sequential,
    "functional": functional,
    "functional_subclass": lambda: functional(CountingModel),
    "nested": nested,
    "shared_layer": shared_layer,
    "input_list": lambda: two_inputs(False),
    "input_dict": lambda: two_inputs(True),
    "conv1d": conv1d,
    "transformer": transformer,
    "recurrent": recurrent,
    "autoencoder": autoencoder,
}
every_model = pytest.mark.parametrize("case", MODELS)


def inputs_of(model):
    """A Sequential model has no `input` of its own."""
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input


def data(model, count=24, seed=0):
    rng = np.random.default_rng(seed)
    return keras.tree.map_structure(
        lambda tensor: rng.normal(size=(count, *tensor.shape[1:])).astype(np.float32), inputs_of(model)
    )


def trained(case):
    """The model with nothing at its initial value, batch statistics included."""
    keras.utils.set_random_seed(1)
    model = MODELS[case]()
    rng = np.random.default_rng(2)
    for weight in model.weights:
        if weight.dtype == "float32":
            weight.assign(
                rng.uniform(0.1, 0.9, weight.shape)
                * rng.choice([1, 1, -1] if "variance" not in weight.path else [1], weight.shape)
            )
    return model


@lru_cache
def on_hardware(case):
    """The trained model and what it is converted to, for tests that change neither."""
    model = trained(case)
    return model, ax.convert(model, HARDWARE, data(model), strict=True)


def weights_by_name(model):
    """The weights that a user trained or measured: no hardware state, no seeds."""
    return {
        (layer.name, *weight.path.split("/")[-2:]): np.asarray(weight)
        for layer in all_layers(model)
        for weight in [*layer.trainable_weights, *layer.non_trainable_weights]
        if "hardware" not in weight.path and "seed" not in weight.path
    }


def equal_weights(first, second):
    first, second = weights_by_name(first), weights_by_name(second)
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=str(name))


@every_model
def test_names_weights_and_structure_are_kept(case):
    model, noisy = on_hardware(case)
    assert type(noisy) is type(model)
    assert noisy is not model
    assert noisy.name == model.name
    assert [layer.name for layer in all_layers(noisy)] == [layer.name for layer in all_layers(model)]
    if not isinstance(model, keras.Sequential):  # Keras renames the unnamed input of a Sequential model itself
        names = keras.tree.map_structure(lambda tensor: tensor.name, model.input)
        assert keras.tree.map_structure(lambda tensor: tensor.name, noisy.input) == names
    assert noisy.output_shape == model.output_shape
    equal_weights(noisy, model)
    if case == "functional_subclass":
        assert noisy.describe() == model.describe()


@every_model
def test_every_layer_with_products_is_converted(case):
    model, noisy = on_hardware(case)
    kinds = (layers.Dense, layers.Conv1D, layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D)
    kinds += (layers.Conv2DTranspose, layers.EinsumDense, layers.MultiHeadAttention, layers.LSTM, layers.GRU)
    wanted = [layer.name for layer in all_layers(model) if isinstance(layer, kinds)]
    assert [layer.name for layer in hardware_layers(noisy)] == wanted
    assert [layer.name for layer in noisy.conversion_report.converted] == wanted
    assert noisy.conversion_report.skipped == ()
    assert not noisy.compiled


@every_model
def test_the_network_still_computes_the_same_but_for_rounding(case):
    model = trained(case)
    x = data(model)
    quantisation = ax.Quantisation(activation_bits=10, weight_bits=10, activation_range="minmax")
    precise = ax.convert(model, ax.Hardware(quantisation=quantisation), x)
    expected = np.asarray(model(x))
    np.testing.assert_allclose(precise(x), expected, atol=0.02 * np.abs(expected).max())
    coarse = ax.convert(model, ax.Hardware(multiplier=ax.multipliers.get("drum3")), x)
    assert np.abs(np.asarray(coarse(x)) - expected).max() > 1e-4


@every_model
def test_the_input_model_is_untouched(case):
    model = trained(case)
    # Traced functions are Keras's, of the model and not of its layers: one model's tell of all.
    model.compile("adam", "mse", metrics=["mae"], jit_compile=False, run_eagerly=case != "sequential")
    x, config = data(model), json.dumps(model.get_config(), default=str)
    y = np.zeros((24, *model.output_shape[1:]))
    model.fit(x, y, verbose=0)
    before, prediction = weights_by_name(model), model.predict(x, verbose=0)
    optimizer_state = [np.asarray(v) for v in model.optimizer.variables]
    noisy = ax.convert(model, HARDWARE, x)
    noisy.compile("sgd", "mse", run_eagerly=True)
    noisy.fit(x, y, verbose=0)
    ax.strip(noisy)
    assert model.compiled and not hasattr(model, "conversion_report")
    assert json.dumps(model.get_config(), default=str) == config
    for name, value in weights_by_name(model).items():
        np.testing.assert_array_equal(value, before[name])
    for variable, value in zip(model.optimizer.variables, optimizer_state, strict=True):
        np.testing.assert_array_equal(variable, value)
    np.testing.assert_array_equal(model.predict(x, verbose=0), prediction)
    assert noisy.conversion_report.compile_dropped
    assert "compile the new model" in str(noisy.conversion_report)


@every_model
def test_strip_gives_the_plain_model_again(case):
    model, noisy = on_hardware(case)
    x = data(model)
    before = weights_by_name(noisy)
    plain = ax.strip(noisy)
    assert type(plain) is type(model)
    assert [type(layer) for layer in all_layers(plain)] == [type(layer) for layer in all_layers(model)]
    assert json.dumps(plain.get_config(), default=str) == json.dumps(model.get_config(), default=str)
    equal_weights(plain, model)
    np.testing.assert_array_equal(plain(x), model(x))
    for name, value in weights_by_name(noisy).items():
        np.testing.assert_array_equal(value, before[name])


@every_model
def test_a_converted_model_saves_loads_and_trains(case, tmp_path):
    model, noisy = on_hardware(case)
    x = data(model)
    noisy.save(tmp_path / "noisy.keras")
    loaded = ax.load_model(tmp_path / "noisy.keras")
    np.testing.assert_array_equal(loaded(x), noisy(x))
    loaded.compile("adam", "mse")
    before = [np.asarray(w) for w in loaded.trainable_weights]
    history = loaded.fit(x, np.zeros((24, *model.output_shape[1:])), verbose=0)
    assert np.isfinite(history.history["loss"][0])
    moved = [np.any(np.asarray(w) != b) for w, b in zip(loaded.trainable_weights, before, strict=True)]
    assert all(moved)


def test_a_shared_layer_stays_one_layer():
    model = trained("shared_layer")
    noisy = ax.convert(model, HARDWARE, data(model))
    assert len(noisy.trainable_weights) == len(model.trainable_weights) == 4
    assert len(noisy.get_layer("shared")._inbound_nodes) == 2
    stripped = ax.strip(noisy)
    assert len(stripped.trainable_weights) == 4


def test_a_shared_layer_is_calibrated_on_all_its_uses():
    inputs = keras.Input((1,))
    dense = layers.Dense(1, use_bias=False, name="shared")
    model = keras.Model(inputs, dense(dense(inputs)))
    dense.kernel.assign([[10.0]])
    quantisation = ax.Quantisation(activation_range="minmax")
    noisy = ax.convert(model, ax.Hardware(quantisation=quantisation), np.array([[0.0], [2.0]], np.float32))
    assert float(noisy.get_layer("shared").hardware_state.high) == 20.0


def test_ranges_come_from_each_layers_own_input():
    model = trained("sequential")
    x = data(model, 200)
    noisy = ax.convert(model, ax.Hardware(quantisation=ax.Quantisation(percentile=99.0)), x)
    for name, before in (("conv", None), ("depthwise", "relu"), ("head", "drop")):
        values = x if before is None else keras.Model(model.inputs[0], model.get_layer(before).output)(x)
        low, high = np.percentile(np.asarray(values), [1, 99])
        state = noisy.get_layer(name).hardware_state
        assert (float(state.low), float(state.high)) == pytest.approx((low, high), rel=1e-4, abs=1e-5)


def test_frozen_flags_are_kept():
    model = trained("nested")
    model.get_layer("inner").trainable = False
    model.get_layer("block").get_layer("block_dense").trainable = False
    for made in (noisy := ax.convert(model, HARDWARE, data(model)), ax.strip(noisy)):
        assert not made.get_layer("inner").trainable
        assert not made.get_layer("inner").get_layer("inner_dense").trainable
        assert made.get_layer("block").trainable
        assert not made.get_layer("block").get_layer("block_dense").trainable
        assert made.get_layer("head").trainable
        assert [w.path.split("/")[-2] for w in made.trainable_weights] == ["head", "head"]
    model.trainable = False
    assert ax.convert(model, HARDWARE, data(model)).trainable_weights == []


def test_a_layer_thawed_inside_a_frozen_model_stays_thawed():
    model = trained("nested")
    model.get_layer("block").trainable = False
    model.get_layer("block").get_layer("block_dense").trainable = True
    noisy = ax.convert(model, HARDWARE, data(model))
    assert not noisy.get_layer("block").trainable
    assert noisy.get_layer("block").get_layer("block_dense").trainable
    assert len(noisy.trainable_weights) == len(model.trainable_weights)


def test_batch_normalisation_is_left_and_not_reported_as_skipped():
    model = trained("sequential")
    noisy = ax.convert(model, HARDWARE, data(model))
    assert type(noisy.get_layer("norm")) is layers.BatchNormalization
    report = {layer.name: layer for layer in noisy.conversion_report.layers}
    assert (report["norm"].on_hardware, report["norm"].reason) == (False, None)
    assert (report["conv"].was, report["conv"].became, report["conv"].on_hardware) == ("Conv2D", "ApproxConv2D", True)


def test_a_network_of_tokens_has_no_layer_left_over():
    tokens = keras.Input((4,), dtype="int32")
    x = layers.LayerNormalization(name="norm")(layers.Embedding(5, 6, mask_zero=True, name="embedding")(tokens))
    x = layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    model = keras.Model(tokens, layers.LSTM(3, name="lstm")(x))
    x = np.array([[1, 2, 3, 0], [4, 2, 0, 0]])
    quantisation = ax.Quantisation(activation_bits=10, weight_bits=10, activation_range="minmax")
    noisy = ax.convert(model, ax.Hardware(quantisation=quantisation), x, strict=True, engine="low_rank")
    assert [layer.name for layer in noisy.conversion_report.converted] == ["attention", "lstm"]
    assert ax.summary(noisy).skipped == ()
    np.testing.assert_allclose(noisy(x), model(x), atol=0.02)  # the mask goes all the way through


def test_overrides_by_name_pattern_and_none():
    model, other = trained("functional"), ax.Hardware(multiplier=ax.multipliers.get("roba"))
    noisy = ax.convert(model, HARDWARE, data(model), overrides={"conv*": other, "conv2": None})
    assert noisy.get_layer("conv1").hardware == other
    assert type(noisy.get_layer("conv2")) is layers.Conv2D
    assert noisy.get_layer("head").hardware == HARDWARE
    (skipped,) = noisy.conversion_report.skipped
    assert (skipped.name, skipped.reason) == ("conv2", "kept in float by an override")


def test_the_last_matching_override_counts():
    model, other = trained("functional"), ax.Hardware(multiplier=ax.multipliers.get("roba"))
    noisy = ax.convert(model, HARDWARE, data(model), overrides={"conv2": None, "conv?": other})
    assert noisy.get_layer("conv2").hardware == other


@pytest.mark.parametrize("name", ["nowhere", "Conv1", "conv3*"])
def test_an_override_that_names_no_layer_raises(name):
    with pytest.raises(ValueError, match=r"names no layer.*conv1, .*head.*Received: '"):
        ax.convert(functional(), HARDWARE, overrides={name: None})


def test_an_override_of_the_wrong_kind_raises():
    with pytest.raises(TypeError, match="Hardware or None.*'drum4'"):
        ax.convert(functional(), HARDWARE, overrides={"conv1": "drum4"})


def quantised():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="odd"), layers.Dense(2, name="head")])
    model.layers[0].quantize("int8")
    return model


def lora():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="odd"), layers.Dense(2, name="head")])
    model.layers[0].enable_lora(2)
    return model


def with_layer(layer, shape):
    return lambda: keras.Sequential([keras.Input(shape), layer, layers.Flatten(), layers.Dense(2, name="head")])


OBSTACLES = {
    "channels_first": (
        with_layer(layers.DepthwiseConv2D(1, data_format="channels_first", name="odd"), (2, 4, 4)),
        "channels_first",
    ),
    "groups": (with_layer(layers.Conv2D(4, 3, groups=2, name="odd"), (4, 4, 2)), "groups=2"),
    "quantised": (quantised, "already quantised by Keras.*int8"),
    "lora": (lora, "LoRA"),
    "no counterpart": (with_layer(layers.Conv1DTranspose(2, 2, name="odd"), (4, 2)), "no approximate counterpart"),
}


@pytest.mark.parametrize("case", OBSTACLES)
def test_layers_that_cannot_run_on_hardware_are_reported(case):
    build, reason = OBSTACLES[case]
    model = build()
    noisy = ax.convert(model, HARDWARE)
    (skipped,) = noisy.conversion_report.skipped
    assert skipped.name == "odd"
    assert skipped.was == skipped.became == type(model.get_layer("odd")).__name__
    import re

    assert re.search(reason, skipped.reason)
    assert "odd" in str(noisy.conversion_report)
    with pytest.raises(ValueError, match=rf"strict=True.*odd.*{reason}"):
        ax.convert(model, HARDWARE, strict=True)


@pytest.mark.parametrize("case", ["quantised", "lora"])
def test_odd_layers_keep_their_weights_and_outputs(case):
    model = OBSTACLES[case][0]()
    noisy = ax.convert(model, HARDWARE)
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    np.testing.assert_array_equal(noisy.get_layer("odd")(x), model.get_layer("odd")(x))


class Hidden(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, x):
        return self.dense(x)


def test_a_subclassed_model_raises():
    model = Hidden()
    model(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="subclassed model hides its layers.*Functional API.*Hidden"):
        ax.convert(model, HARDWARE)


def test_a_subclassed_model_inside_another_raises():
    model = keras.Sequential([keras.Input((3,)), Hidden()])
    with pytest.raises(ValueError, match="subclassed model hides its layers"):
        ax.convert(model, HARDWARE)


def test_an_unbuilt_model_raises():
    with pytest.raises(ValueError, match=r"Build the model first.*Received: 'unbuilt'"):
        ax.convert(keras.Sequential([layers.Dense(2)], name="unbuilt"), HARDWARE)


@pytest.mark.parametrize(("model", "hardware"), [("a path", HARDWARE), (None, HARDWARE), (conv1d, "drum4")])
def test_arguments_of_the_wrong_kind_raise(model, hardware):
    with pytest.raises(TypeError, match="must be a"):
        ax.convert(model() if callable(model) else model, hardware)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_calibration_data_that_are_not_finite_raise(bad):
    model = trained("input_dict")
    x = data(model)
    x["right"][3, 1] = bad
    with pytest.raises(ValueError, match="must be finite.*1 of 72 values"):
        ax.convert(model, HARDWARE, x)


def test_empty_calibration_data_raise():
    with pytest.raises(ValueError, match="at least one sample"):
        ax.convert(conv1d(), HARDWARE, np.zeros((0, 8, 2)))


def test_a_layer_that_turns_calibration_data_to_nan_is_named():
    model = keras.Sequential(
        [keras.Input((2,)), layers.Rescaling(np.inf), layers.Dense(2, name="first"), layers.Dense(1, name="second")]
    )
    with pytest.raises(ValueError, match="'first' could not be calibrated.*not finite"):
        ax.convert(model, HARDWARE, np.ones((4, 2), np.float32))


def test_a_kernel_that_is_not_finite_is_named():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(2, name="first")])
    model.layers[0].kernel.assign(np.full((2, 2), np.nan))
    with pytest.raises(ValueError, match="'first' could not be calibrated.*kernel"):
        ax.convert(model, HARDWARE, np.ones((4, 2), np.float32))


@every_model
def test_without_calibration_the_ranges_follow_the_batches(case):
    model = trained(case)
    x = data(model)
    noisy = ax.convert(model, ax.Hardware())
    converted = list(hardware_layers(noisy))
    assert all(layer.hardware_state.follows_batches for layer in converted)
    expected = np.asarray(model(x))
    # Unseen layers take the batch's own range: usable at once, but never silently at scale 1.
    np.testing.assert_allclose(noisy(x), expected, atol=0.1 * np.abs(expected).max())
    noisy.compile("sgd", "mse")
    noisy.fit(x, np.zeros((24, *model.output_shape[1:])), verbose=0)
    assert all(float(layer.hardware_state.seen) == 1 for layer in converted)
    assert all(float(layer.hardware_state.high) > float(layer.hardware_state.low) for layer in converted)


@pytest.mark.parametrize("case", ["sequential", "nested"])
def test_a_converted_model_moves_to_other_hardware(case):
    model = trained(case)
    x, other = data(model), ax.Hardware(multiplier=ax.multipliers.get("exact", signed=True))
    again = ax.convert(ax.convert(model, HARDWARE, x), other, x)
    direct = ax.convert(model, other, x)
    assert all(layer.hardware == other for layer in hardware_layers(again))
    equal_weights(again, model)
    np.testing.assert_allclose(again(x), direct(x), rtol=1e-5, atol=1e-5)


def test_an_override_takes_a_layer_of_a_converted_model_off_the_hardware():
    model = trained("functional")
    x = data(model)
    again = ax.convert(ax.convert(model, HARDWARE, x), HARDWARE, x, overrides={"conv1": None})
    names = [layer.name for layer in hardware_layers(again)]
    assert names == ["conv2", "head"]
    (skipped,) = again.conversion_report.skipped
    assert (skipped.name, skipped.reason) == ("conv1", "kept in float by an override")
    picture = x
    np.testing.assert_array_equal(again.get_layer("conv1")(picture), model.get_layer("conv1")(picture))


def test_strip_of_a_plain_model_is_a_copy():
    model = trained("functional")
    x = data(model)
    np.testing.assert_array_equal(ax.strip(model)(x), model(x))


def test_conversion_under_mixed_precision(float_policy):
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = trained("sequential")
    x = data(model)
    noisy = ax.convert(model, ax.Hardware(), x)
    expected = np.asarray(model(x), dtype=np.float32)
    np.testing.assert_allclose(np.asarray(noisy(x), dtype=np.float32), expected, atol=0.3)
    assert noisy.get_layer("conv").kernel.dtype == "float32"
    stripped = np.asarray(ax.strip(noisy)(x), dtype=np.float32)
    np.testing.assert_array_equal(stripped, expected)


def test_a_report_in_words():
    noisy = ax.convert(trained("functional"), HARDWARE, overrides={"conv1": None})
    text = str(noisy.conversion_report)
    assert "2 of 6 layers run on hardware" in text
    assert "conv2: Conv2D -> ApproxConv2D" in text
    assert "conv1: Conv2D stays in float (kept in float by an override)" in text
