"""What is logged of hardware and of results, as parameters, metrics, tables and files."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np

_LONGEST = 500  # characters of a list among the parameters; MLflow takes 6000, people read fewer


@dataclass(frozen=True, kw_only=True)
class Content:
    """What one run is given."""

    params: dict[str, Any] = field(default_factory=dict)
    """Parameters, by which runs are searched."""
    metrics: tuple[dict[str, float], ...] = ()
    """Metrics of each step, from 0."""
    files: dict[str, bytes] = field(default_factory=dict)
    """Artifacts by name."""
    tables: tuple[str, ...] = ()
    """Which of them MLflow shows as tables."""
    summary: dict[str, float] = field(default_factory=dict)
    """Metrics for the run above."""

    @property
    def digest(self) -> str:
        """The same for the same figures; pictures hold a date."""
        figures = [self.params, self.metrics, self.summary]
        return hashlib.sha256(json.dumps(figures, sort_keys=True, default=str).encode()).hexdigest()[:32]


def of_hardware(model) -> Content:
    """Each distinct hardware of a model, or one `Hardware`: a JSON file, and flat parameters.

    `hardware.multiplier`, `.activation_bits`, `.weight_bits`, `.bit_error_rate`, `.voltage`, and every number and
    word of the description under its own name, such as `hardware.weight_memory.fault`. Several are `hardware0`,
    `hardware1`, and a further file says which layers have which.
    """
    from axtrain.controls import hardware_layers
    from axtrain.hardware import Hardware
    from axtrain.model_walk import labels

    layers: dict[Hardware, list[str]] = {}
    if isinstance(model, Hardware):
        layers[model] = []
    else:
        told = labels(model)
        for layer in hardware_layers(model):
            layers.setdefault(layer.hardware, []).append(told[id(layer)])
    names = ["hardware"] if len(layers) == 1 else [f"hardware{number}" for number in range(len(layers))]
    params: dict[str, Any] = {}
    files: dict[str, bytes] = {}
    for name, hardware in zip(names, layers, strict=True):
        memory, described = hardware.weight_memory, hardware.to_dict()
        files[f"{name}.json"] = json.dumps(described, indent=2).encode()
        circuit = described.pop("multiplier") or {}
        described |= {f"multiplier_{key}": circuit.get(key) for key in ("power", "source", "digest")}
        described |= {"multiplier": hardware.circuit.name, "format": None}
        described |= {"activation_bits": hardware.activation_bits, "weight_bits": hardware.weight_bits}
        described |= {"bit_error_rate": 0.0 if memory is None else memory.rate}
        described |= {"voltage": None if memory is None else memory.voltage}
        params |= _flat(described, f"{name}.")
    if len(layers) > 1:
        files["hardware_of_layers.json"] = json.dumps(dict(zip(names, layers.values(), strict=True))).encode()
    return Content(params=params, files=files)


def of_evaluation(result) -> Content:
    """An `Evaluation`: mean, spread, worst chip and interval as metrics, every chip as a table."""
    chips = {"chip": range(len(result.accuracies)), result.metric: result.accuracies.tolist()}
    return Content(
        params=_chips(result),
        metrics=(_figures(result),),
        files={"evaluation.json": _json(result), "chips.json": as_table(chips)},
        tables=("chips.json",),
        summary={"mean": result.mean, "std": result.std, "worst": result.worst},
    )


def of_sweep(result) -> Content:
    """A `Sweep`: each point is a step of the metrics, from the mildest; every point and every chip in tables."""
    from axtrain.training.plots import sweep_csv

    first = result.points[0].evaluation
    dials = ("voltage", "rate", "energy_pj", "saving")
    known = [
        {name: getattr(point, name) for name in dials if getattr(point, name) is not None} for point in result.points
    ]
    figures = [_figures(point.evaluation) for point in result.points]
    points = {name: [getattr(point, name) for point in result.points] for name in dials}
    points |= {name: [one[name] for one in figures] for name in figures[0]}
    each = [
        (point.voltage, point.rate, chip, value)
        for point in result.points
        for chip, value in enumerate(point.evaluation.accuracies.tolist())
    ]
    columns = dict(zip(("voltage", "rate", "chip", first.metric), zip(*each, strict=True), strict=True))
    swept = "rate" if result.voltages[0] is None else "voltage"
    return Content(
        params={**_chips(first), "points": len(result.points), "swept": swept},
        metrics=tuple(one | dial for one, dial in zip(figures, known, strict=True)),
        files={
            "sweep.json": _json(result),
            "sweep.csv": sweep_csv(result.points).encode(),
            "sweep.png": as_picture(result.plot(), "png"),
            "points.json": as_table(points),
            "chips.json": as_table(columns),
        },
        tables=("points.json", "chips.json"),
    )


def of_search(result) -> Content:
    """A `SearchResult`: the chosen assignment as parameters, each played point a step of the metrics and in a table."""
    played = result.confirmed
    facts = {"objective": result.objective, "budget": result.budget, "rises": result.rises, "played": len(played)}
    best = {} if result.best is None else {f"best.{layer}": name for layer, name in result.best.assignment.items()}
    metrics = [
        {"energy_pj": point.energy_pj, "saving": point.saving, "predicted": point.predicted, "mean": point.accuracy}
        for point in played
    ]
    rows = {
        "assignment": [json.dumps(point.assignment) for point in played],
        **{name: [one[name] for one in metrics] for name in (metrics[0] if metrics else ())},
        "trained": [point.trained is not None for point in played],
        "dominated": [point.dominated for point in played],
        "chosen": [point is result.best for point in played],
    }
    chosen = {} if result.best is None else {"saving": result.best.saving, "energy_pj": result.best.energy_pj}
    if result.best is not None and result.best.accuracy is not None:
        chosen["mean"] = result.best.accuracy
    files = {
        "search.json": _json(result),
        "points.json": as_table(rows),
        "search.png": as_picture(result.plot(), "png"),
    }
    return Content(
        params={name: value for name, value in (facts | best).items() if value is not None},
        metrics=(*metrics,),
        files=files,
        tables=("points.json",),
        summary=chosen,
    )


def as_table(columns: Mapping[str, Sequence]) -> bytes:
    """A table as MLflow writes and shows it: JSON of columns and rows.

    Raises:
        ValueError: columns of different lengths.
    """
    lists = {name: [_plain(value) for value in column] for name, column in columns.items()}
    if len({len(column) for column in lists.values()}) != 1:
        lengths = {name: len(column) for name, column in lists.items()}
        raise ValueError(f"The columns of a table must be of one length, and at least one. Received: {lengths}")
    rows = list(zip(*lists.values(), strict=True))
    return json.dumps({"columns": list(lists), "data": rows}).encode()


def as_picture(figure, suffix: str) -> bytes:
    """A matplotlib `Figure` as a file's content."""
    content = io.BytesIO()
    figure.savefig(content, format=suffix, dpi=150)
    return content.getvalue()


def checked_name(name: str) -> str:
    """A relative path for an artifact.

    Raises:
        ValueError: one that leaves the run's folder.
    """
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\\" in name:
        raise ValueError(f"An artifact's name is a relative path, such as 'figures/sweep.png'. Received: {name!r}")
    return str(path)


def _chips(evaluation) -> dict[str, Any]:
    return {
        "chips": len(evaluation.accuracies),
        "seed": evaluation.seed,
        "samples": evaluation.samples,
        "metric": evaluation.metric,
    }


def _figures(evaluation) -> dict[str, float]:
    low, high = evaluation.interval
    figures = {"mean": evaluation.mean, "std": evaluation.std, "worst": evaluation.worst}
    return {**figures, "interval_low": low, "interval_high": high}


def _plain(value: Any) -> Any:
    """As JSON has it: no NumPy, no NaN."""
    plain = value.item() if isinstance(value, np.generic) else value
    return None if plain != plain else plain


def _json(result) -> bytes:
    return json.dumps(result.to_dict(), indent=1).encode()


def _flat(described: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Nested dictionaries under names with points between; what is `None` or long left out."""
    found: dict[str, Any] = {}
    for key, value in described.items():
        if isinstance(value, (list, tuple)):
            value = json.dumps(value)
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{key}.")
        elif value is not None and len(str(value)) <= _LONGEST:
            found[prefix + key] = value
    return found
