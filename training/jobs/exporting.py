"""`export` and `verify` on files."""

from __future__ import annotations

from pathlib import Path

from axtrain.exporting import Export, check_target, export, read_export, unlisted_files
from axtrain.integers.formats import WITHOUT_NETWORK
from axtrain.loading import load_model
from axtrain.training.data_files import check_samples, load_split
from axtrain.training.evaluation import evaluate
from axtrain.training.jobs.shared import for_test


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
    for given in (model, data):
        if given is not None and given.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"The export would replace a file that it reads; give another folder. Received: {given}")
    check_target(folder, overwrite)  # before the measurement
    if data is None:
        return export(load_model(model), folder, overwrite=overwrite, formats=formats)
    calibration = None
    if set(formats) - WITHOUT_NETWORK:
        calibration, _ = load_split(data, "train", scale)
    network, x, y = for_test(model, data, None, scale)
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
    others = unlisted_files(folder, exported.manifest)
    if others:
        said += f" ({len(others)} in the folder are none of them: {', '.join(others[:5])})"
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
