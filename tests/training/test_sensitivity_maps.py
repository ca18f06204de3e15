import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from matplotlib import pyplot

import axtrain as ax
from axtrain.controls import hardware_layers
from axtrain.training.evaluation import accuracy
from axtrain.training.search.assignments import Choices, hardware_name
from axtrain.training.sensitivity.loss_choice import chosen_loss
from axtrain.training.sensitivity.loss_curvature import LossSurface
from axtrain.training.sensitivity.prediction import disturbance, kernels, products
from axtrain.training.sensitivity.results import SensitivityMap

layers = keras.layers


def circuit(name, **options):
    return ax.Hardware(multiplier=ax.multipliers.get(name, **options))


def quiet(model, x, y=None, **kwargs):
    return ax.sensitivity(model, x, y, **{"verbose": False, **kwargs})


@pytest.fixture(scope="module")
def digits():
    """A trained classifier of scikit-learn's digits, and 300 samples with labels."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x, y = (x / 16).astype("float32"), y.astype(int)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            layers.Dense(24, activation="relu", name="first"),
            layers.Dense(16, activation="relu", name="second"),
            layers.Dense(10, activation="softmax", name="classes"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x[:1200], y[:1200], epochs=20, verbose=0)
    return model, x[:300], y[:300]


def surface_of(network, x, y, batch_size=16):
    """A `LossSurface` of all kernels, and the explicit Hessian's diagonal of each."""
    choices = Choices(network, [ax.Hardware()], x)
    plain = ax.strip(choices.plain)
    found = kernels(choices.watched(choices.reference), plain)
    chosen = chosen_loss(network, None, network.predict_on_batch(x), y)
    with tf.GradientTape(persistent=True) as outer:
        with tf.GradientTape() as inner:
            loss = keras.ops.mean(chosen.per_sample(y, plain(x, training=False)))
        values = [kernel.variable.value for kernel in found]
        slopes = [tf.reshape(slope, (-1,)) for slope in inner.gradient(loss, values)]
    diagonals = []
    for slope, value in zip(slopes, values, strict=True):
        full = outer.jacobian(slope, value).numpy().reshape(len(slope), -1)
        diagonals.append(np.diag(full).reshape(value.shape))
    return LossSurface(plain, found, chosen, x, y, batch_size), diagonals


@pytest.fixture
def tiny():
    """A network of 6, 5 and 3 units with ReLU, 40 samples, and labels that it does not all get right."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(5, activation="relu", name="first"), layers.Dense(3, "softmax", name="last")]
    )
    rng = np.random.default_rng(2)
    return model, rng.normal(size=(40, 6)).astype("float32"), rng.integers(0, 3, 40)


class TestCurvature:
    @pytest.mark.parametrize("method", ["hessian", "gauss_newton"])
    def test_probes_agree_with_the_explicit_hessian(self, tiny, method):
        """n = 400 probes, 45 weights, 5 standard errors; behind ReLU Gauss-Newton's diagonal is the Hessian's."""
        network, x, y = tiny
        surface, expected = surface_of(network, x, y)
        found = surface.curvature(400, 3, method)
        for value, error, truth in zip(found.weights, found.errors, expected, strict=True):
            assert (np.abs(value - truth) < 5 * error + 1e-6).all()
            assert error.max() < 0.2 * np.abs(truth).max() + 0.02
            if method == "gauss_newton":
                assert (value >= 0).all()

    def test_of_the_outputs(self, tiny):
        """The last outputs before the softmax: ``p (1 - p)``, from n = 400 probes of 40 samples."""
        network, x, y = tiny
        surface, _ = surface_of(network, x, y)
        found = surface.curvature(400, 3, "gauss_newton").outputs[1]
        chances = network.predict_on_batch(x)
        np.testing.assert_allclose(found, (chances * (1 - chances)).mean(axis=0), rtol=0.05)

    def test_same_seed_same_probes(self, tiny):
        surface, _ = surface_of(*tiny)
        first, again, other = (surface.curvature(2, seed, "hessian").weights[0] for seed in (3, 3, 4))
        np.testing.assert_allclose(first, again, rtol=1e-5, atol=1e-7)
        assert np.abs(first - other).max() > 1e-3

    def test_rise_under_random_weights(self, digits):
        """n = 300 antithetic pairs of Gaussian weights of one standard deviation 0.02 in a layer."""
        surface, _ = surface_of(*(part[:40] if number else part for number, part in enumerate(digits)), batch_size=40)
        curves, clean, rng = surface.curvature(200, 0, "gauss_newton"), surface.at(), np.random.default_rng(5)
        shape = surface.kernels[1].variable.shape
        moved = [rng.normal(0, 0.02, shape).astype("float32") for _ in range(300)]
        rises = np.array([(surface.at({1: by}) + surface.at({1: -by})) / 2 - clean for by in moved])
        predicted = 0.5 * 0.02**2 * curves.weights[1].sum()
        error = np.hypot(rises.std() / 300**0.5, 0.1 * predicted)  # a tenth for the orders beyond the second
        assert abs(rises.mean() - predicted) < 5 * error
        assert rises.mean() > 10 * rises.std() / 300**0.5


class TestDisturbance:
    @pytest.mark.parametrize("name", ["truncated8", "mitchell", "drum3"])
    def test_it_is_that_of_the_outputs(self, name):
        """2,000 rows of 64 independent activations: each channel's mean and variance of the error on its output."""
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((64,)), layers.Dense(6, name="out")])
        x = np.random.default_rng(1).random((2000, 64), "float32") ** 2
        hardware = circuit(name)
        choices = Choices(model, [hardware], x)
        (_, _, product), *_ = products(choices.watched(hardware))
        found = disturbance(product, hardware, reached=True)
        exact, played = (
            keras.ops.convert_to_numpy(choices.play(assignment)(x))
            for assignment in ({}, {"out": choices_name(choices)})
        )
        error = played - exact
        expected = x @ found.mean + found.outputs
        rest = error - expected
        np.testing.assert_allclose(rest.mean(axis=0), 0, atol=5 * (found.scatter.max() / 2000) ** 0.5)
        np.testing.assert_allclose(rest.var(axis=0), found.scatter, rtol=0.25)
        assert rest.var() < 0.8 * (error**2).mean()

    def test_of_a_memory_is_its_closed_form(self):
        model = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="out")])
        x = np.random.default_rng(1).random((64, 4), "float32")
        memory = ax.memories.BitErrors(rate=0.01)
        hardware = ax.Hardware(weight_memory=memory)
        choices = Choices(model, [hardware], x)
        (_, _, product), *_ = products(choices.watched(hardware))
        found = disturbance(product, hardware, reached=True)
        kernel = keras.ops.convert_to_numpy(product.kernel)
        step = np.abs(kernel).max(axis=0) / 127
        codes = np.round(kernel / step).astype(int)
        np.testing.assert_allclose(found.mean, (memory.expected(codes, 8) - codes) * step, rtol=1e-4)
        np.testing.assert_allclose(found.variance, memory.variance(codes, 8) * step**2, rtol=1e-4)
        assert not found.scatter.any()
        assert not found.outputs.any()

    def test_an_exact_multiplier_disturbs_nothing(self, digits):
        found = quiet(*digits, candidates=[ax.Hardware()], probes=2)
        assert not found.predicted.any()
        assert not found.measured.any()


def choices_name(choices):
    return next(iter(choices.candidates))


@pytest.fixture(scope="module")
def found(digits):
    names = ("drum3", "drum4", "mitchell", "truncated8", "kulkarni", "broken_array_4_8", "operand_truncated4")
    candidates = [circuit(name) for name in names]
    candidates += [ax.Hardware(multiplier=ax.multipliers.get("drum3", signed=True), name="signed")]
    candidates += [ax.Hardware(weight_memory=ax.memories.BitErrors(rate=0.01, fault="persistent"))]
    return quiet(*digits, candidates=candidates)


class TestMap:
    def test_the_prediction_agrees_with_the_measurement(self, found):
        agreed = found.correlation
        assert agreed["cells"] > 15
        assert agreed["spearman"] > 0.8
        assert agreed["pearson_log"] > 0.85
        assert 0.5 < agreed["median_ratio"] < 2

    def test_what_it_holds(self, found):
        assert found.layers == ("first", "second", "classes")
        assert found.candidates[-3:] == ("operand_truncated4", "signed", "exact at rate 0.01")
        assert {name: array.shape for name, array in found.curvature.items()} == {
            "first": (64, 24),
            "second": (24, 16),
            "classes": (16, 10),
        }
        assert found.predicted.shape == found.measured.shape == found.drop.shape == (3, 9)
        assert (found.loss, found.metric, found.method) == (
            "sparse_categorical_crossentropy",
            "accuracy",
            "gauss_newton",
        )
        assert (found.measured_error >= 0).all()

    def test_table_and_plot(self, found):
        lines = found.table().splitlines()
        assert str(found) == found.table()
        assert lines[0].startswith("| layer | drum3 | drum4 |")
        assert lines[2].startswith(f"| first | {found.predicted[0, 0]:.2g} / {found.measured[0, 0]:.2g} |")
        assert "Spearman" in lines[-1]
        figure = found.plot()
        heat, agreement = figure.axes[:2]
        assert [text.get_text() for text in heat.get_yticklabels()] == list(found.layers)
        assert agreement.get_xscale() == "log"
        assert pyplot.get_fignums() == []

    def test_a_cell_is_a_conversion(self, digits, found):
        model, x, y = digits
        signed = circuit("drum3", signed=True)
        exact = ax.convert(model, ax.Hardware(), calibration=x).predict(x, verbose=0)
        crossentropy = keras.losses.SparseCategoricalCrossentropy()
        np.testing.assert_allclose(found.baseline, (crossentropy(y, exact), accuracy(y, exact)), atol=1e-5)
        for column, hardware in ((0, circuit("drum3")), (7, signed)):
            one = ax.convert(model, ax.Hardware(), calibration=x, overrides={"second": hardware}).predict(x, verbose=0)
            rise = float(crossentropy(y, one) - crossentropy(y, exact))
            np.testing.assert_allclose(found.measured[1, column], rise, atol=1e-5)
            np.testing.assert_allclose(found.drop[1, column], accuracy(y, exact) - accuracy(y, one), atol=1e-9)


def test_the_model_given_is_left_alone(digits):
    model, x, y = digits
    noisy = ax.convert(model, circuit("drum4"), calibration=x)
    before = [weight.copy() for weight in noisy.get_weights()], [layer.hardware for layer in hardware_layers(noisy)]
    found = quiet(noisy, (x[:64], y[:64]), probes=2, measure=False)
    for weight, kept in zip(noisy.get_weights(), before[0], strict=True):
        np.testing.assert_array_equal(weight, kept)
    assert [layer.hardware for layer in hardware_layers(noisy)] == before[1]
    assert found.candidates == ("drum4",)  # its own hardware
    assert found.measured is None
    assert np.isnan(found.correlation["spearman"])
    assert len(found.plot().axes) == 2  # the map and its scale
    assert "measured" not in found.table()


def test_layers_of_all_kinds():
    """Attention, depthwise, separable and recurrent products, and one layer in float."""
    inputs = keras.Input((6, 6, 2))
    y = layers.SeparableConv2D(4, 3, activation="relu", name="separable")(inputs)
    y = layers.DepthwiseConv2D(2, activation="relu", name="depthwise")(y)
    y = layers.Reshape((9, 4))(y)
    y = layers.MultiHeadAttention(2, 3, name="attention")(y, y)
    y = layers.LSTM(5, name="recurrent")(y)
    outputs = layers.Dense(3, name="classes")(layers.Dense(4, name="float")(y))
    model = keras.Model(inputs, outputs)
    x = np.random.default_rng(0).random((32, 6, 6, 2), "float32")
    labels = np.arange(32) % 3
    partly = ax.convert(model, ax.Hardware(), calibration=x, overrides={"float": None})
    found = quiet(partly, x, labels, candidates=[circuit("drum3")], probes=2, measure=False)
    assert found.layers == ("separable", "depthwise", "attention", "recurrent", "classes")
    assert np.isfinite(found.predicted).all()
    assert found.predicted.any(axis=1).all()
    assert {name.split("/")[0] for name in found.curvature} == set(found.layers)
    assert len(found.curvature) == 2 + 1 + 4 + 2 + 1


class TestLoss:
    @pytest.mark.parametrize(
        ("units", "activation", "labels", "expected"),
        [
            (3, "softmax", np.arange(30) % 3, ("sparse_categorical_crossentropy", False)),
            (3, None, (np.arange(30) % 3)[:, None], ("sparse_categorical_crossentropy", True)),
            (3, None, np.eye(3)[np.arange(30) % 3], ("categorical_crossentropy", True)),
            (1, "sigmoid", np.arange(30) % 2, ("binary_crossentropy", False)),
        ],
    )
    def test_it_is_told_from_outputs_and_labels(self, units, activation, labels, expected):
        model = keras.Sequential([keras.Input((4,)), layers.Dense(units, activation=activation)])
        outputs = model.predict_on_batch(np.random.default_rng(0).normal(size=(30, 4)))
        found = chosen_loss(model, None, outputs, labels)
        assert (found.name, found.from_logits) == expected
        if units > 1:
            assert found.per_sample(labels, outputs).shape == (30,)

    def test_the_compiled_one_and_a_given_one(self, tiny):
        network, x, _ = tiny
        y = np.random.default_rng(0).random((40, 3)).astype("float32")
        network.compile(loss="mse")
        assert quiet(network, x, y, candidates=[circuit("drum4")], probes=2, measure=False).loss == "mse"
        given = quiet(
            network,
            x,
            y,
            candidates=[circuit("drum4")],
            loss=keras.losses.Huber(),
            probes=2,
            measure=False,
        )
        assert (given.loss, given.method) == ("huber_loss", "hessian")

    def test_what_cannot_be_told_is_refused(self, tiny):
        network, x, _ = tiny
        y = np.random.default_rng(0).random((40, 3)).astype("float32")
        with pytest.raises(ValueError, match=r"not those of a classifier\. Give loss=.*Received: outputs \(40, 3\)"):
            quiet(network, x, y, candidates=[circuit("drum4")])
        with pytest.raises(ValueError, match="Gauss-Newton curvature is known for.*Received: loss 'huber_loss'"):
            quiet(network, x, y, candidates=[circuit("drum4")], loss=keras.losses.Huber(), method="gauss_newton")
        with pytest.raises(ValueError, match="one figure per sample.*Received: a scalar from mean"):
            mean = keras.losses.MeanSquaredError()

            def mean_of_all(y_true, y_pred):
                return mean(y_true, y_pred)

            quiet(network, x, y, candidates=[circuit("drum4")], loss=mean_of_all)


def test_cells_are_kept(tiny, tmp_path):
    network, x, y = tiny
    candidates = [circuit("drum3"), circuit("drum4"), circuit("mitchell")]

    class Counted:
        calls, stop = 0, 4

        def __call__(self, y_true, y_pred):
            if self.calls == self.stop:
                raise KeyboardInterrupt
            self.calls += 1
            return accuracy(y_true, y_pred)

    counted = Counted()
    options = {"candidates": candidates, "metric": counted, "probes": 2}
    with pytest.raises(KeyboardInterrupt):
        quiet(network, x, y, folder=tmp_path, **options)
    kept = json.loads((tmp_path / "cells.json").read_text())
    assert len(kept) == 3 * 3  # three cells after the reference
    counted.stop = None
    found = quiet(network, x, y, folder=tmp_path, **options)
    assert counted.calls == 4 + 1 + 3  # the reference again, and what was missing
    np.testing.assert_array_equal(found.measured, quiet(network, x, y, **options).measured)
    with pytest.raises(ValueError, match=r"another model, data or setting.*Received: seed=1, there 0"):
        quiet(network, x, y, folder=tmp_path, seed=1, **options)


class TestErrors:
    def test_arguments(self, tiny):
        network, x, y = tiny
        one = [circuit("drum4")]
        for wrong in (1, True, 2.0):
            with pytest.raises(ValueError, match=r"`probes` must be an int >= 2\. Received: probes="):
                quiet(network, x, y, candidates=one, probes=wrong)
        with pytest.raises(ValueError, match="`method` must be None or one of"):
            quiet(network, x, y, candidates=one, method="exact")
        with pytest.raises(ValueError, match=r"A plain model has no hardware of its own; give candidates"):
            quiet(network, x, y)
        with pytest.raises(ValueError, match="must have the same length"):
            quiet(network, x, y[:5], candidates=one)
        with pytest.raises(TypeError, match=r"`model` must be a keras\.Model\. Received: str"):
            quiet("model", x, y, candidates=one)

    def test_candidates(self, tiny):
        network, x, y = tiny
        with pytest.raises(ValueError, match=r"told apart by name; give Hardware\(name=\.\.\.\)\. Received: 'drum4'"):
            quiet(network, x, y, candidates=[circuit("drum4")] * 2)
        with pytest.raises(TypeError, match=r"a list of axtrain\.Hardware\. Received: 'drum4' in it"):
            quiet(network, x, y, candidates=["drum4"])
        with pytest.raises(TypeError, match=r"must be a list of axtrain\.Hardware\. Received: Hardware"):
            quiet(network, x, y, candidates=circuit("drum4"))
        with pytest.raises(ValueError, match="at least one"):
            quiet(network, x, y, candidates=[])

    def test_a_model_without_such_layers(self):
        model = keras.Sequential([keras.Input((3,)), layers.Activation("softmax")])
        with pytest.raises(ValueError, match="No layer of this model can run on hardware"):
            quiet(model, np.eye(3), np.arange(3), candidates=[circuit("drum4")])


def test_names():
    sram = ax.memories.NearThresholdSRAM(voltage=0.56)
    named = ax.Hardware(name="mine", weight_memory=sram)
    assert hardware_name(named) == "mine"
    assert hardware_name(circuit("drum4")) == "drum4"
    assert hardware_name(ax.Hardware(weight_memory=sram)) == "exact at 0.56 V"


def test_correlation_leaves_noise_out():
    predicted = np.array([[1e-3, 1e-2, 0.1, 5.0]])
    found = SensitivityMap(
        layers=("a",),
        candidates=("p", "q", "r", "s"),
        curvature={},
        mean_part=predicted,
        spread_part=np.zeros((1, 4)),
        measured=np.array([[2e-3, 2e-2, 0.2, 0.01]]),
        measured_error=np.array([[1e-4, 1e-3, 1e-2, 0.01]]),
    )
    agreed = found.correlation
    assert agreed["cells"] == 3
    assert agreed["spearman"] == pytest.approx(1)
    assert agreed["pearson_log"] == pytest.approx(1)
    assert agreed["median_ratio"] == pytest.approx(0.5)
