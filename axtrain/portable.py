"""A model on hardware as a TensorFlow SavedModel that needs neither axtrain nor Keras to run."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import keras

from axtrain.controls import hardware_layers, set_chip, set_noise_strength
from axtrain.copying import copy_of
from axtrain.noise_models.files import whole_folder

_SAVED_MODEL = ("assets", "fingerprint.pb", "saved_model.pb", "variables")


def export_saved_model(
    model: keras.Model, folder: str | os.PathLike[str], *, chip: int | None = None, overwrite: bool = False
) -> None:
    """Writes the network as a SavedModel: graphs of TensorFlow's own operations, with any batch size.

    The multiplier's table is in the graph, as factors or as look-ups. The outputs are those of the model to
    float32 rounding, the accumulators equal. Use: ``tf.saved_model.load(folder).serve(x)``, or the signature
    `serving_default`.

    Args:
        model: from `convert`, or any Functional or Sequential Keras model. It is not changed; its layers play the
            exact fidelity in what is written.
        folder: where to write; whole or absent.
        chip: whose faulty cells the weights are read from; `None` leaves all faults out.
        overwrite: replace a folder that holds a SavedModel.

    Raises:
        FileExistsError: the folder holds something else, or a SavedModel and `overwrite` is False.
        ValueError: a chip whose faults change with every read, so that there is nothing to freeze, or a chip of a
            model without hardware.

    Examples:
        >>> import keras, tempfile, numpy as np, axtrain as ax
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> noisy = ax.convert(model, ax.Hardware(multiplier=ax.multipliers.get("drum4")), np.eye(4, dtype="float32"))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     ax.export_saved_model(noisy, folder + "/saved")
    """
    folder = Path(folder).absolute()
    _check_target(folder, overwrite)
    frozen = frozen_copy(model, chip)
    with whole_folder(folder) as temporary:
        write_saved_model(frozen, temporary)


def write_saved_model(frozen: keras.Model, folder: Path) -> None:
    """Writes what `frozen_copy` gave into a folder."""
    frozen.export(folder, format="tf_saved_model", verbose=False)


def frozen_copy(model: keras.Model, chip: int | None = None) -> keras.Model:
    """A copy whose layers play the exact fidelity, without what changes by itself.

    While a graph is being saved, only engines that it can hold are chosen.

    Args:
        model: Sequential or Functional.
        chip: as in `export_saved_model`.

    Raises:
        ValueError: as in `export_saved_model`.
    """
    copy = copy_of(model)
    layers = list(hardware_layers(copy))
    for layer in layers:
        layer.play_as(replace(layer.playing, fidelity="exact", engine=None))
    if chip is not None:
        _check_frozen(layers)
        set_chip(copy, chip)
    elif layers:
        set_noise_strength(copy, 0.0)
    return copy


def _check_frozen(layers: list) -> None:
    for layer in layers:
        hardware = layer.hardware
        changing = [name for name, memory in hardware.memories.items() if memory.rate > 0 and not memory.per_chip]
        changing += ["datapath"] if hardware.datapath is not None else []
        if changing:
            raise ValueError(
                "A chip can be frozen where its faults stay from read to read. Export the clean network with "
                f"chip=None. Received: layer {layer.name!r}, whose {' and '.join(changing)} fails anew at every read"
            )


def _check_target(folder: Path, overwrite: bool) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / "saved_model.pb").is_file():
        raise FileExistsError(f"Not overwriting what is no SavedModel; choose another folder. Received: {folder}")
    others = sorted(path.name for path in folder.iterdir() if path.name not in _SAVED_MODEL)
    if others:
        raise FileExistsError(
            "Not overwriting a SavedModel beside other files; move them away, or choose another folder. "
            f"Received: {folder} with {', '.join(others)}"
        )
    if not overwrite:
        raise FileExistsError(f"A SavedModel is there already; overwrite=True replaces it. Received: {folder}")
