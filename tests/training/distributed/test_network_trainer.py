"""Agents without a centre: the tracking invariant, agreement, and the optimum of everybody's loss."""

import keras
import networkx as nx
import numpy as np
import pytest

from axtrain.coded.latency import MeasuredLatency
from axtrain.training.distributed import InProcess, NetworkTrainer, Trouble, split
from axtrain.training.distributed.graphs import edges_of, metropolis

AGENTS = 6
RING = nx.cycle_graph(AGENTS)


@pytest.fixture(scope="module")
def regression():
    """A linear model with noise: its ridge solution is known."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal((120, 4)).astype("float32")
    y = x @ np.array([[1.0], [-2.0], [0.5], [0.0]]) + 0.1 * generator.standard_normal((120, 1))
    return x, y.astype("float32")


def linear(loss="mse"):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", loss)
    return model


def ridge(x, y, strength):
    """``argmin mean (Xw + b - y)^2 + strength |(w, b)|^2``."""
    wide = np.concatenate([x, np.ones_like(x[:, :1])], axis=1).astype(float)
    return np.linalg.solve(wide.T @ wide / len(x) + strength * np.eye(5), wide.T @ y.astype(float) / len(x))[:, 0]


def flat(model):
    return np.concatenate([weight.reshape(-1) for weight in model.get_weights()])


def test_metropolis_weights_are_doubly_stochastic():
    graph = nx.gnp_random_graph(12, 0.3, seed=1)
    weights = metropolis(edges_of(graph, range(12)))
    matrix = np.array([[weights[i].get(j, 0.0) for j in range(12)] for i in range(12)])
    np.testing.assert_allclose(matrix, matrix.T)
    np.testing.assert_allclose(matrix.sum(axis=0), 1.0)
    assert (matrix >= 0).all()
    degree = dict(graph.degree)
    for i, j in graph.edges:
        assert matrix[i, j] == pytest.approx(1 / (1 + max(degree[i], degree[j])))


@pytest.mark.parametrize("surrogate, settings", [("full", {"tau": 4.0}), ("partial", {"tau": 0.1, "blocks": 1})])
def test_agents_reach_the_optimum_of_everybodys_loss(regression, surrogate, settings):
    trainer = NetworkTrainer(linear(), RING, surrogate, keras.regularizers.L2(0.05), step=0.3, decay=0.001, **settings)
    history = trainer.fit(split(*regression, AGENTS), epochs=15, steps_per_epoch=20, verbose=0).history
    np.testing.assert_allclose(flat(trainer.model), ridge(*regression, 0.05), atol=2e-3)
    assert max(history["tracking"]) < 1e-9
    assert history["disagreement"][-1] < 1e-3 < history["disagreement"][0]


@pytest.mark.slow  # what the others reach, by a method to compare them with
def test_decentralised_gradient_descent_does_not_get_there(regression):
    """Agents' own gradients without tracking, at a step of fixed size: near, and no nearer."""
    common = {"tau": 60.0, "step": 0.6, "decay": 0.0}
    data = split(*regression, AGENTS)
    skewed = [(x + i, y + 3 * i) for i, (x, y) in enumerate(data)]
    x, y = (np.concatenate(parts) for parts in zip(*skewed, strict=True))
    found = {}
    for surrogate in ("full", "descent"):
        trainer = NetworkTrainer(linear(), RING, surrogate, keras.regularizers.L2(0.05), **common)
        trainer.fit(skewed, epochs=1, steps_per_epoch=500, verbose=0)
        found[surrogate] = np.abs(flat(trainer.model) - ridge(x, y, 0.05)).max()
    assert found["full"] < 0.3 * found["descent"]


def test_an_l1_penalty_gives_zeros(regression):
    found = {}
    for surrogate in ("full", "partial"):
        trainer = NetworkTrainer(linear(), RING, surrogate, keras.regularizers.L1(0.3), tau=4.0, step=0.3, decay=0.001)
        trainer.fit(split(*regression, AGENTS), epochs=1, steps_per_epoch=150, verbose=0)
        found[surrogate] = flat(trainer.model)
    np.testing.assert_allclose(found["full"], found["partial"], atol=5e-3)
    assert np.abs(found["full"][3]) < 1e-3 < np.abs(found["full"][0])
    # The optimum's own condition: gradients of the loss are within the penalty's slope.
    x, y = (part.astype(float) for part in regression)
    wide = np.concatenate([x, np.ones_like(x[:, :1])], axis=1)
    slope = 2 * wide.T @ (wide @ found["partial"][:, None] - y) / len(x)
    assert np.abs(slope).max() < 0.3 * 1.02


def test_blocks_side_by_side_reach_the_same(regression):
    found = {}
    for blocks in (1, 3):
        trainer = NetworkTrainer(linear(), RING, "partial", tau=1.0, step=0.3, decay=0.0, blocks=blocks)
        trainer.fit(split(*regression, AGENTS), epochs=1, steps_per_epoch=100, verbose=0)
        found[blocks] = flat(trainer.model)
    np.testing.assert_allclose(found[3], found[1], atol=1e-3)


@pytest.mark.parametrize("surrogate, tau", [("full", 2.0), ("partial", 0.05)])
def test_classification_on_a_changing_graph(data, surrogate, tau):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(5, "tanh"), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((6,)), *layers])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=["accuracy"])
    graphs = [nx.path_graph(AGENTS), nx.star_graph(AGENTS - 1), [(0, 5), (1, 4), (2, 3)]]
    trainer = NetworkTrainer(model, lambda step: graphs[step % 3], surrogate, tau=tau, step=0.3, decay=0.002)
    history = trainer.fit(split(*data, AGENTS), epochs=3, steps_per_epoch=20, verbose=0, validation_data=data).history
    assert history["val_accuracy"][-1] > 0.8
    assert history["loss"][-1] < 0.7 * history["loss"][0]
    assert max(history["tracking"]) < 1e-9


def test_an_agent_and_edges_lost_midway(regression):
    """Those who are left reach the optimum of their own data."""
    data = split(*regression, AGENTS)
    lost = Trouble("agent-2", "kill", "advance", step=40)
    complete = nx.complete_graph(AGENTS)
    trainer = NetworkTrainer(
        linear(), lambda step: complete if step < 60 else nx.cycle_graph(AGENTS) if step < 90 else complete,
        "full", keras.regularizers.L2(0.05), tau=4.0, step=0.3, decay=0.001, executor=InProcess(troubles=[lost]),
    )  # fmt: skip
    history = trainer.fit(data, epochs=15, steps_per_epoch=20, verbose=0).history
    assert (history["agents"][0], history["agents"][-1]) == (6, 5)
    assert max(history["tracking"][3:]) < 1e-9
    x, y = (np.concatenate([part for i, part in enumerate(parts) if i != 2]) for parts in zip(*data, strict=True))
    # Losses keep their share of all samples: 100 of 120 are left.
    np.testing.assert_allclose(flat(trainer.model), ridge(x, y, 0.05 * 120 / 100), atol=3e-3)


def test_a_late_agent_comes_back_and_nothing_of_its_knowledge_is_lost(regression):
    slow = InProcess(
        latency=MeasuredLatency((0.1,)), troubles=[Trouble("agent-1", "sleep", "advance", 20, seconds=7.0)]
    )
    trainer = NetworkTrainer(
        linear(), nx.complete_graph(AGENTS), "full", tau=4.0, step=0.3, decay=0.001, executor=slow, deadline=1.0
    )
    history = trainer.fit(split(*regression, AGENTS), epochs=10, steps_per_epoch=20, verbose=0).history
    assert history["agents"] == [6] * 10
    assert 2 <= np.isnan(history["tracking"]).sum() <= 5  # while it was away
    assert history["tracking"][-1] < 1e-9
    np.testing.assert_allclose(flat(trainer.model), ridge(*regression, 0.0), atol=5e-3)


def test_a_killed_driver_goes_on_with_another_number_of_agents(regression, tmp_path):
    options = {"steps_per_epoch": 50, "verbose": 0, "checkpoint": tmp_path / "state.npz"}
    made = {"tau": 4.0, "step": 0.3, "decay": 0.001}
    NetworkTrainer(linear(), RING, **made).fit(split(*regression, AGENTS), epochs=2, **options)
    trainer = NetworkTrainer(linear(), nx.cycle_graph(4), **made)
    history = trainer.fit(split(*regression, 4), epochs=6, **options)
    assert len(history.history["loss"]) == 6
    np.testing.assert_allclose(flat(trainer.model), ridge(*regression, 0.0), atol=3e-3)


def test_what_cannot_work_is_refused(network, regression):
    with pytest.raises(ValueError, match="surrogate"):
        NetworkTrainer(linear(), RING, "linear")
    with pytest.raises(ValueError, match="regularizer"):
        NetworkTrainer(linear(), RING, regularizer="l2")
    with pytest.raises(ValueError, match="from_logits"):
        NetworkTrainer(network, RING, "partial")
    with pytest.raises(ValueError, match="several pieces"):
        NetworkTrainer(linear(), [(0, 1), (2, 3)]).fit(split(*regression, 4), epochs=1, verbose=0)
    with pytest.raises(ValueError, match="no agent 5"):
        NetworkTrainer(linear(), nx.cycle_graph(5)).fit(split(*regression, 6), epochs=1, verbose=0)
