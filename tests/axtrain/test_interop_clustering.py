"""Clusters at codes where a multiplier is accurate."""

import itertools

import keras
import numpy as np
import pytest

import axtrain as ax
from axtrain.interop.code_centroids import choose

PER_TENSOR = ax.Quantisation(weight_scale="per_tensor")
CODES = np.arange(-7, 8)
OTHERS = ("mitchell", "broken_array_5_9")


def on(name):
    return ax.Hardware(multiplier=ax.multipliers.get(name), quantisation=PER_TENSOR)


def cost_of(weights, codes, errors, scale):
    """Each weight with the nearest of the codes, one by one."""
    total = 0.0
    for weight in weights:
        code = min(codes, key=lambda code: abs(weight - scale * code))
        total += (weight - scale * code) ** 2 + scale**2 * errors[code + 7]
    return total / len(weights)


@pytest.mark.parametrize("keep_zeros", [False, True])
def test_no_other_codes_cost_less(keep_zeros):
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 0.1, 60)
    weights[:5] = 0
    errors = rng.uniform(0, 3, 15)
    found = choose(weights, CODES, errors, 4, keep_zeros)
    counted = weights[weights != 0] if keep_zeros else weights
    assert found.cost == pytest.approx(cost_of(counted, found.codes, errors, found.scale))
    assert np.abs(found.codes).max() == 7 and np.all(np.diff(found.codes) > 0)
    least = min(
        cost_of(counted, codes, errors, found.scale)
        for size in (2, 3, 4)
        for codes in itertools.combinations(CODES, size)
        if np.abs(codes).max() == 7 and (0 in codes or not keep_zeros)
    )
    assert found.cost == pytest.approx(least)
    assert 0 in found.codes or not keep_zeros


def errors_of(model):
    """By layer: the sum of |E| in real units over all weights, each with the layer's activations; and the codes."""
    found = {}
    for layer in model.layers:
        for product in getattr(layer, "products", ()):
            state, table = product.state, layer.hardware.code_table
            share = np.asarray(state.activation_histogram, np.float64)
            axes = product.geometry.summed_axes(len(product.kernel.shape))
            held = layer.hardware.weight_codes(keras.ops.convert_to_tensor(product.kernel), axes)
            codes = np.asarray(held.codes).astype(int)
            error = (share @ np.abs(table.error))[codes - table.weight_low] * np.asarray(held.scale)
            found[layer.name] = error.sum() / share.sum(), np.unique(codes)
    return found


@pytest.fixture(scope="module")
def plainly(digits):
    model, x, y = digits
    return ax.interop.tfmot.cluster(model, x[:640], y[:640], clusters=16)


# One circuit's errors are as another's to the clustering, which sees a table of them.
@pytest.mark.parametrize("name", ["drum3", *(pytest.param(n, marks=pytest.mark.slow) for n in OTHERS)])
def test_clusters_on_codes_make_smaller_errors(digits, plainly, name):
    model, x, y = digits
    hardware = on(name)
    before = [weights.copy() for weights in model.get_weights()]
    chosen = ax.interop.tfmot.cluster(model, x[:640], y[:640], clusters=16, hardware=hardware)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    errors = [errors_of(ax.convert(one, hardware, x[:512])) for one in (plainly, chosen)]
    for layer in ("conv", "hidden", "classes"):
        assert len(errors[1][layer][1]) <= 16
        assert errors[1][layer][0] < errors[0][layer][0]
    assert sum(error for error, _ in errors[1].values()) < 0.9 * sum(error for error, _ in errors[0].values())
    accuracy = [ax.evaluate(one, x, y, verbose=False).mean for one in (plainly, chosen)]
    assert accuracy[1] > accuracy[0] - 0.01


def test_clustered_kernels_keep_their_codes_and_zeros(digits):
    """The values are multiples of one scale, whatever the training did, and so the stored codes are those chosen."""
    model, x, y = digits
    pruned = ax.interop.tfmot.prune(model, x[:640], y[:640], sparsity=0.6)
    options = {"hardware": on("drum3"), "keep_zeros": True, "loss": "sparse_categorical_crossentropy"}
    found = ax.interop.tfmot.cluster(pruned, x[:640], y[:640], clusters=6, layers=["hidden", "conv"], **options)
    noisy = ax.convert(found, on("drum3"), x[:256])
    for name in ("hidden", "conv"):
        kernel = np.asarray(found.get_layer(name).kernel)
        assert (kernel[np.asarray(pruned.get_layer(name).kernel) == 0] == 0).all()
        codes = errors_of(noisy)[name][1]
        assert len(codes) <= 6 and np.abs(codes).max() == 127 and 0 in codes
        np.testing.assert_allclose(np.unique(kernel), codes * (np.abs(kernel).max() / 127), rtol=1e-6)
    values = np.unique(np.asarray(found.get_layer("classes").kernel))
    assert len(values) > 100  # not named, so not clustered


def test_hardware_with_a_scale_for_each_channel_is_an_error(digits):
    model, x, y = digits
    with pytest.raises(ValueError, match="weight_scale='per_tensor'.*Received: weight_scale='per_channel'"):
        ax.interop.tfmot.cluster(model, x, y, hardware=ax.Hardware())
    with pytest.raises(TypeError, match="Received: hardware='drum3'"):
        ax.interop.tfmot.cluster(model, x, y, hardware="drum3")
    with pytest.raises(ValueError, match="at least 3 clusters"):
        ax.interop.tfmot.cluster(model, x, y, clusters=2, keep_zeros=True)
