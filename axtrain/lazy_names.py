"""Public names of a package that are imported when they are first used (PEP 562)."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def import_when_used(package: str, targets: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return a package's `__getattr__` and `__dir__`, which import each public name when it is first used.

    Args:
        package: the package's `__name__`.
        targets: public name -> where it lives: "module:attribute", or a module itself.
    """
    names = vars(sys.modules[package])

    def find(name: str) -> Any:
        if name not in targets:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, _, attribute = targets[name].partition(":")
        value = importlib.import_module(module)
        names[name] = getattr(value, attribute) if attribute else value
        return names[name]

    return find, lambda: sorted({*names, *targets})
