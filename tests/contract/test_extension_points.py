"""Engines from outside the package: registered, chosen, forced, refused; and nobody inside asks for a name."""

import ast

import keras
import numpy as np
import pytest
import reference
from keras import ops

import axtrain as ax
from axtrain.emulation import Engine, register_engine
from axtrain.emulation.code_table import CodeTable
from axtrain.emulation.engine import ENGINES
from axtrain.emulation.selection import _engine, engine_for

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


# Here it is the name of a package.
PACKAGES = {"noise_models/injection.py": "numba", "training/commands/record.py": "numba"}


def docstrings(tree):
    """The constants that are docstrings, of attributes too: strings that stand for themselves."""
    return {
        node.value for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def test_nothing_outside_of_the_emulation_knows_an_engine(trees):
    """Neither by a string that is its name, nor by its class; a new one needs no other module's help."""
    classes, found = {engine.__name__ for engine in ENGINES.values()}, []
    for name, tree in trees.items():
        if name.startswith("axtrain/emulation/"):
            continue
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
