"""The README's ten lines, run as they stand on a model of the reader's own."""

import os
import re
from pathlib import Path

import fresh
import mlflow

import axtrain as ax

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()

OWN_MODEL = """
import keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

keras.utils.set_random_seed(0)
x, y = load_digits(return_X_y=True)
x_train, x_test, y_train, y_test = train_test_split(x.astype("float32") / 16, y, random_state=0)
model = keras.Sequential(
    [keras.Input((64,)), keras.layers.Dense(32, "relu"), keras.layers.Dense(10, "softmax")]
)
model.compile("adam", "sparse_categorical_crossentropy")
model.fit(x_train, y_train, epochs=10, verbose=0)
"""


def test_the_ten_lines(tmp_path, make_store):
    (block,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    store = make_store(tmp_path / "mlflow.db")  # where MLflow would make it, which takes seconds; the demo's is its own
    done = fresh.run(OWN_MODEL + block, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    measured = re.findall(r"accuracy (0\.\d+) \+- (0\.\d+) over 50 chips", done.stdout)
    assert len(measured) == 2
    # 50 chips: the gain is more than 5 standard errors of both means together.
    (before, spread), (after, later) = ([float(value) for value in pair] for pair in measured)
    assert after - before > 5 * ((spread**2 + later**2) / 50) ** 0.5
    assert len(ax.read_export(tmp_path / "deploy").integers) == 2
    runs = mlflow.MlflowClient(store).search_runs(["0"])
    older = (tmp_path / "mlruns" / "0" / "meta.yaml").is_file()  # MLflows that chose a folder
    assert older or [(run.info.status, "accuracy" in run.data.metrics) for run in runs] == [("FINISHED", True)]
