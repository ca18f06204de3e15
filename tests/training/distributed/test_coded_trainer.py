"""Coded nodes in training: with nodes killed, slow and wrong, the losses are the fault-free run's to rounding."""

import keras
import numpy as np
import pytest
from coded_runs import CODE, FIT, fitted, plain_losses

from axtrain.coded import CodeNet, GeneralizedPolyDot, Replication, SystematicMDS
from axtrain.training.distributed import CodedTrainer, InProcess, Trouble


# A node moves its shard by the same rule whatever the code is, so each rule meets two codes.
@pytest.mark.parametrize(
    ("code", "nesterov"),
    [(CODE, False), (CodeNet(2, 2), True), (GeneralizedPolyDot(2, 1), False), (Replication(3), True)],
    ids=repr,
)
@pytest.mark.cases("rows=1", "Replication", "PolyDot")
def test_without_trouble_it_is_kerass_own_training(network, data, code, nesterov):
    optimizer = keras.optimizers.SGD(0.2, momentum=0.9, nesterov=nesterov)
    network.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    before = [weight.copy() for weight in network.get_weights()]
    expected, weights = plain_losses(network, data)
    trainer, losses, history = fitted(network, data, InProcess(), code, validation_data=data)
    np.testing.assert_allclose(losses, expected, rtol=2e-4)
    for a, b in zip(trainer.model.get_weights(), weights, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-4)
    for a, b in zip(network.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert set(trainer.events.values()) == {0}
    assert history.history["accuracy"][-1] > 0.5 < history.history["val_accuracy"][-1]
    assert history.history["alive"] == [code.shards] * 3


STAGES = [("begin", 5), ("forward", 5), ("backward", 5), ("update", 5)]


@pytest.mark.parametrize("method, step", STAGES)
@pytest.mark.cases("forward", "update")  # a node is begun anew and asked backwards as these are
def test_a_node_killed_in_each_stage_is_replaced_and_nothing_is_lost(network, data, method, step):
    expected, weights = plain_losses(network, data)
    trainer, losses, _ = fitted(network, data, InProcess(troubles=[Trouble("node-1", "kill", method, step)]))
    np.testing.assert_allclose(losses, expected, rtol=1e-3)
    for a, b in zip(trainer.model.get_weights(), weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)
    assert trainer.events["replaced"] == 1
    assert trainer.events["rolled_back"] == 0
    assert trainer.nodes.alive == 8


def test_corrupted_values_for_some_steps_are_corrected(network, data):
    expected, weights = plain_losses(network, data)
    troubles = [Trouble("node-2", "corrupt", step=1, steps=4)]
    trainer, losses, _ = fitted(network, data, InProcess(troubles=troubles), trainer={"adversarial": True})
    np.testing.assert_allclose(losses, expected, rtol=1e-3)
    for a, b in zip(trainer.model.get_weights(), weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)
    assert trainer.events["corrected"] >= 4


def test_what_is_beyond_the_code_goes_back_and_on(network, data):
    """Three of eight die in one step: both rows that are left cannot tell; back to the last checkpoint in memory."""
    expected, _ = plain_losses(network, data)
    troubles = [Trouble(f"node-{n}", "kill", "forward", 6) for n in (0, 2, 4)]
    trainer, losses, _ = fitted(network, data, InProcess(troubles=troubles), keep_every=2)
    assert trainer.events["replaced"] == 3
    assert losses[-1] == pytest.approx(expected[-1], rel=0.2)


def test_too_many_failures_say_what_to_do(network, data):
    troubles = [Trouble(f"node-{n}", "kill", "forward", 6) for n in range(8)]
    with pytest.raises(RuntimeError, match="redundancy"):
        fitted(network, data, InProcess(troubles=troubles))


def test_a_killed_driver_goes_on_from_disk_with_another_number_of_nodes(network, data, tmp_path):
    _, weights = plain_losses(network, data)

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.count = getattr(self, "count", 0) + 1
            if self.count == 7:
                raise RuntimeError("driver killed")

    kept = {"checkpoint": tmp_path / "state.npz", "checkpoint_every": 3}
    with pytest.raises(RuntimeError, match="driver killed"):
        CodedTrainer(network, CODE, InProcess()).fit(*data, callbacks=[Stop()], **FIT, **kept)
    trainer = CodedTrainer(network, CodeNet(2, 2), InProcess())
    history = trainer.fit(*data, **FIT, **kept)
    assert len(history.history["loss"]) == 3
    for a, b in zip(trainer.model.get_weights(), weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)
    with pytest.raises(ValueError, match="another training"):
        CodedTrainer(network, CODE, InProcess()).fit(*data, **{**FIT, "seed": 3}, **kept)


def test_models_and_codes_that_nodes_cannot_work_with_are_refused(network):
    with pytest.raises(ValueError, match="one shard each"):
        CodedTrainer(network, SystematicMDS(5, 3), InProcess())
    network.compile("adam", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match="SGD"):
        CodedTrainer(network, CODE, InProcess())
    convolution = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2D(2, 2), keras.layers.Flatten()])
    convolution.compile("sgd", "mse")
    with pytest.raises(ValueError, match="Conv2D"):
        CodedTrainer(convolution, CODE, InProcess())
