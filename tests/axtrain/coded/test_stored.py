"""What is stored between steps: wrong shards are found and mended, or it is said that they cannot be."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from axtrain import coded
from axtrain.coded.layouts import ShardLayout
from axtrain.coded.products import CodedProduct

CORRECTING = {
    "CodeNet": (coded.CodeNet(2, 3, 1), [4]),
    "CodeNet, in two rows": (coded.CodeNet(2, 3, 1), [0, 5]),
    "CodeNet, a parity": (coded.CodeNet(2, 3, 1), [8]),
    "CodeNet, two in a row": (coded.CodeNet(2, 3, 2), [0, 1]),
    "three copies": (coded.Replication(3, 2, 2), [5]),
    "PolyDot": (coded.GeneralizedPolyDot(2, 2, workers=10), [1, 7]),
    "Polynomial": (coded.Polynomial(3, workers=7), [2]),
    "MDS": (coded.SystematicMDS(8, 5), [11]),
}


def stored(code, dtype="float32"):
    generator = np.random.default_rng(0)
    layout = CodedProduct(code, 37, 26, adversarial=False).layout
    kernels = [generator.standard_normal((37, 26)).astype(dtype), 1e-3 * generator.standard_normal((37, 26))]
    return layout, layout.stored(False), [np.array(layout.encode(k.astype(dtype))) for k in kernels]


def with_errors(layout: ShardLayout, states: list, wrong: list, value=None) -> list:
    """Shards replaced in all states."""
    found, generator = [], np.random.default_rng(1)
    for state in states:
        shards = np.array(layout.shards(state))
        size = np.abs(shards).mean()
        for shard in wrong:
            shards[shard] += size * generator.standard_normal(shards[shard].shape) if value is None else value
        found.append(np.array(layout.from_shards(shards)))
    return found


@pytest.mark.parametrize("name", CORRECTING)
@pytest.mark.parametrize("value", [None, np.nan], ids=["wrong", "lost"])
def test_wrong_shards_are_decoded_from_the_others(name, value):
    code, wrong = CORRECTING[name]
    layout, checks, states = stored(code)
    assert bool(checks.is_clean(states))
    broken = with_errors(layout, states, wrong, value)
    assert not bool(checks.is_clean(broken))
    mended, regenerated, possible = checks.mended(broken)
    assert bool(possible)
    assert int(regenerated) == len(wrong)
    for state, found in zip(states, mended, strict=True):
        shards, again = np.array(layout.shards(state)), np.array(layout.shards(found))
        np.testing.assert_allclose(again, shards, atol=2e-5 * np.abs(shards).max())
    assert bool(checks.is_clean(mended))


def test_an_error_of_one_state_alone_is_found():
    layout, checks, (kernel, momentum) = stored(coded.CodeNet(2, 3, 1))
    (broken,) = with_errors(layout, [momentum], [3])
    mended, regenerated, possible = checks.mended([kernel, broken])
    assert bool(possible) and int(regenerated) == 1
    np.testing.assert_allclose(mended[0], kernel, atol=1e-6)
    np.testing.assert_allclose(mended[1], momentum, atol=1e-4 * np.abs(momentum).max())


@pytest.mark.parametrize("code", [coded.Replication(2, 2, 2), coded.Checksum(2, 2)], ids=["two copies", "checksum"])
def test_who_only_detects_says_so(code):
    layout, checks, states = stored(code)
    assert bool(checks.is_clean(states))
    broken = with_errors(layout, states, [1])
    assert not bool(checks.is_clean(broken))
    assert not bool(checks.mended(broken)[2])


@pytest.mark.parametrize("code", [coded.CodeNet(2, 3, 1), coded.Replication(2, 2, 2), coded.Checksum(2, 2)], ids=repr)
def test_what_rounding_has_made_is_taken_out(code):
    layout, checks, states = stored(code)
    apart = with_errors(layout, states, [0, 1], 0.0)
    apart[0] = apart[0] * (1 + 1e-6 * np.random.default_rng(2).standard_normal(apart[0].shape).astype("float32"))
    assert bool(checks.is_clean(apart))
    settled = np.array(checks.settled(apart)[0])
    again = np.array(layout.encode(layout.decode(settled)))
    assert np.abs(again - settled).max() <= 3e-7 * np.abs(settled).max() * layout.height**0.5
    assert np.abs(settled - states[0]).max() <= 1e-5 * np.abs(states[0]).max()


@pytest.mark.parametrize("name", CORRECTING)
@pytest.mark.cases("PolyDot", "two in a row", "three copies", "a parity")
def test_what_is_not_clean_can_be_mended_however_small(name):
    """Where the check and the decoder drew their lines apart, errors between them were beyond correction."""
    code, wrong = CORRECTING[name]
    layout, checks, states = stored(code)
    look = tf.function(lambda broken: (checks.is_clean(broken), checks.mended(broken)[2]))
    sizes = []
    for size in np.geomspace(1e-5, 1e-2, 40):
        apart = [np.array(layout.shards(state)) for state in states]
        for shards in apart:
            signs = np.sign(np.random.default_rng(3).random(shards[0].shape) - 0.5)
            shards[wrong[0]] += size * np.abs(shards).max() * signs
        broken = [np.array(layout.from_shards(shards)) for shards in apart]
        clean, possible = look([tf.constant(state) for state in broken])
        sizes.append(bool(clean))
        assert bool(possible)
    assert sizes[0] and not sizes[-1]


WHERE = ("update",)
TRAINED = {
    "CodeNet": coded.CodeNet(2, 2, 1),
    "three copies": coded.Replication(3, 2, 2),
    "two copies": coded.Replication(2, 2, 2),
    "checksum": coded.Checksum(2, 2),
}


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.cases("CodeNet", "three copies", "checksum")
def test_errors_behind_silent_inputs_do_not_stay(name):
    """Half of the inputs are zero but in every tenth step: then a product says nothing of their weights."""
    code, generator, steps = TRAINED[name], np.random.default_rng(0), 120
    x = generator.random((16 * steps, 24)).astype("float32")
    x[:, :13] *= (np.arange(len(x)) // 16 % 10 == 9)[:, None]  # all that the first column of blocks sees
    y = (x[:, 13:].sum(axis=1) > 5.5).astype("int64")
    keras.utils.set_random_seed(0)
    # Errors are drawn by the layers' names too.
    layers = [keras.layers.Dense(8, "relu", name="first"), keras.layers.Dense(2, "softmax", name="second")]
    model = keras.Sequential([keras.Input((24,)), *layers])
    faults = coded.SoftErrors(rate=0.03, where=WHERE)
    network = coded.convert(model, code, faults, checkpoint_every=4, overrides={"second": None})
    network.compile(keras.optimizers.SGD(0.05, momentum=0.9), "sparse_categorical_crossentropy")
    network.fit(x, y, batch_size=16, shuffle=False, verbose=0)
    events = network.events
    assert events["injected"] >= 3
    # Each error costs one return at most; before the check of what is stored, some came back at every step.
    assert events["rolled_back"] <= events["injected"]
    if code.adversarial_errors:
        for layer in network.coded_layers:
            states = [np.array(layer.coded_kernel), *(np.array(slot) for slot in network._slots(layer.coded_kernel))]
            assert bool(layer.stored.mended(states)[2])
