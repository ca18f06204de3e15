"""The public names with their types, for type checkers: `axtrain/__init__.py` finds them when they are first used.

One line for each name there; tests/contract/test_house.py holds the two together.
"""

from axtrain import catalogue as catalogue
from axtrain import coded as coded
from axtrain import emulation as emulation
from axtrain import interop as interop
from axtrain import layers as layers
from axtrain.bit_error_training import with_bit_errors as with_bit_errors
from axtrain.constraints import WeightRange as WeightRange
from axtrain.controls import limit_weights as limit_weights
from axtrain.controls import set_chip as set_chip
from axtrain.controls import set_fidelity as set_fidelity
from axtrain.controls import set_noise_strength as set_noise_strength
from axtrain.conversion import convert as convert
from axtrain.conversion import strip as strip
from axtrain.energy_estimate import energy as energy
from axtrain.energy_model import EnergyModel as EnergyModel
from axtrain.exporting import export as export
from axtrain.exporting import read_export as read_export
from axtrain.hardware import Hardware as Hardware
from axtrain.integers.c_code.source import write_c as write_c
from axtrain.integers.litert.comparing import compare_litert as compare_litert
from axtrain.integers.litert.writing import write_litert as write_litert
from axtrain.integers.lowering.lowering import integer_network as integer_network
from axtrain.integers.memory.image import read_memory as read_memory
from axtrain.integers.memory.image import write_memory as write_memory
from axtrain.integers.onnx_files.comparing import compare_onnx as compare_onnx
from axtrain.integers.onnx_files.writing import write_onnx as write_onnx
from axtrain.layers.registry import register_layer as register_layer
from axtrain.loading import load_model as load_model
from axtrain.noise_models import curves as curves
from axtrain.noise_models import datapath as _datapath
from axtrain.noise_models import memories as memories
from axtrain.noise_models import multipliers as multipliers
from axtrain.noise_models.curve_fitting import fit_curve as fit_curve
from axtrain.noise_models.datapath_fitting import calibrate_datapath as calibrate_datapath
from axtrain.noise_models.multiplier import Multiplier as Multiplier
from axtrain.noise_models.readings import Readings as Readings
from axtrain.penalties import Curvature as Curvature
from axtrain.penalties import LossGradient as LossGradient
from axtrain.penalties import OutputSensitivity as OutputSensitivity
from axtrain.portable import export_saved_model as export_saved_model
from axtrain.quantisation import Quantisation as Quantisation
from axtrain.reporting import summary as summary
from axtrain.sensitivity_training import with_sensitivity as with_sensitivity
from axtrain.training import callbacks as callbacks
from axtrain.training import distributed as distributed
from axtrain.training import plots as plots
from axtrain.training import tracking as tracking
from axtrain.training.axtrainer import AxTrainer as AxTrainer
from axtrain.training.evaluation import evaluate as evaluate
from axtrain.training.penalty_scaling import scaled_penalty as scaled_penalty
from axtrain.training.resumable_fit import resumable_fit as resumable_fit
from axtrain.training.search.searching import search as search
from axtrain.training.sensitivity.maps import sensitivity as sensitivity
from axtrain.training.sweep.results import lowest_voltage as lowest_voltage
from axtrain.training.sweep.sweeping import sweep as sweep
from axtrain.training.training_state import ResumableBatches as ResumableBatches
from axtrain.weight_regularizers import BitFlipEnergy as BitFlipEnergy
from axtrain.weight_regularizers import MultiplierError as MultiplierError

datapaths = _datapath
__version__: str
