"""Layers from outside the package: registered, converted, trained, exported, stripped, refused."""

import ast

import keras
import numpy as np
import pytest

import axtrain as ax
from axtrain.layers import ApproximateLayer
from axtrain.layers.counts import Count
from axtrain.layers.registry import LAYERS
from axtrain.training.sensitivity.prediction import kernels

CIRCUIT = ax.multipliers.get("mitchell")
HARDWARE = ax.Hardware(multiplier=CIRCUIT)


@pytest.fixture
def layers():
    """The registered layers as they were, afterwards."""
    before = dict(LAYERS)
    yield LAYERS
    LAYERS.clear()
    LAYERS.update(before)


@keras.saving.register_keras_serializable("toys")
class ScaledDense(keras.layers.Dense):
    """Outputs times a positive factor."""

    def __init__(self, units, factor=2.0, **kwargs):
        super().__init__(units, **kwargs)
        self.factor = factor

    def call(self, inputs, training=None):
        return self.factor * super().call(inputs)

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


@keras.saving.register_keras_serializable("toys")
class ApproxScaledDense(ax.layers.ApproxDense, ScaledDense):
    def call(self, inputs, training=None):
        outputs = super().call(inputs, training)
        return outputs if self.hardware is None else self.factor * outputs


@keras.saving.register_keras_serializable("toys")
class Unchanged(ax.layers.ApproxDense):
    pass


class Conv3D(keras.layers.Conv3D):
    pass


class ApproxConv3D(ApproximateLayer, Conv3D):
    _geometry = ax.layers.ApproxConv2D._geometry
    _depthwise = False


def toy(*layers):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), *layers])
    return model, np.random.default_rng(0).normal(size=(8, 4)).astype("float32")


def toys():
    keras.utils.set_random_seed(0)
    return toy(ScaledDense(6, 3.0, activation="relu", name="toy"), keras.layers.Dense(2, name="out"))


def outputs(model, x):
    return np.asarray(model(x))


def test_a_layer_from_outside_is_on_hardware_trained_saved_and_stripped(layers, tmp_path):
    plain, x = toys()
    ax.register_layer(ScaledDense, ApproxScaledDense, lowering=lambda layer: ("dense", layer.factor))
    noisy = ax.convert(plain, HARDWARE, x, strict=True)
    assert [entry.became for entry in noisy.conversion_report.layers] == ["ApproxScaledDense", "ApproxDense"]
    assert type(noisy.layers[0]) is ApproxScaledDense and noisy.layers[0].factor == 3.0
    exact = ax.convert(plain, ax.Hardware(), x)
    np.testing.assert_allclose(outputs(exact, x), outputs(plain, x), atol=0.2)
    assert np.abs(outputs(plain, x)).max() > 2  # so that a lost factor would be seen
    noisy.compile("sgd", "mse", run_eagerly=True)
    before = np.asarray(noisy.layers[0].kernel)
    noisy.fit(x, np.zeros((8, 2), "float32"), batch_size=8, verbose=0)
    assert (np.asarray(noisy.layers[0].kernel) != before).any()
    noisy.save(tmp_path / "toy.keras")
    loaded = ax.load_model(tmp_path / "toy.keras")
    np.testing.assert_array_equal(outputs(loaded, x), outputs(noisy, x))
    stripped = ax.strip(loaded)
    assert type(stripped.layers[0]) is ScaledDense and stripped.layers[0].factor == 3.0
    np.testing.assert_array_equal(stripped.layers[0].kernel, noisy.layers[0].kernel)
    assert type(ax.convert(stripped, HARDWARE, x, overrides={"toy": None}).layers[0]) is ScaledDense


def test_a_layer_from_outside_is_counted_swept_exported_and_put_in_integers(layers, tmp_path, capsys):
    plain, x = toys()
    ax.register_layer(ScaledDense, ApproxScaledDense, lowering=lambda layer: ("dense", layer.factor))
    memory = ax.memories.BitErrors(rate=0.01)
    noisy = ax.convert(plain, ax.Hardware(multiplier=CIRCUIT, weight_memory=memory), x)
    counted = ax.energy(noisy).layers[0]
    assert (counted.name, counted.multiplications, counted.weights) == ("toy", 24, 24)  # as Dense is counted
    found = ax.summary(noisy)
    assert (found.layers[0].name, found.layers[0].kind) == ("toy", "ApproxScaledDense")
    assert not found.skipped and found.energy.layers[0] == counted and "toy" in capsys.readouterr().out
    swept = ax.sweep(noisy, x, np.zeros(8, int), rates=[0.01], chips=2, verbose=False)
    assert len(swept.points) == 1
    exported = ax.export(noisy, tmp_path / "export")
    assert exported.manifest["layers"][0]["class"] == "ApproxScaledDense"
    assert exported.integers["toy"]["codes"].shape == (4, 6)
    exact = ax.convert(plain, ax.Hardware(), x)
    network = ax.integer_network(exact, x)
    run = network.tensors[network.output].real(network.run(network.quantised(x)))
    np.testing.assert_allclose(run, outputs(exact, x), atol=0.15)
    del layers[ScaledDense]
    with pytest.raises(ValueError, match="its Keras layer is not registered.*register_layer.*ApproxScaledDense"):
        ax.integer_network(exact, x)


def test_its_own_count_is_taken(layers):
    ax.register_layer(ScaledDense, ApproxScaledDense, count=lambda layer, given, made: Count(layer.units * 100, 7))
    model, _ = toys()
    assert [layer.multiplications for layer in ax.energy(model, hardware=HARDWARE).layers] == [600, 12]


def test_without_a_lowering_it_has_no_integers(layers):
    ax.register_layer(ScaledDense, ApproxScaledDense)
    model, x = toys()
    with pytest.raises(ValueError, match="'toy' has no integer counterpart.*Received: ScaledDense"):
        ax.integer_network(ax.convert(model, HARDWARE, x), x)
    ax.register_layer(ScaledDense, ApproxScaledDense, lowering=lambda layer: ("magic", None))
    with pytest.raises(ValueError, match="'toy'. Received: 'magic'"):
        ax.integer_network(ax.convert(model, HARDWARE, x), x)
    ax.register_layer(ScaledDense, ApproxScaledDense, lowering=lambda layer: ("dense", np.ones(2)))
    with pytest.raises(ValueError, match=r"one for each of 6 channels, for layer 'toy'. Received: shape \(2,\)"):
        ax.integer_network(ax.convert(model, HARDWARE, x), x)


def test_it_is_named_where_nobody_registered_it():
    """A subclass of a known layer may compute something else."""
    model, x = toys()
    report = ax.convert(model, HARDWARE, x).conversion_report
    assert [(entry.name, entry.reason) for entry in report.skipped] == [("toy", "no approximate counterpart")]


def test_a_subclass_of_an_approximate_layer_is_stripped():
    model, x = toy(Unchanged(3, hardware=HARDWARE, name="mine"))
    stripped = ax.strip(model)
    assert type(stripped.layers[0]) is keras.layers.Dense
    np.testing.assert_array_equal(stripped.layers[0].kernel, model.layers[0].kernel)
    assert type(ax.convert(model, HARDWARE, x).layers[0]) is Unchanged


def test_what_nobody_knows_without_hardware_is_refused(layers):
    class Argument(ax.layers.ApproxDense):
        def get_config(self):
            return {**super().get_config(), "own": 1}

    class Called(ax.layers.ApproxDense):
        def call(self, inputs, training=None):
            return 2 * super().call(inputs, training)

    for layer, reason in [
        (ApproxScaledDense(3, hardware=HARDWARE), "its Keras layer is not registered"),
        (Called(3, hardware=HARDWARE), "it has a `call` of its own, and Dense another"),
        (Argument(3, hardware=HARDWARE), "Dense cannot be made of its config"),
    ]:
        with pytest.raises(ValueError, match=f"{reason}.*axtrain.register_layer.*Received: {type(layer).__name__}"):
            ax.strip(toy(layer)[0])


def test_a_layer_of_a_kind_without_a_count_has_no_energy(layers):
    model = keras.Sequential([keras.Input((3, 4, 5, 2)), Conv3D(2, 2, name="volume")])
    ax.register_layer(Conv3D, ApproxConv3D)
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5, 2)).astype("float32")
    noisy = ax.convert(model, ax.Hardware(), x)
    np.testing.assert_allclose(noisy(x), model(x), atol=0.05)
    with pytest.raises(ValueError, match="axtrain.register_layer its `count`. Received: layer 'volume'"):
        ax.energy(noisy)
    assert type(ax.strip(noisy).layers[0]) is Conv3D


def test_whose_outputs_are_reached_is_known_without_its_class(layers):
    """Behind a `call` of its own nobody can tell what the activation takes."""
    ax.register_layer(ScaledDense, ApproxScaledDense)
    images = keras.Sequential(
        [
            keras.Input((5, 5, 2)),
            keras.layers.DepthwiseConv2D(2, depth_multiplier=3, name="depthwise"),
            keras.layers.Conv2DTranspose(4, 2, name="transposed"),
            keras.layers.SeparableConv2D(5, 2, depth_multiplier=2, name="separable"),
            keras.layers.EinsumDense("bhwc,cd->bhwd", (None, None, 7), name="einsum"),
        ]
    )
    expected = {"depthwise": (6, True), "transposed": (4, True), "separable/depthwise": (8, False)}
    expected |= {"separable/pointwise": (5, True), "einsum": (7, False)}
    for model, wanted in [
        (images, expected),
        (toys()[0], {"toy": (6, False), "out": (2, True)}),
        (toy(Unchanged(3, hardware=HARDWARE, name="mine"))[0], {"mine": (3, True)}),
    ]:
        watched = ax.convert(model, HARDWARE)
        plain = ax.strip(watched)
        found = kernels(watched, plain)
        assert {kernel.name: (kernel.channels, kernel.owner is not None) for kernel in found} == wanted
        assert all(kernel.owner in (None, plain.get_layer(kernel.layer)) for kernel in found)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((3, ApproxScaledDense), TypeError, "`keras_class` must be a subclass of keras.layers.Layer.*Received: 3"),
        ((ax.layers.ApproxDense, ApproxScaledDense), TypeError, "without hardware"),
        ((ScaledDense, None), TypeError, "subclass of axtrain.layers.ApproximateLayer. Received.*None"),
        ((ScaledDense, keras.layers.Dense), TypeError, "subclass of axtrain.layers.ApproximateLayer"),
        ((ScaledDense, ax.layers.ApproxDense), TypeError, "subclass of `keras_class` too.*Received: one of Dense"),
        ((keras.layers.Dense, ApproxScaledDense), TypeError, "no narrower Keras layer.*Received: one of ScaledDense"),
        ((keras.layers.Dense, Unchanged), ValueError, "registered for Dense: ApproxDense.*Received.*Unchanged"),
        ((ScaledDense, ApproxScaledDense, {"count": 3}), TypeError, "`count` must be a function.*Received: count=3"),
        ((ScaledDense, ApproxScaledDense, {"lowering": 3}), TypeError, "`lowering` must be.*Received: lowering=3"),
        ((ScaledDense, ApproxScaledDense, {"lowering": "lstm"}), ValueError, "conv2d.*Received: lowering='lstm'"),
    ],
)
def test_what_is_no_layer_is_refused(layers, arguments, error, words):
    before, (*classes, options) = dict(layers), arguments if len(arguments) > 2 else (*arguments, {})
    with pytest.raises(error, match=words):
        ax.register_layer(*classes, **options)
    assert layers == before


def test_a_layer_may_be_registered_again(layers):
    """As a notebook's cell does that is run again, with a new class of the same name."""
    for count in (None, lambda *call: Count(1, 1)):
        again = type("ApproxScaledDense", (ApproxScaledDense,), {"__module__": __name__})
        ax.register_layer(ScaledDense, again, count=count)
        assert layers[ScaledDense].approximate_class is again and layers[ScaledDense].count is count


# Other frameworks' layers go by names, coded training and its nodes have layers of their own, the demo makes a network.
ELSEWHERE = ("axtrain/layers/", "axtrain/interop/", "axtrain/coded/", "training/distributed/", "training/demo.py")


def test_nothing_outside_of_the_layers_knows_a_layer_with_products(trees):
    """A new one needs no other module's help."""
    classes = {kind.__name__ for entry in LAYERS.values() for kind in (entry.keras_class, entry.approximate_class)}
    found = []
    for name, tree in trees.items():
        for node in ast.walk(tree) if not name.startswith((*ELSEWHERE, "axtrain/emulation/")) else ():
            if getattr(node, "attr", getattr(node, "id", None)) in classes:
                found.append(f"{name}:{node.lineno}")
    assert not found
