"""The plan past one machine: bytes as a run moves them, and times that follow from the parts."""

import numpy as np
import pytest

from axtrain.coded import CodeNet, GeneralizedPolyDot, Replication
from axtrain.training.distributed import BerrutTrainer, InProcess, NetworkTrainer, split
from axtrain.training.distributed.coded_nodes import CodedNodes
from axtrain.training.distributed.dense_stack import DenseStack
from axtrain.training.distributed.scaling import WORD, Machine, berrut_step, coded_step, network_step

QUIET = Machine(speed=1e9, bandwidth=1e9, latency=1e-5, overhead=1e-3, jitter=0.0)


@pytest.mark.parametrize("code", [CodeNet(2, 2), GeneralizedPolyDot(2, 1), Replication(3, 1, 2)], ids=repr)
def test_a_coded_step_moves_the_bytes_that_are_planned(network, data, code):
    executor = InProcess()
    nodes = CodedNodes(DenseStack.of(network), code, executor, data)
    weights = [np.concatenate([layer.get_weights()[0], layer.get_weights()[1][None]]) for layer in network.layers]
    nodes.adopt(0, weights, [np.zeros_like(part) for part in weights])
    before = executor.bytes_moved
    for step in range(3):
        nodes.train(np.arange(16) + 16 * step, 0.1, False)
    cost = coded_step(code, (6, 5, 3), 16)
    digests = 3 * 8 * code.shards * 4  # three sums from everybody, in two forward, one backward and one update stage
    stored = 2 * 2 * 4 * 8 * code.shards  # four projections of each layer's shard and its velocity
    assert (executor.bytes_moved - before) / 3 / code.shards == cost.received + digests + stored
    assert cost.nodes == code.shards


def test_berrut_and_network_steps_move_the_bytes_that_are_planned(network, data):
    weights = sum(int(np.prod(weight.shape)) for weight in network.get_weights())
    executor = InProcess()
    BerrutTrainer(network, 4, 8, executor=executor).fit(*data, batch_size=32, epochs=1, verbose=0)
    planned = berrut_step(8, 8, 4, weights, 6 + 3, 32, 1e3)
    assert executor.bytes_moved == 2 * planned.received
    executor = InProcess()
    ring = [(0, 1), (1, 2), (2, 3), (3, 0)]
    trainer = NetworkTrainer(network, ring, executor=executor)
    trainer.fit(split(*data, 4), epochs=1, steps_per_epoch=5, verbose=0)
    own = 2 * weights * 2 * WORD  # an agent's own z and y, which go nowhere on real machines
    looked_at = 4 * 3 * weights * 2 * WORD
    planned = network_step(4, 2, weights, 16, 1e3)
    assert executor.bytes_moved - looked_at == 5 * 4 * (planned.received + own)


def test_times_are_the_sum_of_their_parts():
    code = CodeNet(2, 2)
    cost = coded_step(code, (64, 32), 10, QUIET)
    products = 2 * 10 * 33 * 16  # a block is 33 x 16: with the bias 65 rows in two
    by_hand = 2 * products / 1e9 + 3 * 1e-3 + 8 * 1e-5 + 8 * 10 * 16 * WORD / 1e9
    assert cost.seconds == pytest.approx(by_hand)
    assert cost.operations == 2 * products
    one_core = coded_step(code, (64, 32), 10, Machine(**{**vars(QUIET), "cores": 1}))
    assert one_core.seconds - cost.seconds == pytest.approx(11 * (2 * products / 1e9 + 3 * 1e-3))
    waiting = [berrut_step(30, count, 10, 1000, 100, 300, 1e6, Machine(jitter=2.0)).seconds for count in (20, 30)]
    assert waiting[0] < waiting[1]
