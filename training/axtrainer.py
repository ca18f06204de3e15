"""AxTrain's recipe in one call: warm up clean, let the noise in, search actively, fine-tune bit-exactly."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from axtrain.controls import hardware_layers, set_fidelity, set_noise_strength
from axtrain.conversion import convert, strip
from axtrain.hardware import Hardware
from axtrain.penalties import Penalty
from axtrain.sensitivity_training import with_sensitivity
from axtrain.training.callbacks import NoiseSchedule, PenaltySchedule
from axtrain.training.kept_figures import fingerprint
from axtrain.training.penalty_scaling import scaled_penalty
from axtrain.training.resumable_fit import resumable_fit
from axtrain.training.training_state import ResumableBatches

_CALIBRATION = 512  # samples


@dataclass(frozen=True)
class Trained:
    """What `AxTrainer.fit` gives.

    Attributes:
        model: on its hardware, bit-exact, compiled.
        history: for each stage's name the logs of its epochs.
    """

    model: keras.Model
    history: dict[str, list[dict[str, float]]]


@dataclass(frozen=True, kw_only=True)
class AxTrainer:
    """AxTrain's active and passive methods together, over ordinary `fit`, in three stages.

    `warm_up` epochs in float, without hardware; `anneal` epochs in which fault rates and the penalty rise linearly to
    full strength, with multipliers played by `fidelity`; `fine_tune` epochs bit-exactly, everything at full strength,
    at a tenth of the learning rate. Each stage is a model from `convert` and `with_sensitivity` and the callbacks
    `NoiseSchedule` and `PenaltySchedule`, which one can use alone. Source: AxTrain (He 2018, arXiv 1805.08309); theory
    page, section 7.

    Args:
        hardware: what to run on.
        penalty: of the active search, such as `OutputSensitivity`; `None` trains passively.
        penalty_share: makes the penalty this many times the loss where the noise begins, by `axtrain.scaled_penalty`
            on the samples of the calibration; `None` takes the penalty's own strength.
        warm_up, anneal, fine_tune: epochs of each stage; a stage of 0 epochs is left out.
        fidelity: of the second stage: `"calibrated"`, `"gaussian"` or `"exact"`.
        optimizer: a Keras optimizer, made anew from its configuration for each stage; or a name.
        loss, metrics: as for `keras.Model.compile`.
        fine_tune_rate: what the learning rate is multiplied by in the last stage; of a schedule it is left as it is.
        batch_size: samples in each step.
        seed: of the order of the samples.
        options: further ones for `axtrain.convert`, such as `overrides` or `gradient`; 512 samples calibrate it.

    Raises:
        ValueError: epochs that are not ints >= 0 or none at all, or a share of no penalty.

    Examples:
        >>> import keras, numpy as np, axtrain as ax
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
        >>> trainer = ax.AxTrainer(hardware=ax.Hardware(multiplier=ax.multipliers.get("drum4")), anneal=1, fine_tune=1)
        >>> x = np.random.default_rng(0).random((64, 4), "float32")
        >>> sorted(trainer.fit(model, x, x.argmax(-1) % 3, verbose=0).history)
        ['anneal', 'fine_tune', 'warm_up']
    """

    hardware: Hardware
    penalty: Penalty | None = None
    penalty_share: float | None = None
    warm_up: int = 1
    anneal: int = 4
    fine_tune: int = 2
    fidelity: str = "calibrated"
    optimizer: Any = "adam"
    loss: Any = "sparse_categorical_crossentropy"
    metrics: Sequence[Any] = ("accuracy",)
    fine_tune_rate: float = 0.1
    batch_size: int = 32
    seed: int = 0
    options: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        for name, epochs in self.epochs.items():
            if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 0:
                raise ValueError(f"`{name}` must be an int >= 0. Received: {name}={epochs!r}")
        if not any(self.epochs.values()):
            raise ValueError("There is nothing to train for 0 epochs. Received: warm_up=0, anneal=0, fine_tune=0")
        if self.penalty_share is not None and self.penalty is None:
            raise ValueError(
                f"There is no penalty to scale. Received: penalty_share={self.penalty_share!r}, penalty=None"
            )

    @property
    def epochs(self) -> dict[str, int]:
        """How many epochs each stage has."""
        return {"warm_up": self.warm_up, "anneal": self.anneal, "fine_tune": self.fine_tune}

    def fit(
        self,
        model: keras.Model,
        x: Any,
        y: Any,
        *,
        folder: str | os.PathLike[str] | None = None,
        save_every: int | None = None,
        callbacks: Callable[[str], list] | Sequence[keras.callbacks.Callback] = (),
        verbose: Any = "auto",
        **fit_options: Any,
    ) -> Trained:
        """Trains.

        Args:
            model: a plain Keras model, or one from `convert`. It is not changed.
            x, y: training samples and labels, arrays.
            folder: where the state of the training is kept, so that the same call goes on at the same step with the
                same noise after a kill; `None` keeps nothing.
            save_every: steps between two states; `None` is one at the end of each epoch.
            callbacks: Keras callbacks for every stage, or a function from a stage's name to its own.
            verbose: as for Keras's `fit`.
            fit_options: further ones for it, such as `validation_data`.

        Returns:
            a `Trained`.

        Raises:
            ValueError: a folder that holds the state of another training.
        """
        batches = ResumableBatches(x, y, self.batch_size, self.seed)
        history: dict[str, list[dict[str, float]]] = {}
        note = None if folder is None else {**self._described(), **fingerprint(model, x, y, self.fit)}
        current = model
        for stage, epochs in self.epochs.items():
            if epochs == 0:
                continue
            current = self._prepared(current, stage, x, y)
            given = callbacks(stage) if callable(callbacks) else callbacks
            history[stage] = resumable_fit(
                current, batches, epochs=epochs, every=save_every, note=note, verbose=verbose,
                path=None if folder is None else Path(folder) / f"{stage}.npz",
                callbacks=[*self._schedules(current, stage), *given], **fit_options,
            )  # fmt: skip
        if not list(hardware_layers(current)):
            current = self._prepared(current, "fine_tune", x, y)
        set_noise_strength(current, 1.0)
        if any(layer.fidelity != "exact" for layer in hardware_layers(current)):
            set_fidelity(current, "exact")
        return Trained(current, history)

    def _prepared(self, model: keras.Model, stage: str, x: Any, y: Any) -> keras.Model:
        """The stage's model, compiled, with the weights of the one before."""
        if stage == "warm_up":
            model = strip(model)
        else:
            if stage == ("anneal" if self.anneal else "fine_tune"):  # the first on hardware
                calibration = keras.tree.map_structure(lambda array: array[:_CALIBRATION], x)
                model = convert(model, self.hardware, calibration, **(self.options or {}))
                model = self._searching(model, calibration, y[:_CALIBRATION])
            set_fidelity(model, self.fidelity if stage == "anneal" else "exact")
        optimizer = keras.optimizers.get(self.optimizer)
        optimizer = type(optimizer).from_config(optimizer.get_config())
        scheduled = isinstance(optimizer.get_config().get("learning_rate"), dict)
        if stage == "fine_tune" and not scheduled:
            optimizer.learning_rate = float(np.asarray(optimizer.learning_rate)) * self.fine_tune_rate
        model.compile(optimizer, self.loss, metrics=list(self.metrics))
        return model

    def _searching(self, model: keras.Model, x: Any, y: Any) -> keras.Model:
        """With the penalty, if there is one."""
        if self.penalty is None:
            return model
        penalty, share = self.penalty, self.penalty_share
        if share is not None:
            options = {"loss": self.loss, "batch_size": self.batch_size}
            penalty = scaled_penalty(model, penalty, x, y, share=share, **options)
        return with_sensitivity(model, penalty)

    def _schedules(self, model: keras.Model, stage: str) -> list:
        found: list[keras.callbacks.Callback] = []
        if stage == "anneal":
            if any(layer.hardware.has_faults for layer in hardware_layers(model)):
                found.append(NoiseSchedule(self.anneal))
            if self.penalty is not None:
                found.append(PenaltySchedule(self.anneal))
        return found

    def _described(self) -> dict[str, Any]:
        described: dict[str, Any] = {
            name: repr(value) for name, value in vars(self).items() if name not in ("hardware", "optimizer")
        }
        optimizer = {**keras.optimizers.get(self.optimizer).get_config(), "name": None}  # numbered by Keras
        described |= {"hardware": self.hardware.to_dict(), "optimizer": str(optimizer)}
        return json.loads(json.dumps(described))  # as it will be read back
