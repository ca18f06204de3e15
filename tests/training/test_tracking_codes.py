"""What MLflow gets of a coded training: the code, the faults, and every counter of every epoch."""

import keras
import mlflow
import pytest

import axtrain as ax
from axtrain.coded.model import ALL_EVENTS

pytestmark = pytest.mark.eager


def test_counters_and_codes_are_logged(experiment, network, data):
    code = ax.coded.CodeNet(2, 2, 1)
    faults = ax.coded.SoftErrors(rate=0.02, where=("forward", "update"), kind="random", seed=2)
    coded = ax.coded.convert(network, code, faults)
    coded.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    kept = coded.fit(*data, epochs=2, batch_size=50, verbose=0, callbacks=[ax.callbacks.MLflow("coded")]).history
    (run,) = mlflow.search_runs([experiment], output_format="list")
    expected = {"code": repr(code), "code.nodes": "12", "faults.rate": "0.02", "faults.where": "forward, update"}
    assert run.data.params | expected == run.data.params
    client = mlflow.MlflowClient()
    for name in ALL_EVENTS:
        logged = client.get_metric_history(run.info.run_id, name)
        assert [metric.value for metric in sorted(logged, key=lambda metric: metric.step)] == kept[name]
        assert sum(kept[name]) == coded.events[name]
    assert coded.events["corrected"] > 0
