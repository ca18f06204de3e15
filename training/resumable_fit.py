"""A `fit` that goes on where it was stopped: at the same step, with the same noise and the same order of samples."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras

from axtrain.training.training_state import ResumableBatches, TrainingState, place_of, restore


def resumable_fit(
    model: keras.Model,
    batches: ResumableBatches,
    *,
    epochs: int,
    path: str | os.PathLike[str] | None = None,
    every: int | None = None,
    note: Any = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    **fit_options: Any,
) -> list[dict[str, float]]:
    """Fits a compiled model; with a file for its state the same call goes on after a kill.

    Ctrl-C ends with the step that is being done and keeps the state there; a second Ctrl-C does not wait for it.

    Args:
        model: compiled, and made as it was for the call that is gone on with.
        batches: the data in their order.
        epochs: of the whole training.
        path: the file of the state; `None` keeps nothing.
        every: steps between two states; `None` is one at the end of each epoch.
        note: JSON-able, what the training depends on; a dictionary. A state with another one is refused.
        callbacks: Keras callbacks; they see the state restored.
        fit_options: further ones for `keras.Model.fit`.

    Returns:
        the logs of every epoch, of those before a kill too.

    Raises:
        ValueError: the file holds the state of another training, or of more epochs than these.
    """
    kept = None if path is None else TrainingState(path, every=every, note=note)
    epoch, step, logs = 0, 0, list[dict[str, float]]()
    place = None if path is None else place_of(path)
    if kept is not None and place is not None:
        _check(kept.path, place, note, epochs)
        epoch, step, logs = place["epoch"], place["step"], list(place["history"])
        kept.begin(epoch, step, logs, restore(model, kept.path))
    with _stopped_between_steps(kept):
        for first, until in _fits(epoch, step, epochs):
            if kept is not None and first > epoch:
                kept.begin(first, 0, logs, {})
            done = model.fit(
                batches.from_step(first, step, until), initial_epoch=first, epochs=until, shuffle=False,
                steps_per_epoch=len(batches) - step, callbacks=[*callbacks, *([kept] if kept else [])], **fit_options,
            )  # fmt: skip
            epochs_done = zip(*done.history.values(), strict=True)
            logs += [dict(zip(done.history, map(float, figures), strict=True)) for figures in epochs_done]
            step = 0
    return logs


def _check(path: Path, place: dict[str, Any], note: Any, epochs: int) -> None:
    if place["note"] != note:
        differ = sorted(name for name in note if place["note"].get(name) != note[name])
        raise ValueError(
            f"{path} holds the state of another training: with other data, another network or other settings. "
            f"Give another folder, or remove that one. Received: a different {', '.join(differ)}"
        )
    if (place["epoch"], place["step"]) > (epochs, 0):
        raise ValueError(
            f"{path} holds the state of a longer training, after {place['epoch']} epochs and {place['step']} steps. "
            f"Ask for more epochs, give another folder, or remove that one. Received: {epochs} epochs"
        )


def _fits(epoch: int, step: int, epochs: int) -> list[tuple[int, int]]:
    """(first epoch, epoch after the last) of each fit: the rest of a begun epoch, then whole ones."""
    if epoch >= epochs:
        return []
    if step == 0:
        return [(epoch, epochs)]
    return [part for part in ((epoch, epoch + 1), (epoch + 1, epochs)) if part[0] < part[1]]


@contextmanager
def _stopped_between_steps(kept: TrainingState | None) -> Iterator[None]:
    """Makes the first Ctrl-C wait for the end of a step: within one, weights and counters need not fit together."""
    before = signal.getsignal(signal.SIGINT)
    # Only the main thread may say what a signal does; where one is ignored, it stays so.
    if kept is None or not callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return

    def asked(number, frame) -> None:
        kept.stop()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, asked)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
