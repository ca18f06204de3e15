"""Tracking with a real MLflow server: what is logged, kills on both sides, and servers that are down."""

import json
import os
import shutil
import signal
import socket
import sys
import threading

import fresh
import keras
import mlflow
import numpy as np
import pytest
from shell import axtrain, fine, refused

import axtrain as ax
from axtrain.training.evaluation import Evaluation
from axtrain.training.tracking import TrackingWarning
from axtrain.training.tracking.store import at

pytestmark = [
    pytest.mark.eager,
    # MLflow's own, once per process, while `mlflow.pyfunc` is imported:
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
]


@pytest.fixture
def client(server):
    return mlflow.MlflowClient(server.uri)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    """An own working folder, and MLflow's settings as they were."""
    before = settings()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    yield
    assert mlflow.active_run() is None
    monkeypatch.undo()
    assert settings() == before


def settings():
    return {key: value for key, value in os.environ.items() if key.startswith("MLFLOW_")}, mlflow.get_tracking_uri()


drum4 = ax.multipliers.get("drum4")
candidates = [ax.Hardware(multiplier=ax.multipliers.get(name), name=name) for name in ("exact", "broken_array_2_4")]


@pytest.fixture
def near(network, data):
    """The network on an approximate multiplier and a memory near threshold."""
    memory = ax.memories.NearThresholdSRAM(voltage=0.5)
    return ax.convert(network, ax.Hardware(multiplier=drum4, weight_memory=memory), calibration=data[0])


def fit(model, data, callbacks, epochs=3, **options):
    keras.utils.set_random_seed(3)
    model.compile(keras.optimizers.Adam(0.002), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model.fit(*data, epochs=epochs, batch_size=50, verbose=0, callbacks=callbacks, **options).history


def history(client, run_id, key):
    return [(metric.step, metric.value) for metric in client.get_metric_history(run_id, key)]


def everything(client, run_id):
    """All that a run and its children hold, but for times: to see that nothing was doubled or changed."""
    run = client.get_run(run_id)
    models = client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run_id}'")
    return {
        "name": run.info.run_name,
        "status": run.info.status,
        "params": run.data.params,
        "metrics": {key: sorted(map(repr, history(client, run_id, key))) for key in run.data.metrics},
        "tags": {key: value for key, value in run.data.tags.items() if key != "axtrain.made_as"},
        "artifacts": sorted(paths(client, run_id)),
        "models": sorted((model.name, str(model.status)) for model in models),
        "children": sorted((everything(client, child) for child in children(client, run)), key=str),
    }


def paths(client, run_id, folder=None):
    with at(client.tracking_uri):  # MLflow 3.1's client forgets its own
        items = client.list_artifacts(run_id, folder)
    for item in items:
        if item.is_dir:
            yield from paths(client, run_id, item.path)
        else:
            yield item.path, item.file_size


def children(client, run):
    found = client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'")
    return [child.info.run_id for child in found]


def named(client, run, name):
    (child,) = [one for one in map(client.get_run, children(client, run)) if one.info.run_name == name]
    return child


def fetch(server, run_id, name, folder=None):
    with at(server.uri):
        return mlflow.MlflowClient().download_artifacts(run_id, name, folder)


def read(server, run_id, name):
    path = fetch(server, run_id, name)
    with open(path, "rb") as file:
        return file.read()


# what is logged


class Whole:
    """A run with one of everything; `log` does it again on the same run."""

    def __init__(self, server, model, network, data):
        x, y = data
        self.server, self.model, self.network, self.data = server, model, network, data
        self.evaluation = ax.evaluate(model, x, y, chips=3, verbose=False)
        self.sweep = ax.sweep(model, x, y, voltages=(0.45, 0.9), chips=2, verbose=False)
        self.search = ax.search(network, x, y, candidates=candidates, budget=1.0, confirm=2, chips=1, verbose=False)
        ax.export(model, "deploy", accuracy=self.evaluation)

    def log(self, run_id=None):
        with ax.tracking.run("whole", experiment="whole", tracking_uri=self.server.uri, run_id=run_id) as run:
            fitted = keras.models.clone_model(self.network)
            fitted.set_weights(self.network.get_weights())
            self.history = fit(fitted, self.data, [run.callback()], 2)
            run.hardware(self.model)
            run.evaluation(self.evaluation)
            run.sweep(self.sweep)
            run.search(self.search)
            run.figure(self.sweep.plot(), "voltages")
            run.export("deploy")
            run.table({"layer": ["hidden"], "bits": np.array([8])}, "bits.json")
            self.info = run.model(self.model, self.data[0], registered_name="near-threshold")
            with run.child("fold 1") as fold:
                fold.log_metrics({"accuracy": 0.5}, step=4)
                mlflow.log_param("fold", 1)  # MLflow's own functions log to the innermost run
        return run.run_id


@pytest.fixture
def whole(server, near, network, data):
    return Whole(server, near, network, data)


def test_a_run_with_everything_and_the_same_again(server, client, whole, near, data, tmp_path):
    run_id = whole.log()
    run = client.get_run(run_id)
    assert (run.info.run_name, run.info.status) == ("whole", "FINISHED")

    # hardware: searchable, and as JSON
    memory = near.layers[0].hardware.weight_memory
    experiment = [run.info.experiment_id]
    wanted = "params.`hardware.multiplier` = 'drum4' and params.`hardware.voltage` = '0.5'"
    assert [found.info.run_id for found in client.search_runs(experiment, wanted)] == [run_id]
    assert client.search_runs(experiment, "params.`hardware.multiplier` = 'drum6'") == []
    assert run.data.params["hardware.weight_memory.fault"] == "persistent"
    assert float(run.data.params["hardware.bit_error_rate"]) == memory.rate
    assert ax.Hardware.from_dict(json.loads(read(server, run_id, "hardware.json"))) == near.layers[0].hardware

    # epochs
    for key, values in whole.history.items():
        assert history(client, run_id, key) == list(enumerate(values))

    # an evaluation below it
    child = named(client, run, "evaluate")
    assert child.info.status == "FINISHED"
    assert child.data.metrics["worst"] == whole.evaluation.worst == run.data.metrics["evaluate.worst"]
    assert (child.data.params["chips"], child.data.params["samples"]) == ("3", "150")
    table = json.loads(read(server, child.info.run_id, "chips.json"))
    assert table == {"columns": ["chip", "accuracy"], "data": list(map(list, enumerate(whole.evaluation.accuracies)))}
    with at(server.uri):
        shown = client.load_table(run.info.experiment_id, "chips.json", run_ids=[child.info.run_id])
    assert shown["accuracy"].tolist() == pytest.approx(whole.evaluation.accuracies.tolist(), rel=1e-12)
    again = Evaluation.from_dict(json.loads(read(server, child.info.run_id, "evaluation.json")))
    assert again.to_dict() == whole.evaluation.to_dict()

    # a sweep below it: a step for each voltage
    child = named(client, run, "sweep")
    assert history(client, child.info.run_id, "voltage") == [(0, 0.9), (1, 0.45)]
    means = [point.evaluation.mean for point in whole.sweep.points]
    assert history(client, child.info.run_id, "mean") == list(enumerate(means))
    assert len(json.loads(read(server, child.info.run_id, "chips.json"))["data"]) == 4
    assert json.loads(read(server, child.info.run_id, "sweep.json")) == json.loads(json.dumps(whole.sweep.to_dict()))
    assert read(server, child.info.run_id, "sweep.csv").startswith(b"voltage,")

    # a search below it: what it chose
    child = named(client, run, "search")
    for layer, name in whole.search.best.assignment.items():
        assert child.data.params[f"best.{layer}"] == name
    assert run.data.metrics["search.saving"] == whole.search.best.saving
    rows = json.loads(read(server, child.info.run_id, "points.json"))
    assert len(rows["data"]) == len(whole.search.confirmed)
    assert sum(row[rows["columns"].index("chosen")] for row in rows["data"]) == 1

    # figure, export, child of one's own
    names = dict(paths(client, run_id))
    assert read(server, run_id, "figures/voltages.png").startswith(b"\x89PNG")
    folder = fetch(server, run_id, "export", str(tmp_path))
    assert ax.read_export(folder).manifest["accuracy"]["mean"] == whole.evaluation.mean
    fold = named(client, run, "fold 1")
    assert (fold.data.params, fold.info.status) == ({"fold": "1"}, "FINISHED")
    assert history(client, fold.info.run_id, "accuracy") == [(4, 0.5)]

    # the same script on the same run: not a thing more
    before = everything(client, run_id)
    assert whole.log(run_id) == run_id
    after = everything(client, run_id)
    # The fit of a run that had ended well is a further fit.
    params, metrics = after["params"], after["metrics"]
    assert [metrics.pop(f"fit2.{key}") for key in whole.history] == [before["metrics"][key] for key in whole.history]
    assert {key: params.pop(key) for key in list(params) if key.startswith("fit2.")}["fit2.epochs"] == "2"
    assert after["tags"].pop("axtrain.fits_done") == "2" and before["tags"].pop("axtrain.fits_done") == "1"
    assert after == before
    assert names == dict(paths(client, run_id))
    assert [version.version for version in client.search_model_versions("name = 'near-threshold'")] == ["1"]
    check_the_model_in_a_fresh_process(server, near, data, tmp_path)


FRESH = """
import sys
import mlflow, numpy as np
uri, model, inputs, outputs = sys.argv[1:]
mlflow.set_tracking_uri(uri)
loaded = mlflow.pyfunc.load_model(model)
assert tuple(loaded.metadata.signature.inputs.to_dict()[0]["tensor-spec"]["shape"]) == (-1, 6)
assert loaded.input_example.shape == (2, 6)
np.save(outputs, loaded.predict(np.load(inputs)))
"""


def check_the_model_in_a_fresh_process(server, model, data, folder):
    np.save(folder / "x.npy", data[0])
    arguments = [server.uri, "models:/near-threshold/1", str(folder / "x.npy"), str(folder / "y.npy")]
    done = fresh.run(FRESH, *arguments, cwd=folder)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(folder / "y.npy"), model.predict(data[0], verbose=0))


# kills of the training


KILLED = """
import os, signal, sys
import keras, numpy as np
import axtrain as ax

def training(epochs_until_killed, run_id=None):
    keras.utils.set_random_seed(1)
    dense = keras.layers.Dense
    model = keras.Sequential([keras.Input((6,)), dense(8, "relu", name="a"), dense(4, "softmax", name="b")])
    x = np.random.default_rng(0).normal(size=(96, 6)).astype("float32")
    memory = ax.memories.BitErrors(rate=0.01)
    trainer = ax.AxTrainer(hardware=ax.Hardware(weight_memory=memory), warm_up=1, anneal=2, fine_tune=0)

    class Stop(keras.callbacks.Callback):
        seen = 0
        def on_train_batch_end(self, batch, logs=None):
            Stop.seen += 1
            if Stop.seen == epochs_until_killed * 3 + 2:
                os.kill(os.getpid(), signal.SIGKILL)

    with ax.tracking.run("trained", experiment="kills", tracking_uri=sys.argv[1], run_id=run_id) as run:
        print(run.run_id, flush=True)
        callbacks = [ax.callbacks.MLflow(), Stop()]
        kept = {"folder": sys.argv[2], "save_every": 1}
        trained = trainer.fit(model, x, x.argmax(-1) % 4, callbacks=callbacks, verbose=0, **kept)
        x_test = x[:32]
        run.evaluation(ax.evaluate(trained.model, x_test, x_test.argmax(-1) % 4, chips=2, verbose=False))
    return trained.history
"""


@pytest.mark.slow  # test_tracking_runs.py interrupts one
def test_a_killed_training_goes_on_in_its_run(server, client, tmp_path, monkeypatch):
    """Killed in the middle of an epoch of its second stage; the next process fills the gaps, and doubles nothing."""
    killed = fresh.run(KILLED + "training(2)\n", server.uri, tmp_path / "state", cwd=tmp_path)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    run_id = killed.stdout.strip()
    assert client.get_run(run_id).info.status == "RUNNING"
    assert [step for step, _ in history(client, run_id, "fit2.loss")] == [0]

    scope = {"__name__": "script"}
    exec(compile(KILLED, "script.py", "exec"), scope)
    monkeypatch.setattr(sys, "argv", ["", server.uri, str(tmp_path / "state")])
    resumed = scope["training"](10**6, run_id)
    monkeypatch.setattr(sys, "argv", ["", server.uri, str(tmp_path / "other")])
    straight = scope["training"](10**6)
    assert resumed == straight

    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    expected = {}
    for prefix, stage in (("", "warm_up"), ("fit2.", "anneal")):
        for epoch, logs in enumerate(straight[stage]):
            for key, value in logs.items():
                expected.setdefault(prefix + key, []).append((epoch, value))
    logged = {key for key in run.data.metrics if not key.startswith("evaluate.")}
    assert {key: sorted(history(client, run_id, key)) for key in logged} == expected
    found = client.search_runs([run.info.experiment_id], "tags.`mlflow.runName` = 'trained'")
    (other,) = [one for one in found if one.info.run_id != run_id]
    assert run.data.params == other.data.params
    assert run.data.metrics == other.data.metrics


# servers that are gone


@pytest.mark.slow  # as one that hangs, below
def test_a_server_that_goes_down_in_the_middle(server, client, near, network, data, tmp_path):
    """SIGKILL in the second epoch: the fit ends, all is kept, and what was kept arrives exactly once."""

    class Kills(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                server.kill()

    measured = ax.evaluate(near, *data, chips=3, verbose=False)
    with (
        pytest.warns(TrackingWarning) as said,
        ax.tracking.run("interrupted", experiment="down", tracking_uri=server.uri, outbox="kept") as run,
    ):
        kept = fit(near, data, [Kills(), run.callback()], 4)
        run.log_params({"after": 1})
        run.evaluation(measured)
        assert run.model(near, data[0], registered_name="kept") is None
        with run.child("fold") as fold:
            fit(network, data, [ax.callbacks.MLflow()], 2)
            fold.log_metrics({"score": float("nan")})
    messages = [str(warning.message) for warning in said if issubclass(warning.category, TrackingWarning)]
    assert len(messages) == 2  # once when it went, once at the end
    assert "Connection refused" in messages[0] and f"track sync {tmp_path / 'kept'}" in messages[1]
    assert not (tmp_path / "axtrain_outbox").exists()

    (listed,) = json.loads(fine("track", "list", "kept", "--json"))
    assert listed["owner"]["run_id"] == run.run_id
    assert listed["counts"]["models"] == 1 and listed["counts"]["child runs"] == 2
    assert "interrupted" in fine("track", "list", "kept")
    shutil.copytree("kept", "as_it_was")
    assert "Connection refused" in refused_at_the_end("track", "sync", "kept")
    assert ax.tracking.waiting("kept") == ax.tracking.waiting("as_it_was")

    server.start()
    assert client.get_run(run.run_id).info.status == "RUNNING"
    assert history(client, run.run_id, "loss") == [(0, kept["loss"][0])]
    text = fine("track", "sync", "kept")
    assert "1 models" in text and f"{listed['counts']['metrics']} metrics" in text
    assert not (tmp_path / "kept").exists()
    assert fine("track", "sync").startswith("Nothing waits")

    logged = client.get_run(run.run_id)
    assert logged.info.status == "FINISHED"
    for key, values in kept.items():
        assert history(client, run.run_id, key) == list(enumerate(values))
    assert logged.data.params["after"] == "1"
    child = named(client, logged, "evaluate")
    assert child.data.metrics["mean"] == measured.mean == logged.data.metrics["evaluate.mean"]
    assert child.info.end_time <= logged.info.end_time
    fold = named(client, logged, "fold")
    assert fold.info.status == "FINISHED" and np.isnan(fold.data.metrics["score"])
    assert [step for step, _ in history(client, fold.info.run_id, "loss")] == [0, 1]
    with at(server.uri):
        loaded = mlflow.pyfunc.load_model("models:/kept/1")
    np.testing.assert_array_equal(loaded.predict(data[0]), near.predict(data[0], verbose=0))

    # As if the sync had been killed before it could remove what it had sent.
    before = everything(client, run.run_id)
    fine("track", "sync", "as_it_was")
    assert everything(client, run.run_id) == before
    assert [version.version for version in client.search_model_versions("name = 'kept'")] == ["1"]


def refused_at_the_end(*arguments):
    result = axtrain(*arguments)
    assert result.exit_code == 1 and "Traceback" not in result.output
    return result.stderr


def test_a_server_that_hangs_and_comes_back(server, client, network, data, monkeypatch):
    """It takes connections and never answers; when it answers again the run itself sends what it kept."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with (
        pytest.warns(TrackingWarning, match="no answer in time") as said,
        ax.tracking.run("hung", experiment="down", tracking_uri=server.uri) as run,
    ):
        server.signal(signal.SIGSTOP)
        try:
            kept = fit(network, data, [ax.callbacks.MLflow()], 3)
        finally:
            server.signal(signal.SIGCONT)
        assert ax.tracking.waiting()
    assert len([warning for warning in said if issubclass(warning.category, TrackingWarning)]) == 1
    assert ax.tracking.waiting() == ()
    assert history(client, run.run_id, "loss") == list(enumerate(kept["loss"]))
    assert client.get_run(run.run_id).info.status == "FINISHED"


def opened(**options):
    with ax.tracking.run(**options):
        pytest.fail("the run began")


def test_a_server_that_is_down_at_the_start(nobody, network, data, files, monkeypatch):
    with pytest.raises(ConnectionError, match=f"Connection refused.*Received: tracking_uri='{nobody}'"):
        opened(tracking_uri=nobody)
    said = refused("train", "noisy.keras", "out.keras", *DATA, "--tracking-uri", nobody)
    assert nobody in said and "Start it" in said
    monkeypatch.setenv("MLFLOW_TRACKING_URI", nobody)
    with pytest.raises(ConnectionError, match="Connection refused"):
        fit(network, data, [ax.callbacks.MLflow()], 1)
    assert not (files / "axtrain_outbox").exists()


def test_a_server_that_never_answers_is_not_asked_for_minutes(monkeypatch):
    """By itself MLflow would ask eight times and wait two minutes each time."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept():
            while True:
                try:
                    asked.append(listening.accept()[0])
                except OSError:
                    return

        answering = threading.Thread(target=accept, daemon=True)
        answering.start()
        uri = f"http://user:secret@127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(ConnectionError, match="no answer in time") as raised:
            opened(experiment="any", tracking_uri=uri)
        listening.shutdown(socket.SHUT_RDWR)
        answering.join()
    assert 1 <= len(asked) <= 2
    for connection in asked:
        connection.close()
    assert "secret" not in str(raised.value)


# the command line


DATA = ("--data", "data.npz")


@pytest.fixture
def files(network, noisy, data, tmp_path):
    """model.keras, noisy.keras and data.npz in the working folder."""
    network.save("model.keras")
    noisy.save("noisy.keras")
    np.savez("data.npz", x_train=data[0], y_train=data[1], x_test=data[0][:50], y_test=data[1][:50])
    return tmp_path


@pytest.mark.slow  # test_command_line.py has them with a file
def test_tracked_commands(server, client, files):
    (files / "axtrain.toml").write_text(f'[evaluate]\nexperiment = "commands"\ntracking-uri = "{server.uri}"\n')
    text = fine("--config", "axtrain.toml", "evaluate", "noisy.keras", *DATA, "--chips", 2)
    run_id = text.partition("--run-id ")[2].split()[0]
    run = client.get_run(run_id)
    assert run.data.params["hardware.weight_memory.fault"] == "persistent"
    assert named(client, run, "evaluate").data.params["chips"] == "2"

    tracked = ("--track", "--tracking-uri", server.uri, "--run-id", run_id)
    fine("sweep", "noisy.keras", *DATA, "--rates", "0.001,0.02", "--chips", 2, *tracked)
    chosen = ["--budget", 1.0, "--confirm", 2, "--chips", 1]
    for candidate in candidates:
        candidate.to_json(f"{candidate.name}.json")
        chosen += ["--candidate", f"{candidate.name}.json"]
    fine("search", "model.keras", *DATA, *chosen, *tracked)
    run = client.get_run(run_id)
    assert {client.get_run(child).info.run_name for child in children(client, run)} == {"evaluate", "sweep", "search"}
    assert run.info.status == "FINISHED"
    (model,) = client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run_id}'")
    assert str(model.status) == "READY"
    assert "No run of this id" in refused("evaluate", "noisy.keras", *DATA, *tracked[:-1], 32 * "0")
