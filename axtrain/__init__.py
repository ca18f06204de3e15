"""axtrain: train Keras networks for approximate and unreliable hardware, and prove that it worked.

Everything public is reached from here and loaded when first used: `import axtrain` alone loads neither
TensorFlow nor MLflow.
"""

from __future__ import annotations

import importlib
import sys

from axtrain.lazy_names import import_when_used

__version__ = "0.1.0"

# Public name -> where it lives: "module:attribute", or a module itself.
_PUBLIC = {
    "Multiplier": "axtrain.noise_models.multiplier:Multiplier",
    "multipliers": "axtrain.noise_models.multipliers",
    "memories": "axtrain.noise_models.memories",
    "curves": "axtrain.noise_models.curves",
    "Readings": "axtrain.noise_models.readings:Readings",
    "fit_curve": "axtrain.noise_models.curve_fitting:fit_curve",
    "datapaths": "axtrain.noise_models.datapath",
    "calibrate_datapath": "axtrain.noise_models.datapath_fitting:calibrate_datapath",
    "catalogue": "axtrain.catalogue",
    "Hardware": "axtrain.hardware:Hardware",
    "Quantisation": "axtrain.quantisation:Quantisation",
    "EnergyModel": "axtrain.energy_model:EnergyModel",
    "emulation": "axtrain.emulation",
    "layers": "axtrain.layers",
    "register_layer": "axtrain.layers.registry:register_layer",
    "interop": "axtrain.interop",
    "convert": "axtrain.conversion:convert",
    "strip": "axtrain.conversion:strip",
    "set_fidelity": "axtrain.controls:set_fidelity",
    "set_chip": "axtrain.controls:set_chip",
    "set_noise_strength": "axtrain.controls:set_noise_strength",
    "limit_weights": "axtrain.controls:limit_weights",
    "WeightRange": "axtrain.constraints:WeightRange",
    "MultiplierError": "axtrain.weight_regularizers:MultiplierError",
    "BitFlipEnergy": "axtrain.weight_regularizers:BitFlipEnergy",
    "with_bit_errors": "axtrain.bit_error_training:with_bit_errors",
    "with_sensitivity": "axtrain.sensitivity_training:with_sensitivity",
    "OutputSensitivity": "axtrain.penalties:OutputSensitivity",
    "LossGradient": "axtrain.penalties:LossGradient",
    "Curvature": "axtrain.penalties:Curvature",
    "summary": "axtrain.reporting:summary",
    "energy": "axtrain.energy_estimate:energy",
    "export": "axtrain.exporting:export",
    "read_export": "axtrain.exporting:read_export",
    "integer_network": "axtrain.integers.lowering.lowering:integer_network",
    "write_litert": "axtrain.integers.litert.writing:write_litert",
    "compare_litert": "axtrain.integers.litert.comparing:compare_litert",
    "export_saved_model": "axtrain.portable:export_saved_model",
    "load_model": "axtrain.loading:load_model",
    "write_c": "axtrain.integers.c_code.source:write_c",
    "write_memory": "axtrain.integers.memory.image:write_memory",
    "read_memory": "axtrain.integers.memory.image:read_memory",
    "write_onnx": "axtrain.integers.onnx_files.writing:write_onnx",
    "compare_onnx": "axtrain.integers.onnx_files.comparing:compare_onnx",
    "evaluate": "axtrain.training.evaluation:evaluate",
    "sweep": "axtrain.training.sweep.sweeping:sweep",
    "sensitivity": "axtrain.training.sensitivity.maps:sensitivity",
    "search": "axtrain.training.search.searching:search",
    "lowest_voltage": "axtrain.training.sweep.results:lowest_voltage",
    "scaled_penalty": "axtrain.training.penalty_scaling:scaled_penalty",
    "resumable_fit": "axtrain.training.resumable_fit:resumable_fit",
    "ResumableBatches": "axtrain.training.training_state:ResumableBatches",
    "AxTrainer": "axtrain.training.axtrainer:AxTrainer",
    "coded": "axtrain.coded",
    "callbacks": "axtrain.training.callbacks",
    "distributed": "axtrain.training.distributed",
    "tracking": "axtrain.training.tracking",
    "plots": "axtrain.training.plots",
}

__all__ = ["__version__", *_PUBLIC]
__getattr__, __dir__ = import_when_used(__name__, _PUBLIC)

if "keras" in sys.modules:  # a Keras user's load_model finds our classes at once
    importlib.import_module("axtrain.loading")
