import keras
import numpy as np
import pytest

import axtrain as ax
from axtrain.controls import hardware_layers

BITS = ax.memories.BitErrors(rate=0.1, fault="random")


class Seen(keras.callbacks.Callback):
    """Notes every layer's strength in the middle of each epoch."""

    def __init__(self):
        super().__init__()
        self.strengths = []

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 1:
            self.strengths.append([float(layer.hardware_state.noise_strength) for layer in hardware_layers(self.model)])


def strengths(model):
    return [float(layer.hardware_state.noise_strength) for layer in hardware_layers(model)]


def fit(model, data, epochs, *callbacks, loss="sparse_categorical_crossentropy", learning_rate=1e-3, **kwargs):
    model.compile(keras.optimizers.SGD(learning_rate), loss)
    return model.fit(*data, epochs=epochs, batch_size=32, verbose=0, callbacks=list(callbacks), **kwargs)


def test_a_number_of_epochs_rises_linearly(make_noisy, data):
    model, seen = make_noisy(BITS), Seen()
    fit(model, data, 5, ax.callbacks.NoiseSchedule(4), seen)
    np.testing.assert_allclose(seen.strengths, [[s, s] for s in (0.25, 0.5, 0.75, 1, 1)], atol=1e-7)
    assert strengths(model) == [1, 1]


def test_a_function_of_the_epoch_and_back_to_one(make_noisy, data):
    model, seen, asked = make_noisy(BITS), Seen(), []

    def schedule(epoch):
        asked.append(epoch)
        return [0.0, 0.5, 0.125][epoch]

    fit(model, data, 3, ax.callbacks.NoiseSchedule(schedule), seen)
    assert asked == [0, 1, 2]
    assert seen.strengths == [[0, 0], [0.5, 0.5], [0.125, 0.125]]
    assert strengths(model) == [1, 1]


def test_a_resumed_fit_goes_on_where_the_schedule_was(make_noisy, data):
    model, seen = make_noisy(BITS), Seen()
    fit(model, data, 4, ax.callbacks.NoiseSchedule(4), seen, initial_epoch=2)
    np.testing.assert_allclose(seen.strengths, [[0.75, 0.75], [1, 1]], atol=1e-7)


def test_the_compiled_graph_follows_without_a_new_trace(make_noisy, data):
    """At learning rate 0 the loss shows the noise alone: a clean memory's at strength 0, another at 1."""
    traces = []

    def loss(y_true, y_pred):
        traces.append(1)
        return keras.losses.sparse_categorical_crossentropy(y_true, y_pred)

    after_epoch = []
    count = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: after_epoch.append(len(traces)))
    schedule = ax.callbacks.NoiseSchedule(lambda epoch: [0.0, 1.0, 0.0][epoch])
    options = {"loss": loss, "learning_rate": 0.0, "shuffle": False}
    losses = fit(make_noisy(BITS), data, 3, schedule, count, **options).history["loss"]
    assert after_epoch[0] > 0
    assert after_epoch == [after_epoch[0]] * 3

    clean = fit(make_noisy(None), data, 1, **options).history["loss"][0]
    assert losses[0] == losses[2] == clean
    assert abs(losses[1] - clean) > 1e-3


def test_validation_runs_at_the_epochs_strength(make_noisy, data):
    model = make_noisy(BITS)
    schedule = ax.callbacks.NoiseSchedule(lambda epoch: 0.0)
    history = fit(model, data, 1, schedule, learning_rate=0.0, validation_data=data).history
    clean = make_noisy(None)
    clean.compile(loss="sparse_categorical_crossentropy")
    assert history["val_loss"][0] == clean.evaluate(*data, verbose=0)


@pytest.mark.parametrize("schedule", [0, -3, True, 2.5, "4", None])
def test_not_a_schedule(schedule):
    with pytest.raises(ValueError, match=r"`schedule` must be a function of the epoch .*Received: schedule="):
        ax.callbacks.NoiseSchedule(schedule)


def test_a_model_without_a_faulty_memory(network, make_noisy, data):
    for model in (network, make_noisy(None)):
        with pytest.raises(ValueError, match=r"no noise to schedule.*'small'"):
            fit(model, data, 1, ax.callbacks.NoiseSchedule(2))


def test_a_strength_out_of_range(make_noisy, data):
    with pytest.raises(ValueError, match=r"`strength` must lie in \[0, 1\]"):
        fit(make_noisy(BITS), data, 1, ax.callbacks.NoiseSchedule(lambda epoch: 1.5))
