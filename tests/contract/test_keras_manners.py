"""Our models behave as a Keras user expects: summary, callbacks, pipelines, replicas."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import axtrain as ax

CIRCUIT = ax.multipliers.get("drum4")
CHIP = ax.Hardware(multiplier=CIRCUIT, weight_memory=ax.memories.BitErrors(rate=0.01))


def data(count=40):
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, 8)).astype(np.float32), rng.integers(0, 3, count)


def plain(hidden=True):
    keras.utils.set_random_seed(4)
    stack = [keras.layers.Dense(6, activation="tanh", name="first")] if hidden else []
    return keras.Sequential([keras.Input((8,)), *stack, keras.layers.Dense(3, name="last")], name="small")


def converted(hidden=True):
    return ax.convert(plain(hidden), CHIP, data()[0])


MODELS = {
    "converted": converted,
    "sensitivity": lambda: ax.with_sensitivity(converted(), ax.OutputSensitivity(0.01)),
    "half_batch": lambda: ax.with_sensitivity(converted(), ax.LossGradient(0.01, fraction=0.5, every=2)),
    "bit_errors": lambda: ax.with_bit_errors(converted()),
}
every_model = pytest.mark.parametrize("kind", MODELS)


def compiled(model, **options):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss, **options)
    return model


def printed(model, **options):
    lines = []
    model.summary(print_fn=lines.append, **options)
    return "\n".join(lines)


@every_model
def test_the_summary_shows_the_network_and_no_more(kind):
    """One row for each layer of the user's, its own name and weights; 3 numbers more are a product's range."""
    text = printed(MODELS[kind](), expand_nested=True)
    cells = ([cell.strip() for cell in row.strip("│ ").split("│")] for row in text.splitlines() if row.startswith("│"))
    rows = {name: int(count) for name, _, count in cells if "InputLayer" not in name}
    assert rows == {"first (ApproxDense)": 54 + 3, "last (ApproxDense)": 21 + 3}
    assert 'Model: "small"' in text
    assert "Total params: 81 " in text and "Trainable params: 75 " in text and "Non-trainable params: 6 " in text


def test_weights_are_what_the_layer_computes_with():
    """The range; with a statistical fidelity the error model too, so that a clone with the weights is the same."""
    noisy = converted()
    assert len(noisy.get_weights()) == 2 * (2 + 3)
    ax.set_fidelity(noisy, "calibrated", rank=2)
    statistical = {weight.name for weight in noisy.get_layer("first").weights}
    assert {"mean_given_weight", "residual_levels", "weight_factors"} < statistical
    assert "noise_strength" not in statistical


def test_the_summary_counts_what_plain_keras_counts_where_there_is_no_hardware():
    free = ax.strip(converted())
    assert printed(free) == printed(plain())


def test_inputs_without_a_name_keep_the_one_that_keras_gave():
    inner = keras.Input((4,))
    nested = keras.Model(inner, keras.layers.Dense(4)(inner), name="inner")
    given = [keras.Input((4,)), keras.Input((4,), name="own")]
    model = keras.Model(given, nested(keras.layers.Add()(given)))
    noisy = ax.convert(model, CHIP, [np.ones((2, 4), np.float32)] * 2)
    names = [[layer.name for layer in part.layers] for part in (model, nested)]
    assert [[layer.name for layer in part.layers] for part in (noisy, noisy.get_layer("inner"))] == names
    assert noisy.get_layer(names[0][0]).output.shape == (None, 4)


@pytest.mark.parametrize("kind", ["converted", "sensitivity"])
def test_early_stopping_puts_the_weights_back_and_not_the_strength(kind):
    """The best epoch by this measure is the first, played at a quarter of the noise; evaluation is at all of it."""
    model = compiled(MODELS[kind]())
    x, y = data()
    first = []
    best = keras.callbacks.EarlyStopping("loss", mode="max", min_delta=10.0, patience=2, restore_best_weights=True)
    keep = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: first.append(model.get_weights()))
    model.fit(x, y, epochs=5, batch_size=8, callbacks=[ax.callbacks.NoiseSchedule(4), keep, best], verbose=0)
    assert best.stopped_epoch == 2 and len(first) == 3
    for now, then in zip(model.get_weights(), first[0], strict=True):
        np.testing.assert_array_equal(now, then)
    assert [float(layer.hardware_state.noise_strength) for layer in model.layers[-2:]] == [1.0, 1.0]


def generated(x, y, batch):
    """Batches whose size no one knows before they come."""
    shapes = tf.TensorSpec((None, 8), tf.float32), tf.TensorSpec((None,), tf.int64)
    batches = [(x[start : start + batch], y[start : start + batch]) for start in range(0, len(x), batch)]
    return tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=shapes)


@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")  # Keras, at the end of an unknown size
# The others are of a kind with `half_batch`, which divides what has no known size.
@every_model
@pytest.mark.cases("converted", "half_batch")
def test_pipelines_train_as_arrays_do(kind):
    """40 samples in batches of 16: the last has 8. The same steps from an unknown size and from a repeated stream."""
    x, y = data()
    batches = generated(x, y, 16).prefetch(1)
    arrays, unknown, repeated = (compiled(MODELS[kind]()) for _ in range(3))
    unknown.fit(batches, shuffle=False, verbose=0)
    repeated.fit(batches.repeat(), steps_per_epoch=3, epochs=2, shuffle=False, verbose=0)
    start = [np.asarray(weight) for weight in arrays.trainable_weights]
    for model in (unknown, repeated):
        arrays.fit(x, y, batch_size=16, shuffle=False, verbose=0)
        for own, other in zip(arrays.trainable_weights, model.trainable_weights, strict=True):
            np.testing.assert_allclose(own, other, rtol=1e-4, atol=1e-6)
    assert max(np.abs(old - weight).max() for old, weight in zip(start, arrays.trainable_weights, strict=True)) > 1e-3
    assert np.isfinite(repeated.evaluate(batches, verbose=0))
    assert repeated.predict(batches.map(lambda samples, _: samples), verbose=0).shape == (40, 3)


@pytest.mark.parametrize("kind", ["converted", "sensitivity"])
def test_tensorboard_logs_curves_and_histograms(kind, tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard, which the test extra has, is absent")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    x, y = data()
    board = keras.callbacks.TensorBoard(tmp_path, histogram_freq=1, write_images=True)
    model = compiled(MODELS[kind]())
    model.fit(x, y, validation_data=(x, y), batch_size=20, epochs=2, callbacks=[board], verbose=0)
    read = {part: EventAccumulator(str(tmp_path / part)).Reload() for part in ("train", "validation")}
    tags = set(read["train"].Tags()["tensors"])
    losses = [tf.make_ndarray(event.tensor_proto) for event in read["train"].Tensors("epoch_loss")]
    np.testing.assert_allclose(losses, model.history.history["loss"], rtol=1e-6)
    assert "epoch_loss" in read["validation"].Tags()["tensors"]
    assert ("epoch_sensitivity" in tags) == ("sensitivity" in model.history.history)
    shown = {tag.removesuffix("/histogram") for tag in tags if tag.endswith("/histogram")}
    weights = [weight for layer in model.layers for weight in layer.weights]
    # Keras has called a histogram by its weight's name and by its path, which tells the layers apart.
    assert shown in ({weight.name for weight in weights}, {weight.path for weight in weights})


REPLICAS = """
import os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
import importlib.util, sys
import keras, numpy as np, axtrain as ax
found = importlib.util.spec_from_file_location("manners", sys.argv[1])
manners = importlib.util.module_from_spec(found)
found.loader.exec_module(manners)
x, y = manners.data()
# One layer, since each is traced for both replicas.
kinds = {"converted": lambda: manners.converted(False),
         "bit_errors": lambda: ax.with_bit_errors(manners.converted(False), clip_norm=None),
         "sensitivity": lambda: ax.with_sensitivity(manners.converted(False), ax.OutputSensitivity(0.01))}
for kind, make in kinds.items():
    one = manners.compiled(make(), jit_compile=False, metrics=["accuracy"])
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        both = manners.compiled(make(), jit_compile=False, metrics=["accuracy"])
    models = (one, both)
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
    assert np.abs(one.predict(x, verbose=0) - both.predict(x, verbose=0)).max() < 1e-5, kind
    before = [np.asarray(weight) for weight in both.trainable_weights]
    histories = [model.fit(batches, verbose=0).history for model in models]
    assert all(np.isfinite(history["loss"]).all() for history in histories), kind
    moved = [np.abs(np.asarray(weight) - old).max() for weight, old in zip(both.trainable_weights, before)]
    assert min(moved) > 0, kind
    for own, other in zip(one.trainable_weights, both.trainable_weights):  # one memory's faults, read by both
        apart = np.abs(np.asarray(own) - np.asarray(other)).max()
        assert apart < 1e-4 or kind == "sensitivity", (kind, own.path)  # whose probes are each replica's own
        own.assign(np.asarray(other))
    for model in models:
        ax.set_noise_strength(model, 0.0)
    alone, logs = (model.evaluate(batches, return_dict=True, verbose=0) for model in models)
    assert set(logs) == set(alone) == {"loss", "accuracy"}
    assert max(abs(logs[name] - alone[name]) for name in logs) < 1e-5, kind
    assert np.abs(one.predict(x, verbose=0) - both.predict(x, verbose=0)).max() < 1e-5, kind
    assert abs((both.predict(x, verbose=0).argmax(-1) == y).mean() - logs["accuracy"]) < 1e-6, kind

def apart(hardware, fidelity="exact"):
    # How far two replicas' outputs of the same samples are from each other.
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        model = ax.convert(manners.plain(False), hardware, x)
        ax.set_fidelity(model, fidelity)
    run = tf.function(lambda: strategy.run(lambda: model(x[:8], training=True)))
    one, other = strategy.experimental_local_results(run())
    return float(np.abs(one - other).max())

# One memory's faults are both replicas'; what belongs to an activation is each one's own.
memory = ax.memories.BitErrors(rate=0.05)
assert apart(ax.Hardware(multiplier=manners.CIRCUIT, weight_memory=memory)) == 0
assert apart(ax.Hardware(activation_memory=memory)) > 1e-3
assert apart(ax.Hardware(multiplier=manners.CIRCUIT), "gaussian") > 1e-3
print("fine")
"""


def test_replicas_fit_evaluate_and_predict():
    """Two replicas on two virtual CPUs take the steps that one device takes, and give its outputs; noise is their own.

    What `with_sensitivity` adds to a step is tested in tests/axtrain/test_sensitivity_training.py.
    """
    import fresh  # not above: the new process loads this file too

    done = fresh.run(REPLICAS, __file__)
    assert "fine" in done.stdout, done.stderr[-3000:]
