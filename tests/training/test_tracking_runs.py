"""Runs, children and the outbox without a server: in MLflow's local store, and on disk."""

import fcntl
import json

import keras
import mlflow
import numpy as np
import pytest

import axtrain as ax
from axtrain.training import tracking
from axtrain.training.evaluation import Evaluation
from axtrain.training.tracking.outbox import Outbox, Owner
from axtrain.training.tracking.store import at, patience, refusal, resolved, without_password

pytestmark = [
    pytest.mark.eager,
    # MLflow's own, once per process, while `mlflow.pyfunc` is imported:
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
]


def fit(model, data, callbacks, epochs=2, **options):
    keras.utils.set_random_seed(3)
    model.compile("adam", "sparse_categorical_crossentropy")
    return model.fit(*data, epochs=epochs, batch_size=50, verbose=0, callbacks=callbacks, **options).history["loss"]


def history(run_id, key):
    found = mlflow.MlflowClient().get_metric_history(run_id, key)
    return sorted((metric.step, metric.value) for metric in found)


def got(run):
    return mlflow.get_run(run.run_id)


class Interrupts(keras.callbacks.Callback):
    """Raises at the beginning of an epoch."""

    def __init__(self, epoch, error=KeyboardInterrupt):
        super().__init__()
        self.epoch, self.error = epoch, error

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise self.error


def test_every_public_name_is_there():
    assert {name for name in tracking.__all__ if getattr(tracking, name) is None} == set()
    assert set(tracking.__all__) <= set(dir(tracking))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = tracking.nonsense


# begin and end


@pytest.mark.parametrize("error, status", [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_how_a_run_ends(experiment, error, status):
    with pytest.raises(error), ax.tracking.run("ends") as run:
        assert mlflow.active_run().info.run_id == run.run_id
        raise error
    assert got(run).info.status == status
    with ax.tracking.run(run_id=run.run_id) as again:
        assert again.resumed and got(run).info.status == "RUNNING"
    assert (got(run).info.status, again.name) == ("FINISHED", "ends")
    assert mlflow.active_run() is None


def test_what_cannot_be_opened(experiment):
    with ax.tracking.run("first", tags={"mine": 1}) as run:
        assert got(run).data.tags["mine"] == "1"
        with pytest.raises(ValueError, match="open already.*'first'"):
            ax.tracking.run().begin()
    with pytest.raises(ValueError, match="No run of this id.*Received: run_id='0"):
        ax.tracking.run(run_id=32 * "0").begin()
    with pytest.raises(ValueError, match="in another experiment"):
        ax.tracking.run(run_id=run.run_id, experiment="Default").begin()
    mlflow.delete_run(run.run_id)
    with pytest.raises(ValueError, match="run was deleted"):
        ax.tracking.run(run_id=run.run_id).begin()
    with pytest.raises(ValueError, match="not open.*with axtrain.tracking.run"):
        ax.tracking.run().log_params({"a": 1})
    assert mlflow.active_run() is None


def test_the_same_again_is_not_logged_again(experiment, tmp_path):
    (tmp_path / "note.txt").write_text("first")
    with ax.tracking.run() as run:
        run.log_params({"a": 1})
        run.log_metrics({"m": 0.5, "n": float("nan"), "i": float("inf")}, step=3)
        run.artifact(tmp_path / "note.txt", "notes")
        with pytest.raises(ValueError, match="cannot change.*Received: a='2', there '1'"):
            run.log_params({"a": 2})
    (tmp_path / "note.txt").write_text("second")
    with ax.tracking.run(run_id=run.run_id) as run:
        run.log_params({"a": 1, "b": 2})
        run.log_params({"a": 3}, keep=True)
        run.log_metrics({"m": 0.5, "n": float("nan"), "i": float("inf")}, step=3)
        run.log_metrics({"m": 0.75}, step=3, once=True)
        run.log_metrics({"m": 0.25}, step=3)
        run.artifact(tmp_path / "note.txt", "notes")
    assert got(run).data.params == {"a": "1", "b": "2"}
    assert history(run.run_id, "m") == [(3, 0.25), (3, 0.5)]
    assert len(history(run.run_id, "n")) == len(history(run.run_id, "i")) == 1
    assert mlflow.artifacts.load_text(f"runs:/{run.run_id}/notes/note.txt") == "second"


def test_children_are_known_by_name(experiment):
    measured = Evaluation(np.array([0.9, 0.8]), 0, 100)
    found = []
    for run_id in (None, 0):
        with ax.tracking.run("parent", run_id=found[0] if run_id == 0 else None) as run:
            with run.child("fold 1", tags={"fold": 1}) as fold:
                assert mlflow.active_run().info.run_id == fold.run_id
                with fold.child("inner") as inner:
                    inner.log_metrics({"m": 1})
            with run.child() as other:
                pass
            run.evaluation(measured)
            run.evaluation(Evaluation(np.array([0.9, 0.7]), 0, 100))
        found += [run.run_id, fold.run_id, inner.run_id, other.run_id]
    assert found[:3] == found[4:7] and found[3] != found[7]
    client = mlflow.MlflowClient()
    below = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{run.run_id}'")
    assert sorted(one.info.run_name for one in below)[:3] == ["evaluate", "evaluate", "fold 1"]
    assert client.get_run(inner.run_id).data.tags["mlflow.parentRunId"] == fold.run_id


def test_what_cannot_be_logged(experiment, tmp_path):
    with ax.tracking.run() as run:
        with pytest.raises(FileNotFoundError, match="no such file"):
            run.artifact(tmp_path / "missing")
        with pytest.raises(ValueError, match="relative path.*Received: '../out'"):
            run.json({}, "../out")
        with pytest.raises(ValueError, match=r"one length.*Received: {'a': 1, 'b': 2}"):
            run.table({"a": [1], "b": [1, 2]}, "t.json")
        with pytest.raises(ValueError, match="written as .json"):
            run.table({"a": [1]}, "t.csv")
        with pytest.raises(FileNotFoundError):
            run.export(tmp_path)


def test_a_model_of_two_inputs(experiment):
    inputs = {name: keras.Input((size,), name=name) for name, size in (("left", 2), ("right", 3))}
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Concatenate()(list(inputs.values()))))
    x = {"left": np.ones((4, 2), "float32"), "right": np.ones((4, 3), "float32")}
    with ax.tracking.run() as run:
        info = run.model(model, x)
    assert info.signature.inputs.input_names() == ["left", "right"]
    loaded = mlflow.pyfunc.load_model(info.model_uri)
    np.testing.assert_array_equal(loaded.predict(x), model.predict(x, verbose=0))
    assert {key: value.shape for key, value in loaded.input_example.items()} == {"left": (2, 2), "right": (2, 3)}


# fits of a run


def test_an_interrupted_fit_goes_on_under_its_own_names(experiment, network, data):
    """First fit whole, second one interrupted in its third epoch: the resumed one is the second, not a third."""
    with pytest.raises(KeyboardInterrupt), ax.tracking.run() as run:
        first = fit(network, data, [ax.callbacks.MLflow()])
        start = network.get_weights()
        fit(network, data, [ax.callbacks.MLflow(), Interrupts(2)], 4)
    assert got(run).info.status == "KILLED"
    network.set_weights(start)
    with ax.tracking.run(run_id=run.run_id):
        second = fit(network, data, [ax.callbacks.MLflow()], 4)
        rest = fit(network, data, [ax.callbacks.MLflow()], 6, initial_epoch=4)
        third = fit(network, data, [ax.callbacks.MLflow()], 1)
    assert history(run.run_id, "loss") == list(enumerate(first))
    assert history(run.run_id, "fit2.loss") == list(enumerate(second + rest))
    assert history(run.run_id, "fit3.loss") == list(enumerate(third))
    params = got(run).data.params
    assert (params["epochs"], params["fit2.epochs"], params["fit3.epochs"]) == ("2", "4", "1")


def test_a_fit_in_a_child(experiment, network, data):
    with ax.tracking.run("outer") as run, run.child("inner") as child:
        losses = fit(network, data, [ax.callbacks.MLflow()], 1)
    assert history(child.run_id, "loss") == list(enumerate(losses))
    assert got(run).data.metrics == {}


# the outbox

OWNER = Owner(run_id="0" * 32, name="named", experiment_id="1", tracking_uri="http://somewhere")


def test_entries_wait_in_their_order(tmp_path):
    outbox = Outbox(tmp_path / "kept", OWNER)
    (tmp_path / "files" / "below").mkdir(parents=True)
    (tmp_path / "files" / "below" / "a.bin").write_bytes(b"12345")
    outbox.put({"op": "metrics", "run": OWNER.run_id, "once": True, "metrics": [["m", float("nan"), 1, 2]]})
    outbox.put({"op": "files", "run": OWNER.run_id, "path": "", "tables": []}, tmp_path / "files")
    Outbox(tmp_path / "kept", OWNER).put({"op": "params", "run": OWNER.run_id, "params": {"a": "1"}, "keep": False})
    entries = outbox.entries()
    assert [entry.content["op"] for entry in entries] == ["metrics", "files", "params"]
    assert (entries[1].files / "below" / "a.bin").read_bytes() == b"12345"
    (found,) = ax.tracking.waiting(tmp_path / "kept")
    assert found.owner == OWNER and found.counts == {"metrics": 1, "files": 1, "parameters": 1}
    with outbox.sending() as alone:
        assert alone
        with Outbox(tmp_path / "kept", OWNER).sending() as second:
            assert not second
        for entry in entries:
            outbox.drop(entry)
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("text", ["{", "[]", '{"format": "other"}'])
def test_a_folder_that_is_no_outbox(tmp_path, text):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "1.json").write_text(text)
    with pytest.raises(ValueError, match="cannot be read as an entry of an outbox; move it away.*Received"):
        ax.tracking.waiting(tmp_path)
    with pytest.raises(ValueError, match="no such outbox"):
        ax.tracking.sync(tmp_path / "missing")


def test_what_the_store_refuses_stays_and_the_rest_is_sent(experiment):
    """Two entries that can never go, one that can; and a run that another process is sending."""
    with ax.tracking.run("refused") as run:
        run.log_params({"a": 1})
    outbox = Outbox("kept", Owner(**{**vars(run.sender.owner)}))
    common = {"run": run.run_id}
    outbox.put({**common, "op": "params", "params": {"a": "2"}, "keep": False})
    outbox.put({**common, "op": "end", "run": "local-unknown", "status": "FAILED", "time": 1})
    outbox.put({**common, "op": "tags", "tags": {"t": "1"}})
    with (outbox.folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (held,) = ax.tracking.sync("kept")
    assert (held.left, held.problem) == (3, "another process is sending it")
    (sent,) = ax.tracking.sync("kept")
    assert (sent.counts, sent.left) == ({"tags": 1}, 2)
    assert "cannot change" in sent.problem
    assert got(run).data.tags["t"] == "1"
    assert json.loads(json.dumps(ax.tracking.waiting("kept")[0].counts)) == {"parameters": 1, "ends of runs": 1}


# MLflow's settings


def test_settings_are_put_back(monkeypatch, tmp_path):
    import os

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "4")
    before, uri = dict(os.environ), mlflow.get_tracking_uri()
    with pytest.raises(ValueError), patience(2), at(f"sqlite:///{tmp_path}/other.db"):
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "2"
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "4"  # the user's own
        assert mlflow.get_tracking_uri().endswith("other.db")
        raise ValueError
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # MLflow itself writes what `set_tracking_uri` was given
    assert (dict(os.environ), mlflow.get_tracking_uri()) == (before, uri)


def test_uris(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert resolved("sqlite:///runs.db") == f"sqlite:///{tmp_path}/runs.db"
    assert resolved(tmp_path / "runs") == (tmp_path / "runs").as_uri()
    assert resolved("http://host:5000") == "http://host:5000"
    assert without_password("https://me:secret@host:5000/path") == "https://host:5000/path"


def test_which_errors_mean_that_nothing_arrived():
    assert refusal(ValueError("mine")) is None
    assert refusal(mlflow.MlflowException("a name with a * in it", error_code=1000)) is None
    assert refusal(mlflow.MlflowException("API request to http://x failed with exception timed out")) is not None
    assert refusal(ConnectionResetError("[Errno 104] Connection reset by peer")) == "Connection reset by peer"
    rest = mlflow.exceptions.RestException({"error_code": "PERMISSION_DENIED", "message": "token expired"})
    assert "token expired" in refusal(rest)
