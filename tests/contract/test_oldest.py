"""`tests/oldest.txt` pins exactly the lower bounds of pyproject.toml."""

import re
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
LINTERS = {"ruff", "mypy"}  # they look at the code on the newest versions alone


def wanted():
    """{package: its lower bound} of everything that a user or a test can install."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    bounds = {}
    for line in lines:
        name, bound = re.match(r"([\w-]+)(?:\[[\w,]+\])?(?:>=([\d.]+))?", line).groups()
        if name not in {"axtrain", *LINTERS}:
            assert bound is not None, f"{line!r} has no lower bound"
            bounds[name] = bound
    return bounds


def test_the_pins_are_the_lower_bounds():
    lines = [line for line in (ROOT / "tests" / "oldest.txt").read_text().splitlines() if not line.startswith("#")]
    pins = dict(line.split("==") for line in lines)
    assert list(pins) == sorted(pins)
    bounds = wanted()
    assert set(pins) == set(bounds)
    for name, bound in bounds.items():
        padded = [*bound.split("."), "0", "0"][: max(3, len(bound.split(".")))]
        assert pins[name].split(".") == padded, f"{name}: pyproject.toml has >={bound}, oldest.txt {pins[name]}"


def test_the_oldest_python_is_the_one_that_make_takes():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"].startswith(">=3.10")
    assert "OLDEST_PYTHON ?= python3.10" in (ROOT / "Makefile").read_text()
