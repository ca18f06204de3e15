"""The published ResNet-8 on real CIFAR-10 as a LiteRT file: equal to our integers code for code."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import axtrain as ax

pytest.importorskip("ai_edge_litert")
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def lowered(shared, tmp_path_factory):
    """(float model, integer network, file, 1,000 test images, labels)."""
    spec = importlib.util.spec_from_file_location("resnet8_network", EXAMPLES / "resnet8.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.resnet8()
    module.load_weights(model, shared / "models" / "mlperf_tiny_resnet8_weights.npz")
    with np.load(shared / "data" / "cifar10.npz") as arrays:
        train = arrays["x_train"][:256].astype("float32")
        x, y = arrays["x_test"][:1000].astype("float32"), arrays["y_test"][:1000].ravel()
    network = ax.integer_network(model, train)
    path = tmp_path_factory.mktemp("litert") / "resnet8.tflite"
    ax.write_litert(network, path)
    return model, network, path, x, y


def test_fifty_images_code_for_code(lowered):
    _, network, path, x, _ = lowered
    found = ax.compare_litert(network, path, network.quantised(x[:50]))
    assert found.equal, str(found)
    # Nine convolutions, three additions, a mean, its rescaling, flattening, the dense layer and its softmax.
    assert len(found.tensors) == 17
    assert sum(tensor.codes for tensor in found.tensors) == 50 * 114_900


@pytest.mark.slow
def test_a_thousand_images_code_for_code_and_as_accurate(lowered):
    model, network, path, x, y = lowered
    codes = network.quantised(x)
    found = ax.compare_litert(network, path, codes)
    assert found.equal, str(found)
    decisions = network.run(codes).argmax(-1)
    floating = model.predict(x, verbose=0).argmax(-1)
    print(f"float {np.mean(floating == y):.3f}, integers {np.mean(decisions == y):.3f}")
    # The same 1,000 images. A flip of 2 % of them at most, n = 1000: five standard errors are 2.2 %.
    assert abs(np.mean(floating == y) - np.mean(decisions == y)) <= 0.022
    for kernels in ("builtin", "default"):
        other = ax.compare_litert(network, path, codes, kernels=kernels)
        print(other)
        assert not other.equal  # should this fail, LiteRT's kernels have come to agree, and the guide may say so
        assert other.decisions <= 30
