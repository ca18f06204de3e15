"""Shards that are wrong where no product sees it: found by projections of all nodes' shards, and mended."""

import keras
import numpy as np
import pytest
from coded_runs import FIT, plain_losses

from axtrain.coded import CodeNet, GeneralizedPolyDot, Replication
from axtrain.coded.layouts import ShardLayout
from axtrain.training.distributed import CodedTrainer, InProcess
from axtrain.training.distributed.coded_node import CodedNode
from axtrain.training.distributed.coded_nodes import CodedNodes
from axtrain.training.distributed.dense_stack import DenseStack
from axtrain.training.distributed.stored_digests import StoredDigests

CODES = [CodeNet(2, 2, 1), CodeNet(1, 2, 1), GeneralizedPolyDot(2, 1), Replication(3, 1, 2)]


def digests_of(code, wrong=(), missing=()):
    generator = np.random.default_rng(1)
    layouts = [ShardLayout(code, 7, 5), ShardLayout(code, 6, 3)]
    stored = StoredDigests(code, layouts, True)
    states = []
    for size in (1.0, 1e-3):
        kernels = [size * generator.standard_normal((layout.inputs, layout.outputs)) for layout in layouts]
        states.append(
            [np.array(layout.encode(k.astype("float32"))) for layout, k in zip(layouts, kernels, strict=True)]
        )
    for node in wrong:
        states[1][0][node] += 1e-3  # the velocity of the first layer
    given = [stored.of(*([s[node] for s in kind] for kind in states)) for node in range(code.shards)]
    return stored, [None if node in missing else digest for node, digest in enumerate(given)]


@pytest.mark.parametrize("code", CODES, ids=repr)
def test_a_wrong_node_is_named(code):
    for node in range(code.shards):
        stored, given = digests_of(code, wrong=[node])
        found, explained = stored.judged(given)
        assert found.tolist() == [node] and explained


@pytest.mark.parametrize("code", CODES, ids=repr)
def test_nothing_is_said_of_right_ones_and_of_those_that_are_not_there(code):
    for missing in ([], [1], [code.shards - 1]):
        stored, given = digests_of(code, missing=missing)
        found, explained = stored.judged(given)
        assert not len(found) and explained


def test_two_copies_say_that_they_differ():
    stored, given = digests_of(Replication(2, 1, 2), wrong=[1])
    assert not stored.judged(given)[1]


@pytest.mark.parametrize("which", ["shards", "velocity"])
@pytest.mark.parametrize("code", [CodeNet(1, 2, 1), Replication(2)], ids=repr)
def test_a_wrong_shard_behind_silent_inputs_neither_spreads_nor_stays(network, data, code, which):
    """The first three inputs are zero: no product of the first layer says anything of their weights."""
    x, y = data[0].copy(), data[1]
    x[:, :4] = 0.0
    if isinstance(code, Replication):
        x[:] = 0.0  # there is but one block, which holds the bias too
    executor = InProcess()
    nodes = CodedNodes(DenseStack.of(network), code, executor, (x, y), momentum=0.9)
    weights = [np.concatenate([layer.get_weights()[0], layer.get_weights()[1][None]]) for layer in network.layers]
    nodes.adopt(0, weights, [np.zeros_like(part) for part in weights])
    for step in range(12):
        if step == 5:
            state = getattr(executor._workers["node-0"]._state, which)
            state[0] = state[0].copy()
            state[0][:3] += 0.5
        nodes.train(np.arange(16), 0.05, True)
    expected = [part[:3] for part in weights[:1]]
    np.testing.assert_allclose(nodes.weights()[0][0][:3], expected[0], atol=1e-5)
    assert nodes.events["regenerated" if code.adversarial_errors else "rolled_back"] == 1


@pytest.mark.parametrize("times", [1, 100])
def test_copies_that_differ_at_the_end_of_an_epoch_go_back(network, data, monkeypatch, times):
    """The last update is wrong in one of two copies: nobody can tell in which, and no step comes after it."""
    expected, weights = plain_losses(network, data)
    right, spoilt = CodedNode.update, []

    def update(self, step, *arguments, **options):
        note = right(self, step, *arguments, **options)
        if self.number == 1 and step == len(expected) - 1 and len(spoilt) < times:
            spoilt.append(step)
            self.shards[0] = self.shards[0] + 0.5
        return note

    monkeypatch.setattr(CodedNode, "update", update)
    with InProcess() as executor:
        trainer = CodedTrainer(network, Replication(2), executor)
        if times > 1:
            with pytest.raises(RuntimeError, match="times in a row"):
                trainer.fit(*data, **FIT)
            return
        trainer.fit(*data, **FIT)
    assert trainer.events["rolled_back"] == 1
    for a, b in zip(trainer.model.get_weights(), weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_losses_are_those_without_codes(network, data):
    expected, _ = plain_losses(network, data)
    with InProcess() as executor:
        trainer = CodedTrainer(network, CodeNet(2, 2, 1), executor)
        history = trainer.fit(*data, batch_size=16, epochs=3, verbose=0, seed=2)
    assert keras.ops.convert_to_numpy(history.history["loss"][-1]) == pytest.approx(np.mean(expected[-4:]), rel=1e-4)
    assert trainer.events["regenerated"] == trainer.events["rolled_back"] == 0
