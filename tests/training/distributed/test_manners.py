"""What people see of a training on many machines: progress, and MLflow."""

import re

import keras
import mlflow
import numpy as np
import pytest

import axtrain as ax
from axtrain.training.distributed import BerrutTrainer, CodedTrainer, InProcess, NetworkTrainer, Trouble, split
from axtrain.training.distributed.losses import one_hot


def problem():
    generator = np.random.default_rng(0)
    x = generator.random((160, 8)).astype("float32")
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(6, "relu"), keras.layers.Dense(2, "softmax")]
    model = keras.Sequential([keras.Input((8,)), *layers])
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model, x, (x.sum(axis=1) > 4).astype("int64")


def coded(model, executor):
    return CodedTrainer(model, ax.coded.CodeNet(1, 2, 1), executor)


def berrut(model, executor):
    return BerrutTrainer(model, 2, 5, executor=executor)


@pytest.mark.parametrize(("make", "node"), [(coded, "node-1"), (berrut, "worker-1")])
def test_the_bar_says_who_is_alive_late_and_replaced(make, node, capsys):
    model, x, y = problem()
    method = "forward" if make is coded else "gradient"
    with InProcess(troubles=[Trouble(node, "kill", method, step=2)]) as executor:
        history = make(model, executor).fit(x, y, epochs=2, verbose=1).history
    assert history["replaced"] == [1, 0] and history["late"] == [0, 0]
    shown = capsys.readouterr().out.split("Epoch 2/2")[0]
    assert "replaced: " in shown and "late: " in shown
    nodes = {float(n) for n in re.findall(r"alive: ([0-9.]+)", shown)}
    assert max(nodes) == (8 if make is coded else 5)


def test_a_bar_of_agents(capsys):
    model, x, y = problem()
    with InProcess(troubles=[Trouble("agent-2", "kill", "advance", step=3)]) as executor:
        trainer = NetworkTrainer(model, [(0, 1), (1, 2), (2, 3), (3, 0)], executor=executor)
        trainer.fit(split(x, y, 4), epochs=1, steps_per_epoch=5, verbose=1)
    shown = capsys.readouterr().out
    assert "agents: 3" in shown and "late: " in shown


def test_mlflow_logs_the_trainer_and_its_counters(tmp_path, monkeypatch, make_store):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "")  # set_experiment sets both, and would leave them
    monkeypatch.setattr(mlflow.tracking.fluent, "_active_experiment_id", None)
    mlflow.set_tracking_uri(make_store(tmp_path / "runs.db"))
    model, x, y = problem()
    try:
        experiment = mlflow.create_experiment("many", artifact_location=(tmp_path / "artifacts").as_uri())
        mlflow.set_experiment(experiment_id=experiment)
        with InProcess() as executor:
            coded(model, executor).fit(x, y, epochs=2, verbose=0, callbacks=[ax.callbacks.MLflow("coded")])
            berrut(model, executor).fit(x, y, epochs=1, verbose=0, callbacks=[ax.callbacks.MLflow("berrut")])
        NetworkTrainer(model, [(0, 1)]).fit(
            split(x, y, 2), epochs=1, verbose=0, callbacks=[ax.callbacks.MLflow("agents")]
        )
        runs = {run.info.run_name: run.data for run in mlflow.search_runs([experiment], output_format="list")}
    finally:
        mlflow.set_tracking_uri(None)
    expected = {"trainer": "CodedTrainer", "code": repr(ax.coded.CodeNet(1, 2, 1)), "nodes": "8", "epochs": "2"}
    assert runs["coded"].params | expected == runs["coded"].params
    assert {"loss", "accuracy", "alive", "late", "replaced", "regenerated"} <= set(runs["coded"].metrics)
    assert runs["berrut"].params["workers"] == "5" and runs["berrut"].metrics["alive"] == 5
    assert runs["agents"].params["surrogate"] == "full" and "disagreement" in runs["agents"].metrics


@pytest.mark.parametrize("labels", [[0, -1], [0, 3], [0.5, 1.0], [np.nan, 1.0]])
def test_labels_that_are_no_classes_are_refused(labels):
    """-1 would be the last class, 0.5 the first."""
    with pytest.raises(ValueError, match="class numbers from 0 to 2.*Received"):
        one_hot(np.array(labels), 3)
    np.testing.assert_array_equal(one_hot(np.array([[2.0], [0.0]]), 3), [[0, 0, 1], [1, 0, 0]])
