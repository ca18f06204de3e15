"""Deployable weights: a folder that is whole or absent, with a manifest that proves what is in it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import keras
import numpy as np
from keras import ops

from axtrain import __version__
from axtrain.controls import hardware_layers
from axtrain.finite import check_finite_weights
from axtrain.integers.formats import check_formats, write_formats
from axtrain.model_walk import labels
from axtrain.noise_models.files import whole_folder
from axtrain.noise_models.reading import read_arrays, read_json
from axtrain.quantisers import affine_parameters, symmetric_scale

MANIFEST = "manifest.json"
_FORMAT = "axtrain-export-1"
_MODEL, _INTEGERS = "model.keras", "integers.npz"


@dataclass(frozen=True)
class Export:
    """An exported folder, verified.

    Attributes:
        folder: where it lies.
        manifest: hardware, layer order, sha256 of each file, measured accuracy.
        integers: for each layer in order `{"codes", "scale", "bias", "activation_scale", "zero_point"}`; where a
            layer has several products, `{"PRODUCT/codes", ...}` for each of them.
    """

    folder: Path
    manifest: dict[str, Any]
    integers: dict[str, dict[str, np.ndarray]]

    def model(self) -> keras.Model:
        """The exported Keras model."""
        from axtrain.loading import load_model

        return load_model(self.folder / _MODEL)


def export(
    model: keras.Model,
    folder: str | os.PathLike[str],
    *,
    accuracy=None,
    overwrite: bool = False,
    formats: Sequence[str] = (),
    calibration=None,
) -> Export:
    """Writes the resilient network to a folder: `.keras`, integers, and a manifest.

    - `model.keras`: the model itself, clean float weights and calibrated ranges.
    - `integers.npz`: per hardware layer `NAME/codes` (int16; the stored integers), `NAME/scale` (float32,
      per output channel), `NAME/bias` (float32), `NAME/activation_scale`, `NAME/zero_point`. A layer of several
      products (recurrent, separable, attention) has `NAME/PRODUCT/codes` and so on for each of them. Codes lie
      as the product takes them: an einsum's as a matrix, a transposed convolution's flipped. A product of two
      activations has no codes; its `scale` is that of the second operand.
    - `manifest.json`: format, axtrain and Keras versions, layers in order with their hardware, operand
      encodings and layout, sha256 of the other files, measured accuracy.
    - for `formats`: `"litert"` writes `model.tflite`, equal to `axtrain.integer_network` code for code in LiteRT's
      reference kernels (exact multipliers, the extra `litert`; `axtrain.compare_litert`); `"onnx"` writes
      `model.onnx`, whose layers differ from it by at most one code from equal inputs, in ONNX Runtime's default
      session on any CPU (exact multipliers, the extra `onnx`; `axtrain.compare_onnx`); `"saved_model"` writes
      `saved_model/`, which TensorFlow alone runs.

    `NAME` is the layer's name, or its path (`left/proj`) where another layer of the model bears the name too.

    The weights are the clean ones, whatever their memory does. Real value of a product sum:
    ``activation_scale * scale * (sum M[a, w] - zero_point * sum w)``.

    Args:
        model: a model from `convert`.
        folder: where to write; made if absent.
        accuracy: what was measured: an `evaluate` result, a number, or a JSON-able dictionary.
        overwrite: replace what an earlier export wrote, in one step; a folder with other files in it is refused.
        formats: names of further forms to write, see `axtrain.integers.formats.FORMATS`.
        calibration: samples for the ranges between products, which the formats in integers need: `x_train[:512]`.

    Returns:
        the `Export`, read back and verified.

    Raises:
        ValueError: no hardware layer in the model, one without an activation range yet, or two of one name in the
            same model; a weight, range or accuracy that is not finite; an unknown format, or a model that cannot be
            written in it.
        ImportError: a format whose extra is not installed.
        FileExistsError: the folder holds something else than files of an earlier export, or `overwrite` is False.
    """
    formats = check_formats(formats)
    layers = list(hardware_layers(model))
    if not layers:
        raise ValueError(f"No layer of this model runs on hardware; use axtrain.convert. Received: {model.name!r}")
    for layer in layers:
        if not all(ops.convert_to_numpy(product.state.seen) for product in layer.products):
            raise ValueError(
                "A layer that has seen neither calibration data nor a training step has no activation range to "
                f"export; convert with calibration=... or train first. Received: layer {layer.name!r}"
            )
    check_finite_weights(model)
    accuracy = accuracy.to_dict() if hasattr(accuracy, "to_dict") else accuracy
    try:
        json.dumps(accuracy, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"`accuracy` must hold finite numbers alone. Received: accuracy={accuracy!r}") from error
    folder = Path(folder).absolute()
    check_target(folder, overwrite)
    with whole_folder(folder) as temporary:
        write_formats(model, temporary, formats, calibration)
        _write(model, layers, temporary, accuracy, formats)
    return read_export(folder)


def read_export(folder: str | os.PathLike[str]) -> Export:
    """Reads an exported folder, checking every file against the manifest's sha256.

    Raises:
        FileNotFoundError: no manifest there, or a file that it lists is missing.
        ValueError: not a manifest of this format, a file that differs from it or is not listed, or layers of one name.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    for name, digest in manifest["files"].items():
        found = _sha256(folder / name)
        if found != digest:
            raise ValueError(
                f"{name} in {folder} is not the file that was exported: its sha256 differs from the manifest's. "
                f"Export again. Received: {found}, expected {digest}"
            )
    names = [entry["name"] for entry in manifest["layers"]]
    if len(set(names)) < len(names):
        raise ValueError(
            "Layers of one name overwrote each other's integers when this folder was written. Export again. "
            f"Received: layers {names} in {folder}"
        )
    integers: dict[str, dict[str, np.ndarray]] = {}
    arrays = read_arrays(folder / _INTEGERS, "an export's integers", "export again")
    for name in names:
        prefix = name + "/"
        integers[name] = {k[len(prefix) :]: arrays[k] for k in arrays if k.startswith(prefix)}
        if not integers[name]:
            raise ValueError(f"{folder / _INTEGERS} lacks a layer of the manifest; export again. Received: {prefix!r}")
    return Export(folder, manifest, integers)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an exported folder, whose files are not looked at.

    Raises:
        FileNotFoundError: no manifest there.
        ValueError: not one of this format, one that is damaged, or that does not list what every export holds.
    """
    path = folder / MANIFEST
    manifest = read_json(path, "an export's manifest", "export again")
    if manifest.get("format") != _FORMAT:
        raise ValueError(f"Not a manifest of format {_FORMAT!r}. Received: {manifest.get('format')!r} in {folder}")
    files, layers = manifest.get("files"), manifest.get("layers")
    well = isinstance(layers, list) and all(
        isinstance(one, dict) and isinstance(one.get("name"), str) for one in layers
    )
    if not well or not isinstance(files, dict) or "accuracy" not in manifest:
        raise ValueError(f"{path} must list files, layers and the accuracy; export again. Received: {sorted(manifest)}")
    for name in files:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ValueError(f"A manifest lists files of its own folder alone. Received: {name!r} in {folder}")
    missing = [name for name in (_MODEL, _INTEGERS) if name not in files]
    if missing:
        raise ValueError(f"{path} must list every file of an export; export again. Received: none of {missing}")
    return manifest


def check_target(folder: Path, overwrite: bool) -> None:
    """Raises FileExistsError where `export` would not write."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        others = unlisted_files(folder, read_manifest(folder))
    except (ValueError, OSError) as error:
        raise FileExistsError(
            f"Not overwriting something that is no export; choose another folder. Received: {folder} ({error})"
        ) from error
    if others:
        raise FileExistsError(
            "Not overwriting an export beside files that its manifest does not list; move them away, or choose another "
            f"folder. Received: {folder} with {', '.join(others[:5])}{' and more' * (len(others) > 5)}"
        )
    if not overwrite:
        raise FileExistsError(f"An export is there already; give overwrite=True to replace it. Received: {folder}")


def unlisted_files(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """What lies in an exported folder and is none of its files."""
    return sorted(set(_files(folder)) - {MANIFEST, *manifest["files"]})


def _files(folder: Path) -> list[str]:
    """All in a folder that is no folder itself, as a manifest names it."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_symlink() or not path.is_dir()]
    return [path.relative_to(folder).as_posix() for path in paths]


def _write(model, layers, folder: Path, accuracy, formats) -> None:
    model.save(folder / _MODEL)
    arrays: dict[str, Any] = {}
    told = labels(model)
    for layer in layers:
        arrays.update({f"{told[id(layer)]}/{key}": value for key, value in _integers(layer).items()})
    np.savez_compressed(folder / _INTEGERS, **arrays)
    manifest = {
        "format": _FORMAT,
        "axtrain": __version__,
        "keras": keras.__version__,
        "model": model.name,
        "layers": [
            {
                "name": told[id(layer)],
                "class": type(layer).__name__,
                **_single_kernel(layer),
                "products": [
                    {"name": name, "kernel_shape": None if product.kernel is None else list(product.kernel.shape)}
                    for name, product in zip(layer.product_names, layer.products, strict=True)
                ],
                "activation_codes": list(layer.hardware.activation_codes),
                "operand_encodings": list(layer.hardware.operand_encodings),
                "hardware": layer.hardware.to_dict(),
            }
            for layer in layers
        ],
        "formats": list(formats),
        "files": {name: _sha256(folder / name) for name in _files(folder)},
        "accuracy": accuracy,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))


def _single_kernel(layer) -> dict[str, list[int]]:
    """The kernel's shape where the layer has one kernel, as readers of earlier manifests expect it."""
    return {"kernel_shape": list(layer.kernel.shape)} if len(layer.products) == 1 else {}


def _integers(layer) -> dict[str, np.ndarray]:
    arrays = {}
    for name, product in zip(layer.product_names, layer.products, strict=True):
        prefix = f"{name}/" if name else ""
        arrays.update({prefix + key: value for key, value in _product_integers(product).items()})
    for name, bias in layer.biases.items():
        arrays[f"{name}/bias" if name else "bias"] = ops.convert_to_numpy(bias).astype(np.float32)
    return arrays


def _product_integers(product) -> dict[str, Any]:
    state, hardware = product.state, product.state.hardware
    code_low, code_high = hardware.activation_codes
    if hardware.activations == "symmetric":
        scale, zero_point = symmetric_scale(state.low.value, state.high.value, code_high), 0.0
    else:
        scale, zero_point = affine_parameters(state.low.value, state.high.value, code_low, code_high)
    arrays: dict[str, Any] = {
        "activation_scale": np.float32(ops.convert_to_numpy(scale)),
        "zero_point": np.int32(ops.convert_to_numpy(zero_point)),
    }
    if product.kernel is None:
        limit = (1 << (hardware.weight_bits - 1)) - 1
        second = symmetric_scale(state.second.low.value, state.second.high.value, limit)
        return {"scale": np.float32(ops.convert_to_numpy(second)), **arrays}
    kernel = ops.convert_to_tensor(product.kernel)
    weights = hardware.weight_codes(kernel, product.geometry.summed_axes(len(kernel.shape)))
    return {
        "codes": ops.convert_to_numpy(weights.codes).astype(np.int16),
        "scale": ops.convert_to_numpy(weights.scale).reshape(-1).astype(np.float32),
        **arrays,
    }


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
