"""Training on many machines that may be wrong, late or gone: coded, Berrut approximated, and without a centre."""

from __future__ import annotations

from axtrain.lazy_names import import_when_used

# Loaded when first used: a process that serves as an actor imports this package, and Keras only if its work needs it.
_MODULES = {
    "BerrutGradients": "gradient_codes",
    "BerrutTrainer": "berrut_trainer",
    "CodedTrainer": "coded_trainer",
    "Executor": "executor",
    "GradientCode": "gradient_codes",
    "InProcess": "in_process",
    "NetworkTrainer": "network_trainer",
    "RayActors": "ray_actors",
    "Repetition": "gradient_codes",
    "Trouble": "worker",
    "berrut_map": "berrut_mapping",
    "split": "network_trainer",
}
_PUBLIC = {name: f"{__name__}.{module}:{name}" for name, module in _MODULES.items()}

__all__ = list(_PUBLIC)
__getattr__, __dir__ = import_when_used(__name__, _PUBLIC)
