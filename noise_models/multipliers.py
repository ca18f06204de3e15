"""The registry of multipliers: the published families by name, and what users register beside them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from . import circuits, circuits_logarithmic
from .circuits import kept_cells, operand_widths
from .multiplier import Multiplier, code_values
from .table_files import LARGEST_TABLE_BITS

Factory = Callable[[tuple[int, int], bool], Multiplier]


@dataclass(frozen=True)
class _Family:
    """A family of circuits: its function ``(a, b, bits, *parameters)`` and what is known about it."""

    circuit: Callable[..., np.ndarray]
    source: str
    examples: tuple[tuple[int, ...], ...] = ((),)
    """The parameters listed by `names`: those that make sense at 8 bits."""
    cells: Callable[..., int] | None = None
    """Partial-product cells kept, ``(bits, *parameters)``, where power is modelled by them."""


_FAMILIES = {
    "exact": _Family(circuits.exact, "exact product", cells=kept_cells),
    "truncated": _Family(
        circuits.truncated,
        "truncated multiplier: lowest partial-product columns dropped, no correction",
        ((4,), (6,), (8,)),
        cells=lambda bits, columns: kept_cells(bits, 0, columns),
    ),
    "operand_truncated": _Family(
        circuits.operand_truncated,
        "operand truncation: least significant bits of both operands cleared",
        ((1,), (2,), (3,), (4,)),
        cells=lambda bits, k: (bits[0] - k) * (bits[1] - k),
    ),
    "broken_array": _Family(
        circuits.broken_array,
        "Mahdiani et al. 2010, broken-array multiplier (horizontal, vertical break level)",
        ((2, 4), (2, 8), (4, 8)),
        cells=kept_cells,
    ),
    "mitchell": _Family(circuits_logarithmic.mitchell, "Mitchell 1962, logarithmic multiplier"),
    "drum": _Family(circuits_logarithmic.drum, "Hashemi et al. 2015, DRUM", tuple((k,) for k in range(3, 8))),
    "roba": _Family(circuits_logarithmic.roba, "Zendegani et al. 2017, RoBA (3 rounds to 2)"),
    "kulkarni": _Family(circuits.kulkarni, "Kulkarni et al. 2011, underdesigned multiplier (2x2 blocks)"),
    "ssm": _Family(
        circuits_logarithmic.ssm,
        "Narayanamoorthy et al. 2015, static segment method",
        tuple((m,) for m in range(4, 7)),
    ),
}

_REGISTERED: dict[str, Multiplier | Factory] = {}


def sign_magnitude(
    circuit: Callable[[np.ndarray, np.ndarray, tuple[int, int]], np.ndarray], bits: int | tuple[int, int]
) -> np.ndarray:
    """The signed table of an unsigned core between sign-magnitude converters.

    ``M'(a, b) = sign(a) sign(b) M(|a|, |b|)``, the signs taken from the sign bits, so ``sign(0) = +1``:
    `np.sign` would erase ``M(0, b)``, which is not 0 in every circuit. The core has the operands' full width,
    since ``|-2^(n-1)|`` needs n bits (theory page, section 1).

    Args:
        circuit: the unsigned core, ``(a, b, (a_bits, b_bits)) -> products`` on int64 arrays that broadcast.
        bits: width of both operands, or the pair ``(activation_bits, weight_bits)``.

    Returns:
        int64 products of shape ``(2^activation_bits, 2^weight_bits)``, indexed by two's complement code.
    """
    widths = operand_widths(bits, largest=LARGEST_TABLE_BITS)
    a, b = code_values(widths[0], signed=True)[:, None], code_values(widths[1], signed=True)[None, :]
    magnitude = circuit(np.abs(a), np.abs(b), widths)
    return np.where((a < 0) ^ (b < 0), -magnitude, magnitude)


def _parse(name: str) -> tuple[str, tuple[int, ...]] | None:
    """Split ``drum4``, ``broken_array_2_4`` or ``broken_array(2,4)`` into family and parameters."""
    match = re.fullmatch(r"([a-z_]*[a-z])(?:_?([0-9]+(?:_[0-9]+)*)|\(([0-9]+(?:, ?[0-9]+)*)\))?", name)
    if match is None or match[1] not in _FAMILIES:
        return None
    parameters = tuple(int(digits) for digits in re.findall("[0-9]+", match[2] or match[3] or ""))
    return match[1], parameters


def _canonical(family: str, parameters: tuple[int, ...]) -> str:
    """The one name of a circuit: ``drum4``, ``broken_array_2_4``."""
    separator = "_" if len(parameters) > 1 else ""
    return family + separator + "_".join(map(str, parameters))


@lru_cache(maxsize=64)
def _build(family: str, parameters: tuple[int, ...], widths: tuple[int, int], signed: bool) -> Multiplier:
    """Compute a family's table."""
    entry = _FAMILIES[family]

    def circuit(a: np.ndarray, b: np.ndarray, bits: tuple[int, int]) -> np.ndarray:
        return entry.circuit(a, b, bits, *parameters)

    if signed:
        table = sign_magnitude(circuit, widths)
    else:
        a, b = code_values(widths[0], signed=False), code_values(widths[1], signed=False)
        table = circuit(a[:, None], b[None, :], widths)
    source, power = entry.source, None
    if entry.cells is not None:
        power = entry.cells(widths, *parameters) / (widths[0] * widths[1])
        if family != "exact":
            source += "; power: share of partial-product cells kept, a model chosen here, not a measurement"
    if signed and family != "exact":
        source += "; signed by sign-magnitude"
    name = _canonical(family, parameters)
    multiplier = Multiplier(table, name=name, bits=widths, signed=signed, power=power, source=source)
    vars(multiplier)["_family"] = name
    return multiplier


def get(name: str, *, bits: int | tuple[int, int] = 8, signed: bool = False) -> Multiplier:
    """Get a multiplier by name: a published family computed from its definition, or a registered one.

    Families: ``exact``, ``truncated<t>``, ``operand_truncated<k>``, ``broken_array_<hbl>_<vbl>``,
    ``mitchell``, ``drum<k>``, ``roba``, ``kulkarni``, ``ssm<m>``; ``broken_array(2,4)`` is understood too.
    Their formulas stand in `axtrain.noise_models.circuits` and `circuits_logarithmic`. Signed multipliers are
    an unsigned core between sign-magnitude converters, see `sign_magnitude`.

    The `power` of ``truncated``, ``broken_array`` and ``operand_truncated`` is the share of partial-product
    cells they keep: a model chosen here, not a measurement. The exact circuit has 1.0 by definition; the
    others have None, because cells say nothing about their shifters and encoders.

    Args:
        name: the circuit.
        bits: width of both operands, or ``(activation_bits, weight_bits)``; each 2..10.
        signed: whether operands are signed.

    Returns:
        The `Multiplier`; the same object for the same arguments while it is cached.

    Raises:
        ValueError: if the name is unknown, its parameters do not fit the widths, or a registered multiplier
            has other widths or another signedness.

    >>> get("drum4")
    <Multiplier 'drum4': 8x8 bits unsigned, MAE 1.41 %, WCE 11.3 %, MRE 5.89 %, bias 119.8, power unknown>
    """
    widths = operand_widths(bits, largest=LARGEST_TABLE_BITS)
    if not isinstance(signed, (bool, np.bool_)):
        raise ValueError(f"`signed` must be True or False. Received: signed={signed!r}")
    if not isinstance(name, str):
        raise ValueError(f"`name` must be a string such as 'drum4'. Received: name={name!r}")
    if name in _REGISTERED:
        return _registered(name, widths, bool(signed))
    parsed = _parse(name)
    if parsed is None:
        close = difflib.get_close_matches(name, names(), n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(map(repr, close))}? " if close else ""
        raise ValueError(
            f"Unknown multiplier. {hint}axtrain.multipliers.names() lists the known ones; add yours with "
            f"axtrain.multipliers.register(...). Received: name={name!r}"
        )
    family, parameters = parsed
    wanted = _FAMILIES[family].examples[0]
    if len(parameters) != len(wanted):
        raise ValueError(
            f"The family {family!r} takes {len(wanted)} parameter(s), as in {_canonical(family, wanted)!r}. "
            f"Received: name={name!r}"
        )
    return _build(family, parameters, widths, bool(signed))


def _registered(name: str, widths: tuple[int, int], signed: bool) -> Multiplier:
    """A registered multiplier, checked to be what was asked for."""
    entry = _REGISTERED[name]
    multiplier = entry if isinstance(entry, Multiplier) else entry(widths, signed)
    if not isinstance(multiplier, Multiplier):
        raise ValueError(f"The factory registered as {name!r} must return a Multiplier. Received: {multiplier!r}")
    found = (multiplier.activation_bits, multiplier.weight_bits)
    if found != widths or multiplier.signed != signed:
        raise ValueError(
            f"The registered multiplier {name!r} has bits={found}, signed={multiplier.signed}; ask for "
            f"these, or register another one. Received: bits={widths}, signed={signed}"
        )
    return multiplier


def names() -> list[str]:
    """Sorted names: the families with the parameters that make sense at 8 bits, and all registered ones."""
    built_in = [_canonical(name, p) for name, family in _FAMILIES.items() for p in family.examples]
    return sorted({*built_in, *_REGISTERED})


def register(multiplier: Multiplier | str, factory: Factory | None = None) -> None:
    """Make a multiplier available to `get`, for this process.

    Args:
        multiplier: a `Multiplier`, registered under its own name; or a name, with a `factory`.
        factory: ``factory((activation_bits, weight_bits), signed) -> Multiplier``; its results are cached.

    Raises:
        ValueError: if the name is a built-in family's or taken by a different multiplier. Registering an
            equal one again does nothing.
    """
    entry: Multiplier | Factory
    if isinstance(multiplier, Multiplier) and factory is None:
        name, entry = multiplier.name, multiplier
    elif isinstance(multiplier, str) and multiplier and callable(factory):
        name, entry = multiplier, lru_cache(maxsize=16)(factory)
    else:
        raise ValueError(
            "Register a Multiplier, or a name and a factory(bits, signed). "
            f"Received: multiplier={multiplier!r}, factory={factory!r}"
        )
    if _parse(name) is not None:
        raise ValueError(f"This name belongs to a built-in family; choose another. Received: name={name!r}")
    known = _REGISTERED.get(name)
    # A factory is the same as another only if it is the same function, inside its cache.
    same = known == entry or (factory is not None and getattr(known, "__wrapped__", None) is factory)
    if known is not None and not same:
        raise ValueError(
            "A different multiplier is registered under this name; choose another name, or call "
            f"axtrain.multipliers.unregister first. Received: name={name!r}"
        )
    if known is None:
        _REGISTERED[name] = entry


def unregister(name: str) -> None:
    """Forget a registered multiplier.

    Raises:
        ValueError: if no multiplier was registered under this name (built-in families stay).
    """
    if name not in _REGISTERED:
        raise ValueError(f"Nothing to unregister; registered names are {sorted(_REGISTERED)}. Received: name={name!r}")
    del _REGISTERED[name]
