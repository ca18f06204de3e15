"""Engines, layers, memories and the like from outside the package: registered, used, refused."""

import ast
import json
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from keras import ops

import axtrain as ax
from axtrain.coded.code import Stage
from axtrain.emulation import Engine, register_engine
from axtrain.emulation.code_table import CodeTable
from axtrain.emulation.engine import ENGINES
from axtrain.emulation.selection import _engine, engine_for
from axtrain.layers import ApproximateLayer
from axtrain.layers.counts import Count
from axtrain.layers.registry import LAYERS
from axtrain.noise_models.description import Part, _family, _is_built_in
from axtrain.penalties import Penalty
from axtrain.training.report.hardware_words import hardware_rows
from axtrain.training.sensitivity.prediction import kernels
from axtrain.training.sweep.operating_points import dialled

ROOT = Path(__file__).resolve().parents[2]
CIRCUIT = ax.multipliers.get("mitchell")
TABLE = CodeTable.plain(CIRCUIT)
HARDWARE = ax.Hardware(multiplier=CIRCUIT)


@pytest.fixture
def registry():
    """The registry as it was, afterwards."""
    before = dict(ENGINES)
    yield ENGINES
    ENGINES.clear()
    ENGINES.update(before)
    _engine.cache_clear()


def loops(cost=0.0, name="loops"):
    """An engine that looks every product up with Keras's operations: dense products and convolutions on the CPU."""

    class Loops(Engine):
        operations = ("dense", "conv")

        @classmethod
        def obstacle(cls, table, device, *, axes=2):
            if device != "cpu":
                return "loops run on the CPU"
            return "more axes than two" if axes > 2 else None

        @classmethod
        def cost(cls, operation, table, device, *, terms=None):
            return cost

        def matmul(self, activations, weights):
            self.seen.append("dense")
            rows, columns = (
                ops.cast(codes, "int32") - low
                for codes, low in ((activations, self.table.activation_low), (weights, self.table.weight_low))
            )
            products = ops.convert_to_tensor(self.table.products.reshape(-1))
            places = rows[..., None] * self.table.products.shape[1] + columns
            return ops.sum(ops.take(products, places), axis=-2)

        def conv(self, activations, weights, strides, dilation_rate):
            (height, width), total = weights.shape[:2], 0
            sizes = [
                (n - (k - 1) * d - 1) // s + 1
                for n, k, s, d in zip(activations.shape[1:3], (height, width), strides, dilation_rate, strict=True)
            ]
            for tap in np.ndindex(height, width):
                view = tuple(
                    slice(t * d, t * d + (n - 1) * s + 1, s)
                    for t, n, s, d in zip(tap, sizes, strides, dilation_rate, strict=True)
                )
                total = total + self.matmul(activations[(slice(None), *view)], weights[tap])
            self.seen.append("conv")
            return total

    Loops.seen = []
    if name is not None:
        Loops.name = name
    return Loops


def words(*shape):
    return np.random.default_rng(0).integers(0, 256, shape)


def model():
    return keras.Sequential(
        [
            keras.Input((5, 5, 2)),
            keras.layers.Conv2D(3, 3, name="conv"),
            keras.layers.Flatten(),
            keras.layers.Dense(4, name="dense"),
        ]
    )


def test_it_is_chosen_where_it_is_the_cheapest(registry, caplog):
    cheap = register_engine(loops(0.0))
    assert cheap is registry["loops"]
    for operation in ("dense", "conv"):
        with caplog.at_level("INFO", logger="axtrain"):
            assert isinstance(engine_for(TABLE, operation=operation), cheap)
        assert f"Engine 'loops' computes a {operation} table" in caplog.text
    assert engine_for(TABLE, operation="depthwise").name != "loops"
    assert engine_for(TABLE, operation="conv", device="accelerator").name != "loops"
    a, w = words(3, 11), words(11, 4)
    np.testing.assert_array_equal(ax.emulation.matmul(a, w, CIRCUIT), reference.matmul(a, w, CIRCUIT.table))
    a, w, options = words(2, 6, 5, 3), words(3, 2, 3, 4), {"strides": (2, 1), "padding": "same", "zero_point": 7}
    found = ax.emulation.conv2d(a, w, CIRCUIT, **options)
    np.testing.assert_array_equal(found, reference.conv2d(a, w, CIRCUIT.table, **options))
    assert cheap.seen.count("dense") == 7 and cheap.seen.count("conv") == 1


def test_it_is_not_chosen_where_it_costs_more(registry, caplog):
    register_engine(loops(float("inf")))
    with caplog.at_level("INFO", logger="axtrain"):
        assert engine_for(TABLE).name != "loops"
    assert "loops: costs more" in caplog.text


def test_whole_networks_run_on_it_by_name(registry):
    x = np.random.default_rng(1).normal(size=(4, 5, 5, 2)).astype("float32")
    plain, dear = model(), register_engine(loops(float("inf")))
    expected = ax.convert(plain, HARDWARE, x, engine="gather")(x)
    assert not dear.seen
    converted = ax.convert(plain, HARDWARE, x, engine="loops")
    np.testing.assert_array_equal(converted(x), expected)
    assert {converted.get_layer(name).chosen_engine.name for name in ("conv", "dense")} == {"loops"}
    assert dear.seen.count("conv") == 1 and dear.seen.count("dense") == 10
    np.testing.assert_allclose(converted.predict(x, verbose=0), expected, rtol=1e-5, atol=1e-5)  # in a graph


def test_one_that_fuses_is_given_whole_layers(registry):
    @register_engine
    class Fused(loops(0.0, None)):
        name = "fused"
        fuses = True

        def layer(self, geometry, inputs, quantiser, weights, bias):
            return geometry.floats(inputs, weights.real) + bias

    layer = ax.layers.ApproxDense(3, hardware=HARDWARE)
    layer.build((None, 5))
    layer.hardware_state.set_range(-1.0, 1.0)
    x = np.random.default_rng(1).normal(size=(4, 5)).astype("float32")
    kernel = layer.hardware_state.read_weights(layer.kernel, (0,), training=False).real
    np.testing.assert_allclose(layer(x), x @ np.asarray(kernel), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("product", "reason"),
    [
        ({"operation": "conv", "axes": 3}, "more axes than two"),
        ({"operation": "batched"}, "it has no batched products"),
        ({"operation": "depthwise"}, "it has no depthwise products"),
        ({"operation": "dense", "device": "accelerator"}, "loops run on the CPU"),
    ],
)
def test_where_it_does_not_support_a_product_another_computes_and_a_line_says_so(registry, caplog, product, reason):
    register_engine(loops(0.0))
    with caplog.at_level("WARNING", logger="axtrain"):
        chosen = engine_for(TABLE, "loops", **product)
    assert chosen.name != "loops"
    [line] = [record.getMessage() for record in caplog.records]
    assert f"Engine 'loops' cannot run here ({reason}); '{chosen.name}' computes instead, with the same sums." == line


def test_its_own_word_on_what_it_supports_counts(registry, caplog):
    @register_engine
    class Short(loops(0.0, None)):
        name = "short"

        @classmethod
        def supports(cls, operation, table, device, *, axes=2):
            return super().supports(operation, table, device, axes=axes) and len(table.products) <= 16

    assert engine_for(TABLE).name != "short"
    assert engine_for(CodeTable(TABLE.products[:16, :16], 0, 0)).name == "short"
    with caplog.at_level("WARNING", logger="axtrain"):
        assert engine_for(TABLE, "short").name != "short"
    assert "'short' cannot run here (it does not support this product)" in caplog.text


@pytest.mark.parametrize("what", [object, loops, "loops", 3, None])
def test_what_is_no_engine_is_refused(registry, what):
    with pytest.raises(TypeError, match=r"An engine is a subclass of axtrain\.emulation\.Engine\. Received: "):
        register_engine(what)
    with pytest.raises(TypeError, match="Received"):
        register_engine(loops()(TABLE))  # made already


@pytest.mark.parametrize("name", [None, "", 3])
def test_one_without_a_name_is_refused(registry, name):
    before = dict(registry)
    with pytest.raises(ValueError, match=r"An engine needs a `name`, a str\. Received: Loops\.name="):
        register_engine(loops(name=name))
    assert registry == before


def test_a_name_that_is_taken_is_refused(registry):
    first = register_engine(loops())
    assert register_engine(first) is first  # again is no harm
    for name in ("loops", "gather"):
        holder = registry[name]
        with pytest.raises(ValueError, match=rf"registered: {holder.__name__}\. Received: name='{name}'"):
            register_engine(loops(name=name))
        assert registry[name] is holder


def test_errors_name_what_there_is(registry):
    register_engine(loops())
    with pytest.raises(ValueError, match="Unknown engine.*'loops'.*Received: engine='magic'"):
        engine_for(TABLE, "magic")
    with pytest.raises(ValueError, match="`engine` must be None or one of.*'loops'.*Received: engine='magic'"):
        ax.convert(model(), HARDWARE, engine="magic")
    del registry["loops"]
    with pytest.raises(ValueError, match="Received: engine='loops'"):
        ax.layers.ApproxDense(3, hardware=HARDWARE, engine="loops")


def test_one_without_a_cost_is_refused(registry):
    class Bare(Engine):
        name = "bare"

    with pytest.raises(TypeError, match="define the classmethod `cost`. Received: Bare"):
        register_engine(Bare)
    assert "bare" not in registry


def test_one_that_leaves_something_out_says_what(registry):
    class Bare(Engine):
        name = "bare"

    bare, codes = Bare(TABLE), np.zeros((1, 1))
    for product, arguments, what in [
        (bare.matmul, 0, "dense products"),
        (bare.batched_matmul, 0, "batched products"),
        (bare.conv, 2, "convolutions"),
        (bare.depthwise_conv, 2, "depthwise convolutions"),
    ]:
        with pytest.raises(ValueError, match=f"This engine has no {what}.*engine='bare'"):
            product(codes, codes, *[(1, 1)] * arguments)
    with pytest.raises(ValueError, match="no fused layers"):
        bare.layer(None, None, None, None, None)
    assert bare.description == "bare" and repr(bare) == "Bare(table=256x256)"


SOURCES = [
    path
    for folder in ("axtrain", "noise_models", "training")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if not (
        folder == "axtrain" and path.relative_to(ROOT / folder).parts[0] in ("emulation", "noise_models", "training")
    )
]
# Here it is the name of a package.
PACKAGES = {"noise_models/injection.py": "numba", "training/commands/record.py": "numba"}


def docstrings(tree):
    """The constants that are docstrings, of attributes too: strings that stand for themselves."""
    return {
        node.value for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def test_nothing_outside_of_the_emulation_knows_an_engine():
    """Neither by a string that is its name, nor by its class; a new one needs no other module's help."""
    assert len(SOURCES) > 200
    classes, found = {engine.__name__ for engine in ENGINES.values()}, []
    for path in SOURCES:
        name, tree = path.relative_to(ROOT).as_posix(), ast.parse(path.read_text())
        texts = docstrings(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and node not in texts and isinstance(node.value, str):
                known = node.value in ENGINES and PACKAGES.get(name) != node.value
            else:
                known = getattr(node, "id", getattr(node, "attr", getattr(node, "name", None))) in classes
            if known:
                found.append(f"{name}:{node.lineno}")
    assert not found


def test_the_check_would_find_it():
    tree = ast.parse('"""gather"""\nif engine.name == "gather":\n    pass\n')
    texts = docstrings(tree)
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    assert [node.lineno for node in constants if node not in texts] == [2]


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


def test_nothing_outside_of_the_layers_knows_a_layer_with_products():
    """A new one needs no other module's help."""
    classes = {kind.__name__ for entry in LAYERS.values() for kind in (entry.keras_class, entry.approximate_class)}
    found = []
    for path in SOURCES:
        name = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text())) if not name.startswith(ELSEWHERE) else ():
            if getattr(node, "attr", getattr(node, "id", None)) in classes:
                found.append(f"{name}:{node.lineno}")
    assert not found


@keras.saving.register_keras_serializable(package="toys")
@dataclass(frozen=True, kw_only=True)
class WeakSigns(ax.memories.Memory):
    """Only the cell of the sign bit fails."""

    sign_rate: float
    corners: tuple = ("slow",)

    @property
    def rate(self):
        return self.sign_rate / 8

    def rates(self, bits):
        return [0.0] * (bits - 1) + [self.sign_rate]

    def with_rate(self, rate):
        return replace(self, sign_rate=8 * rate)


@keras.saving.register_keras_serializable(package="toys")
@dataclass(frozen=True, kw_only=True)
class Twice(ax.memories.BitErrors):
    """Its cells fail twice as often; its parent's `kind` would make it another memory."""

    def rates(self, bits):
        return 2 * self.rate


@keras.saving.register_keras_serializable(package="toys")
@dataclass(frozen=True, kw_only=True)
class SafeLow(ax.memories.Protection):
    """The low bits are read as they were stored."""

    bits: int = 3

    def recover(self, stored, read, words, bits, encoding):
        return read - read % (1 << self.bits) + stored % (1 << self.bits)


@keras.saving.register_keras_serializable(package="toys")
@dataclass(frozen=True, kw_only=True)
class Saturating(ax.datapaths.Datapath):
    """An accumulator that stops at a limit."""

    limit: int = 9000

    def apply(self, accumulators, stream, *, strength=1.0, squares=None):
        return ops.clip(ops.cast(accumulators, "int32"), -self.limit, self.limit)


@keras.saving.register_keras_serializable(package="toys")
@dataclass(frozen=True, kw_only=True)
class Linear(ax.curves.Curve):
    at_half_a_volt: float

    def __call__(self, voltage):
        return self.at_half_a_volt * max(0.0, 2 - 2 * voltage)


@keras.saving.register_keras_serializable(package="toys")
@dataclass(frozen=True, kw_only=True)
class Leaky(ax.memories.Retention):
    def __call__(self, interval_s):
        return min(1.0, interval_s / self.median_s)


@keras.saving.register_keras_serializable(package="toys")
@dataclass(frozen=True, kw_only=True)
class Costs(ax.EnergyModel):
    """A decoder that costs twice."""

    def word_pj(self, memory, bits, on_chip_pj_per_bit):
        return super().word_pj(memory, bits, on_chip_pj_per_bit) + self.decoder_pj_per_word


@keras.saving.register_keras_serializable(package="toys")
@dataclass(frozen=True)
class LargeWeights(Penalty):
    """The squares of the weights themselves."""

    offset: float = 0.0

    def gradients(self, step):
        with tf.GradientTape() as tape:
            outputs, loss = step.passes.whole()
            value = sum(ops.sum(ops.square(noisy.variable.value - self.offset)) for noisy in step.noisy)
            total = step.scaled(loss + step.strength / step.replicas * value)
        return tape.gradient(total, [each.value for each in step.passes.variables]), outputs, loss, value


@keras.saving.register_keras_serializable(package="toys")
@dataclass(frozen=True)
class Copies(ax.coded.Code):
    """The whole layer at several nodes."""

    count: int = 3
    grid = (1, 1)

    @property
    def left(self):
        return np.ones((self.count, 1))

    right = left

    @property
    def forward(self):
        one, every = np.ones((1, 1)), np.arange(self.count)
        return Stage(shards=every, operand=self.left, sums=every, generator=self.left, wanted=one)

    backward = forward


OWN = ax.Hardware(
    weight_memory=WeakSigns(sign_rate=0.25),
    activation_memory=Twice(rate=0.01, protection=SafeLow()),
    bias_memory=ax.memories.NearThresholdSRAM(voltage=0.75, curve=Linear(at_half_a_volt=0.01)),
    datapath=Saturating(limit=7000),
    energy=Costs(decoder_pj_per_word=0.5),
)
LEAKY = Leaky(median_s=10.0, spread=1.0, source="toy")
DRAM = ax.memories.ApproximateDRAM(refresh_interval_s=1.0, retention=LEAKY)
PARTS = [*OWN.memories.values(), OWN.datapath, SafeLow(), Linear(at_half_a_volt=0.1), LEAKY, DRAM, OWN.energy]
X, Y = np.eye(4, dtype="float32"), np.arange(4) % 3


@pytest.fixture(scope="module")
def on_own():
    keras.utils.set_random_seed(1)
    converted = ax.convert(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]), OWN, X)
    converted.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return converted


@pytest.mark.parametrize("part", PARTS)
def test_own_parts_are_written_and_read(part):
    base = next(each for each in type(part).__mro__ if each.__mro__[1] is Part)
    for read in (base.from_dict, type(part).from_dict):
        again = read(json.loads(json.dumps(part.to_dict())))
        assert again == part and type(again) is type(part) and hash(again) == hash(part)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(part))
    assert again == part and type(again) is type(part)


def test_own_hardware_is_written_and_read(tmp_path):
    OWN.to_json(tmp_path / "own.json")
    assert ax.Hardware.from_json(tmp_path / "own.json") == OWN
    described = OWN.to_dict()
    del described["weight_memory"]["config"]["sign_rate"]
    (tmp_path / "own.json").write_text(json.dumps(described))
    with pytest.raises((ValueError, TypeError), match="sign_rate"):
        ax.Hardware.from_json(tmp_path / "own.json")


def test_own_memory_fails_as_its_closed_form_says():
    codes = np.arange(-127, 128).repeat(400)
    memory = WeakSigns(sign_rate=0.25)
    read = np.asarray(memory.read(codes, 8, 3))
    assert set(np.unique(read - codes)) == {-128, 0, 128}
    error = (read - codes).mean() - (memory.expected(codes, 8) - codes).mean()
    assert abs(error) < 5 * np.sqrt(memory.variance(codes, 8).mean() / codes.size)


def test_networks_on_own_hardware(on_own, tmp_path):
    outputs = on_own.predict(X, verbose=0)
    on_own.save(tmp_path / "own.keras")
    loaded = ax.load_model(tmp_path / "own.keras")
    assert loaded.layers[-1].hardware == OWN
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), outputs)
    loaded.fit(X, Y, verbose=0)
    assert not hasattr(ax.strip(loaded).layers[-1], "hardware")
    ax.export(on_own, tmp_path / "export")
    assert ax.read_export(tmp_path / "export").model().layers[-1].hardware == OWN


def test_figures_of_own_hardware(on_own):
    spent, usual = (ax.energy(on_own, hardware=each) for each in (None, replace(OWN, energy=ax.EnergyModel())))
    assert spent.total_pj > usual.total_pj
    assert any("decoder of the activation memory's SafeLow" in line for line in usual.assumptions)
    assert ax.evaluate(on_own, X, Y, chips=2, verbose=False).accuracies.shape == (2,)
    swept = ax.sweep(on_own, X, Y, rates=(0.001, 0.03), chips=2, verbose=False)
    assert [point.rate for point in swept.points] == [0.001, 0.03]
    [weights] = [text for name, text in hardware_rows(OWN) if name == "weights"]
    assert "WeakSigns" in weights
    assert ax.sweep(on_own, X, Y, voltages=(0.7,), chips=2, verbose=False).notes


def test_a_sweep_turns_no_own_memory_as_if_it_were_its_parent():
    own = replace(OWN, weight_memory=Twice(rate=0.1), activation_memory=None, bias_memory=None, datapath=None)
    parts = tuple(replace(own, weight_memory=Twice(rate=rate)) for rate in (0.1, 0.2))
    assert dialled(parts) is None
    known = tuple(replace(own, weight_memory=ax.memories.BitErrors(rate=rate)) for rate in (0.1, 0.2))
    assert dialled(known) is not None


def test_what_has_no_closed_form_says_so():
    with pytest.raises(ValueError, match="SafeLow has no closed form: give it `read_chances`"):
        ax.memories.BitErrors(rate=0.1, protection=SafeLow()).expected([1], 8)
    with pytest.raises(ValueError, match="Saturating has no closed form"):
        Saturating().expected([1])
    with pytest.raises(ValueError, match="take no protection"):
        WeakSigns(sign_rate=0.1, protection=ax.memories.Parity()).read([1], 8, 1)
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]. Received: .*1\.5"):
        WeakSigns(sign_rate=1.5).expected([1], 8)


def test_an_own_class_that_is_not_registered_is_refused(on_own, tmp_path, monkeypatch):
    @dataclass(frozen=True, kw_only=True)
    class Unknown(ax.memories.BitErrors):
        pass

    layer = ax.layers.ApproxDense(3, hardware=ax.Hardware(weight_memory=Unknown(rate=0.1)))
    with pytest.raises(ValueError, match=r"Unknown cannot be saved.*register_keras_serializable.*rate=0\.1"):
        layer.get_config()
    on_own.save(tmp_path / "own.keras")
    monkeypatch.delitem(keras.saving.get_custom_objects(), "toys>WeakSigns")
    with pytest.raises(ValueError, match="(?s)import the module that defines it.*registered_name='toys>Weak"):
        ax.load_model(tmp_path / "own.keras")
    for name in (None, "toys>WeakSigns", 3):
        with pytest.raises(ValueError, match="not registered here"):
            ax.memories.Memory.from_dict({"registered_name": name, "class_name": "WeakSigns", "module": __name__})
    with pytest.raises(ValueError, match=r"A memory must be an axtrain Memory\. Received: registered_name='toys>Sat"):
        ax.memories.Memory.from_dict(Saturating().to_dict())


def test_an_own_penalty_is_trained_with_and_loaded(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, use_bias=False)])
    active = ax.with_sensitivity(model, LargeWeights(0.5, layers=("dense*",), offset=0.25))
    active.compile(keras.optimizers.SGD(1.0), keras.losses.MeanSquaredError())
    before = active.get_weights()[0]
    active.fit(np.zeros_like(X), np.zeros((4, 3)), verbose=0)  # the loss itself has no slope here
    np.testing.assert_allclose(active.get_weights()[0], 0.25 + 0 * before, atol=1e-6)
    active.save(tmp_path / "own.keras")
    assert ax.load_model(tmp_path / "own.keras").penalty == active.penalty
    with pytest.raises(TypeError, match="must have a method `gradients`"):
        ax.with_sensitivity(model, Penalty(0.1))


def test_an_own_code_trains_and_is_loaded(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    coded = ax.coded.convert(model, Copies())
    np.testing.assert_allclose(coded(X), model(X), rtol=1e-5, atol=1e-6)
    coded.compile("sgd", "mse", run_eagerly=True)
    coded.fit(X, np.zeros((4, 3)), verbose=0)
    coded.save(tmp_path / "own.keras")
    loaded = ax.load_model(tmp_path / "own.keras")
    assert loaded.layers[-1].code == Copies()
    np.testing.assert_array_equal(loaded(X), coded(X))


@pytest.mark.parametrize("code", [Copies(), ax.coded.Replication(3)])
def test_codes_of_one_block_take_batches_of_any_size(code):
    layer = ax.coded.CodedDense(3, code=code)
    layer.build((None, 4))
    traced = tf.function(lambda x: layer.product.forward(layer.coded_kernel.value, x)[0])
    assert traced.get_concrete_function(tf.TensorSpec((None, 5))).structured_outputs.shape[1] == 3


def test_nothing_asks_whether_a_part_is_of_a_class_of_ours():
    """What a consumer needs of a part is a method or property of it, which those from outside have too."""
    bases, found = {"Memory", "Protection", "Curve", "Datapath", "Penalty"}, []
    ours = {each.__name__ for each in _family(Part) if _is_built_in(each) and each.kind} - bases
    assert {"BitErrors", "SECDED", "DroppedMACs", "Curvature", "ProbitCurve"} < ours
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "isinstance":
                named = {getattr(each, "id", getattr(each, "attr", None)) for each in ast.walk(node.args[1])}
                found += [f"{path.relative_to(ROOT).as_posix()}:{node.lineno}"] if named & ours else []
    assert found == [fit for fit in found if fit.startswith("noise_models/curve_fitting.py")]  # of what it has made
