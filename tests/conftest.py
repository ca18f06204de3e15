"""What every test shares: a quiet TensorFlow, the folder of real data, the reference loops on the path."""

import contextlib
import gc
import os
import shutil
import sqlite3
import sys
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

TESTS = Path(__file__).resolve().parent
SHARED = TESTS.parent.parent / "shared"

# `import reference` for the plain integer loops: importlib mode puts no test folder on the path.
sys.path.insert(0, str(TESTS / "axtrain"))
sys.path.insert(0, str(TESTS / "end_to_end"))  # `import shell`
sys.path.insert(0, str(TESTS / "training" / "distributed"))


# Tracing a model makes a million objects, and Python's collector would walk through them and all others again and
# again, a tenth of the tests' time. So it walks once after a test that made many, and never again through what was
# there before or is left then.
MANY = 200_000


# Tests that share processes which are slow to start go first, so that one worker has them all: `--dist worksteal` gives
# it the first half of the tests, and takes away from its end.
FIRST = ("test_executors.py", "test_on_actors.py", "test_tracking_server.py")


@pytest.hookimpl(tryfirst=True)  # before `-m` leaves out what is slow
def pytest_collection_modifyitems(config, items):
    unmet = {}
    for item in items:
        for mark in item.iter_markers("cases"):
            met = {name for name in mark.args if name in item.callspec.id}
            if not met:
                item.add_marker(pytest.mark.slow)
            test = item.nodeid.partition("[")[0]
            unmet[test] = unmet.get(test, set(mark.args)) - met
    unmet = {test: names for test, names in unmet.items() if names}
    if unmet and not any("[" in argument for argument in config.args):  # else one case was asked for
        raise pytest.UsageError(f"`cases` takes parts of the ids of a test's cases. Received: {unmet}")
    items.sort(key=lambda item: item.path.name not in FIRST)


def pytest_addoption(parser):
    parser.addoption("--graphs", action="store_true", help="trace the functions of tests that are marked `eager`, too")


def pytest_collection_finish():
    gc.collect()
    gc.freeze()
    gc.disable()


def pytest_runtest_teardown():
    if gc.get_count()[0] > MANY:
        gc.collect()
        gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _untuned_pipelines():
    """TensorFlow's tuner of a pipeline sleeps ever longer, up to a minute, and who ends the pipeline waits for it."""
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    iterate = tf.data.Dataset.__iter__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tf.data.Dataset, "__iter__", lambda dataset: iterate(dataset.with_options(options)))
        yield


@pytest.fixture(scope="session", autouse=True)
def _cheap_operations():
    """Make TensorFlow's operations cheaper to create, by what no test reads.

    Each new name of a variable is a kernel of its own, 0.4 ms, and an operation in a graph keeps its call stack.
    """
    from tensorflow.python.eager import context
    from tensorflow.python.ops import gen_resource_variable_ops
    from tensorflow.python.util import tf_stack

    handle, somewhere = gen_resource_variable_ops.var_handle_op, tf_stack.extract_stack()

    def nameless(**given):  # in graphs the name stays
        return handle(**given | {"debug_name": ""} if given["shared_name"] == context.anonymous_name() else given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gen_resource_variable_ops, "var_handle_op", nameless)
        patch.setattr(tf_stack, "extract_stack", lambda stacklevel=1: somewhere)
        yield


@pytest.fixture(autouse=True)
def _eager(request):
    """Runs step by step what is marked `eager` and not `graph`: tracing a network takes longer than a few steps."""
    marked = request.node.get_closest_marker("eager") and not request.node.get_closest_marker("graph")
    if not marked or request.config.getoption("--graphs"):
        yield
        return
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared` beside the checkout: real multiplier tables, data and models."""
    if not SHARED.is_dir():
        pytest.skip(f"the folder {SHARED} (real tables and data) is absent")
    return SHARED


@pytest.fixture(scope="session")
def _tables(tmp_path_factory):
    """An SQLite store of MLflow's that holds nothing: making its tables takes seconds, a copy none."""
    import mlflow

    made = tmp_path_factory.mktemp("tables") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{made}").search_experiments()
    with contextlib.closing(sqlite3.connect(made)) as database:
        # Whoever opens a copy makes the default experiment there, whose artifacts are then beside the copy.
        database.execute("DELETE FROM experiments")
        database.commit()
    return made


@pytest.fixture(scope="session")
def make_store(_tables):
    """A function of a path that makes an empty SQLite store of MLflow's there, and gives its URI."""

    def make(path):
        return f"sqlite:///{shutil.copy(_tables, path)}"

    return make


@pytest.fixture
def float_policy():
    """Gives the dtype policy back after a test that sets it."""
    import keras

    before = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(before)
