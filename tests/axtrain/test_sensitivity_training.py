"""The active method: penalties against their definitions, and training with them."""

from functools import lru_cache

import fresh
import keras
import numpy as np
import pytest
import tensorflow as tf

import axtrain as ax
from axtrain.penalties import penalty_from_dict
from axtrain.weight_noise import NoisyWeight, noisy_weights

KINDS = {"R2": ax.OutputSensitivity, "R1": ax.LossGradient, "R3": ax.Curvature}
LOSS = keras.losses.SparseCategoricalCrossentropy
B = 64


def data(count=B):
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, 10)).astype(np.float32), rng.integers(0, 3, count)


def network(activation="tanh", **options):
    keras.utils.set_random_seed(5)
    first = keras.layers.Dense(16, activation=activation, name="a", **options)
    return keras.Sequential([keras.Input((10,)), first, keras.layers.Dense(3, activation="softmax", name="b")])


class Recording(keras.optimizers.SGD):
    """Keeps the gradients that it was given."""

    def apply(self, grads, trainable_variables=None):
        self.given = [np.asarray(gradient) for gradient in grads]
        return super().apply(grads, trainable_variables)


def step(penalty, model=None, *, batch=None):
    """Gradients and logs of one eager step."""
    active = ax.with_sensitivity(model or network(), penalty)
    optimizer = Recording(0.0)
    active.compile(optimizer, LOSS(), run_eagerly=True)
    logs = active.train_on_batch(*(batch or data()), return_dict=True)
    return np.concatenate([g.ravel() for g in optimizer.given]), logs


def values(penalty, model, count, *, batch=None, loss="sparse_categorical_crossentropy"):
    """The penalty's value at `count` steps that do not move the weights: fresh probes each."""
    active = ax.with_sensitivity(model, penalty)
    active.compile(keras.optimizers.SGD(0.0), loss, jit_compile=False)
    found = []
    for _ in range(count):
        active.reset_metrics()
        found.append(float(active.train_on_batch(*(batch or data()), return_dict=True)["sensitivity"]))
    return np.array(found)


def of_penalty(kind, model=None, **options):
    """The penalty's own gradient at strength 1."""
    with_it, _ = step(kind(1.0, **options), model)
    without, _ = step(kind(0.0, **options), model)
    return with_it - without


def jacobian(model, x):
    """dy/dW of the two kernels: (B, outputs, weights)."""
    kernels = [layer.kernel for layer in model.layers if layer.name in ("a", "b")]

    @tf.function  # a loop over the outputs, each a pass back, is slow step by step
    def slopes():
        with tf.GradientTape(persistent=True) as tape:
            outputs = model(x, training=True)
        return [tape.jacobian(outputs, kernel.value, experimental_use_pfor=False) for kernel in kernels]

    return np.concatenate([part.numpy().reshape(len(x), 3, -1) for part in slopes()], axis=-1)


def kernels(model):
    return np.concatenate([layer.kernel.numpy().ravel() for layer in model.layers])


@pytest.mark.parametrize("weighting", ["constant", "proportional"])
@pytest.mark.parametrize("method", ["exact", "first_order"])
@pytest.mark.cases("exact-proportional", "first_order-constant")
def test_output_sensitivity_by_probes_is_that_of_the_jacobian(weighting, method):
    """Unbiased: the mean of 300 independent probes within 5 standard errors; their variance as the theory has it."""
    model, (x, _) = network(), data()
    slopes = jacobian(model, x).reshape(-1, len(kernels(model)))
    scale = np.ones_like(kernels(model)) if weighting == "constant" else np.abs(kernels(model))
    gram = (slopes * scale) @ (slopes * scale).T
    probes = values(ax.OutputSensitivity(1.0, weighting=weighting, method=method), model, 300)
    error = np.std(probes, ddof=1) / len(probes) ** 0.5
    assert abs(np.mean(probes) - np.trace(gram) / B) < 5 * error
    expected = 2 / B**2 * ((gram**2).sum() - (np.diag(gram) ** 2).sum())
    # The variance of a variance estimate of n draws is about (kurtosis - 1) / n; a probe's is heavy on one side.
    assert np.var(probes, ddof=1) == pytest.approx(expected, rel=0.6)


def test_linear_outputs_have_k_times_the_squared_input():
    """For y = W x: sum (dy/dW)^2 = K |x|^2, for every probe of a single sample's outputs in the mean."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(3, use_bias=False, name="b")])
    active = ax.with_sensitivity(model, ax.OutputSensitivity(0.1))
    active.compile("sgd", "mse", run_eagerly=True)
    x = data(1)[0]
    # One sample: the cross terms u_k u_j of different outputs meet different weights and vanish.
    logs = active.train_on_batch(x, np.zeros((1, 3)), return_dict=True)
    assert logs["sensitivity"] == pytest.approx(3 * (x**2).sum(), rel=1e-5)


@pytest.mark.parametrize("method", ["exact", "first_order"])
def test_loss_gradient_of_a_quadratic_is_a_squared_times_w(method):
    """L = 1/2 w'Aw, so 1/2 |grad L|^2 has the gradient A^2 w, and 1/2 tr A is the curvature."""
    keras.utils.set_random_seed(2)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1, use_bias=False)])
    w = model.layers[0].kernel.numpy()
    x = data()[0][:, :6]
    a = 2 * x.T @ x / B  # of the mean squared error against 0
    gradients = {}
    for strength in (0.0, 1.0):
        active = ax.with_sensitivity(model, ax.LossGradient(strength, method=method, radius=1e-2))
        optimizer = Recording(0.0)
        active.compile(optimizer, "mse", run_eagerly=True)
        logs = active.train_on_batch(x, np.zeros((B, 1)), return_dict=True)
        gradients[strength] = optimizer.given[0]
    np.testing.assert_allclose(gradients[0.0], a @ w, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(gradients[1.0] - gradients[0.0], a @ a @ w, rtol=2e-3, atol=1e-5)
    assert logs["sensitivity"] == pytest.approx(0.5 * ((a @ w) ** 2).sum(), rel=1e-4)
    curved = values(ax.Curvature(1.0, method=method), model, 200, batch=(x, np.zeros((B, 1))), loss="mse")
    assert abs(np.mean(curved) - 0.5 * np.trace(a)) < 5 * np.std(curved, ddof=1) / 200**0.5 + 1e-3 * np.trace(a)


@pytest.mark.parametrize("weighting", ["constant", "proportional"])
@pytest.mark.parametrize("name", KINDS)
def test_gradient_is_that_of_finite_differences(name, weighting, monkeypatch):
    """Of the value in the logs, same probes, along random directions; s is held where it depends on the weights."""
    kind, model = KINDS[name], network()
    gradient = of_penalty(kind, model, weighting=weighting)
    rng, length = np.random.default_rng(3), 3e-3
    start = model.get_weights()
    held = {w.shape: np.abs(w) if weighting == "proportional" else np.ones_like(w) for w in start}

    # s is held: a variance that does not follow the weights.
    monkeypatch.setattr(NoisyWeight, "variance", lambda self, value: tf.constant(held[tuple(value.shape)] ** 2))
    active = ax.with_sensitivity(model, kind(1.0, weighting=weighting))
    active.compile(keras.optimizers.SGD(0.0), LOSS(), jit_compile=False)

    def value(weights):
        active._probes.state.assign(first)
        active.reset_metrics()
        for layer, pair in zip(model.layers, (weights[:2], weights[2:]), strict=True):
            active.get_layer(layer.name).set_weights(pair)
        return float(active.train_on_batch(*data(), return_dict=True)["sensitivity"])

    first = active._probes.state.numpy()
    for _ in range(3):
        direction = [rng.normal(size=w.shape).astype(np.float32) for w in start]
        ends = [value([w + sign * length * d for w, d in zip(start, direction, strict=True)]) for sign in (1, -1)]
        slope = (ends[0] - ends[1]) / (2 * length)
        flat = np.concatenate([d.ravel() for d in direction])
        assert slope == pytest.approx(float(gradient @ flat), rel=2e-2, abs=3e-3 * float(np.linalg.norm(gradient)))


@pytest.mark.parametrize("name", KINDS)
def test_first_order_agrees_with_exact_on_a_smooth_network(name):
    kind, radius = KINDS[name], 0.01 if name == "R3" else 1e-3
    exact = of_penalty(kind, weighting="proportional")
    moved = of_penalty(kind, weighting="proportional", method="first_order", radius=radius)
    assert np.linalg.norm(moved - exact) < 0.02 * np.linalg.norm(exact)


@pytest.mark.parametrize("method", ["exact", "first_order"])
@pytest.mark.parametrize("name", KINDS)
def test_a_part_of_the_batch_is_that_part_and_leaves_the_loss_alone(name, method):
    kind, (x, y) = KINDS[name], data()
    options = {"weighting": "constant", "method": method, "radius": 1e-2}
    whole, _ = step(kind(1.0, **options), batch=(x[:16], y[:16]))
    plain, _ = step(kind(0.0, **options), batch=(x[:16], y[:16]))
    part, logs = step(kind(1.0, fraction=0.25, **options))
    without, kept = step(kind(0.0, fraction=0.25, **options))
    tolerance = 1e-4 if method == "exact" else 0.1  # the loss's own gradient is taken at the moved weights there
    assert np.linalg.norm((part - without) - (whole - plain)) < tolerance * np.linalg.norm(whole - plain)
    assert logs["loss"] == pytest.approx(kept["loss"], rel=1e-6)


@pytest.mark.parametrize("method", ["exact", "first_order"])
@pytest.mark.cases("first_order")
def test_more_probes_are_less_noisy(method):
    spreads = [values(ax.OutputSensitivity(1.0, probes=n, method=method), network(), 80).std() for n in (1, 9)]
    assert 1.8 < spreads[0] / spreads[1] < 5  # 3, give or take


@lru_cache
def fitted(name, strength, method, **options):
    """The history of a fit."""
    active = ax.with_sensitivity(network(), KINDS[name](strength, method=method))
    active.compile(keras.optimizers.Adam(3e-3), LOSS(), metrics=["accuracy"], **options)
    return active.fit(*data(), batch_size=16, epochs=6, verbose=0).history


# Every pair of a kind, a method and a way to run.
@pytest.mark.parametrize(
    ("name", "method", "options"),
    [
        ("R1", "exact", {"run_eagerly": True}),
        ("R1", "exact", {"jit_compile": True}),
        ("R1", "first_order", {"jit_compile": False}),
        ("R2", "exact", {"jit_compile": False}),
        ("R2", "first_order", {"jit_compile": True}),
        ("R3", "exact", {"jit_compile": True}),
        ("R3", "first_order", {"jit_compile": False}),
    ],
)
@pytest.mark.cases("options0", "first_order")
def test_fit_lowers_the_sensitivity(name, method, options):
    without = fitted(name, 0.0, "exact", run_eagerly=True)
    history = fitted(name, {"R2": 1.0, "R1": 20.0, "R3": 0.3}[name], method, **options)
    assert {"loss", "accuracy", "sensitivity"} == set(history)
    assert without["loss"][-1] < without["loss"][0]
    assert history["sensitivity"][-1] < 0.9 * without["sensitivity"][-1]


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("method", ["exact", "first_order"])
def test_mixed_precision_follows_nearly_the_same_gradient(policy, method):
    reference = of_penalty(ax.OutputSensitivity, method=method, radius=0.1)
    keras.config.set_dtype_policy(policy)
    try:
        model = network()
    finally:
        keras.config.set_dtype_policy("float32")
    x, y = data()
    got = []
    for strength in (1.0, 0.0):
        active = ax.with_sensitivity(model, ax.OutputSensitivity(strength, method=method, radius=0.1))
        optimizer = Recording(0.0)
        wrapped = (
            keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=256.0)
            if policy == "mixed_float16"
            else optimizer
        )
        active.compile(wrapped, LOSS(), run_eagerly=True, auto_scale_loss=False)
        active.train_on_batch(x, y)
        got.append(np.concatenate([g.ravel() for g in optimizer.given]))
    found = got[0] - got[1]
    assert found @ reference / np.linalg.norm(found) / np.linalg.norm(reference) > 0.95


def test_every_other_step_is_keras_own_and_the_penalty_twice_as_strong():
    x, y = data()
    active = ax.with_sensitivity(network(), ax.OutputSensitivity(0.5, every=2))
    optimizer = Recording(0.0)
    active.compile(optimizer, LOSS(), run_eagerly=True)
    taken = []
    for _ in range(4):
        active.train_on_batch(x, y)
        taken.append(np.concatenate([g.ravel() for g in optimizer.given]))
    plain, _ = step(ax.OutputSensitivity(0.0))
    twice, _ = step(ax.OutputSensitivity(1.0))
    np.testing.assert_allclose(taken[0], twice, rtol=1e-4, atol=1e-6)
    for kept in (taken[1], taken[3]):
        np.testing.assert_allclose(kept, plain, rtol=1e-4, atol=1e-6)
    assert np.abs(taken[2] - plain).max() > 1e-3


def test_steps_in_turn_are_two_functions_without_a_branch():
    x, y = data()
    active = ax.with_sensitivity(network(), ax.OutputSensitivity(0.5, every=4))
    active.compile("sgd", LOSS(), jit_compile=False)
    traced = []
    original = active._penalised_step
    active._penalised_step = lambda *given: (traced.append(True), original(*given))[1]
    active.fit(x, y, batch_size=8, epochs=2, verbose=0)
    assert len(traced) == 1  # traced once; the other step was compiled without it
    assert int(active._steps.numpy()) == 16
    active.compile("sgd", LOSS(), steps_per_execution=2)
    with pytest.raises(ValueError, match="steps_per_execution=1"):
        active.fit(x, y, verbose=0)


def test_gradient_accumulation_adds_up_the_same_steps():
    x, y = data()
    weights = []
    for steps in (None, 2):
        active = ax.with_sensitivity(network(), ax.LossGradient(0.3))
        active.compile(keras.optimizers.SGD(0.1, gradient_accumulation_steps=steps), LOSS(), run_eagerly=True)
        for _ in range(steps or 1):
            active.train_on_batch(x, y)
        weights.append(active.layers[1].get_weights()[0])
    np.testing.assert_allclose(*weights, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("method", ["exact", "first_order"])
def test_side_effects_happen_once(method):
    """Moving averages move once, dropout is the same in both passes, an added loss counts once."""
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Dense(16, activation="tanh", activity_regularizer="l2", kernel_regularizer="l2"),
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.5, seed=3),
        keras.layers.Dense(3, activation="softmax"),
    ]
    model = keras.Sequential([keras.Input((10,)), *layers])
    plain = keras.models.clone_model(model)
    plain.set_weights(model.get_weights())
    plain.layers[2].seed_generator.state.assign(model.layers[2].seed_generator.state)
    active = ax.with_sensitivity(model, ax.OutputSensitivity(1e-12, method=method, radius=1e-6))
    active.layers[3].seed_generator.state.assign(model.layers[2].seed_generator.state)
    logs = []
    for trained in (plain, active):
        trained.compile(keras.optimizers.SGD(0.1), LOSS(), run_eagerly=True)
        logs.append(trained.train_on_batch(*data(), return_dict=True))
    assert logs[1]["loss"] == pytest.approx(logs[0]["loss"], rel=1e-5)
    for old, new in zip(plain.layers, active.layers[1:], strict=True):
        for a, b in zip(old.weights, new.weights, strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-6, err_msg=a.path)


@lru_cache
def on_hardware():
    """A network on hardware, and its output sensitivity from the definition: the Jacobian, weighted by s^2."""
    x, _ = data()
    memory = ax.memories.BitErrors(rate=0.004)
    multiplier = ax.multipliers.get("drum4")
    noisy = ax.convert(network(), ax.Hardware(multiplier=multiplier, weight_memory=memory), x)
    ax.set_noise_strength(noisy, 0.0)
    variances = []
    for layer in noisy.layers:
        product, table = layer.products[0], layer.hardware.code_table
        kernel = layer.kernel.numpy()
        scale = np.abs(kernel).max(axis=0) / 127
        codes = np.clip(np.round(kernel / scale), -127, 127).astype(int) - table.weight_low
        a = product.state.quantise_activations(tf.constant(inputs_of(noisy, layer, x)), training=False)
        operands = np.arange(len(table.products)) + table.activation_low
        share = np.bincount(a.codes.numpy().astype(int).ravel() - table.activation_low, minlength=len(operands))
        share, z = share / share.sum(), float(a.zero_point)
        mean = share @ table.error
        of_code = share @ (table.error - mean) ** 2 / (share @ (operands - z) ** 2)
        of_code = of_code + memory.rate * (1 - memory.rate) * (4**8 - 1) / 3
        variances.append((of_code[codes] * scale**2).ravel())
    # Its slopes are those of the quantised network along the straight-through path.
    slopes = jacobian(ax.with_sensitivity(noisy, ax.OutputSensitivity(1.0)), x)
    return noisy, (slopes**2 * np.concatenate(variances)).sum() / B


@pytest.mark.parametrize("method", ["exact", "first_order"])
def test_on_hardware_the_noise_is_the_circuits_and_the_memorys(method):
    """The value against the Jacobian of the quantised network, weighted by s^2 from the definition."""
    noisy, expected = on_hardware()
    outputs = values(ax.OutputSensitivity(1.0, method=method), noisy, 150)
    assert abs(np.mean(outputs) - expected) < 5 * np.std(outputs, ddof=1) / 150**0.5


@pytest.mark.parametrize("method", ["exact", "first_order"])
def test_kernels_that_a_product_sees_in_another_order_keep_theirs(method):
    """Heads and flipped windows: the variance of each weight where the weight is, inside a compiled step too."""
    keras.utils.set_random_seed(4)
    layers = [
        keras.layers.Conv2DTranspose(4, 3, strides=2, name="up"),
        keras.layers.Reshape((121, 4)),
        keras.layers.EinsumDense("abc,dc->abd", (121, 3), name="mix"),
        keras.layers.Flatten(),
        keras.layers.Dense(2, activation="softmax", name="out"),
    ]
    model = keras.Sequential([keras.Input((5, 5, 3)), *layers])
    x = np.random.default_rng(0).normal(size=(8, 5, 5, 3)).astype(np.float32)
    noisy = ax.convert(model, ax.Hardware(multiplier=ax.multipliers.get("drum3")), x)
    for noise in noisy_weights(noisy):
        kernel = noise.variable.numpy()
        # (window, filters, channels) of the transposed convolution, (d, c) of the einsum, (inputs, units) of the dense.
        axes = {"up": (0, 1, 3), "mix": (1,), "out": (0,)}[noise.layer]
        scale = np.abs(kernel).max(axis=axes, keepdims=True) / 127
        codes = np.clip(np.round(kernel / scale), -127, 127).astype(int)
        expected = noise.table[codes - noisy.get_layer(noise.layer).hardware.code_table.weight_low] * scale**2
        np.testing.assert_allclose(noise.variance(noise.variable.value), expected, rtol=1e-5)
    active = ax.with_sensitivity(noisy, ax.OutputSensitivity(0.1, method=method))
    active.compile("sgd", LOSS(), jit_compile=False)
    assert np.isfinite(active.fit(x, np.arange(8) % 2, verbose=0).history["sensitivity"]).all()


def inputs_of(model, layer, x):
    """What the layer sees in float, as calibration did."""
    plain = ax.strip(model)
    names = [item.name for item in plain.layers]
    index = names.index(layer.name)
    return x if index == 0 else keras.Model(plain.inputs[0], plain.layers[index - 1].output)(x).numpy()


def test_layers_choose_whose_weights_count():
    model = network()
    both = ax.with_sensitivity(model, ax.OutputSensitivity(1.0))
    first = ax.with_sensitivity(model, ax.OutputSensitivity(1.0, layers=["a*"]))
    values = []
    for active in (both, first):
        active.compile("sgd", LOSS(), run_eagerly=True)
        values.append(active.train_on_batch(*data(), return_dict=True)["sensitivity"])
    assert 0 < values[1] < values[0]


@pytest.mark.slow  # test_keras_manners.py has replicas with a penalty
def test_replicas_share_the_batch_and_the_penalty():
    """Two replicas of one machine follow the mean of both halves' gradients."""
    script = """
import os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
import keras, numpy as np, axtrain as ax
rng = np.random.default_rng(0)
x, y = rng.normal(size=(32, 10)).astype("float32"), rng.integers(0, 3, 32)
def network():
    keras.utils.set_random_seed(5)
    return keras.Sequential([keras.Input((10,)), keras.layers.Dense(3, activation="softmax", name="b")])
def gradient(active, x, y, batch):
    before = [w.copy() for w in active.layers[-1].get_weights()]
    logs = active.fit(tf.data.Dataset.from_tensor_slices((x, y)).batch(batch), verbose=0).history
    return before[0] - active.layers[-1].get_weights()[0], logs
kinds = {"exact": (ax.LossGradient, ax.OutputSensitivity), "first_order": (ax.LossGradient, ax.Curvature)}
for method in kinds:
    for kind in kinds[method]:
        penalty = kind(0.5, method=method, radius=1e-2)
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        with strategy.scope():
            both = ax.with_sensitivity(network(), penalty)
            both.compile(keras.optimizers.SGD(1.0), "sparse_categorical_crossentropy", jit_compile=False)
        moved, logs = gradient(both, x, y, 32)
        halves = []
        for half in (slice(0, 16), slice(16, 32)):
            one = ax.with_sensitivity(network(), penalty)
            one.compile(keras.optimizers.SGD(1.0), "sparse_categorical_crossentropy", jit_compile=False)
            halves.append(gradient(one, x[half], y[half], 16))
        expected = (halves[0][0] + halves[1][0]) / 2
        losses = (halves[0][1]["loss"][0] + halves[1][1]["loss"][0]) / 2
        assert abs(logs["loss"][0] - losses) < 1e-4, (logs, losses)
        if kind is ax.LossGradient:
            assert np.abs(moved - expected).max() < 2e-3 * np.abs(expected).max(), (method, kind)
        assert np.isfinite(moved).all()
print("fine")
"""
    done = fresh.run(script)
    assert "fine" in done.stdout, done.stderr[-3000:]


@pytest.mark.slow  # tests/contract/test_saving.py loads one in a fresh process
@pytest.mark.eager
def test_it_is_saved_and_loaded_in_a_fresh_process(tmp_path):
    x, y = data()
    noisy = ax.convert(network(), ax.Hardware(multiplier=ax.multipliers.get("drum4")), x)
    active = ax.with_sensitivity(noisy, ax.OutputSensitivity(0.1, every=3, layers=["a"]))
    active.compile(keras.optimizers.SGD(0.1), LOSS())
    active.fit(x, y, batch_size=16, verbose=0)
    active.save(tmp_path / "m.keras")
    active.fit(x, y, batch_size=16, verbose=0)
    script = f"""
import numpy as np, tensorflow as tf, axtrain as ax
tf.config.run_functions_eagerly({tf.config.functions_run_eagerly()})
model = ax.load_model({str(tmp_path / "m.keras")!r})
assert model.penalty == ax.OutputSensitivity(0.1, every=3, layers=("a",)), model.penalty
rng = np.random.default_rng(0)
x, y = rng.normal(size=(64, 10)).astype("float32"), rng.integers(0, 3, 64)
model.fit(x, y, batch_size=16, verbose=0)
np.save({str(tmp_path / "again.npy")!r}, model.layers[1].get_weights()[0])
"""
    done = fresh.run(script)
    assert done.returncode == 0, done.stderr[-3000:]
    # Shuffling is not resumed, so the steps see other batches: the stream and the count are what must be equal.
    assert np.isfinite(np.load(tmp_path / "again.npy")).all()
    again = ax.load_model(tmp_path / "m.keras")
    assert int(again._steps.numpy()) == 4
    kept = ax.with_sensitivity(noisy, ax.OutputSensitivity(0.1, every=3, layers=["a"]))
    assert not np.array_equal(again._probes.state.numpy(), kept._probes.state.numpy())


@pytest.mark.eager
def test_the_result_is_evaluated_stripped_and_converted_like_any_model():
    x, y = data()
    hardware = ax.Hardware(multiplier=ax.multipliers.get("drum4"))
    noisy = ax.convert(network(), hardware, x)
    kept = [w.copy() for w in noisy.get_weights()]
    active = ax.with_sensitivity(noisy, ax.OutputSensitivity(0.1))
    active.compile("sgd", LOSS(), metrics=["accuracy"])
    active.fit(x, y, verbose=0)
    assert set(active.evaluate(x, y, return_dict=True, verbose=0)) == {"loss", "accuracy"}
    for old, new in zip(kept, noisy.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert ax.evaluate(active, x, y, chips=1, verbose=False).samples == B
    plain = ax.strip(active)
    assert type(plain) is type(keras.Model(plain.input, plain.output)) and not plain.compiled
    plain.compile("sgd", LOSS())
    assert set(plain.fit(x, y, verbose=0).history) == {"loss"}
    again = ax.with_sensitivity(active, ax.LossGradient(0.1))
    assert again.penalty == ax.LossGradient(0.1)
    assert ax.convert(active, ax.Hardware(), x).layers[1].hardware == ax.Hardware()


@pytest.mark.parametrize("kind", KINDS.values())
def test_descriptions_round_trip(kind):
    penalty = kind(0.1, weighting="constant", layers=["a"], every=2, fraction=0.5, method="first_order", radius=0.1)
    assert penalty_from_dict(penalty.to_dict()) == penalty
    assert type(penalty_from_dict(penalty.to_dict())) is kind


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: ax.OutputSensitivity(-1), "strength=-1"),
        (lambda: ax.OutputSensitivity(1, every=0), "every=0"),
        (lambda: ax.OutputSensitivity(1, fraction=2), "fraction=2"),
        (lambda: ax.OutputSensitivity(1, fraction=0), "fraction=0"),
        (lambda: ax.OutputSensitivity(1, method="magic"), "method='magic'"),
        (lambda: ax.OutputSensitivity(1, weighting="magic"), "weighting='magic'"),
        (lambda: ax.OutputSensitivity(1, layers="a"), "list of names"),
        (lambda: ax.LossGradient(1, probes=2), "probes=2"),
        (lambda: penalty_from_dict({"kind": "x"}), "kind='x'"),
        (lambda: ax.with_sensitivity(network(), ax.LossGradient(1, layers=["z"])), "names no layer"),
        (lambda: ax.with_sensitivity(network(), ax.LossGradient(1, weighting="hardware")), "no hardware whose"),
        (
            lambda: ax.with_sensitivity(
                ax.convert(network(), ax.Hardware(multiplier=ax.multipliers.get("drum4"))), ax.LossGradient(1)
            ),
            "never calibrated",
        ),
    ],
)
def test_bad_arguments(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


def test_a_training_step_of_ones_own_is_not_replaced():
    faulty = ax.convert(network(), ax.Hardware(weight_memory=ax.memories.BitErrors(rate=0.01)))
    with pytest.raises(ValueError, match="training step of its own"):
        ax.with_sensitivity(ax.with_bit_errors(faulty), ax.LossGradient(1))
    with pytest.raises(TypeError, match="OutputSensitivity"):
        ax.with_sensitivity(faulty, "R2")
