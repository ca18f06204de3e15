"""Clean plus perturbed gradient, weight ranges, training for one chip."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import axtrain as ax

pytestmark = pytest.mark.eager

RATE = 0.05


def network(memory=None, units=12):
    keras.utils.set_random_seed(5)
    layers = [keras.layers.Dense(units, activation="relu", name="a"), keras.layers.Dense(3, name="b")]
    model = keras.Sequential([keras.Input((10,)), *layers])
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(64, 10)).astype(np.float32), rng.integers(0, 3, 64)
    memory = memory or ax.memories.BitErrors(rate=RATE)
    return ax.convert(model, ax.Hardware(weight_memory=memory), x), x, y


def compiled(model, rate=0.5, **options):
    model.compile(keras.optimizers.SGD(rate), keras.losses.SparseCategoricalCrossentropy(from_logits=True), **options)
    return model


def gradient(model, x, y):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    with tf.GradientTape() as tape:
        value = loss(y, model(x, training=True))
    return [g.numpy() for g in tape.gradient(value, [v.value for v in model.trainable_variables])]


@pytest.mark.parametrize("clip_norm", [None, 1e3, 0.01])
def test_a_step_follows_the_sum_of_both_gradients(clip_norm):
    """Against two passes by hand, from the same state of the noise."""
    noisy, x, y = network()
    trained = compiled(ax.with_bit_errors(noisy, clip_norm=clip_norm))
    ax.set_chip(noisy, 4)
    ax.set_chip(trained, 4)
    before = [v.numpy() for v in trained.trainable_variables]
    ax.set_noise_strength(noisy, 0.0)
    clean = gradient(noisy, x, y)
    ax.set_noise_strength(noisy, 1.0)
    perturbed = gradient(noisy, x, y)
    norm = np.sqrt(sum((g**2).sum() for g in perturbed))
    assert any(np.abs(a - b).max() > 1e-4 for a, b in zip(clean, perturbed, strict=True))
    scale = 1.0 if clip_norm is None else min(1.0, clip_norm / norm)
    trained.train_on_batch(x, y)
    for old, variable, a, b in zip(before, trained.trainable_variables, clean, perturbed, strict=True):
        np.testing.assert_allclose(variable.numpy(), old - 0.5 * (a + scale * b), rtol=1e-4, atol=1e-6)


def test_the_faulty_pass_moves_no_average_range_or_state():
    """Batch normalisation, an activation range and a stateful layer are moved as by the clean network's `fit`."""
    x = (3 + np.random.default_rng(0).normal(size=(8, 5, 4))).astype("float32")
    layers = [
        keras.layers.BatchNormalization(momentum=0.5, name="norm"),
        keras.layers.LSTM(3, stateful=True, name="lstm"),
    ]
    plain = keras.Sequential([keras.Input(batch_shape=(8, 5, 4)), *layers, keras.layers.Dense(2, name="out")])
    found = []
    for rate in (0.0, 0.3):
        network = ax.convert(plain, ax.Hardware(weight_memory=ax.memories.BitErrors(rate=rate)))
        if rate:
            network = ax.with_bit_errors(network)
        network.compile(keras.optimizers.SGD(0.0), "mse")
        network.fit(x, np.zeros((8, 2)), batch_size=8, shuffle=False, verbose=0)
        moving = network.get_layer("norm").moving_mean
        states = [product.state for name in ("lstm", "out") for product in network.get_layer(name).products]
        carried = network.get_layer("lstm").states
        found.append([v.numpy() for v in (moving, *carried, *(s.low for s in states), *(s.high for s in states))])
    assert np.any(found[0][0] != 0) and np.any(found[0][1] != 0)
    for clean, faulty in zip(*found, strict=True):
        np.testing.assert_allclose(clean, faulty, rtol=1e-5)  # graphs round differently


def test_faults_wait_for_the_loss_to_fall():
    noisy, x, y = network()
    waiting = compiled(ax.with_bit_errors(noisy, start_loss=1e-6))
    before = [v.numpy() for v in waiting.trainable_variables]
    ax.set_noise_strength(noisy, 0.0)
    clean = gradient(noisy, x, y)
    waiting.train_on_batch(x, y)
    for old, variable, a in zip(before, waiting.trainable_variables, clean, strict=True):
        np.testing.assert_allclose(variable.numpy(), old - 0.5 * a, rtol=1e-4, atol=1e-6)
    begun = compiled(ax.with_bit_errors(noisy, start_loss=1e3))
    begun.train_on_batch(x, y)
    assert any(
        np.abs(a.numpy() - b.numpy()).max() > 1e-4
        for a, b in zip(begun.trainable_variables, waiting.trainable_variables, strict=True)
    )


@pytest.mark.parametrize(
    "options",
    [{"run_eagerly": True}, {"jit_compile": True}, pytest.param({"jit_compile": False}, marks=pytest.mark.slow)],
)  # the others train in graphs
@pytest.mark.graph
def test_fit_lowers_the_loss_and_leaves_the_input_alone(options):
    noisy, x, y = network()
    kept = [w.copy() for w in noisy.get_weights()]
    trained = compiled(ax.with_bit_errors(noisy), rate=0.2, metrics=["accuracy"], **options)
    history = trained.fit(x, y, batch_size=16, epochs=5, verbose=0).history
    assert history["loss"][-1] < history["loss"][0] - 0.05
    assert {"loss", "accuracy"} <= set(history)
    for old, new in zip(kept, noisy.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    for layer in ("a", "b"):
        assert float(trained.get_layer(layer).hardware_state.noise_strength) == 1.0


def test_a_saved_model_trains_on(tmp_path):
    noisy, x, y = network()
    trained = compiled(ax.with_bit_errors(noisy, clip_norm=0.3, start_loss=5.0))
    trained.fit(x, y, epochs=1, verbose=0)
    trained.save(tmp_path / "model.keras")
    again = ax.load_model(tmp_path / "model.keras")
    assert (again.clip_norm, again.start_loss) == (0.3, 5.0)
    trained.fit(x, y, epochs=1, verbose=0, shuffle=False)
    again.fit(x, y, epochs=1, verbose=0, shuffle=False)
    for own, other in zip(trained.trainable_variables, again.trainable_variables, strict=True):
        np.testing.assert_allclose(own.numpy(), other.numpy(), rtol=1e-5, atol=1e-6)


def test_the_result_is_evaluated_stripped_and_converted_like_any_model():
    noisy, x, y = network(ax.memories.BitErrors(rate=RATE, fault="persistent"))
    trained = compiled(ax.with_bit_errors(noisy))
    trained.fit(x, y, epochs=1, verbose=0)
    assert len(set(ax.evaluate(trained, x, y, chips=6, verbose=False).accuracies)) > 1
    plain = compiled(ax.strip(trained))
    assert type(plain.get_layer("a")) is keras.layers.Dense
    plain.fit(x, y, epochs=1, verbose=0)
    other = ax.convert(trained, ax.Hardware())
    np.testing.assert_array_equal(other.get_layer("a").kernel, trained.get_layer("a").kernel)
    compiled(other).fit(x, y, epochs=1, verbose=0)


@pytest.mark.graph
def test_training_for_one_chip_fits_that_chip():
    """A chip of many faults: after training on it the loss there is lower than on others (n = 20)."""
    noisy, x, y = network(ax.memories.BitErrors(rate=0.05, fault="persistent"), units=32)
    ax.set_chip(noisy, 3, training=True)
    first, second = (np.asarray(noisy(x, training=True)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, np.asarray(noisy(x, training=False)))
    compiled(noisy, rate=0.1).fit(np.tile(x, (60, 1)), np.tile(y, 60), batch_size=16, verbose=0)  # as 60 epochs do
    own = noisy.evaluate(x, y, batch_size=64, verbose=0)
    others = []
    for chip in range(10, 30):
        ax.set_chip(noisy, chip)
        others.append(noisy.evaluate(x, y, batch_size=64, verbose=0))
    assert own < np.mean(others) - 5 * np.std(others, ddof=1) / np.sqrt(20)
    assert not np.array_equal(*(np.asarray(noisy(x, training=True)) for _ in range(2)))  # any chip again


def test_the_choice_of_one_chip_is_saved(tmp_path):
    noisy, x, _ = network(ax.memories.BitErrors(rate=0.05, fault="persistent"))
    ax.set_chip(noisy, 3, training=True)
    noisy.save(tmp_path / "model.keras")
    again = ax.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(*(np.asarray(model(x, training=True)) for model in (noisy, again)))


def test_weights_stay_in_range(tmp_path):
    noisy, x, y = network()
    ax.limit_weights(noisy, 0.2)
    assert max(np.abs(v.numpy()).max() for v in noisy.trainable_variables) <= np.float32(0.2)
    compiled(noisy).fit(x, y, epochs=3, verbose=0)
    largest = [np.abs(v.numpy()).max() for v in noisy.trainable_variables]
    assert max(largest) == np.float32(0.2)
    trained = compiled(ax.with_bit_errors(noisy))
    trained.fit(x, y, epochs=3, verbose=0)
    assert max(np.abs(v.numpy()).max() for v in trained.trainable_variables) > 0.2  # of the layers, not of a copy
    ax.limit_weights(trained, 0.1)
    trained.fit(x, y, epochs=1, verbose=0)
    assert max(np.abs(v.numpy()).max() for v in trained.trainable_variables) <= np.float32(0.1)


def test_the_constraint_works_on_plain_layers_and_is_saved(tmp_path):
    layer = keras.layers.Dense(4, kernel_constraint=ax.WeightRange(0.05))
    model = compiled(keras.Sequential([keras.Input((10,)), layer]))
    _, x, y = network()
    model.fit(x, y, epochs=1, verbose=0)
    assert np.abs(layer.kernel.numpy()).max() <= np.float32(0.05)
    model.save(tmp_path / "model.keras")
    assert ax.load_model(tmp_path / "model.keras").layers[0].kernel_constraint.limit == 0.05


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda noisy: ax.with_bit_errors(noisy, clip_norm=0.0), r"clip_norm=0\.0"),
        (lambda noisy: ax.with_bit_errors(noisy, start_loss=-1.0), r"start_loss=-1\.0"),
        (lambda noisy: ax.with_bit_errors(ax.strip(noisy)), "nothing to perturb"),
        (lambda noisy: ax.with_bit_errors(ax.convert(noisy, ax.Hardware())), "nothing to perturb"),
        (lambda noisy: ax.limit_weights(noisy, 0.0), r"limit=0\.0"),
        (lambda noisy: ax.WeightRange(float("nan")), "limit=nan"),
        (lambda noisy: ax.limit_weights(ax.strip(noisy), 0.1), r"axtrain\.convert"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make(network()[0])
