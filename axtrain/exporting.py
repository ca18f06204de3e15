"""Deployable weights: a folder that is whole or absent, with a manifest that proves what is in it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import keras
import numpy as np
from keras import ops

from axtrain import __version__
from axtrain.controls import hardware_layers
from axtrain.files import whole_file, write_whole
from axtrain.integers.formats import check_formats, write_formats
from axtrain.quantisers import affine_parameters, symmetric_scale

MANIFEST = "manifest.json"
_FORMAT = "axtrain-export-1"


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

        return load_model(self.folder / "model.keras")


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

    The weights are the clean ones, whatever their memory does. Real value of a product sum:
    ``activation_scale * scale * (sum M[a, w] - zero_point * sum w)``.

    Args:
        model: a model from `convert`.
        folder: where to write; made if absent.
        accuracy: what was measured: an `evaluate` result, a number, or a JSON-able dictionary.
        overwrite: replace a folder that an earlier export wrote.
        formats: names of further forms to write, see `axtrain.integers.formats.FORMATS`.
        calibration: samples for the ranges between products, which the formats in integers need: `x_train[:512]`.

    Returns:
        the `Export`, read back and verified.

    Raises:
        ValueError: no hardware layer in the model, or one without an activation range yet; an unknown format, or a
            model that cannot be written in it.
        ImportError: a format whose extra is not installed.
        FileExistsError: the folder holds something else, or an export and `overwrite` is False.
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
    folder = Path(folder).absolute()
    check_target(folder, overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        write_formats(model, temporary, formats, calibration)
        _write(model, layers, temporary, accuracy, formats)
        temporary.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return read_export(folder)


def read_export(folder: str | os.PathLike[str]) -> Export:
    """Reads an exported folder, checking every file against the manifest's sha256.

    Raises:
        FileNotFoundError: no manifest there, or a file that it lists is missing.
        ValueError: not a manifest of this format, or a file that differs from it.
    """
    folder = Path(folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    if manifest.get("format") != _FORMAT:
        raise ValueError(f"Not a manifest of format {_FORMAT!r}. Received: {manifest.get('format')!r} in {folder}")
    for name, digest in manifest["files"].items():
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ValueError(f"A manifest lists files of its own folder alone. Received: {name!r} in {folder}")
        found = _sha256(folder / name)
        if found != digest:
            raise ValueError(
                f"{name} in {folder} is not the file that was exported: its sha256 differs from the manifest's. "
                f"Export again. Received: {found}, expected {digest}"
            )
    integers: dict[str, dict[str, np.ndarray]] = {}
    with np.load(folder / "integers.npz", allow_pickle=False) as arrays:
        for entry in manifest["layers"]:
            prefix = entry["name"] + "/"
            integers[entry["name"]] = {k[len(prefix) :]: arrays[k] for k in arrays.files if k.startswith(prefix)}
    return Export(folder, manifest, integers)


def check_target(folder: Path, overwrite: bool) -> None:
    """Raises FileExistsError where `export` would not write."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not folder.is_dir() or not (folder / MANIFEST).is_file():
        raise FileExistsError(f"Not overwriting something that is no export; choose another folder. Received: {folder}")
    if not overwrite:
        raise FileExistsError(f"An export is there already; give overwrite=True to replace it. Received: {folder}")


def _write(model, layers, folder: Path, accuracy, formats) -> None:
    model.save(folder / "model.keras")
    arrays: dict[str, Any] = {}
    for layer in layers:
        arrays.update({f"{layer.name}/{key}": value for key, value in _integers(layer).items()})
    with whole_file(folder / "integers.npz") as path, path.open("wb") as file:
        np.savez_compressed(file, **arrays)
    manifest = {
        "format": _FORMAT,
        "axtrain": __version__,
        "keras": keras.__version__,
        "model": model.name,
        "layers": [
            {
                "name": layer.name,
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
        "files": {
            path.relative_to(folder).as_posix(): _sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()
        },
        "accuracy": accuracy.to_dict() if hasattr(accuracy, "to_dict") else accuracy,
    }
    write_whole(folder / MANIFEST, json.dumps(manifest, indent=1).encode())


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
    return hashlib.sha256(path.read_bytes()).hexdigest()
