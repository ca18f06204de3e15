"""KerasTuner and scikit-learn search hardware parameters as they search any others, on real digits."""

from functools import partial

import keras
import numpy as np
import pytest
from keras.wrappers import SKLearnClassifier
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV

import axtrain as ax

CALIBRATION = 64


@pytest.fixture(scope="module")
def digits():
    """400 of the 1,797 pictures of 8 x 8 that scikit-learn ships, in [0, 1], in an order that does not depend on us."""
    pictures, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))[:400]
    return (pictures[order] / 16).astype(np.float32), labels[order]


def network(samples, multiplier, rate, strength=None, loss=keras.losses.SparseCategoricalCrossentropy):
    """A small classifier on the hardware that the search proposes, compiled."""
    keras.utils.set_random_seed(0)
    stack = [keras.layers.Dense(16, activation="relu", name="hidden"), keras.layers.Dense(10, name="out")]
    memory = ax.memories.BitErrors(rate=rate) if rate else None
    hardware = ax.Hardware(multiplier=ax.multipliers.get(multiplier), weight_memory=memory)
    model = ax.convert(keras.Sequential([keras.Input((64,)), *stack]), hardware, samples[:CALIBRATION])
    if strength is not None:
        model = ax.with_sensitivity(model, ax.OutputSensitivity(strength))
    model.compile(keras.optimizers.Adam(0.01), loss(from_logits=True), metrics=["accuracy"])
    return model


@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer:UserWarning")  # the best model's is new
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # KerasTuner 1.4 asks threads for their names the old way
@pytest.mark.slow  # of a kind with the grid search
def test_keras_tuner_searches_multiplier_rate_and_penalty(digits, tmp_path):
    tuner_of = pytest.importorskip("keras_tuner", reason="keras-tuner, which the test extra has, is absent")
    pytest.importorskip("tensorboard", reason="tensorboard, which KerasTuner imports and the test extra has, is absent")
    x, y = digits
    built = []

    def build(hp):
        chosen = {
            "multiplier": hp.Choice("multiplier", ["mitchell", "drum4"]),
            "rate": hp.Choice("rate", [0.0, 0.05]),
            "strength": hp.Float("strength", 1e-4, 1e-2, sampling="log"),
        }
        built.append((chosen, network(x, **chosen)))
        return built[-1][1]

    tuner = tuner_of.RandomSearch(
        build, objective="val_accuracy", max_trials=3, seed=3, directory=tmp_path, project_name="digits", overwrite=True
    )
    tuner.search(x[:300], y[:300], validation_data=(x[300:], y[300:]), epochs=2, batch_size=50, verbose=0)
    trials = tuner.oracle.get_best_trials(3)
    assert len(trials) == 3
    assert len({tuple(trial.hyperparameters.values.items()) for trial in trials}) == 3
    for chosen, model in built:  # what was proposed is what each network runs on
        hardware = model.get_layer("hidden").hardware
        assert hardware.multiplier.name == chosen["multiplier"]
        assert (hardware.weight_memory.rate if hardware.weight_memory else 0.0) == chosen["rate"]
        assert model.penalty.strength == chosen["strength"]
    best = tuner.get_best_hyperparameters()[0].values
    [loaded] = tuner.get_best_models()  # built anew, the weights read from the tuner's checkpoint
    assert loaded.get_layer("out").hardware.multiplier.name == best["multiplier"]
    assert np.mean(np.argmax(loaded.predict(x, verbose=0), axis=-1) == y) > 0.3  # 0.1 by guessing


@pytest.mark.eager
def test_grid_search_finds_that_fewer_bit_errors_are_better(digits):
    x, y = digits

    def build(X, y, multiplier, rate):
        return network(X, multiplier, rate, loss=keras.losses.CategoricalCrossentropy)  # the wrapper encodes labels

    # Functions, not `model_kwargs`: scikit-learn 1.5.0 takes a grid of dictionaries for descriptions of data types.
    grid = [
        partial(build, multiplier=name, rate=rate) for name, rate in (("exact", 0.0), ("drum4", 0.0), ("drum4", 0.4))
    ]
    estimator = SKLearnClassifier(grid[0], fit_kwargs={"epochs": 4, "batch_size": 25, "verbose": 0})
    search = GridSearchCV(estimator, {"model": grid}, cv=2, error_score="raise").fit(x, y)
    found = zip(search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True)
    scores = {tuple(given["model"].keywords.values()): score for given, score in found}
    # Each of 400 samples: a score's standard error is at most 0.025.
    assert scores["drum4", 0.0] > scores["drum4", 0.4] + 5 * 0.025 * 2**0.5
    assert scores["exact", 0.0] > scores["drum4", 0.4] + 5 * 0.025 * 2**0.5
    best = search.best_params_["model"].keywords
    hardware = search.best_estimator_.model_.get_layer("hidden").hardware
    assert (hardware.multiplier.name, hardware.weight_memory) == (ax.multipliers.get(best["multiplier"]).name, None)
