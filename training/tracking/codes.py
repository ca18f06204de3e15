"""What is logged of a model's codes: parameters by which coded trainings are searched."""

from __future__ import annotations

from typing import Any

from axtrain.coded.layer import CodedLayer
from axtrain.model_walk import all_layers


def of_codes(model) -> dict[str, Any]:
    """`code`, `code.nodes`, `code.work`, `code.adversarial_errors` and `faults.rate`, `.where`, `.kind`, `.seed`.

    Layers with other codes than the first's are `code2`, `code3`; nothing for a model without coded layers.
    """
    layers = [layer for layer in all_layers(model) if isinstance(layer, CodedLayer)]
    params: dict[str, Any] = {}
    for number, code in enumerate(dict.fromkeys(layer.code for layer in layers), start=1):
        name = "code" if number == 1 else f"code{number}"
        params |= {name: repr(code), f"{name}.nodes": code.nodes, f"{name}.work": round(code.work, 4)}
        params[f"{name}.adversarial_errors"] = code.adversarial_errors
    faults = next((layer.faults for layer in layers if layer.faults is not None), None)
    if faults is not None:
        params |= {f"faults.{name}": getattr(faults, name) for name in ("rate", "kind", "seed")}
        params["faults.where"] = ", ".join(faults.where)
    return params
