"""Checksums: products and updates keep them, one wrong element is corrected, more are found, nothing else is."""

import numpy as np
import pytest
import tensorflow as tf

from axtrain.coded import Checksum
from axtrain.coded.products import CodedProduct

INPUTS, OUTPUTS, BATCH = 37, 23, 16


@pytest.fixture(scope="module", params=[Checksum(), Checksum(2, 3)], ids=repr)
def made(request):
    generator = np.random.default_rng(0)
    kernel = generator.standard_normal((INPUTS, OUTPUTS)).astype("float32")
    x = generator.standard_normal((BATCH, INPUTS)).astype("float32")
    delta = generator.standard_normal((BATCH, OUTPUTS)).astype("float32")
    product = CodedProduct(request.param, INPUTS, OUTPUTS)
    return product, product.layout.encode(kernel), kernel, x, delta


def test_products_and_update(made):
    product, coded, kernel, x, delta = made
    laid = product.layout
    assert tuple(coded.shape) == laid.shape
    np.testing.assert_array_equal(laid.decode(coded), kernel)
    np.testing.assert_array_equal(laid.from_shards(laid.shards(coded)), coded)
    for corrupt in (None, lambda values, stage, name: values):
        for found, want in ((product.forward(coded, x, corrupt), x @ kernel),
                            (product.backward(coded, delta, corrupt), delta @ kernel.T)):  # fmt: skip
            np.testing.assert_allclose(found[0], want, atol=2e-5)
            assert float(found[1].detected) == 0
    moved = np.asarray(coded) + np.asarray(laid.gradient(x, delta))
    np.testing.assert_allclose(moved, laid.encode(kernel + x.T @ delta), atol=2e-4)


def wrong(size, elements, stage_name):
    """Adds `size` to single elements (node, sample, output) of the products."""

    def corrupt(values, stage, name):
        values = np.array(values)
        if name == stage_name:
            for element in elements:
                values[element] += size
        return values

    return corrupt


@pytest.mark.parametrize("size", [1e-2, 1.0, 1e6, 1e30])
@pytest.mark.parametrize("name", ["forward", "backward"])
def test_one_wrong_element_is_corrected_wherever_it_is(made, size, name):
    product, coded, kernel, x, delta = made
    operand, want = (x, x @ kernel) if name == "forward" else (delta, delta @ kernel.T)
    generator = np.random.default_rng(3)
    width = product.layout.width if name == "forward" else product.layout.height
    for _ in range(6):
        place = (0, generator.integers(BATCH), generator.integers(width))
        value, found = getattr(product, name)(coded, operand, wrong(size, [place], name))
        assert (float(found.detected), float(found.uncorrectable)) == (1, 0)
        np.testing.assert_allclose(value, want, atol=1e-4 if size < 1e3 else 1e-6 * size)


def test_a_wrong_checksum_is_not_a_wrong_product(made):
    product, coded, kernel, x, _ = made
    value, found = product.forward(coded, x, wrong(5.0, [(0, 2, -1)], "forward"))
    assert (float(found.detected), float(found.uncorrectable)) == (1, 0)
    np.testing.assert_allclose(value, x @ kernel, atol=2e-5)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_more_than_one_is_detected(made, poison):
    product, coded, _, x, _ = made
    for elements in ([(0, 2, 1), (0, 3, 4)], [(0, 2, 1), (0, 2, 3)], [(0, 5, 5), (0, 6, 5)]):
        found = product.forward(coded, x, wrong(1.0, elements, "forward"))[1]
        assert (float(found.detected), float(found.uncorrectable)) == (1, 1)
    whole = product.forward(coded, x, lambda values, *_: np.full_like(values, poison))[1]
    assert (float(whole.detected), float(whole.uncorrectable)) == (1, 1)


@pytest.mark.parametrize("name", ["forward", "backward"])
def test_every_error_above_the_rounding_threshold_is_found(name):
    """10,000 errors in single elements of a 256 x 256 layer's products, 1 to 1e6 thresholds large; clean ones pass."""
    generator = np.random.default_rng(4)
    product = CodedProduct(Checksum(), 256, 256)
    kernel, operand = (generator.standard_normal(shape).astype("float32") for shape in ((256, 256), (64, 256)))
    coded = product.layout.encode(kernel)
    check = product._checks[name]
    blocks, sums = getattr(product.layout, name)(coded, operand)
    is_clean = tf.function(lambda results: check.quick(results)[0])
    assert bool(is_clean((blocks, sums)))
    blocks = np.array(blocks)
    size = np.abs(blocks).mean(axis=1) * check._tolerance(blocks, sums)
    places = generator.integers((64, 256), size=(10_000, 2))
    # An error raises its row's own size too, hence its threshold, by less than a hundredth of itself.
    errors = generator.choice([-1, 1], 10_000) * size[places[:, 0]] * 10.0 ** generator.uniform(0.1, 6, 10_000)
    wrong = (blocks[tuple(places.T)] + errors).astype("float32")

    @tf.function  # 10,000 calls take longer than a loop of theirs
    def each():
        def passes(one):
            return check.quick((tf.tensor_scatter_nd_update(blocks, [one[0]], [one[1]]), sums))[0]

        return tf.map_fn(passes, (places, wrong), fn_output_signature=tf.bool)

    passed = each().numpy()
    assert passed.shape == (10_000,) and not passed.any()
