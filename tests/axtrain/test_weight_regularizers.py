"""Regularisers that know the multiplier's error, or the memory's, of every weight code."""

import itertools
import json

import fresh
import keras
import numpy as np
import pytest
import tensorflow as tf
from matplotlib.figure import Figure

import axtrain as ax

DRUM = ax.multipliers.get("drum4")
SIGNED = ax.multipliers.get("drum4", signed=True)
SMALL = ax.Multiplier(np.outer(np.arange(16), np.arange(16)) // 3 * 3, name="thirds", bits=4, signed=False)
RATE = 0.05
CODES = np.arange(-127, 128)


def errors_of_products(multiplier, activations=None):
    """E_a[E(a, b)^2] / E[a^2] of every weight code b, from the raw words."""
    n, limit = multiplier.weight_bits, 2 ** (multiplier.weight_bits - 1) - 1
    a = np.arange(-limit, limit + 1) if multiplier.signed else np.arange(2**n)
    share = np.ones(len(a)) if activations is None else np.asarray(activations, float)
    found = []
    for b in range(-limit, limit + 1):
        word = b % 2**n if multiplier.signed else abs(b)
        error = multiplier.table[a % 2**n, word].astype(np.int64) - a * (b if multiplier.signed else abs(b))
        found.append((share * error.astype(float) ** 2).sum() / (share * a**2.0).sum())
    return np.array(found)


def errors_of_words(encoding, rate=RATE, bits=8):
    """E[(b' - b)^2] of every weight code b, over all patterns of flipped bits."""
    weights = 2.0 ** np.arange(bits)
    if encoding == "twos_complement":
        weights[-1] *= -1

    def value(word):
        word = np.asarray(word)
        if encoding == "sign_magnitude":
            return (1 - 2 * word[-1]) * (word[:-1] @ weights[:-1])
        return word @ weights - (2 ** (bits - 1) if encoding == "offset" else 0)

    words = [np.array(word) for word in itertools.product((0, 1), repeat=bits)]
    chance = np.array([rate ** w.sum() * (1 - rate) ** (bits - w.sum()) for w in words])
    stored = {value(w): w for w in reversed(words)}  # of two zeros the positive one
    found = []
    for b in range(1 - 2 ** (bits - 1), 2 ** (bits - 1)):
        read = np.array([value(stored[b] ^ mask) for mask in words])
        found.append(chance @ (read - b) ** 2)
    return np.array(found)


def loop(weights, errors, summed):
    """sum of D^2 e(w / D), channel by channel, in float64; `weights` has the summed axes first."""
    limit = len(errors) // 2
    total = 0.0
    channels = weights.reshape(-1, int(np.prod(weights.shape[summed:], dtype=int)))
    for channel in channels.astype(float).T:
        scale = np.abs(channel).max() / limit
        for w in channel:
            total += scale**2 * np.interp(w / scale, np.arange(-limit, limit + 1), errors)
    return total


def kernel(shape=(24, 5), seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def off_the_kinks(columns=3):
    """Weights well between codes, but for the largest of each channel."""
    rng = np.random.default_rng(2)
    codes = rng.integers(-120, 120, (10, columns)) + rng.uniform(0.3, 0.7, (10, columns))
    codes[4] = [127, -127, 127][:columns]
    return (codes * [0.01, 0.002, 0.3][:columns]).astype(np.float32)


def slope(penalty, weights):
    value = tf.Variable(weights)
    with tf.GradientTape() as tape:
        loss = penalty(value)
    return tape.gradient(loss, value).numpy()


def descend(penalty, start, rate, steps):
    weights = tf.Variable(start)

    @tf.function
    def run():
        for _ in tf.range(steps):
            with tf.GradientTape() as tape:
                loss = penalty(weights)
            weights.assign_sub(rate * tape.gradient(loss, weights))

    run()
    return weights.numpy()


def compiled(model, **options):
    model.compile(keras.optimizers.SGD(0.05), "mse", **options)
    return model


# What it is -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("multiplier", [DRUM, SIGNED, SMALL], ids=["unsigned", "signed", "4 bits"])
@pytest.mark.parametrize("shape", [(24, 5), (3, 3, 2, 4), (7,)])
def test_multiplier_error_is_the_sum_over_products(multiplier, shape):
    weights, errors = kernel(shape), errors_of_products(multiplier)
    expected = 0.3 * loop(weights, errors, max(len(shape) - 1, 1))
    assert float(ax.MultiplierError(multiplier, 0.3)(weights)) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(ax.MultiplierError(multiplier, 0.3).profile()[1], errors, rtol=1e-6)


def test_activations_weigh_the_errors():
    rng = np.random.default_rng(1)
    counts = rng.integers(0, 50, 256)
    weights = kernel()
    expected = loop(weights, errors_of_products(DRUM, counts), 1)
    assert float(ax.MultiplierError(DRUM, 1.0, activations=counts)(weights)) == pytest.approx(expected, rel=1e-5)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4)])
    noisy = ax.convert(model, ax.Hardware(multiplier=DRUM), np.abs(kernel((64, 6))))
    histogram = noisy.layers[-1].hardware_state.activation_histogram
    seen = ax.MultiplierError(DRUM, 1.0, activations=histogram)
    np.testing.assert_allclose(seen.profile()[1], errors_of_products(DRUM, histogram.numpy()), rtol=1e-5)


@pytest.mark.parametrize("encoding", ["twos_complement", "sign_magnitude", "offset"])
def test_bit_flip_energy_is_the_mean_over_all_patterns(encoding):
    weights, errors = kernel((3, 3, 2, 4)), errors_of_words(encoding)
    penalty = ax.BitFlipEnergy(0.3, rate=RATE, encoding=encoding)
    assert float(penalty(weights)) == pytest.approx(0.3 * loop(weights, errors, 3), rel=1e-5)
    np.testing.assert_allclose(penalty.profile()[1], errors, rtol=1e-6)
    assert len(ax.BitFlipEnergy(1.0, rate=RATE, bits=4, encoding=encoding).profile()[0]) == 15


@pytest.mark.parametrize(
    "protection", [ax.memories.RobustBits(count=2), ax.memories.Parity(), ax.memories.SignMasking()], ids=repr
)
def test_bit_flip_energy_takes_the_memory_as_it_is(protection):
    """Against reads: the squared change of 400 reads of each of 255 codes."""
    memory = ax.memories.BitErrors(rate=RATE, protection=protection)
    reads = np.asarray(memory.read(np.tile(CODES, (400, 1)), 8, seed=3))
    squares = ((reads - CODES) ** 2.0).mean(axis=1)
    errors = ax.BitFlipEnergy(1.0, memory=memory).profile()[1]
    assert abs(squares.mean() - errors.mean()) < 5 * squares.std(ddof=1) / np.sqrt(len(squares))
    clustered = ax.memories.BitErrors(
        rate=RATE, protection=protection, clustering=ax.memories.Clustering(row_cells=64, rows=0.2)
    )
    np.testing.assert_array_equal(ax.BitFlipEnergy(1.0, memory=clustered).profile()[1], errors)


def test_it_is_the_energy_of_real_words():
    """On weights that are codes: the squared change of the dequantised weights, over 2000 reads."""
    weights = (np.array([[127, -90], [3, 127], [-64, 0]]) * [0.01, 0.5]).astype(np.float32)
    memory = ax.memories.BitErrors(rate=RATE, encoding="sign_magnitude")
    codes = np.round(weights / [0.01, 0.5]).astype(int)
    reads = np.asarray(memory.read(np.tile(codes, (2000, 1, 1)), 8, seed=1)) * [0.01, 0.5]
    squares = ((reads - codes * [0.01, 0.5]) ** 2).sum(axis=(1, 2))
    penalty = float(ax.BitFlipEnergy(1.0, memory=memory)(weights))
    assert abs(squares.mean() - penalty) < 5 * squares.std(ddof=1) / np.sqrt(2000)


@pytest.mark.parametrize("axis", [(0, 1), [-4, -3]])
def test_each_depthwise_channel_has_its_scale(axis):
    layer = keras.layers.DepthwiseConv2D(
        3, depth_multiplier=2, depthwise_regularizer=ax.MultiplierError(DRUM, 2.0, axis=axis)
    )
    layer.build((None, 8, 8, 4))
    weights = kernel((3, 3, 4, 2)) * np.array([1, 10, 0.1, 3])[:, None]
    layer.set_weights([weights, np.zeros(8)])
    expected = 2.0 * loop(weights.astype(np.float32), errors_of_products(DRUM), 2)
    assert float(layer.losses[0]) == pytest.approx(expected, rel=1e-5)
    flips = ax.BitFlipEnergy(1.0, rate=RATE, axis=axis)
    assert float(flips(weights)) == pytest.approx(loop(weights, errors_of_words("twos_complement"), 2), rel=1e-5)


def test_the_outputs_may_lie_along_any_axis():
    weights = kernel((5, 4))
    one = ax.BitFlipEnergy(1.0, rate=RATE, axis=-1)(weights)
    assert float(one) == pytest.approx(float(ax.BitFlipEnergy(1.0, rate=RATE)(weights.T)), rel=1e-6)
    weights = kernel((3, 3, 4, 2))  # of a Conv2DTranspose: window, filters, channels
    one = ax.BitFlipEnergy(1.0, rate=RATE, axis=(0, 1, 3))(weights)
    other = ax.BitFlipEnergy(1.0, rate=RATE)(np.swapaxes(weights, 2, 3))
    assert float(one) == pytest.approx(float(other), rel=1e-6)


def test_nothing_costs_nothing():
    weights = kernel()
    for penalty in (
        ax.MultiplierError(ax.multipliers.get("exact"), 1.0),
        ax.MultiplierError(DRUM, 0.0),
        ax.BitFlipEnergy(1.0, rate=0.0),
    ):
        assert float(penalty(weights)) == 0
        np.testing.assert_array_equal(slope(penalty, weights), 0)


@pytest.mark.parametrize("penalty", [ax.MultiplierError(DRUM, 1.0), ax.BitFlipEnergy(1.0, rate=RATE)])
def test_zeros_cost_nothing_and_a_nan_shows(penalty):
    weights = kernel((6, 3))
    weights[:, 1] = 0
    assert float(penalty(weights)) == pytest.approx(float(penalty(weights[:, [0, 2]])), rel=1e-6)
    gradient = slope(penalty, weights)
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[:, 1], 0)
    weights[0, 0] = np.nan
    assert np.isnan(float(penalty(weights)))


# Its gradient -----------------------------------------------------------------------------------------------------


def differences(weights, errors, scale_moves):
    """Central differences of the loop; with `scale_moves` False those of the largest weights are 0."""
    found = np.zeros(weights.shape)
    largest = np.abs(weights) == np.abs(weights).max(axis=0)
    for place in np.ndindex(weights.shape):
        if largest[place] and not scale_moves:
            continue
        step = 1e-3 * np.abs(weights[:, place[1]]).max() / 127
        moved = [weights.astype(float) for _ in range(2)]
        moved[0][place] -= step
        moved[1][place] += step
        found[place] = (loop(moved[1], errors, 1) - loop(moved[0], errors, 1)) / (2 * step)
    return found


@pytest.mark.parametrize("multiplier", [DRUM, SIGNED])
def test_the_gradient_of_multiplier_error(multiplier):
    weights = off_the_kinks()
    expected = 0.5 * differences(weights, errors_of_products(multiplier), scale_moves=False)
    assert (np.abs(expected) > 0).sum() > 20
    found = slope(ax.MultiplierError(multiplier, 0.5), weights)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_array_equal(found[4], 0)


@pytest.mark.parametrize("encoding", ["twos_complement", "sign_magnitude"])
def test_the_gradient_of_bit_flip_energy_goes_through_the_scale(encoding):
    weights = off_the_kinks()
    expected = 0.5 * differences(weights, errors_of_words(encoding), scale_moves=True)
    found = slope(ax.BitFlipEnergy(0.5, rate=RATE, encoding=encoding), weights)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    assert (np.sign(found[4]) == np.sign(weights[4])).all()  # descent makes the largest smaller
    if encoding == "twos_complement":
        others = np.delete(found, 4, axis=0)
        assert (np.abs(found[4]) > 20 * np.abs(others).max(axis=0)).all()


def test_the_penalty_alone_pulls_weights_to_accurate_codes():
    penalty = ax.MultiplierError(DRUM, 1.0)
    errors = penalty.profile()[1]
    start = kernel((200, 3))
    scale = np.abs(start).max(axis=0) / 127
    # A step is up to a tenth of a code: the slope between codes is at most the steepest.
    weights = descend(penalty, start, 0.1 / np.abs(np.diff(errors)).max(), 300)
    before, after = (errors[np.round(w / scale).astype(int) + 127] for w in (start, weights))
    assert after.mean() < 0.6 * before.mean()
    assert (after <= before + 1e-3).mean() > 0.99
    largest = np.abs(start) == np.abs(start).max(axis=0)
    np.testing.assert_array_equal(weights[largest], start[largest])
    moved = np.abs(weights - start) / scale
    assert moved.max() < 32  # to the next valley, no further


def test_the_energy_alone_narrows_the_range():
    start = kernel((200, 3))
    end = descend(ax.BitFlipEnergy(1.0, rate=0.01), start, 1e-2, 200)
    assert (np.abs(end).max(axis=0) < 0.8 * np.abs(start).max(axis=0)).all()
    small = np.abs(start) < 0.5
    assert np.abs(end - start)[small].max() < 0.02  # the others stay


# In Keras ---------------------------------------------------------------------------------------------------------


def network():
    keras.utils.set_random_seed(5)
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            keras.layers.Conv2D(4, 3, kernel_regularizer=ax.MultiplierError(DRUM, 0.01), name="a"),
            keras.layers.DepthwiseConv2D(
                3, depthwise_regularizer=ax.MultiplierError(SIGNED, 0.02, axis=(0, 1)), name="b"
            ),
            keras.layers.Flatten(),
            keras.layers.Dense(3, kernel_regularizer=ax.BitFlipEnergy(0.5, rate=0.01), name="c"),
        ]
    )


def data():
    rng = np.random.default_rng(3)
    return rng.normal(size=(32, 8, 8, 2)).astype(np.float32), rng.normal(size=(32, 3)).astype(np.float32)


def test_every_way_to_fit_is_the_same():
    results = []
    for options in ({"run_eagerly": True}, {"jit_compile": False}, {"jit_compile": True}):
        model = compiled(network(), **options)
        before = sum(float(loss) for loss in model.losses)
        model.fit(*data(), batch_size=16, epochs=3, shuffle=False, verbose=0)
        assert sum(float(loss) for loss in model.losses) < before
        results.append(model.get_weights())
    for other in results[1:]:
        for own, one in zip(results[0], other, strict=True):
            np.testing.assert_allclose(own, one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16"])
@pytest.mark.eager
def test_low_precision_does_not_blur_the_codes(policy, float_policy):
    expected = [float(loss) for loss in network().losses]
    keras.config.set_dtype_policy(policy)
    model = network()
    kernels = [model.get_layer(name).weights[0] for name in "abc"]
    keras.config.set_dtype_policy("float32")
    wanted = expected
    if policy == "bfloat16":  # the variables themselves are; the sums are not
        regularizers = [layer.kernel_regularizer for layer in (model.get_layer("a"), model.get_layer("c"))]
        wanted = [float(regularizers[0](np.array(kernels[0].value, np.float32)))]
    assert [float(loss) for loss in model.losses][: len(wanted)] == pytest.approx(wanted, rel=1e-5)
    compiled(model).fit(*data(), batch_size=16, verbose=0)
    assert all(np.isfinite(float(loss)) for loss in model.losses)


CASES = {
    "plain": lambda: ax.MultiplierError(DRUM, 0.1),
    "table": lambda: ax.MultiplierError(SMALL, 0.2, activations=np.arange(16), axis=(0,)),
    "rate": lambda: ax.BitFlipEnergy(0.1, rate=0.01, bits=6, encoding="sign_magnitude", axis=-2),
    "memory": lambda: ax.BitFlipEnergy(
        0.3, memory=ax.memories.NearThresholdSRAM(voltage=0.5, protection=ax.memories.SECDED(data_bits=32)), axis=[0]
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_configuration_is_plain_and_complete(case):
    penalty = CASES[case]()
    config = penalty.get_config()
    again = type(penalty).from_config(json.loads(json.dumps(config)))
    assert again.get_config() == config
    assert float(again(kernel())) == float(penalty(kernel()))
    assert config["axis"] == {"plain": None, "table": [0], "rate": -2, "memory": [0]}[case]


def test_a_saved_model_loads_in_a_fresh_process(tmp_path):
    model = keras.Sequential([keras.Input((8,))])
    for case, make in CASES.items():
        model.add(keras.layers.Dense(5, kernel_regularizer=make(), kernel_constraint=ax.WeightRange(0.4), name=case))
    compiled(model).save(tmp_path / "model.keras")
    script = f"""
import axtrain as ax
model = ax.load_model({str(tmp_path / "model.keras")!r})
print([float(loss) for loss in model.losses], type(model.layers[0].kernel_regularizer) is ax.MultiplierError)
"""
    done = fresh.run(script)
    assert done.stdout.strip() == f"{[float(loss) for loss in model.losses]} True", done.stderr[-3000:]


def test_hardware_layers_keep_it():
    model = network()
    noisy = ax.convert(model, ax.Hardware(multiplier=DRUM), data()[0])
    assert [float(a) for a in noisy.losses] == [float(a) for a in model.losses]
    compiled(noisy).fit(*data(), batch_size=16, verbose=0)
    plain = ax.strip(noisy)
    assert [float(a) for a in plain.losses] == [float(a) for a in noisy.losses]


@pytest.mark.parametrize("case", CASES)
def test_profile_and_plot(case):
    penalty = CASES[case]()
    codes, errors = penalty.profile()
    limit = 2 ** (penalty.bits - 1) - 1
    np.testing.assert_array_equal(codes, np.arange(-limit, limit + 1))
    assert errors.shape == codes.shape and errors.dtype == np.float64 and errors.min() >= 0
    figure = penalty.plot()
    assert isinstance(figure, Figure) and len(figure.axes) == 1
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), errors)
    layer = keras.layers.Dense(5)
    layer.build((None, 24))
    heights = [bar.get_height() for bar in penalty.plot(layer.kernel).axes[1].patches]
    counts = np.round(layer.kernel.numpy() / np.abs(layer.kernel.numpy()).max(axis=0) * limit)
    assert heights == [np.sum(counts == code) for code in codes]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ax.MultiplierError(DRUM, -1.0), r"strength=-1\.0"),
        (lambda: ax.MultiplierError(DRUM, True), "strength=True"),
        (lambda: ax.BitFlipEnergy(float("nan"), rate=0.1), "strength=nan"),
        (lambda: ax.MultiplierError(DRUM, 1.0, axis="last"), "axis='last'"),
        (lambda: ax.MultiplierError(DRUM, 1.0, axis=()), r"axis=\(\)"),
        (lambda: ax.MultiplierError(DRUM, 1.0, axis=2)(kernel()), "2 axes. Received: axis=2"),
        (lambda: ax.MultiplierError(DRUM, 1.0, axis=(1, -1))(kernel()), r"axis=\[1, -1\]"),
        (lambda: ax.BitFlipEnergy(1.0, rate=0.1)(np.float32(1.0)), "0 axes"),
        (lambda: ax.MultiplierError(DRUM, 1.0, activations=np.ones(255)), r"code 0 \.\. 255\. Received: .*\(255,\)"),
        (lambda: ax.MultiplierError(SIGNED, 1.0, activations=-np.ones(255)), "255 negative"),
        (lambda: ax.MultiplierError(DRUM, 1.0, activations=np.eye(256)[0]), "other than 0"),
        (lambda: ax.BitFlipEnergy(1.0), "rate=None, memory=None"),
        (lambda: ax.BitFlipEnergy(1.0, rate=0.1, memory=ax.memories.BitErrors(rate=0.1)), r"rate=0\.1, memory="),
        (lambda: ax.BitFlipEnergy(1.0, memory=ax.memories.BitErrors(rate=0.1), encoding="offset"), "'offset'"),
        (lambda: ax.BitFlipEnergy(1.0, rate=0.7), r"rate=0\.7"),
        (lambda: ax.BitFlipEnergy(1.0, rate=0.1, encoding="gray"), "encoding='gray'"),
        (lambda: ax.BitFlipEnergy(1.0, rate=0.1, encoding="unsigned"), "encoding='unsigned'"),
        (lambda: ax.BitFlipEnergy(1.0, rate=0.1, bits=11), "bits=11"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "make", [lambda: ax.MultiplierError("drum4", 1.0), lambda: ax.BitFlipEnergy(1.0, memory="sram")]
)
def test_what_is_no_part_of_hardware(make):
    with pytest.raises(TypeError, match=r"must be .*Received: (multiplier='drum4'|memory='sram')"):
        make()
