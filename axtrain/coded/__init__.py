"""Layers whose training survives soft errors: coded products on unreliable nodes."""

from axtrain.coded.berrut import Berrut
from axtrain.coded.checksum import Checksum
from axtrain.coded.code import Code, Stage
from axtrain.coded.conversion import convert, strip
from axtrain.coded.convolutional import CodedConv2D
from axtrain.coded.decoder import Decoder
from axtrain.coded.dense import CodedDense
from axtrain.coded.faults import SoftErrors
from axtrain.coded.grids import CodeNet, SystematicMDS, Uncoded
from axtrain.coded.latency import Latency, MeasuredLatency, ShiftedExponential
from axtrain.coded.layer import CodedLayer
from axtrain.coded.model import CodedModel
from axtrain.coded.polydot import GeneralizedPolyDot, MatDot, Polynomial
from axtrain.coded.replication import Replication
from axtrain.coded.simulation import Simulation, simulate
from axtrain.registration import register_descriptions

register_descriptions(CodeNet, SystematicMDS, Uncoded, GeneralizedPolyDot, Replication, Checksum)
register_descriptions(SoftErrors, ShiftedExponential, MeasuredLatency)

__all__ = [
    "Berrut",
    "Checksum",
    "Code",
    "CodeNet",
    "CodedConv2D",
    "CodedDense",
    "CodedLayer",
    "CodedModel",
    "Decoder",
    "GeneralizedPolyDot",
    "Latency",
    "MatDot",
    "MeasuredLatency",
    "Polynomial",
    "Replication",
    "ShiftedExponential",
    "Simulation",
    "SoftErrors",
    "Stage",
    "SystematicMDS",
    "Uncoded",
    "convert",
    "simulate",
    "strip",
]
