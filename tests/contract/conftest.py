"""The sources of the library, parsed once for all the rules that read them."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def trees():
    """Each file of library code by its path from the root, such as `axtrain/hardware.py`; links are left out."""
    found = {}
    for floor in ("noise_models", "axtrain", "training"):
        for path in sorted((ROOT / floor).rglob("*.py")):
            parts = path.relative_to(ROOT).parts
            if floor != "axtrain" or parts[1] not in ("noise_models", "training"):  # links to the other floors
                found["/".join(parts)] = ast.parse(path.read_text())
    assert len(found) > 200  # fewer would mean that the search for sources broke
    return found
