"""The Keras callback that logs a `fit`."""

from __future__ import annotations

import os
import re
from typing import Any

import keras

from axtrain.training.tracking.codes import of_codes
from axtrain.training.tracking.open_run import OpenedRun, current
from axtrain.training.tracking.opening import run as new_run
from axtrain.training.tracking.outbox import OUTBOX
from axtrain.training.tracking.runs import Run

FITS_DONE = "axtrain.fits_done"
"""Tag: how many fits of a run came to their end."""


class MLflow(keras.callbacks.Callback):
    """Logs a `fit` to MLflow: parameters, hardware, codes, and the metrics of every epoch.

    Inside an open run (`axtrain.tracking.run`, or MLflow's active one) it logs there; otherwise it starts a run at
    the beginning of `fit` and ends it with `fit`. Keras tells no callback that `fit` raised: call `fit` inside
    `with axtrain.tracking.run():` to have such a run marked as failed.

    A server that is down at the start is an error; one that goes down later stops nothing, see `tracking.run`.
    In a run that goes on after a kill, epochs that it has are not logged again.

    Args:
        run_name: name of a run that this callback starts; `None` lets MLflow name it.
        prefix: put before parameters and metrics, such as `"warm_up."`. By default nothing for the first
            `fit` of a run and `"fit2."`, `"fit3."` for those that follow in the same run. A `fit` with an
            `initial_epoch` goes on with the one before.
        log_model: also log the trained model at the end, loadable by `mlflow.pyfunc`.
        example: samples for the logged model's signature and input example.
        run: from `axtrain.tracking.run`, to log there.
        outbox: folder for what could not be sent, where the run is not from `axtrain.tracking.run`.

    Raises:
        ConnectionError: at the start of `fit`, a server that does not answer.
    """

    def __init__(
        self,
        run_name: str | None = None,
        *,
        prefix: str | None = None,
        log_model: bool = False,
        example: Any = None,
        run: Run | None = None,
        outbox: str | os.PathLike[str] = OUTBOX,
    ) -> None:
        super().__init__()
        self.run_name = run_name
        self.prefix = prefix
        self.log_model = log_model
        self.example = example
        self.run = run
        self.outbox = outbox
        self._joined: Run | None = None
        self._own: OpenedRun | None = None
        self._prefix = ""
        self._begun = False

    def on_train_begin(self, logs=None) -> None:
        """Starts or joins a run."""
        self._joined, self._begun = self.run or current(self.outbox), False
        if self._joined is None:
            self._own = new_run(self.run_name, outbox=self.outbox)
            self._joined = self._own.begin()

    def on_epoch_begin(self, epoch, logs=None) -> None:
        """At the first epoch logs parameters and hardware."""
        run = self._joined
        if self._begun or run is None:
            return
        self._begun = True
        number = _number(run, epoch)
        self._prefix = ("" if number == 1 else f"fit{number}.") if self.prefix is None else self.prefix
        parameters = {key: self.params[key] for key in ("epochs", "steps") if self.params.get(key) is not None}
        optimizer = getattr(self.model, "optimizer", None)
        if optimizer is not None:
            parameters["optimizer"] = type(optimizer).__name__
            parameters["learning_rate"] = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
        parameters |= of_codes(self.model) | dict(self.params.get("trainer") or {})
        # A fit that goes on has fewer epochs or steps ahead of it; the parameters are those of the whole.
        goes_on = epoch > 0 or run.resumed
        run.log_params({self._prefix + key: value for key, value in parameters.items()}, keep=goes_on)
        run.hardware(self.model, prefix=self._prefix)

    def on_epoch_end(self, epoch, logs=None) -> None:
        """Logs the epoch's metrics under Keras's own names, after the prefix."""
        if self._joined is not None:
            metrics = {self._prefix + key: float(value) for key, value in (logs or {}).items()}
            self._joined.log_metrics(metrics, epoch, once=True)

    def on_train_end(self, logs=None) -> None:
        """Logs the model if asked, and ends a run that this callback started."""
        run = self._joined
        if run is None:
            return
        if self.log_model:
            run.model(self.model, self.example)
        if run.fit_number is not None:
            run.log_tags({FITS_DONE: run.fit_number})
        if self._own is not None:
            self._own.__exit__(None, None, None)
        self._own = self._joined = None


def _number(run: Run, epoch: int) -> int:
    """Which fit of the run one that begins at this epoch is, from 1.

    In a run that was killed in its second fit, the next one is that second fit again, not a third.
    """
    begun = [int(found[1] or 1) for key in run.params if (found := re.fullmatch(r"(?:fit(\d+)\.)?epochs", key))]
    last = max([run.fit_number or 0, *begun])
    if epoch > 0 and last:
        run.fit_number = last
    elif run.fit_number is None:
        before = int(run.tags_before.get(FITS_DONE, 0)) if run.resumed and not run.finished else last
        run.fit_number = before + 1
    else:
        run.fit_number += 1
    return run.fit_number
