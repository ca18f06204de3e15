"""Berrut approximated computing: formulas against the theory page, and training with whoever answers."""

import keras
import numpy as np
import pytest

from axtrain.coded import Berrut
from axtrain.coded.berrut import barycentric
from axtrain.coded.latency import MeasuredLatency
from axtrain.training.distributed import (
    BerrutGradients,
    BerrutTrainer,
    InProcess,
    Repetition,
    berrut_map,
)


def errors(code, lost, trials=40, seed=0):
    """Relative errors of tanh for normal inputs, with `lost` results missing."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(trials):
        x = generator.standard_normal((code.groups, 50))
        received = generator.permutation(code.workers)[lost:]
        decoded = code.decode(np.tanh(code.encode(x))[received], received)
        found.append(np.linalg.norm(decoded - np.tanh(x)) / np.linalg.norm(np.tanh(x)))
    return np.array(found)


@pytest.mark.parametrize(
    "groups, workers, lost, berrut, smooth", [(4, 64, 6, 1.7e-2, 2e-5), (8, 256, 25, 4.9e-3, 4e-6)]
)
def test_errors_are_the_theory_pages(groups, workers, lost, berrut, smooth):
    assert np.median(errors(Berrut(groups, workers), lost)) == pytest.approx(berrut, rel=0.3)
    assert np.median(errors(Berrut(groups, workers, "floater_hormann"), lost)) == pytest.approx(smooth, rel=0.7)


def test_what_the_interpolants_keep():
    """Constants exactly, with any survivors; u goes through the inputs; the order of answers does not matter."""
    generator = np.random.default_rng(1)
    for code in (Berrut(3, 9), Berrut(5, 12, "floater_hormann", 2), Berrut(1, 4)):
        np.testing.assert_allclose(code.encoder.sum(axis=1), 1.0)
        received = generator.permutation(code.workers)[: code.workers - 2]
        np.testing.assert_allclose(code.decoding(received).sum(axis=1), 1.0)
        results = generator.standard_normal((code.workers - 2, 4))
        order = generator.permutation(code.workers - 2)
        np.testing.assert_allclose(code.decode(results, received), code.decode(results[order], received[order]))
    same = Berrut(4, 4 * 9 + 1)  # its points hold an input's: no division by zero
    hit = np.isclose(same.points[:, None], same.inputs[None], atol=1e-14)
    assert np.isfinite(same.encoder).all()
    np.testing.assert_array_equal(same.encoder[hit.any(axis=1)], hit[hit.any(axis=1)])


def test_floater_hormann_reproduces_polynomials_of_its_degree():
    code = Berrut(3, 14, "floater_hormann", 3)
    received = np.array([0, 2, 3, 5, 6, 9, 10, 11, 13])
    points = code.points[received]
    for power in range(4):
        np.testing.assert_allclose(code.decode(points**power, received), code.inputs**power, atol=1e-12)
    plain = Berrut(3, 14)
    assert np.abs(plain.decode(points**3, received) - plain.inputs**3).max() > 1e-4


@pytest.mark.parametrize("groups", [2, 4, 8])
@pytest.mark.parametrize("workers", [17, *(pytest.param(n, marks=pytest.mark.slow) for n in (32, 65)), 129])
@pytest.mark.parametrize("lost", [0, 1, 3, 8])
def test_the_error_stays_under_the_bound(groups, workers, lost):
    """For tanh of u along a line: derivatives of g by finite differences on a fine grid."""
    code = Berrut(groups, workers)
    generator = np.random.default_rng(groups * 1000 + workers + lost)
    for _ in range(20):
        x = generator.uniform(-1, 1, groups)
        z = np.linspace(-1, 1, 20_001)
        fine = Berrut(groups, 2)
        object.__setattr__(fine, "points", z)
        g = np.tanh(fine.encoder @ x)
        first = np.abs(np.gradient(g, z)).max()
        second = np.abs(np.gradient(np.gradient(g, z), z)).max()
        received = generator.permutation(workers)[lost:]
        found = code.decode(np.tanh(code.encode(x))[received], received)
        assert np.abs(found - np.tanh(x)).max() <= code.bound(lost, second, first)


def test_signs_by_the_workers_own_numbers_fail():
    """What the paper's text may be misread as: signs that do not alternate among the received points have poles."""
    code = Berrut(4, 256)
    generator = np.random.default_rng(0)
    wrong, right = [], []
    for _ in range(40):
        x = generator.standard_normal((4, 50))
        received = np.sort(generator.permutation(256)[25:])
        results, size = np.tanh(code.encode(x))[received], np.linalg.norm(np.tanh(x))
        weights = barycentric(code.points[received], (-1.0) ** received, code.inputs)
        wrong.append(np.linalg.norm(weights @ results - np.tanh(x)) / size)
        right.append(np.linalg.norm(code.decode(results, received) - np.tanh(x)) / size)
    assert np.median(wrong) > 8 * np.median(right)
    assert np.max(wrong) > 100 * np.max(right)


def test_inference_of_a_whole_model_on_coded_inputs():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(8, "tanh"), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((5,)), *layers])
    batches = np.random.default_rng(0).standard_normal((4, 10, 5)).astype("float32")
    expected = np.stack([model.predict(batch, verbose=0) for batch in batches])
    found = berrut_map(model, batches, workers=80, wait_for=70)
    assert np.linalg.norm(found - expected) < 0.05 * np.linalg.norm(expected)
    with pytest.raises(RuntimeError, match="deadline"):
        slow = InProcess(latency=MeasuredLatency((5.0,)))
        berrut_map(np.sin, np.ones((2, 3)), workers=4, executor=slow, deadline=1.0)


def test_a_repetition_code_is_exact_where_every_part_has_answered():
    code = Repetition(4, 3)
    parts = np.random.default_rng(0).standard_normal((4, 7))
    results = code.encode(parts)
    for received in ([0, 1, 2, 3], [3, 0, 5, 10, 4, 8], list(range(12))):
        np.testing.assert_allclose(code.weights(np.array(received)) @ results[received], parts.mean(axis=0))
    dropped = code.weights(np.array([0, 4, 1])) @ results[[0, 4, 1]]
    np.testing.assert_allclose(dropped, parts[:2].mean(axis=0))


FIT = {"batch_size": 32, "epochs": 12, "verbose": 0, "seed": 1}


def test_training_with_stragglers_learns_as_training_without(network, data):
    network.compile(keras.optimizers.Adam(0.05), "sparse_categorical_crossentropy", metrics=["accuracy"])
    whole = BerrutTrainer(network, code=Repetition(4))
    expected = whole.fit(*data, **FIT).history["loss"]
    plain = keras.models.clone_model(network)
    plain.set_weights(network.get_weights())
    plain.compile_from_config(network.get_compile_config())
    losses = []
    for step in range(2):
        order = np.random.default_rng([1, 0]).permutation(64)[32 * step :][:32]
        losses.append(float(plain.train_on_batch(data[0][order], data[1][order], return_dict=True)["loss"]))
        plain.reset_metrics()
    assert expected[0] == pytest.approx(np.mean(losses), rel=1e-4)  # uncoded, it is Keras's own step
    slow = InProcess(latency=MeasuredLatency((1.0, 1.0, 1.0, 9.0)), seed=2)
    trainer = BerrutTrainer(network, groups=4, workers=24, wait_for=18, executor=slow)
    history = trainer.fit(*data, validation_data=data, **FIT)
    assert trainer.events["late"] > 50
    assert slow.seconds < 9.0 * 24
    assert history.history["val_accuracy"][-1] > 0.8
    assert history.history["loss"][-1] < 0.6 * history.history["loss"][0]
    assert whole.model.evaluate(*data, verbose=0)[1] > 0.8


def test_a_killed_driver_goes_on_with_another_number_of_workers(network, data, tmp_path):
    kept = {"checkpoint": tmp_path / "state.npz", "checkpoint_every": 1}
    code = BerrutGradients(Berrut(2, 16))
    whole = BerrutTrainer(network, code=code)
    whole.fit(*data, **{**FIT, "epochs": 3})
    BerrutTrainer(network, code=code).fit(*data, **{**FIT, "epochs": 2}, **kept)
    resumed = BerrutTrainer(network, code=code)
    history = resumed.fit(*data, **{**FIT, "epochs": 3}, **kept)
    assert len(history.history["loss"]) == 3
    for a, b in zip(resumed.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    BerrutTrainer(network, 2, 5).fit(*data, **{**FIT, "epochs": 4}, **kept)


def test_what_cannot_work_is_refused(network, data):
    with pytest.raises(ValueError, match="wait_for"):
        BerrutTrainer(network, 2, 4, wait_for=5)
    with pytest.raises(ValueError, match="each of 8 groups"):
        BerrutTrainer(network, 8, 16).fit(*data, batch_size=4)
    normalised = keras.Sequential([keras.Input((6,)), keras.layers.BatchNormalization(), keras.layers.Dense(3)])
    normalised.compile("sgd", "mse")
    with pytest.raises(ValueError, match="batch normalisation"):
        BerrutTrainer(normalised)
    for bad in ({"groups": 0}, {"workers": 1}, {"decoder": "lagrange"}):
        with pytest.raises(ValueError, match="Received"):
            Berrut(**{"groups": 2, "workers": 4, **bad})
    with pytest.raises(ValueError, match="at least one"):
        Berrut(2, 4).decoding(np.array([], int))
