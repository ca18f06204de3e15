"""Loading saved models in a process that has not used axtrain yet."""

from __future__ import annotations

import os

import keras

# Each registers its classes under their public names; Keras does not import the module of a class that it meets.
import axtrain.bit_error_training
import axtrain.coded
import axtrain.constraints
import axtrain.layers
import axtrain.sensitivity_training
import axtrain.weight_regularizers  # noqa: F401
from axtrain.energy_model import EnergyModel
from axtrain.hardware import Hardware
from axtrain.noise_models.curves import ProbitCurve, TabulatedCurve
from axtrain.noise_models.datapath import DroppedMACs, MeasuredDatapath, TimingErrors
from axtrain.noise_models.measured import MeasuredMemory
from axtrain.noise_models.memories import ApproximateDRAM, BitErrors, NearThresholdSRAM
from axtrain.noise_models.multiplier import Multiplier
from axtrain.noise_models.reading import check_archive, reading
from axtrain.penalties import Curvature, LossGradient, OutputSensitivity
from axtrain.quantisation import Quantisation
from axtrain.registration import register_descriptions

register_descriptions(Hardware, Multiplier, Quantisation, EnergyModel, ProbitCurve, TabulatedCurve)
register_descriptions(BitErrors, NearThresholdSRAM, ApproximateDRAM, MeasuredMemory)
register_descriptions(TimingErrors, DroppedMACs, MeasuredDatapath)
register_descriptions(OutputSensitivity, LossGradient, Curvature)


def load_model(path: str | os.PathLike[str], **kwargs) -> keras.Model:
    """`keras.saving.load_model` with every axtrain class registered; ranges, chips and noise streams resume.

    Args:
        path: a `.keras` file.
        kwargs: as for `keras.saving.load_model`.

    Raises:
        OSError: there is no such file, or it may not be read.
        ValueError: a damaged file (each part of it has a checksum), unknown classes or unsafe content; the error names
            the file.
    """
    with reading(path, "a Keras model", "save it again, or give the classes that it names in custom_objects"):
        if os.path.isfile(path) and os.fspath(path).endswith(".keras"):
            check_archive(path)
        return keras.saving.load_model(os.fspath(path), **kwargs)
