"""Hardware by name: cards that come with the package, each with its sources, units and range of validity.

A card is a JSON file in `axtrain/cards`. What no public source gives is called illustrative on the card, part by
part, and no card has a figure of power, voltage or error that its sources do not give or that it does not call so.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass, field, fields
from importlib import resources
from typing import Any

from axtrain.hardware import Hardware
from axtrain.noise_models import multipliers

_PARTS = ("multiplier", "weight_memory", "activation_memory", "bias_memory", "datapath", "quantisation")


@dataclass(frozen=True, kw_only=True)
class Card:
    """A named hardware, and what is known about it.

    Raises:
        ValueError: a field that is empty or of the wrong kind, parts that `Hardware` does not have, or a card that
            neither has sources nor says that it is illustrative.
    """

    name: str
    """As `get` takes it; also the name of its file."""
    title: str
    """What it is, in one line; becomes `Hardware.name`."""
    description: str
    """What it is, in full."""
    parts: dict[str, Any] = field(hash=False)
    """The entry `hardware` of the file, in short form: `multiplier` is a name for `axtrain.multipliers.get`, or
    `{"name": ..., "bits": ..., "signed": ...}`, or `None`; the memories and the datapath are as their `to_dict`;
    `quantisation` has the fields of `Quantisation`. What is left out is `None`, or the default."""
    units: dict[str, str] = field(hash=False)
    """The unit of each number on the card, in words."""
    valid: str
    """Where it holds, and where it does not."""
    sources: tuple[str, ...] = ()
    """Publications and files that the numbers come from."""
    illustrative: bool = False
    """Whether the numbers that decide what it does were chosen here, not measured or published."""
    illustrative_parts: tuple[str, ...] = ()
    """Which numbers those are, as paths on the card; also on a card that is otherwise published."""

    def __post_init__(self) -> None:
        for name in ("sources", "illustrative_parts"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        kinds = {"parts": dict, "units": dict, "sources": tuple, "illustrative_parts": tuple, "illustrative": bool}
        for item in fields(self):
            value, kind = getattr(self, item.name), kinds.get(item.name, str)
            if not isinstance(value, kind) or (kind is str and not value):
                wanted = "a text" if kind is str else f"a {kind.__name__}"
                raise ValueError(f"`{item.name}` of a card must be {wanted}. Received: {item.name}={value!r}")
        unknown = sorted(set(self.parts) - set(_PARTS))
        if unknown:
            raise ValueError(f"The hardware of a card has the parts {', '.join(_PARTS)}. Received: {unknown}")
        if not self.sources and not self.illustrative:
            raise ValueError(f"A card needs `sources`, or illustrative=true. Received: neither, name={self.name!r}")
        if self.illustrative and not self.illustrative_parts:
            raise ValueError(f"Say what is illustrative in `illustrative_parts`. Received: none, name={self.name!r}")

    @property
    def hardware(self) -> Hardware:
        """The hardware that the card describes, named by its title.

        Raises:
            ValueError: parts that `Hardware` refuses.
        """
        given = {name: part for name, part in self.parts.items() if part is not None}
        if "multiplier" in given:
            short = given["multiplier"]
            circuit = multipliers.get(**({"name": short} if isinstance(short, str) else short))
            given["multiplier"] = circuit.to_dict()
        return Hardware.from_dict({**Hardware(name=self.title).to_dict(), **given})

    def to_dict(self) -> dict[str, Any]:
        """The card as its file has it: JSON-able; `from_dict` rebuilds an equal one."""
        described = {item.name: getattr(self, item.name) for item in fields(self)}
        described = {name: list(value) if isinstance(value, tuple) else value for name, value in described.items()}
        return {"hardware" if name == "parts" else name: value for name, value in described.items()}

    @classmethod
    def from_dict(cls, described: dict[str, Any]) -> Card:
        """The card that `to_dict` described.

        Raises:
            ValueError: an entry that is missing, or that no card has.
        """
        names = ["hardware" if item.name == "parts" else item.name for item in fields(cls)]
        if not isinstance(described, dict) or set(described) != set(names):
            received = sorted(described) if isinstance(described, dict) else type(described).__name__
            raise ValueError(f"A card has just the entries {', '.join(names)}. Received: {received}")
        return cls(**{"parts" if name == "hardware" else name: value for name, value in described.items()})


def names() -> tuple[str, ...]:
    """The names of all cards, sorted.

    >>> "exact_8bit" in names()
    True
    """
    return tuple(sorted(_files()))


def card(name: str) -> Card:
    """The card of that name.

    Args:
        name: one of `names`.

    Raises:
        ValueError: there is none; names that are close are given.

    >>> card("near_threshold_sram_0p50v").illustrative
    True
    """
    files = _files()
    if name not in files:
        close = difflib.get_close_matches(str(name), sorted(files), n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(map(repr, close))}? " if close else ""
        raise ValueError(
            f"No hardware of this name is in the catalogue. {hint}axtrain.catalogue.names() and "
            f"`axtrain hardware list` give all of them. Received: name={name!r}"
        )
    return Card.from_dict(json.loads(files[name].read_text(encoding="utf-8")))


def get(name: str) -> Hardware:
    """The hardware of that name, as for `card`: ``card(name).hardware``.

    Raises:
        ValueError: there is none; names that are close are given.

    >>> get("drum4").multiplier.name
    'drum4'
    """
    return card(name).hardware


def _files() -> dict[str, Any]:
    folder = resources.files("axtrain").joinpath("cards")
    return {file.name.removesuffix(".json"): file for file in folder.iterdir() if file.name.endswith(".json")}
