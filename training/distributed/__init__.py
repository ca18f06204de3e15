"""Training on many machines that may be wrong, late or gone: coded, Berrut approximated, and without a centre."""

from axtrain.training.distributed.berrut_map import berrut_map
from axtrain.training.distributed.berrut_trainer import BerrutTrainer
from axtrain.training.distributed.coded_trainer import CodedTrainer
from axtrain.training.distributed.executor import Executor
from axtrain.training.distributed.gradient_codes import BerrutGradients, GradientCode, Repetition
from axtrain.training.distributed.in_process import InProcess
from axtrain.training.distributed.network_trainer import NetworkTrainer, split
from axtrain.training.distributed.ray_actors import RayActors
from axtrain.training.distributed.worker import Trouble

__all__ = [
    "BerrutGradients",
    "BerrutTrainer",
    "CodedTrainer",
    "Executor",
    "GradientCode",
    "InProcess",
    "NetworkTrainer",
    "RayActors",
    "Repetition",
    "Trouble",
    "berrut_map",
    "split",
]
