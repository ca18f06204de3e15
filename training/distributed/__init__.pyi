"""The public names with their types, for type checkers, as `axtrain/__init__.pyi`."""

from axtrain.training.distributed.berrut_mapping import berrut_map as berrut_map
from axtrain.training.distributed.berrut_trainer import BerrutTrainer as BerrutTrainer
from axtrain.training.distributed.coded_trainer import CodedTrainer as CodedTrainer
from axtrain.training.distributed.executor import Executor as Executor
from axtrain.training.distributed.gradient_codes import BerrutGradients as BerrutGradients
from axtrain.training.distributed.gradient_codes import GradientCode as GradientCode
from axtrain.training.distributed.gradient_codes import Repetition as Repetition
from axtrain.training.distributed.in_process import InProcess as InProcess
from axtrain.training.distributed.network_trainer import NetworkTrainer as NetworkTrainer
from axtrain.training.distributed.network_trainer import split as split
from axtrain.training.distributed.ray_actors import RayActors as RayActors
from axtrain.training.distributed.worker import Trouble as Trouble
