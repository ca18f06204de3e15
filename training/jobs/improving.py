"""`train` and `search` on files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras

from axtrain.controls import hardware_layers, set_noise_strength
from axtrain.hardware import Hardware
from axtrain.loading import load_model
from axtrain.noise_models.files import save_figure, whole_file, write_whole
from axtrain.training.callbacks import MLflow, NoiseSchedule
from axtrain.training.data_files import check_labels, check_samples, load_split
from axtrain.training.jobs.shared import converted, cross_entropy, tracked
from axtrain.training.kept_figures import fingerprint
from axtrain.training.progress import FitProgress
from axtrain.training.resumable_fit import resumable_fit
from axtrain.training.search.searching import search
from axtrain.training.training_state import ResumableBatches


def train_file(
    model: Path,
    out: Path,
    *,
    data: Path,
    hardware: Path | None,
    epochs: int,
    learning_rate: float,
    batch_size: int,
    anneal: int,
    seed: int,
    scale: float,
    checkpoint: Path | None = None,
    save_every: int | None = None,
    track: dict[str, Any] | None = None,
) -> dict[str, list[float]]:
    """Trains a saved model for hardware and saves it whole; returns every epoch's figures.

    With a folder for checkpoints the same call goes on after a kill, and gives the same weights.
    """
    if out.suffix != ".keras":
        raise ValueError(f"The trained model is written as .keras. Received: {out}")
    if save_every is not None and checkpoint is None:
        raise ValueError(f"Give --checkpoint DIR to save a state in. Received: save_every={save_every}, no checkpoint")
    keras.utils.set_random_seed(seed)
    x, y = load_split(data, "train", scale)
    network = load_model(model)
    check_samples(network, x, data)
    check_labels(network, y, data)
    if hardware is not None:
        network = converted(network, hardware, x)
    elif not any(True for _ in hardware_layers(network)):
        raise ValueError(f"The model runs on no hardware yet; give --hardware FILE.json. Received: {model}")
    network.compile(keras.optimizers.Adam(learning_rate), cross_entropy(network, x), metrics=["accuracy"])
    callbacks: list[keras.callbacks.Callback] = [NoiseSchedule(anneal)] if anneal else []
    note = {"learning_rate": learning_rate, "batch_size": batch_size, "anneal": anneal, "seed": seed}
    if checkpoint is not None:
        note |= fingerprint(network, x, y, train_file)
    progress = FitProgress("train for the hardware", epochs=epochs)
    with tracked(track, "train", model, network, data) as run, progress as shown:
        if run is not None:
            run.log_params({"batch_size": batch_size, "anneal": anneal, "seed": seed}, keep=True)
            callbacks.append(MLflow(run=run))
        logs = resumable_fit(
            network, ResumableBatches(x, y, batch_size, seed), epochs=epochs, every=save_every, note=note,
            path=None if checkpoint is None else checkpoint / "training.npz", callbacks=[*callbacks, shown], verbose=0,
        )  # fmt: skip
        if anneal:
            set_noise_strength(network, 1.0)  # where nothing was left to do the state's own strength stands
        with whole_file(out) as path:
            network.save(path)
        if run is not None:
            run.model(network, x[:2])
    return {name: [epoch[name] for epoch in logs] for name in logs[-1]}


def search_file(
    model: Path,
    candidates: list[Path],
    *,
    data: Path,
    budget: float | None,
    confirm: int,
    objective: str,
    epochs: int,
    out: Path,
    chips: int,
    seed: int,
    scale: float,
    track: dict[str, Any] | None = None,
) -> str:
    """Searches hardware for every layer of a saved model on a part of the training samples; returns what to say."""
    network = load_model(model)
    x, y = load_split(data, "train", scale)
    check_samples(network, x, data)
    check_labels(network, y, data)
    cut, loss = len(x) - max(1, len(x) // 5), cross_entropy(network, x)

    def fitted(network: keras.Model) -> None:
        network.compile(keras.optimizers.Adam(), loss)
        network.fit(x[:cut], y[:cut], epochs=epochs, batch_size=64, verbose=0)

    with tracked(track, "search", model, network, data) as run:
        found = search(
            network, x[cut:], y[cut:], candidates=[Hardware.from_json(path) for path in candidates], budget=budget,
            confirm=confirm, objective=objective, train=fitted if epochs else None, chips=chips, seed=seed,
            calibration=x[:512], folder=out / "kept",
        )  # fmt: skip
        write_whole(out / "search.json", json.dumps(found.to_dict(), indent=1).encode())
        save_figure(found.plot(), out / "search.png")
        if found.model is not None:
            with whole_file(out / "model.keras") as path:
                found.model.save(path)
        if run is not None:
            run.search(found)
            if found.model is not None:
                run.model(found.model, x[:2])
    return f"{found.table()}\nWrote {out}"
