"""On real processes: nodes, workers and agents killed, asleep and wrong, and a driver interrupted."""

import json
import os
import subprocess
import sys
import time

import keras
import networkx as nx
import numpy as np
import pytest
from coded_runs import CODE, FIT, Losses, fitted, plain_losses

from axtrain.coded import CodeNet
from axtrain.training.distributed import BerrutTrainer, CodedTrainer, NetworkTrainer, Trouble, berrut_map, split

TROUBLES = {
    "killed in forward": [Trouble("node-1", "kill", "forward", 4)],
    "killed in backward": [Trouble("node-3", "kill", "backward", 4)],
    "killed in update, two at once": [Trouble("node-0", "kill", "update", 4), Trouble("node-5", "kill", "update", 4)],
    "wrong for ten steps": [Trouble("node-2", "corrupt", step=1, steps=10)],
}
FIVE_NODES = CodeNet(1, 1, 1)


def check_on_actors(executor, network, data, troubles, code):
    expected, weights = plain_losses(network, data)
    trainer, losses, _ = fitted(network, data, executor, code, trainer={"adversarial": True})
    np.testing.assert_allclose(losses, expected, rtol=1e-3)
    for a, b in zip(trainer.model.get_weights(), weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)
    assert trainer.events["replaced"] == sum(trouble.kind == "kill" for trouble in troubles)
    assert trainer.events["corrected"] >= (troubles[0].steps if troubles[0].kind == "corrupt" else 1)
    assert trainer.events["rolled_back"] == 0


@pytest.mark.slow  # test_executors.py has the actors, test_coded_trainer.py the troubles
@pytest.mark.parametrize("troubles", TROUBLES.values(), ids=TROUBLES)
def test_on_real_actors(actors, network, data, troubles):
    check_on_actors(actors(*troubles), network, data, troubles, CODE)


@pytest.mark.slow  # test_executors.py has the actors, test_coded_trainer.py the troubles
def test_on_few_actors(actors, network, data):
    """One is killed and one is wrong; test_coded_trainer.py kills in each stage in one process."""
    troubles = [Trouble("node-2", "corrupt", step=1, steps=3), Trouble("node-1", "kill", "forward", 6)]
    check_on_actors(actors(*troubles), network, data, troubles, FIVE_NODES)


@pytest.mark.slow  # as test_executors.py has it
def test_an_actor_that_sleeps_is_not_waited_for(actors, network, data):
    expected, weights = plain_losses(network, data)
    trainer = CodedTrainer(network, CODE, actors(Trouble("node-4", "sleep", "forward", 6, seconds=6.0)))
    losses = Losses()
    trainer.fit(*data, callbacks=[losses, Deadline(trainer, 2.0)], **FIT)
    np.testing.assert_allclose(losses.each, expected, rtol=1e-3)
    for a, b in zip(trainer.model.get_weights(), weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)
    assert trainer.events["late"] >= 1


class Deadline(keras.callbacks.Callback):
    """Sets the deadline after the first epoch: actors need longer to begin."""

    def __init__(self, trainer, seconds):
        super().__init__()
        self.trainer, self.seconds = trainer, seconds

    def on_epoch_end(self, epoch, logs=None):
        self.trainer.nodes.deadline = self.seconds


def test_a_map_with_one_killed_and_one_asleep(actors):
    executor = actors(Trouble("map-1", "kill"), Trouble("map-3", "sleep", seconds=3.0))
    x = np.linspace(0, 1, 6).reshape(2, 3)
    found = berrut_map(np.sin, x, workers=4, wait_for=2, executor=executor)
    np.testing.assert_allclose(found, np.sin(x), atol=0.2)


@pytest.mark.slow  # as test_berrut.py in one process
def test_berrut_with_one_killed_and_one_slow(actors, network, data):
    troubles = [
        Trouble("worker-1", "kill", "gradient", 3, steps=90),
        Trouble("worker-4", "sleep", "gradient", 5, steps=90, seconds=2.0),
    ]
    trainer = BerrutTrainer(network, groups=2, workers=5, wait_for=3, executor=actors(*troubles))
    history = trainer.fit(*data, validation_data=data, batch_size=32, epochs=4, verbose=0, seed=1)
    assert trainer.events["replaced"] == 1
    assert trainer.events["late"] >= 1
    assert history.history["val_loss"][-1] < history.history["val_loss"][0]


@pytest.mark.slow  # as test_network_trainer.py in one process
def test_a_network_with_one_killed_and_one_slow(actors):
    generator = np.random.default_rng(0)
    x = generator.standard_normal((80, 4)).astype("float32")
    y = (x @ [[1.0], [-2.0], [0.5], [0.0]]).astype("float32")
    data = split(x, y, 4)
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    troubles = [Trouble("agent-3", "kill", "advance", step=30), Trouble("agent-1", "sleep", "advance", 50, seconds=3.0)]
    trainer = NetworkTrainer(
        model, nx.complete_graph(4), "full", tau=4.0, step=0.3, decay=0.001, executor=actors(*troubles)
    )
    history = trainer.fit(data, epochs=10, steps_per_epoch=20, verbose=0).history
    assert history["agents"][-1] == 3
    assert history["tracking"][-1] < 1e-9
    weights = np.concatenate([weight.reshape(-1) for weight in trainer.model.get_weights()])
    np.testing.assert_allclose(weights, [1.0, -2.0, 0.5, 0.0, 0.0], atol=5e-3)


SHORT_OF_MEMORY = """
import time
import numpy as np
from axtrain.training.distributed import RayActors
from axtrain.training.distributed.berrut_mapping import FunctionWorker
with RayActors() as executor:
    executor.place("worker", FunctionWorker, lambda x: time.sleep(30))
    print(executor.wait([executor.call("worker", "apply", 0, np.ones(3))], deadline=60)["worker"].status)
"""


@pytest.mark.slow
def test_an_actor_that_ray_kills_because_memory_ran_short_is_dead(ray, tmp_path):
    script = tmp_path / "short.py"
    script.write_text(SHORT_OF_MEMORY)
    short = {"RAY_memory_monitor_refresh_ms": "100", "RAY_memory_usage_threshold": "0.01"}
    ran = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=180, env={**os.environ, **short}
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == "dead"


DRIVER = """
import sys, json, signal
import numpy as np, keras
from axtrain.coded import CodeNet
from axtrain.training.distributed import CodedTrainer, RayActors
keras.utils.set_random_seed(0)
generator = np.random.default_rng(0)
y = generator.integers(0, 3, 64)
x = (generator.standard_normal((64, 6)) + 2 * np.eye(3, 6)[y]).astype("float32")
layers = [keras.layers.Dense(5, "tanh", name="hidden"), keras.layers.Dense(3, "softmax", name="out")]
model = keras.Sequential([keras.Input((6,)), *layers])
model.compile(keras.optimizers.SGD(0.2, momentum=0.9), "sparse_categorical_crossentropy", metrics=["accuracy"])
signal.signal(signal.SIGINT, signal.default_int_handler)

class Interrupt(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        self.count = getattr(self, "count", 0) + 1
        if self.count == 7 and sys.argv[2] == "first":
            import os
            os.kill(os.getpid(), signal.SIGINT)

with RayActors() as executor:
    pids = []
    trainer = CodedTrainer(model, CodeNet(1, 2, 1), executor)
    try:
        trainer.fit(x, y, batch_size=16, epochs=3, seed=2, verbose=0, callbacks=[Interrupt()],
                    checkpoint=sys.argv[1], checkpoint_every=3)
        print(json.dumps([w.tolist() for w in trainer.model.get_weights()]))
    finally:
        pids = [executor.process_of(name) for name in list(executor._actors)]
        print(json.dumps(pids), flush=True)
"""


@pytest.mark.slow
def test_a_driver_interrupted_and_run_again_ends_the_same_and_leaves_no_actor(ray, network, data, tmp_path):
    _, weights = plain_losses(network, data)
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    call = [sys.executable, str(script), str(tmp_path / "state.npz")]
    first = subprocess.run([*call, "first"], capture_output=True, text=True, timeout=180)
    assert first.returncode != 0 and "KeyboardInterrupt" in first.stderr
    left = json.loads(first.stdout.splitlines()[-1])
    until = time.monotonic() + 20  # they were told to end; the last of them may be at it still
    while left and time.monotonic() < until:
        time.sleep(0.2)
        left = [pid for pid in left if _lives(pid)]
    assert left == []
    second = subprocess.run([*call, "second"], capture_output=True, text=True, timeout=180)
    assert second.returncode == 0, second.stderr
    for a, b in zip(json.loads(second.stdout.splitlines()[0]), weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)


def _lives(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().split()[2] != "Z"
    except FileNotFoundError:
        return False
