import json

import fresh
import keras
import mlflow
import numpy as np
import pytest
from mlflow.artifacts import download_artifacts

import axtrain as ax
from axtrain.training.evaluation import Evaluation
from axtrain.training.pyfunc import Predictor, _load_pyfunc

# MLflow's own, once per process, while `mlflow.pyfunc` is imported:
pytestmark = [
    pytest.mark.eager,
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
]

drum4, drum6 = (ax.Hardware(multiplier=ax.multipliers.get(name)) for name in ("drum4", "drum6"))


def fit(model, data, callback, epochs=2, *others):
    model.compile(keras.optimizers.Adam(0.002), "sparse_categorical_crossentropy", metrics=["accuracy"])
    callbacks = [callback, *others]
    return model.fit(*data, epochs=epochs, batch_size=50, verbose=0, validation_data=data, callbacks=callbacks).history


def runs(experiment, filter_string=""):
    return mlflow.search_runs([experiment], filter_string, output_format="list", order_by=["start_time ASC"])


def history(run, key):
    found = mlflow.MlflowClient().get_metric_history(run.info.run_id, key)
    return [(metric.step, metric.value) for metric in sorted(found, key=lambda metric: metric.step)]


def artifact(run, name):
    with open(download_artifacts(run_id=run.info.run_id, artifact_path=name)) as file:
        return json.load(file)


def test_a_run_of_its_own(experiment, network, data):
    kept = fit(network, data, ax.callbacks.MLflow("first"), 3)
    assert mlflow.active_run() is None
    (run,) = runs(experiment)
    assert (run.info.run_name, run.info.status) == ("first", "FINISHED")
    expected = {"epochs": "3", "steps": "3", "optimizer": "Adam"}
    assert run.data.params | expected == run.data.params
    assert float(run.data.params["learning_rate"]) == pytest.approx(0.002)
    assert set(run.data.metrics) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    for key, values in kept.items():
        assert history(run, key) == list(enumerate(values))


def test_a_plain_model_logs_no_hardware(experiment, network, data):
    fit(network, data, ax.callbacks.MLflow(), 1)
    (run,) = runs(experiment)
    assert not any(key.startswith("hardware") for key in run.data.params)
    assert mlflow.MlflowClient().list_artifacts(run.info.run_id) == []


def test_one_callback_serves_two_fits_in_two_runs(experiment, network, data):
    callback = ax.callbacks.MLflow()
    fit(network, data, callback, 1)
    fit(network, data, callback, 2)
    assert [run.data.params["epochs"] for run in runs(experiment)] == ["1", "2"]


def test_it_joins_an_active_run_and_leaves_it_open(experiment, network, data):
    with mlflow.start_run() as active:
        mlflow.log_param("mine", 1)
        fit(network, data, ax.callbacks.MLflow("ignored"), 1)
        assert mlflow.active_run().info.run_id == active.info.run_id
        mlflow.log_metric("later", 2.0)
    (run,) = runs(experiment)
    assert run.data.params["mine"] == "1"
    assert run.data.params["epochs"] == "1"
    assert run.data.metrics["later"] == 2.0


def test_fits_of_one_run_get_prefixes(experiment, network, data):
    with mlflow.start_run():
        kept = [fit(network, data, ax.callbacks.MLflow(), epochs) for epochs in (1, 2, 3)]
    (run,) = runs(experiment)
    params = run.data.params
    assert (params["epochs"], params["fit2.epochs"], params["fit3.epochs"]) == ("1", "2", "3")
    for prefix, values in zip(("", "fit2.", "fit3."), kept, strict=True):
        assert history(run, prefix + "loss") == list(enumerate(values["loss"]))


def test_a_prefix_of_ones_own(experiment, network, data):
    with mlflow.start_run():
        fit(network, data, ax.callbacks.MLflow(prefix="warm_up."), 1)
        fit(network, data, ax.callbacks.MLflow(prefix="main."), 2)
    (run,) = runs(experiment)
    assert (run.data.params["warm_up.epochs"], run.data.params["main.epochs"]) == ("1", "2")
    assert {"warm_up.loss", "main.loss"} <= set(run.data.metrics)
    assert "loss" not in run.data.metrics


def test_hardware_is_written_whole_and_searchable(experiment, network, data):
    memory = ax.memories.NearThresholdSRAM(voltage=0.56)
    hardware = ax.Hardware(multiplier=ax.multipliers.get("drum4"), weight_memory=memory)
    fit(ax.convert(network, hardware, calibration=data[0]), data, ax.callbacks.MLflow("drum"), 1)
    fit(ax.convert(network, drum6, calibration=data[0]), data, ax.callbacks.MLflow("other"), 1)

    (run,) = runs(experiment, "params.`hardware.multiplier` = 'drum4'")
    assert run.info.run_name == "drum"
    assert run.data.params["hardware.voltage"] == "0.56"
    assert float(run.data.params["hardware.bit_error_rate"]) == memory.rate
    assert (run.data.params["hardware.activation_bits"], run.data.params["hardware.weight_bits"]) == (
        "8",
        "8",
    )
    entry = artifact(run, "hardware.json")
    assert ax.Hardware.from_dict(entry) == hardware

    (other,) = runs(experiment, "params.`hardware.multiplier` = 'drum6'")
    assert other.data.params["hardware.bit_error_rate"] == "0.0"
    assert "hardware.voltage" not in other.data.params


def test_several_hardware_in_one_model(experiment, network, data):
    model = ax.convert(network, drum4, calibration=data[0], overrides={"classes": drum6})
    fit(model, data, ax.callbacks.MLflow(), 1)
    (run,) = runs(experiment)
    assert run.data.params["hardware0.multiplier"] == "drum4"
    assert run.data.params["hardware1.multiplier"] == "drum6"
    described = [artifact(run, f"hardware{number}.json") for number in (0, 1)]
    assert artifact(run, "hardware_of_layers.json") == {"hardware0": ["hidden"], "hardware1": ["classes"]}
    assert [ax.Hardware.from_dict(entry) for entry in described] == [drum4, drum6]


def test_the_same_hardware_twice_in_one_run(experiment, network, data):
    model = ax.convert(network, drum4, calibration=data[0])
    with mlflow.start_run():
        fit(model, data, ax.callbacks.MLflow(), 1)
        fit(model, data, ax.callbacks.MLflow(), 1)
    (run,) = runs(experiment, "params.`hardware.multiplier` = 'drum4'")
    assert "fit2.epochs" in run.data.params


def test_other_hardware_in_the_second_fit_of_a_run(experiment, network, data):
    """A parameter cannot change, so the second hardware goes under the second fit's prefix."""
    with mlflow.start_run():
        for hardware in (drum4, drum6):
            fit(ax.convert(network, hardware, calibration=data[0]), data, ax.callbacks.MLflow(), 1)
    (run,) = runs(experiment)
    assert run.info.status == "FINISHED"
    assert run.data.params["hardware.multiplier"] == "drum4"
    assert run.data.params["fit2.hardware.multiplier"] == "drum6"
    names = ("hardware.json", "fit2.hardware.json")
    written = [ax.Hardware.from_dict(artifact(run, name)) for name in names]
    assert written == [drum4, drum6]


def test_a_fit_that_raises_marks_the_run_failed(experiment, network, data):
    class Broken(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise ArithmeticError("stop")

    with pytest.raises(ArithmeticError), mlflow.start_run():
        fit(network, data, ax.callbacks.MLflow(), 1, Broken())
    assert mlflow.active_run() is None
    assert [run.info.status for run in runs(experiment)] == ["FAILED"]


def test_evaluation_as_metrics_and_table(experiment):
    measured = Evaluation(np.array([0.9, 0.8, 0.85]), 0, 100)
    with mlflow.start_run():
        ax.tracking.log_evaluation(measured, "after")
    (run,) = runs(experiment)
    assert run.data.metrics == {"after.mean": measured.mean, "after.std": measured.std, "after.worst": 0.8}
    table = mlflow.load_table("after_chips.json", run_ids=[run.info.run_id])
    assert table["chip"].tolist() == [0, 1, 2]
    assert table["accuracy"].tolist() == [0.9, 0.8, 0.85]


FRESH = """
import sys
import mlflow, numpy as np
uri, model_uri, inputs, outputs = sys.argv[1:]
mlflow.set_tracking_uri(uri)
loaded = mlflow.pyfunc.load_model(model_uri)
np.save(outputs, loaded.predict(np.load(inputs)))
print(loaded.metadata.signature.inputs.to_dict()[0]["tensor-spec"]["shape"])
print(loaded.input_example.shape)
"""


@pytest.mark.graph
def test_a_logged_model_predicts_the_same_in_a_fresh_process(experiment, noisy, data, tmp_path):
    x = data[0][:10]
    ax.set_chip(noisy, 4)
    expected = noisy.predict(x, verbose=0)
    with mlflow.start_run():
        info = ax.tracking.log_model(noisy, "resilient", example=x[:2])
    folder = tmp_path / "downloaded"
    download_artifacts(artifact_uri=info.model_uri, dst_path=str(folder))
    names = [path.name for path in folder.rglob("*") if path.is_file()]
    assert "model.keras" in names
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".cloudpickle", ".joblib"))]
    assert "pickle" not in (folder / "requirements.txt").read_text()
    assert not [path for path in folder.rglob("*") if path.is_file() and path.read_bytes()[:1] == b"\x80"]

    np.save(tmp_path / "x.npy", x)
    arguments = [mlflow.get_tracking_uri(), info.model_uri, str(tmp_path / "x.npy"), str(tmp_path / "y.npy")]
    done = fresh.run(FRESH, *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["(-1, 6)", "(2, 6)"]
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), expected)


def test_the_callback_logs_the_trained_model(experiment, noisy, data):
    fit(noisy, data, ax.callbacks.MLflow(log_model=True), 1)
    (run,) = runs(experiment)
    (logged,) = mlflow.search_logged_models([experiment], output_format="list")
    assert (logged.name, logged.source_run_id) == ("model", run.info.run_id)
    loaded = mlflow.pyfunc.load_model(logged.model_uri)
    np.testing.assert_array_equal(loaded.predict(data[0]), noisy.predict(data[0], verbose=0))


def test_the_loader_takes_file_and_folder_arrays_and_frames(network, data, tmp_path):
    import pandas

    network.save(tmp_path / "model.keras")
    x = data[0][:5]
    expected = network.predict(x, verbose=0)
    for path in (tmp_path, tmp_path / "model.keras"):
        loaded = _load_pyfunc(str(path))
        assert isinstance(loaded, Predictor)
        np.testing.assert_array_equal(loaded.predict(x), expected)
    np.testing.assert_array_equal(loaded.predict(pandas.DataFrame(x)), expected)
    np.testing.assert_array_equal(loaded.predict(x.astype("float64"), params={}), expected)
