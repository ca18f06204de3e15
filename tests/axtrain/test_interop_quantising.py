"""Quantisation-aware training by tfmot: outputs, weights and ranges come back to Keras 3."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import axtrain as ax
from axtrain.interop.keras2 import to_keras2
from axtrain.interop.keras3 import to_keras3
from axtrain.interop.quantising import quantised

layers = keras.layers


def chain():
    """Every quantised tensor but the last is the input of a layer on hardware."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(6, 3, use_bias=False, name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(name="relu"),
            layers.DepthwiseConv2D(3, activation="relu", name="depthwise"),
            layers.MaxPooling2D(name="pool"),
            layers.Flatten(name="flat"),
            layers.Dense(24, activation="relu", name="hidden"),
            layers.Dropout(0.1, name="drop"),
            layers.Dense(10, name="classes"),
        ]
    )


def branched():
    inputs = keras.Input((8, 8, 1), name="image")
    x = shortcut = layers.Conv2D(6, 3, padding="same", activation="relu", name="first")(inputs)
    x = layers.BatchNormalization(name="norm")(layers.Conv2D(6, 3, padding="same", name="second")(x))
    x = layers.ReLU(name="relu")(layers.Add(name="sum")([x, shortcut]))
    x = layers.GlobalAveragePooling2D(name="mean")(layers.SeparableConv2D(8, 3, name="separable")(x))
    return keras.Model(inputs, layers.Dense(10, name="classes")(x))


LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture(scope="module", params=[chain, branched])
def trained(request, digits):
    """A network, its tfmot model after some training, and data."""
    _, x, y = digits
    keras.utils.set_random_seed(2)
    model = request.param()
    theirs = quantised(model)
    for layer in theirs.layers:  # somewhere that the data reach: -6 .. 6 would do, and less well
        for weight in layer.non_trainable_weights:
            if weight.name.endswith(("_min:0", "_max:0")):
                weight.assign(weight * 0.5)
    import tf_keras

    theirs.compile("adam", tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    theirs.fit(x[:960], y[:960], epochs=1, verbose=0)
    for layer in theirs.layers:  # the ranges of the weights as they are now
        for weight, quantiser, variables in getattr(layer, "_weight_vars", ()):
            quantiser(weight, True, variables)
    return request.param, model, theirs, x


@pytest.mark.cases("branched")
def test_outputs_are_those_of_tfmot(trained):
    made, model, theirs, x = trained
    ours = to_keras3(theirs, x[:256])
    last = theirs.layers[-1]._quantize_activations[0]._post_activation_vars
    found = ours.predict(x, verbose=0)
    # Nothing on hardware reads the network's output, so its quantiser is theirs alone.
    found = np.asarray(tf.quantization.fake_quant_with_min_max_vars(found, last["min_var"], last["max_var"]))
    expected = theirs.predict(x, verbose=0)
    step = float(last["max_var"] - last["min_var"]) / 255
    if made is chain:  # rounding of float32 may move a tensor across a rounding border, rarely
        assert (np.abs(found - expected) > 1e-4 * step).mean() < 1e-3
        assert np.abs(found - expected).max() < 1.001 * step
    else:  # summands and averages are not quantised here
        assert np.abs(found - expected).max() < 4.001 * step
        assert np.abs(found - expected).mean() < step
    clean = ax.strip(ours)
    for layer in model.layers:
        if layer.weights and made is chain:
            assert type(clean.get_layer(layer.name)) is type(layer)
    assert all(np.isfinite(weight).all() for weight in clean.get_weights())


def test_the_way_there_and_back_changes_nothing(trained):
    _, model, _, x = trained
    back = to_keras3(to_keras2(model))
    assert type(back) is type(model)
    np.testing.assert_allclose(back(x[:50]), model(x[:50]), rtol=0, atol=1e-5)
    assert [layer.name for layer in back.layers] == [layer.name for layer in model.layers]


def test_quantize_aware(digits):
    _, x, y = digits
    keras.utils.set_random_seed(3)
    model = chain()
    model.compile("adam", LOSS)
    model.fit(x, y, epochs=4, batch_size=16, verbose=0)
    before = [weights.copy() for weights in model.get_weights()]
    found = ax.interop.tfmot.quantize_aware(model, x[:640], y[:640], learning_rate=1e-3)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    scales = {name: found.get_layer(name).hardware.quantisation.weight_scale for name in ("conv", "hidden")}
    assert scales == {"conv": "per_channel", "hidden": "per_tensor"}
    accuracy = [ax.evaluate(one, x, y, verbose=False).mean for one in (model, found)]
    assert accuracy[1] > accuracy[0] - 0.02
    state = found.get_layer("hidden").hardware_state
    plain = ax.strip(found)
    reached = float(np.max(keras.Model(plain.inputs, plain.get_layer("flat").output).predict(x, verbose=0)))
    assert float(state.low) == 0 and 0.5 * reached < float(state.high) < 1.5 * reached
    drum = ax.convert(found, ax.Hardware(multiplier=ax.multipliers.get("drum4")))
    assert float(drum.get_layer("hidden").hardware_state.high) == float(state.high)  # learnt, and taken along
    assert not drum.get_layer("hidden").hardware_state.follows_batches


def test_on_other_hardware_and_single_layers(digits):
    model, x, y = digits
    hardware = ax.Hardware(multiplier=ax.multipliers.get("drum4"))
    with pytest.raises(ValueError, match="BatchNormalization"):  # behind an activation tfmot does not know it
        ax.interop.tfmot.quantize_aware(model, x[:320], y[:320])
    found = ax.interop.tfmot.quantize_aware(
        model, x[:320], y[:320], hardware=hardware, layers=["hidden", "classes"], epochs=1
    )
    kinds = [type(layer).__name__ for layer in found.layers if layer.weights]
    assert kinds == ["Conv2D", "BatchNormalization", "ApproxDense", "ApproxDense"]
    assert found.get_layer("hidden").hardware == hardware
    ax.set_fidelity(found, "calibrated")  # the calibration data were seen, under the learnt range
    assert ax.evaluate(found, x, y, verbose=False).mean > 0.9


def test_known_ranges_count_before_calibration_data(digits):
    model, x, _ = digits
    ranges = {"hidden": (-1.0, 3.0)}
    for calibration in (None, x[:64]):
        state = (
            ax.convert(model, ax.Hardware(), calibration, activation_ranges=ranges).get_layer("hidden").hardware_state
        )
        assert (float(state.low), float(state.high)) == (-1.0, 3.0) and state.calibrated
    codes = state.quantise_activations(keras.ops.convert_to_tensor(np.float32([-2.0, 4.0])), training=False).codes
    assert np.asarray(codes).tolist() == [0, 255]
    for mistake, said in (({"flat": (0, 1)}, "Received: 'flat'"), ({"hidden": (1, 0)}, r"'hidden': \(1, 0\)")):
        with pytest.raises(ValueError, match=said):
            ax.convert(model, ax.Hardware(), activation_ranges=mistake)


def test_what_cannot_come_back_is_an_error(digits):
    import tf_keras

    model, x, y = digits
    inputs = tf_keras.Input((4,))
    with pytest.raises(ValueError, match="no such layer"):
        to_keras3(tf_keras.Model(inputs, inputs * 2.0))
    with pytest.raises(ValueError, match="Received: Sequential"):
        to_keras3(tf_keras.Sequential([tf_keras.layers.Dense(3)]))
    wide = keras.Sequential([keras.Input((8, 8, 1)), layers.DepthwiseConv2D(3, depth_multiplier=2)])
    with pytest.raises(ValueError, match="depth_multiplier=2"):
        to_keras3(quantised(wide))
    nested = keras.Sequential([keras.Input((8, 8, 1)), chain()])
    with pytest.raises(ValueError, match="Models inside models"):
        ax.interop.tfmot.quantize_aware(nested, x, y, loss=LOSS)
    with pytest.raises(TypeError, match="Received: hardware='drum4'"):
        ax.interop.tfmot.quantize_aware(model, x, y, hardware="drum4")
