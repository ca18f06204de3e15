"""The published ResNet-8 on real CIFAR-10: float, exact at 8 bits, and two EvoApproxLib circuits."""

import importlib.util
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import axtrain as ax

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def example():
    spec = importlib.util.spec_from_file_location("resnet8_example", EXAMPLES / "02_resnet8_cifar10.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_resnet8_before_and_after_one_epoch(shared):
    module = example()
    keras.utils.set_random_seed(0)
    rows = {row.circuit: row for row in module.run(module.cifar10(shared))}
    for row in rows.values():
        print(row)
    assert rows["float"].before == pytest.approx(0.881, abs=1e-9)
    assert rows["exact, 8 bits"].before >= 0.87
    # 1,000 test samples: the standard error of one accuracy p is sqrt(p (1 - p) / 1000), about 0.012 at 0.82.
    # The same samples are seen before and after, so a gain of 5 times the larger one is no accident of sampling.
    gain = rows["mul8u_17KS"].after - rows["mul8u_17KS"].before
    assert gain > 5 * np.sqrt(0.25 / 1000)
    assert rows["mul8s_1L2H"].after > rows["mul8s_1L2H"].before
    assert rows["mul8s_1L2H"].after >= 0.86


def test_exact_conversion_keeps_the_accuracy_of_the_int8_reference(shared):
    """A quarter of the test set, so that every run sees the real network: int8 reference 0.878, float 0.881."""
    module = example()
    problem = module.cifar10(shared)
    x, y = problem.test[0][:250], problem.test[1][:250]
    noisy = ax.convert(problem.network, ax.Hardware(), calibration=problem.train[0][:256])
    plain, converted = ax.evaluate(problem.network, x, y).mean, ax.evaluate(noisy, x, y).mean
    # 8-bit rounding flips few decisions: more than 2 % of 250 would mean a wrong scale somewhere.
    assert abs(plain - converted) <= 0.02
