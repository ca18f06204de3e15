"""The jobs of the command line on files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import keras

from axtrain.controls import hardware_layers, set_noise_strength
from axtrain.conversion import convert
from axtrain.exporting import Export, check_target, export, read_export
from axtrain.files import save_figure, whole_file, write_whole
from axtrain.hardware import Hardware
from axtrain.integers.formats import WITHOUT_NETWORK
from axtrain.loading import load_model
from axtrain.training.callbacks import MLflow, NoiseSchedule
from axtrain.training.data_files import check_labels, check_samples, gives_probabilities, load_split
from axtrain.training.evaluation import Evaluation, evaluate
from axtrain.training.kept_figures import fingerprint
from axtrain.training.progress import FitProgress
from axtrain.training.resumable_fit import resumable_fit
from axtrain.training.search.searching import search
from axtrain.training.sweep.results import lowest_voltage
from axtrain.training.sweep.sweeping import sweep
from axtrain.training.tracking.opening import run as tracking_run
from axtrain.training.tracking.runs import Run
from axtrain.training.training_state import ResumableBatches


def evaluate_file(
    model: Path,
    data: Path,
    *,
    hardware: Path | None,
    chips: int,
    seed: int,
    scale: float,
    report: Path | None,
    track: dict[str, Any] | None = None,
) -> Evaluation:
    """Measures a saved model, on hardware if given (then calibrated on the training part)."""
    network, x, y = _for_test(model, data, hardware, scale)
    with _tracked(track, "evaluate", model, network, data) as run:
        measured = evaluate(network, x, y, chips=chips, seed=seed)
        if run is not None:
            run.evaluation(measured)
    if report is not None:
        write_whole(report, json.dumps(measured.to_dict(), indent=1).encode())
    return measured


def on_hardware(model: Path, hardware: Path | None, data: Path | None, scale: float) -> keras.Model:
    """A saved model, on hardware if given, calibrated if there are data."""
    network = load_model(model)
    if hardware is None:
        return network
    x = None if data is None else load_split(data, "train", scale)[0]
    if x is not None and data is not None:
        check_samples(network, x, data)
    return _on_hardware(network, hardware, x)


def sweep_file(
    model: Path,
    *,
    data: Path,
    hardware: Path | None,
    voltages: list[float] | None,
    rates: list[float] | None,
    accuracy: float | None,
    out: Path,
    chips: int,
    seed: int,
    scale: float,
    track: dict[str, Any] | None = None,
) -> str:
    """Sweeps a saved model, writes figures, table and picture, and returns what to say."""
    network, x, y = _for_test(model, data, hardware, scale)
    with _tracked(track, "sweep", model, network, data) as run:
        result = sweep(network, x, y, voltages=voltages, rates=rates, chips=chips, seed=seed, folder=out / "kept")
        write_whole(out / "sweep.json", json.dumps(result.to_dict(), indent=1).encode())
        result.to_csv(out / "sweep.csv")
        save_figure(result.plot(accuracy), out / "sweep.png")
        if run is not None:
            run.sweep(result)
    said = [result.table()]
    if accuracy is not None:
        dial = "lowest voltage" if rates is None else "highest error rate"
        said.append(f"{dial} for an accuracy of {accuracy:g}: {lowest_voltage(result, accuracy)}")
    return "\n".join([*said, f"Wrote {out}"])


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
    cut, loss = len(x) - max(1, len(x) // 5), _cross_entropy(network, x)

    def fitted(converted: keras.Model) -> None:
        converted.compile(keras.optimizers.Adam(), loss)
        converted.fit(x[:cut], y[:cut], epochs=epochs, batch_size=64, verbose=0)

    with _tracked(track, "search", model, network, data) as run:
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


def export_file(
    model: Path,
    folder: Path,
    *,
    overwrite: bool,
    data: Path | None,
    formats: tuple[str, ...],
    chips: int,
    seed: int,
    scale: float,
) -> Export:
    """Exports a saved model, with what it measures if there are data; formats in integers need them."""
    check_target(folder, overwrite)  # before the measurement
    if data is None:
        return export(load_model(model), folder, overwrite=overwrite, formats=formats)
    calibration = None
    if set(formats) - WITHOUT_NETWORK:
        calibration, _ = load_split(data, "train", scale)
    network, x, y = _for_test(model, data, None, scale)
    if calibration is not None:
        check_samples(network, calibration, data)
        calibration = calibration[:512].reshape(-1, *network.input_shape[1:])
    measured = evaluate(network, x, y, chips=chips, seed=seed)
    return export(network, folder, accuracy=measured, overwrite=overwrite, formats=formats, calibration=calibration)


def verify_export(folder: Path, data: Path | None, scale: float) -> str:
    """Checks an export's files, and with data its accuracy on the chips that it was measured on.

    Raises:
        ValueError: a file or the accuracy differs from the manifest's.
    """
    exported = read_export(folder)
    said = f"{len(exported.manifest['files'])} files are as they were exported"
    if data is None:
        return said
    network, (x, y), stated = exported.model(), load_split(data, "test", scale), exported.manifest["accuracy"]
    check_samples(network, x, data)
    full = isinstance(stated, dict) and "accuracies" in stated
    chips, seed = (len(stated["accuracies"]), stated["seed"]) if full else (20, 0)
    measured = evaluate(network, x, y, chips=chips, seed=seed)
    if not full:
        return f"{said}; the export states no accuracy of chips to compare with. Measured: {measured}"
    if measured.accuracies.tolist() != stated["accuracies"]:
        raise ValueError(
            f"The accuracy is not the one that was exported. Were the samples and --scale the same? Exported: mean "
            f"{stated['mean']:.4f}, worst {stated['worst']:.4f} of {stated['samples']} samples. Received: {measured}"
        )
    return f"{said}; {measured}{'; as exported' if measured.deterministic else ', each chip as exported'}"


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
        network = _on_hardware(network, hardware, x)
    elif not any(True for _ in hardware_layers(network)):
        raise ValueError(f"{model} runs on no hardware yet; give --hardware FILE.json")
    network.compile(keras.optimizers.Adam(learning_rate), _cross_entropy(network, x), metrics=["accuracy"])
    callbacks: list[keras.callbacks.Callback] = [NoiseSchedule(anneal)] if anneal else []
    note = {"learning_rate": learning_rate, "batch_size": batch_size, "anneal": anneal, "seed": seed}
    if checkpoint is not None:
        note |= fingerprint(network, x, y, train_file)
    progress = FitProgress("train for the hardware", epochs=epochs)
    with _tracked(track, "train", model, network, data) as run, progress as shown:
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


@contextmanager
def _tracked(track: dict[str, Any] | None, job: str, model: Path, network, data: Path) -> Iterator[Run | None]:
    """The MLflow run of a job, if it has one; begun before the work, so that a server that is down costs none."""
    if track is None:
        yield None
        return
    with tracking_run(None if track["run_id"] else f"{job} {model.name}", **track) as run:
        run.log_params({"job": job, "model": str(model), "data": str(data)}, keep=True)
        run.hardware(network)
        click.echo(f"Logging to run {run.name}; after a kill go on with --run-id {run.run_id}")
        yield run


def _for_test(model: Path, data: Path, hardware: Path | None, scale: float):
    """(the model, on hardware if given and then calibrated on the training part, test samples, labels)."""
    network = load_model(model)
    x, y = load_split(data, "test", scale)
    check_samples(network, x, data)
    if hardware is not None:
        network = _on_hardware(network, hardware, load_split(data, "train", scale)[0])
    return network, x, y


def _on_hardware(network, hardware: Path, x_train):
    calibration = None if x_train is None else x_train[:512]
    return convert(network, Hardware.from_json(hardware), calibration=calibration)


def _cross_entropy(network, x) -> keras.losses.Loss:
    """Of probabilities or logits, as the model gives them."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=not gives_probabilities(network, x[:32]))
