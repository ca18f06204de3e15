"""Coded models in `fit`: the plain network'"'"'s training without errors, and with errors that the code corrects."""

import keras
import numpy as np
import pytest

import axtrain as ax
from axtrain.coded import (
    CodedDense,
    CodeNet,
    GeneralizedPolyDot,
    Replication,
    SoftErrors,
    SystematicMDS,
    Uncoded,
    convert,
    strip,
)

pytestmark = pytest.mark.eager

layers = keras.layers


@pytest.fixture(scope="module")
def data():
    generator = np.random.default_rng(0)
    return generator.standard_normal((96, 12)).astype("float32"), generator.integers(0, 4, 96)


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12,), name="features")
    hidden = layers.Dense(21, "relu", name="hidden")(inputs)
    return keras.Model(inputs, layers.Dense(4, "softmax", name="out")(hidden), name="mlp")


def trained(model, data, epochs=2, optimizer=None, **settings):
    optimizer = optimizer or keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=1e-3)
    model.compile(optimizer, "sparse_categorical_crossentropy", **settings)
    return model.fit(*data, epochs=epochs, batch_size=32, shuffle=False, verbose=0).history


def again(network):
    copy = keras.models.clone_model(network)
    copy.set_weights(network.get_weights())
    return copy


def furthest(coded, plain):
    """Largest difference between decoded and plain weights."""
    pairs = zip(strip(coded).get_weights(), plain.get_weights(), strict=True)
    return max(float(np.abs(a - b).max()) for a, b in pairs)


@pytest.fixture(scope="module")
def reference(network, data):
    plain = again(network)
    return plain, trained(plain, data)["loss"]


@pytest.mark.parametrize(
    "code", [CodeNet(2, 3), SystematicMDS(5, 3), Uncoded(2, 2), Replication(2), GeneralizedPolyDot(2, 2)], ids=repr
)
def test_training_without_errors_is_the_plain_networks(network, data, reference, code):
    before = [w.copy() for w in network.get_weights()]
    coded = convert(network, code)
    assert [layer.name for layer in coded.layers] == [layer.name for layer in network.layers]
    losses = trained(coded, data)["loss"]
    np.testing.assert_allclose(losses, reference[1], rtol=2e-5)
    assert furthest(coded, reference[0]) < 1e-5
    assert set(coded.events.values()) == {0}  # and no false alarm
    for a, b in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("where", ["forward", "backward", "update", "memory", "decode", "nonlinear"])
def test_errors_in_every_stage_are_mended(network, data, reference, where):
    """With one error at a time in 2 t = 4 redundant results, weights end where the plain network'"'"'s do."""
    rate = 0.06 if where in ("decode", "nonlinear") else 0.02  # of three replicas, not of 24 nodes
    seed = 4 if where in ("decode", "nonlinear") else 3  # never two of three replicas at once
    coded = convert(network, CodeNet(2, 3, 2), SoftErrors(rate=rate, where=(where,), kind="random", seed=seed))
    trained(coded, data, run_eagerly=where != "forward")
    assert coded.events["injected"] > 0
    assert coded.events["rolled_back"] == coded.events["missed"] == 0
    assert (coded.events["regenerated"] > 0) == (where in ("update", "memory"))
    assert furthest(coded, reference[0]) < 1e-4


def test_uncoded_training_ends_elsewhere(network, data, reference):
    faults = SoftErrors(rate=0.05, where=("update",), kind="random", seed=3)
    coded = convert(network, Uncoded(2, 3), faults, checkpoint_every=None)
    trained(coded, data, run_eagerly=True)
    assert furthest(coded, reference[0]) > 0.01


def test_what_is_beyond_correction_is_rolled_back(network, data):
    """Two copies detect and cannot correct: every step with an error is undone, and the network still learns."""
    faults = SoftErrors(rate=0.05, where=("forward", "backward"), kind="random", seed=1)
    coded = convert(network, Replication(2), faults, checkpoint_every=1)
    losses = trained(coded, data, epochs=6)["loss"]
    events = coded.events
    assert 0 < events["rolled_back"] < 18
    assert events["corrected"] == events["missed"] == 0
    assert losses[-1] < 0.9 * losses[0]
    assert 0 < int(coded.optimizer.iterations) <= 18 - events["rolled_back"]


KINDS = ("bit_flip", "multi_bit", "random", "scaled", "zeroed", "nan", "inf", "stuck", "dependent", "mixture")


@pytest.mark.parametrize("kind", [*KINDS, "adversarial"])
@pytest.mark.cases(
    "scaled", "zeroed", "nan", "stuck", "dependent", "mixture", "adversarial"
)  # a mixture has the others
def test_kinds_of_errors(kind, data):
    """With four redundant results, what one or two wrong nodes of sixteen say is found and left out."""
    faults = SoftErrors(rate=0.03 if kind != "stuck" else 0.003, where=("forward",), kind=kind, seed=2)
    keras.utils.set_random_seed(5)
    # Errors are drawn by the name too; with this one never four rows of six agree on another message.
    layer = CodedDense(21, code=CodeNet(2, 3, 2), faults=faults, adversarial=kind == "adversarial", name="coded")
    layer.build((None, 12))
    x = np.concatenate([data[0], np.ones((96, 1), "float32")], axis=1)
    clean = layer.product.forward(layer.coded_kernel, x)[0]
    trusted = 0
    for _ in range(40):
        layer.hopeless.assign(0.0)
        y = layer(data[0])
        if float(layer.hopeless) == 0:
            np.testing.assert_allclose(y, clean, atol=1e-4)
            trusted += 1
    injected, detected, corrected, _, missed = np.asarray(layer.counts)
    assert injected > 0 and missed == 0
    assert detected >= injected and corrected == detected - (40 - trusted)
    assert trusted >= 30


@pytest.mark.parametrize("clip", [{"global_clipnorm": 0.05}, {"clipnorm": 0.05}])
def test_clipping_takes_the_norm_of_the_uncoded_gradient(network, data, clip):
    plain, coded = again(network), convert(network, CodeNet(2, 3))
    separate = "clipnorm" in clip  # kernel and bias are one variable of a coded layer
    expected = trained(plain, data, optimizer=keras.optimizers.SGD(0.5, **clip))["loss"]
    found = trained(coded, data, optimizer=keras.optimizers.SGD(0.5, **clip), run_eagerly=True)["loss"]
    np.testing.assert_allclose(found, expected, rtol=0.05 if separate else 1e-4)


def test_optimizers_that_leave_the_code(network, data):
    coded = convert(network, CodeNet(2, 2))
    for optimizer in (keras.optimizers.Adam(), keras.optimizers.RMSprop(), keras.optimizers.SGD(clipvalue=0.1)):
        with pytest.raises(ValueError, match="allow_reencode"):
            coded.compile(optimizer, "mse")
    for options in ({"use_ema": True}, {"gradient_accumulation_steps": 2}, {"momentum": 0.9, "weight_decay": 0.1}):
        coded.compile(keras.optimizers.SGD(0.1, **options), "mse")
    plain, encoded = again(network), convert(network, CodeNet(2, 2), allow_reencode=True)
    expected = trained(plain, data, optimizer=keras.optimizers.Adam(0.01), run_eagerly=True)["loss"]
    found = trained(encoded, data, optimizer=keras.optimizers.Adam(0.01), run_eagerly=True)["loss"]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_saved_and_loaded_it_goes_on(network, data, tmp_path):
    coded = convert(network, CodeNet(2, 3), SoftErrors(rate=0.001))
    trained(coded, data, epochs=1, run_eagerly=True)
    coded.save(tmp_path / "coded.keras")
    loaded = ax.load_model(tmp_path / "coded.keras")
    np.testing.assert_array_equal(loaded.coded_layers[0].coded_kernel, coded.coded_layers[0].coded_kernel)
    assert loaded.coded_layers[0].code == CodeNet(2, 3)
    assert loaded.coded_layers[0].faults == SoftErrors(rate=0.001)
    assert loaded.events == coded.events
    for model in (coded, loaded):
        model.fit(*data, epochs=1, batch_size=32, shuffle=False, verbose=0)
    np.testing.assert_array_equal(loaded.coded_layers[0].coded_kernel, coded.coded_layers[0].coded_kernel)
    plain = strip(loaded)
    assert [type(layer) for layer in plain.layers] == [type(layer) for layer in network.layers]
    np.testing.assert_allclose(plain.predict(data[0], verbose=0), loaded.predict(data[0], verbose=0), atol=1e-5)


def test_convolutions(data):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((9, 8, 2)),
            layers.Conv2D(5, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2D(4, (2, 3), use_bias=False, kernel_regularizer=keras.regularizers.L2(0.01)),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, "softmax"),
        ]
    )
    generator = np.random.default_rng(2)
    images = generator.standard_normal((64, 9, 8, 2)).astype("float32"), generator.integers(0, 3, 64)
    coded = convert(model, CodeNet(2, 2), overrides={"dense*": None})
    assert [type(layer).__name__ for layer in coded.layers[1:]] == [
        "CodedConv2D", "CodedConv2D", "GlobalAveragePooling2D", "Dense",
    ]  # fmt: skip
    np.testing.assert_allclose(coded.predict(images[0], verbose=0), model.predict(images[0], verbose=0), atol=1e-6)
    plain = again(model)
    np.testing.assert_allclose(trained(coded, images)["loss"], trained(plain, images)["loss"], rtol=1e-4)
    assert furthest(coded, plain) < 1e-5


def test_what_cannot_be_coded_is_refused(network):
    with pytest.raises(TypeError, match="code"):
        convert(network, "codenet")
    with pytest.raises(ValueError, match="names no layer"):
        convert(network, CodeNet(2, 2), overrides={"nothing": None})
    with pytest.raises(ValueError, match="no Dense or Conv2D"):
        convert(network, CodeNet(2, 2), overrides={"*": None})
    bounded = keras.Sequential([keras.Input((3,)), layers.Dense(2, kernel_constraint="non_neg")])
    with pytest.raises(ValueError, match="kernel_constraint"):
        convert(bounded, CodeNet(2, 2))
    with pytest.raises(ValueError, match="probability"):
        SoftErrors(rate=2.0)
