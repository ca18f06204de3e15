"""The house: floors, lazy imports, public names, and what library code may not hold."""

import ast
import importlib
import pkgutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
from fresh import run as forked

import axtrain

ROOT = Path(__file__).resolve().parents[2]
FLOORS = {"noise_models": 0, "axtrain": 1, "training": 2}


def fresh(code, **options):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, **options)


def floor_of(module):
    parts = module.split(".")
    if parts[0] != "axtrain":
        return None
    return FLOORS.get(parts[1], 1) if len(parts) > 1 else 1


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module
            if node.module == "axtrain":
                yield from (f"axtrain.{alias.name}" for alias in node.names)


def test_imports_go_down_only(trees):
    upwards = [
        f"{name} imports {module}"
        for name, tree in trees.items()
        for module in imported(tree)
        if (floor_of(module) or 0) > FLOORS[name.partition("/")[0]]
        and name != "axtrain/__main__.py"  # the command is the top floor's
    ]
    assert upwards == []


def test_library_code_asserts_nothing(trees):
    asserts = [
        f"{name}:{node.lineno}"
        for name, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Assert)
    ]
    assert asserts == []


def test_no_module_is_too_long(trees):
    lengths = {name: len((ROOT / name).read_text().splitlines()) for name in trees}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def test_import_is_light():
    code = (
        "import sys, axtrain, axtrain.training.distributed.ray_actors\n"  # as every actor does
        "print(sorted({'tensorflow', 'keras', 'mlflow', 'sklearn', 'matplotlib'} & set(sys.modules)))\n"
        "print(round(100 * axtrain.multipliers.get('drum4').metrics().mre, 3))\n"
        "axtrain.memories.BitErrors(rate=0.1); axtrain.Hardware().to_dict()\n"
        "print(sorted({'tensorflow', 'keras', 'mlflow'} & set(sys.modules)))\n"
    )
    done = fresh(code)
    assert done.stdout.splitlines() == ["[]", "5.887", "[]"], done.stderr


def test_public_names_survive_every_submodule():
    """A lazy attribute and a module of one name collide: `ax.energy()` would work once."""
    for module in pkgutil.walk_packages(axtrain.__path__, "axtrain."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in axtrain.__all__:
        value = getattr(axtrain, name)
        target = axtrain._PUBLIC.get(name, "")
        if ":" in target:
            assert callable(value), name
    for lazy in (axtrain.distributed, axtrain.tracking):
        assert not [name for name in lazy.__all__ if isinstance(getattr(lazy, name), types.ModuleType)]
    assert sorted(axtrain.__all__) == sorted(set(axtrain.__all__))
    assert set(axtrain.__all__) <= set(dir(axtrain))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = axtrain.nonsense


@pytest.mark.parametrize("package", ["axtrain", "axtrain.training.distributed"])
def test_type_checkers_see_every_public_name(package):
    """The stub imports each name from where `__getattr__` finds it."""
    lazy = importlib.import_module(package)
    found = {}
    for node in ast.parse(Path(lazy.__file__).with_suffix(".pyi").read_text()).body:
        if isinstance(node, ast.ImportFrom):
            [alias] = node.names
            found[alias.asname] = f"{node.module}:{alias.name}"
        elif isinstance(node, ast.Assign):  # a public name that is not the module's own
            found[node.targets[0].id] = found.pop(node.value.id)
    whole = {
        name: target if ":" in target else ":".join(target.rsplit(".", 1)) for name, target in lazy._PUBLIC.items()
    }
    assert found == whole


@pytest.mark.parametrize("folder", ["noise_models", "training"])
def test_a_bare_import_is_refused(folder):
    done = fresh(f"import {folder}", cwd=ROOT)
    assert done.returncode != 0
    assert f"import axtrain.{folder}" in done.stderr


def test_keras_alone_finds_our_classes_after_import_axtrain():
    code = "import keras, axtrain\nprint(keras.saving.get_registered_object('axtrain>ApproxDense') is not None)\n"
    assert forked(code).stdout.strip() == "True"


def test_registered_names_are_these():
    """They stand in people's files; a change here breaks them."""
    import keras

    names = {"ApproxDense", "ApproxConv1D", "ApproxConv2D", "ApproxDepthwiseConv2D", "HardwareState"}
    names |= {"ApproxSeparableConv2D", "ApproxConv2DTranspose", "ApproxEinsumDense", "ApproxMultiHeadAttention"}
    names |= {"ApproxLSTM", "ApproxGRU", "ActivationPairState", "BitErrorTraining", "SensitivityTraining"}
    names |= {"WeightRange", "MultiplierError", "BitFlipEnergy"}
    importlib.import_module("axtrain.loading")
    for name in names:
        assert keras.saving.get_registered_object(f"axtrain>{name}") is not None
