"""What every test shares: a quiet TensorFlow, the folder of real data, the reference loops on the path."""

import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

TESTS = Path(__file__).resolve().parent
SHARED = TESTS.parent.parent / "shared"

# `import reference` for the plain integer loops: importlib mode puts no test folder on the path.
sys.path.insert(0, str(TESTS / "axtrain"))
sys.path.insert(0, str(TESTS / "end_to_end"))  # `import shell`
sys.path.insert(0, str(TESTS / "training" / "distributed"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared` beside the checkout: real multiplier tables, data and models."""
    if not SHARED.is_dir():
        pytest.skip(f"the folder {SHARED} (real tables and data) is absent")
    return SHARED


@pytest.fixture
def float_policy():
    """Gives the dtype policy back after a test that sets it."""
    import keras

    before = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(before)
