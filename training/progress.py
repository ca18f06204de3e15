"""A progress line for `fit` that says what is being trained and how it goes."""

from __future__ import annotations

import keras
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class FitProgress(keras.callbacks.Callback):
    """Shows epochs done and the last metrics on one line; use with `fit(..., verbose=0)`.

    Keras tells no callback that `fit` raised, so call `fit` inside `with` this: else an error or Ctrl-C
    leaves the line alive and the terminal without its cursor.

    Args:
        description: what is being trained.
        console: where to draw; default the terminal.
        epochs: of several fits that follow each other on one line; `None` gives each its own.
    """

    def __init__(self, description: str, console: Console | None = None, *, epochs: int | None = None) -> None:
        super().__init__()
        self._description, self._epochs = description, epochs
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[metrics]}"),
            TimeElapsedColumn(),
            console=console,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> FitProgress:
        return self

    def __exit__(self, *error) -> None:
        if self._progress.live.is_started:
            self._progress.stop()

    def on_train_begin(self, logs=None) -> None:
        """Draws the line."""
        if self._task is None or self._epochs is None:
            total = self._epochs or self.params["epochs"]
            self._task = self._progress.add_task(self._description, total=total, metrics="")
        self._progress.start()

    def on_epoch_begin(self, epoch, logs=None) -> None:
        """Shows those done, before this fit too."""
        if self._task is not None:
            self._progress.update(self._task, completed=epoch)

    def on_epoch_end(self, epoch, logs=None) -> None:
        """Advances it."""
        metrics = "  ".join(f"{key} {value:.4f}" for key, value in (logs or {}).items())
        if self._task is not None:
            self._progress.update(self._task, completed=epoch + 1, metrics=metrics)

    def on_train_end(self, logs=None) -> None:
        """Leaves the finished line on the screen."""
        if self._epochs is None:
            self._progress.stop()
