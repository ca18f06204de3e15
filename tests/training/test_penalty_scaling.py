"""A penalty that weighs as much as part of the loss, whatever the hardware and the network."""

import dataclasses

import keras
import numpy as np
import pytest

import axtrain as ax


def data(count=96):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, 6)).astype(np.float32)
    return x, (x[:, :3] + rng.normal(size=(count, 3))).argmax(-1)


def network(activation="softmax"):
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(12, activation="relu"), keras.layers.Dense(3, activation=activation)]
    return keras.Sequential([keras.Input((6,)), *layers])


def weighed(model, penalty, x, y, loss):
    """The penalty and the loss in an epoch that changes nothing."""
    active = ax.with_sensitivity(model, dataclasses.replace(penalty, every=1))
    active.compile(keras.optimizers.SGD(0.0), loss)
    logs = active.fit(x, y, batch_size=32, shuffle=False, verbose=0).history
    return penalty.strength * logs["sensitivity"][0], logs["loss"][0]


@pytest.mark.parametrize("method", ["exact", "first_order"])
@pytest.mark.parametrize("share", [0.0, 0.3, 2.0])
def test_the_loss_gradient_has_its_share_exactly(share, method):
    """It needs no probes, so the share is that of any later measurement."""
    x, y = data()
    found = ax.scaled_penalty(network(), ax.LossGradient(7.0, method=method, every=3), x, y, share=share)
    assert (found.every, found.method) == (3, method)
    size, loss = weighed(network(), found, x, y, "sparse_categorical_crossentropy")
    assert size == pytest.approx(share * loss, rel=1e-4)


def test_probed_penalties_have_it_on_average():
    """A probe's estimate deviates by about 0.6 of the mean (theory page, section 7); 60 batches of 10 probes against
    another such measurement: 5 standard errors are 5 * 0.6 * sqrt(2 / 600) = 17 %."""
    x, y = data(60 * 32)
    penalty = ax.OutputSensitivity(1.0, probes=10)
    found = ax.scaled_penalty(network(), penalty, x, y, share=0.5)
    size, loss = weighed(network(), found, x, y, "sparse_categorical_crossentropy")
    assert size == pytest.approx(0.5 * loss, rel=0.17)


def test_the_loss_is_given_or_the_models_own_or_fits_the_labels():
    x, y = data()
    logits = network(None)
    from_logits = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    guessed = ax.scaled_penalty(logits, ax.LossGradient(1.0), x, y, share=1.0)
    given = ax.scaled_penalty(logits, ax.LossGradient(1.0), x, y, share=1.0, loss=from_logits)
    assert guessed == given
    compiled = network(None)
    compiled.compile("sgd", "mse")
    targets = np.eye(3, dtype=np.float32)[y]
    assert ax.scaled_penalty(compiled, ax.LossGradient(1.0), x, targets, share=1.0) == ax.scaled_penalty(
        network(None), ax.LossGradient(1.0), x, targets, share=1.0, loss="mse"
    )
    assert compiled.optimizer.iterations == 0


def test_hardware_and_the_model_stay_as_they_are():
    x, y = data()
    model = ax.convert(network(), ax.Hardware(weight_memory=ax.memories.BitErrors(rate=0.01)), x)
    before = [np.copy(keras.ops.convert_to_numpy(variable)) for variable in model.variables]
    coarse = ax.scaled_penalty(model, ax.OutputSensitivity(1.0), x, y, share=1.0)
    plain = ax.scaled_penalty(network(), ax.OutputSensitivity(1.0), x, y, share=1.0)
    assert coarse.strength > 10 * plain.strength  # the hardware's noise is far below a constant of 1
    for old, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, keras.ops.convert_to_numpy(variable))


def test_bad_arguments():
    x, y = data()
    for share in (-1, True, "half", float("inf")):
        with pytest.raises(ValueError, match="share="):
            ax.scaled_penalty(network(), ax.LossGradient(1.0), x, y, share=share)
    dead = network()
    dead.set_weights([np.zeros_like(weights) for weights in dead.get_weights()])
    with pytest.raises(ValueError, match="cannot be scaled"):
        ax.scaled_penalty(dead, ax.OutputSensitivity(1.0, weighting="proportional"), x, y, share=1.0)
