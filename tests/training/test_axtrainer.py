"""The joint recipe, and its resumption after a kill."""

import dataclasses

import keras
import numpy as np
import pytest

import axtrain as ax
from axtrain.training.training_state import ResumableBatches, TrainingState, place_of, restore

pytestmark = pytest.mark.eager

MEMORY = ax.memories.BitErrors(rate=0.01)


def data(count=96):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, 10)).astype(np.float32)
    return x, (x[:, :3] + 0.3 * rng.normal(size=(count, 3))).argmax(-1)


def network():
    keras.utils.set_random_seed(5)
    layers = [keras.layers.Dense(16, activation="relu", name="a"), keras.layers.Dropout(0.2, seed=1)]
    return keras.Sequential([keras.Input((10,)), *layers, keras.layers.Dense(3, activation="softmax", name="b")])


def trainer(**options):
    chosen = {
        "hardware": ax.Hardware(multiplier=ax.multipliers.get("drum3"), weight_memory=MEMORY),
        "penalty": ax.OutputSensitivity(0.01, fraction=0.5, every=2),
        "warm_up": 1,
        "anneal": 2,
        "fine_tune": 1,
        "optimizer": keras.optimizers.Adam(0.02),
        "batch_size": 20,
    }
    return ax.AxTrainer(**{**chosen, **options})


class Killed(Exception):
    pass


class Kill(keras.callbacks.Callback):
    def __init__(self, after):
        super().__init__()
        self.left, self.stage = after, None

    def in_stage(self, stage):
        self.stage = stage
        return [self]

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            raise Killed


def test_the_stages_are_clean_then_noisy_then_exact():
    x, y = data(100)  # whole batches: one compilation for each
    model = network()
    before = [w.copy() for w in model.get_weights()]
    seen = {}

    class Watch(keras.callbacks.Callback):
        def __init__(self, stage):
            super().__init__()
            self.stage = stage

        def on_epoch_begin(self, epoch, logs=None):
            layers = [layer for layer in self.model.layers if getattr(layer, "hardware", None) is not None]
            strength = [float(layer.hardware_state.noise_strength.numpy()) for layer in layers]
            penalty = float(self.model.penalty_strength.numpy()) if layers else 0.0
            rate = float(self.model.optimizer.learning_rate)
            seen[self.stage, epoch] = {layer.fidelity for layer in layers}, strength[:1], round(penalty, 5), rate

    result = trainer().fit(model, x, y, callbacks=lambda stage: [Watch(stage)], verbose=0)
    assert seen["warm_up", 0] == (set(), [], 0.0, pytest.approx(0.02))
    assert seen["anneal", 0] == ({"calibrated"}, [0.5], 0.005, pytest.approx(0.02))
    assert seen["anneal", 1] == ({"calibrated"}, [1.0], 0.01, pytest.approx(0.02))
    assert seen["fine_tune", 0] == ({"exact"}, [1.0], 0.01, pytest.approx(0.002))
    assert {name: len(logs) for name, logs in result.history.items()} == {"warm_up": 1, "anneal": 2, "fine_tune": 1}
    assert "sensitivity" in result.history["fine_tune"][0]
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert result.model.layers[1].hardware.multiplier.name == "drum3"
    assert ax.evaluate(result.model, x, y, chips=3, verbose=False).mean > 0.5


def test_a_killed_training_goes_on_at_the_same_step(tmp_path):
    """Killed in every stage; weights, noise and logs are those of a training that nothing happened to.

    An epoch has 3 steps, and the killed one is done again: at the second step of each stage.
    """
    x, y = data(60)  # whole batches: one compilation for each; tests/end_to_end resumes where the last is smaller
    whole = trainer().fit(network(), x, y, verbose=0)
    for stage, steps in (("warm_up", 2), ("anneal", 4), ("fine_tune", 7)):
        kill = Kill(steps)
        with pytest.raises(Killed):
            trainer().fit(network(), x, y, folder=tmp_path, save_every=1, callbacks=kill.in_stage, verbose=0)
        assert kill.stage == stage
    ends = trainer().fit(network(), x, y, folder=tmp_path, save_every=1, verbose=0)
    for old, new in zip(whole.model.get_weights(), ends.model.get_weights(), strict=True):
        np.testing.assert_allclose(old, new, rtol=1e-5, atol=1e-6)
    assert whole.history.keys() == ends.history.keys()
    for stage, logs in whole.history.items():
        for a, b in zip(logs, ends.history[stage], strict=True):
            assert a == pytest.approx(b, rel=1e-4, abs=1e-5)
    again = trainer().fit(network(), x, y, folder=tmp_path, callbacks=[Kill(1)], verbose=0)  # nothing is left to do
    for old, new in zip(ends.model.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_another_training_is_not_mixed_in(tmp_path):
    x, y = data()
    short = {"anneal": 0, "fine_tune": 0}
    trainer(**short).fit(network(), x, y, folder=tmp_path, verbose=0)
    with pytest.raises(ValueError, match="another training|other data"):
        trainer(**short, seed=1).fit(network(), x, y, folder=tmp_path, verbose=0)
    with pytest.raises(ValueError, match="other data"):
        trainer(**short).fit(network(), x + 1, y, folder=tmp_path, verbose=0)


@pytest.mark.parametrize("left_out", [{"warm_up": 0, "fine_tune": 0}, {"anneal": 0}, {"anneal": 0, "fine_tune": 0}])
def test_stages_can_be_left_out(left_out):
    x, y = data()
    result = trainer(penalty=None, batch_size=48, **left_out).fit(network(), x, y, verbose=0)
    assert set(result.history) == {"warm_up", "anneal", "fine_tune"} - set(left_out)
    assert {layer.fidelity for layer in result.model.layers if hasattr(layer, "fidelity")} == {"exact"}


@pytest.mark.parametrize("anneal", [0, 2])
@pytest.mark.cases("0")
def test_the_penalty_is_scaled_where_the_noise_begins(anneal):
    """On a model that is on its hardware already, too."""
    x, y = data(100)  # whole batches: one compilation for each
    penalty = ax.LossGradient(123.0, fraction=0.5)
    recipe = trainer(penalty=penalty, penalty_share=0.25, warm_up=0, anneal=anneal)
    model = ax.convert(network(), recipe.hardware, x[:512])
    result = recipe.fit(model, x, y, verbose=0)
    assert all("sensitivity" in logs for stage in result.history.values() for logs in stage)
    found = result.model.penalty
    ax.set_fidelity(model, "exact")
    expected = ax.scaled_penalty(model, penalty, x[:512], y[:512], share=0.25, batch_size=20)
    assert found == dataclasses.replace(penalty, strength=found.strength)
    # Each measurement meets faults of its own.
    assert found.strength == pytest.approx(expected.strength, rel=0.5)


def test_the_state_is_a_callback_of_its_own(tmp_path):
    """Beside any fit: the second half of it goes on where the first was kept."""
    x, y = data()
    batches, file = ResumableBatches(x, y, 16, seed=3), tmp_path / "state.npz"

    def compiled():
        model = network()
        model.compile("adam", "sparse_categorical_crossentropy")
        return model

    whole = compiled()
    whole.fit(batches.from_step(0, 0, 3), epochs=3, steps_per_epoch=len(batches), shuffle=False, verbose=0)
    first = compiled()
    state = TrainingState(file)
    options = {"steps_per_epoch": len(batches), "shuffle": False, "verbose": 0}
    first.fit(batches.from_step(0, 0, 2), epochs=2, callbacks=[state], **options)
    assert place_of(file)["epoch"] == 2 and len(place_of(file)["history"]) == 2
    second = compiled()
    restore(second, file)
    second.fit(batches.from_step(2, 0, 3), epochs=1, steps_per_epoch=len(batches), shuffle=False, verbose=0)
    for old, new in zip(whole.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_allclose(old, new, rtol=1e-6, atol=1e-7)


def test_batches_are_each_sample_once_in_every_epoch():
    x = np.arange(10)
    batches = ResumableBatches(x, x, 4, seed=0)
    assert len(batches) == 3
    order = [batch[0].numpy() for batch in batches.from_step(0, 0, 2)]
    assert [len(batch) for batch in order] == [4, 4, 2, 4, 4, 2]
    for epoch in (order[:3], order[3:]):
        assert sorted(np.concatenate(epoch).tolist()) == list(range(10))
    late = [batch[0].numpy() for batch in batches.from_step(0, 2, 2)]
    for a, b in zip(order[2:], late, strict=True):
        np.testing.assert_array_equal(a, b)
    second = [batch[0].numpy() for batch in batches.from_step(1, 0, 2)]
    np.testing.assert_array_equal(np.concatenate(order[3:]), np.concatenate(second))


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match="warm_up=-1"):
        trainer(warm_up=-1)
    with pytest.raises(ValueError, match="no penalty to scale"):
        trainer(penalty=None, penalty_share=0.5)
    with pytest.raises(ValueError, match="nothing to train"):
        trainer(warm_up=0, anneal=0, fine_tune=0)
    with pytest.raises(ValueError, match="every=0"):
        TrainingState(tmp_path / "a.npz", every=0)
    (tmp_path / "b.npz").write_bytes(b"no state")
    with pytest.raises(ValueError, match="cannot be read as a kept training state"):
        place_of(tmp_path / "b.npz")
    plain = network()
    plain.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match="no penalty"):
        plain.fit(*data(), callbacks=[ax.callbacks.PenaltySchedule(2)], verbose=0)
