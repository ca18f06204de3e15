"""The jobs of the command line on files."""

from axtrain.training.jobs.exporting import export_file, verify_export
from axtrain.training.jobs.improving import search_file, train_file
from axtrain.training.jobs.measuring import evaluate_file, on_hardware, sweep_file

__all__ = [
    "evaluate_file",
    "export_file",
    "on_hardware",
    "search_file",
    "sweep_file",
    "train_file",
    "verify_export",
]
