"""Memories, protections, curves, datapaths, penalties and codes from outside the package."""

import ast
import json
from dataclasses import dataclass, replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import axtrain as ax
from axtrain.coded.code import Stage
from axtrain.noise_models.description import Part, _family, _is_built_in
from axtrain.penalties import Penalty
from axtrain.training.report.hardware_words import hardware_rows
from axtrain.training.sweep.operating_points import by_noise_strength

CIRCUIT = ax.multipliers.get("mitchell")
HARDWARE = ax.Hardware(multiplier=CIRCUIT)


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
    assert by_noise_strength(parts) is None
    known = tuple(replace(own, weight_memory=ax.memories.BitErrors(rate=rate)) for rate in (0.1, 0.2))
    assert by_noise_strength(known) is not None


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


def test_nothing_asks_whether_a_part_is_of_a_class_of_ours(trees):
    """What a consumer needs of a part is a method or property of it, which those from outside have too."""
    bases, found = {"Memory", "Protection", "Curve", "Datapath", "Penalty"}, []
    ours = {each.__name__ for each in _family(Part) if _is_built_in(each) and each.kind} - bases
    assert {"BitErrors", "SECDED", "DroppedMACs", "Curvature", "ProbitCurve"} < ours
    for name, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "isinstance":
                named = {getattr(each, "id", getattr(each, "attr", None)) for each in ast.walk(node.args[1])}
                found += [f"{name}:{node.lineno}"] if named & ours else []
    assert found == [fit for fit in found if fit.startswith("noise_models/curve_fitting.py")]  # of what it has made
