"""Tolerances follow rounding: no false alarm in a million clean decodes, and weights that drift no further."""

import numpy as np
import pytest
import tensorflow as tf

from axtrain.coded import Checksum, CodeNet, GeneralizedPolyDot, MatDot, SystematicMDS
from axtrain.coded.products import CodedProduct, layout

CODES = (CodeNet(4, 5), SystematicMDS(8, 5), GeneralizedPolyDot(2, 2), MatDot(3), Checksum())
INPUTS, OUTPUTS = 256, 512


@pytest.mark.parametrize("code", CODES, ids=repr)
@pytest.mark.cases("CodeNet")
def test_no_false_alarm_in_a_million_clean_decodes(code):
    """Each column of each product is a decode: 2^18 with each kind of operands, float32, by one compiled function."""
    product = CodedProduct(code, INPUTS, OUTPUTS)
    forward = tf.function(product.forward)
    for kind in ("even", "positive", "sparse", "wide"):
        no_false_alarm(product, forward, kind)


def no_false_alarm(product, forward, kind):
    inputs, outputs, batch = INPUTS, OUTPUTS, 64
    generator = np.random.default_rng(7)
    decodes = 0
    while decodes < 2**18:
        x = generator.standard_normal((batch, inputs))
        kernel = generator.standard_normal((inputs, outputs)) / 16
        if kind == "positive":
            x, kernel = abs(x), abs(kernel)
        elif kind == "sparse":
            x = x * (generator.random(x.shape) < 0.02)
        elif kind == "wide":
            x = x * np.exp(3 * generator.standard_normal(x.shape))
        coded = product.layout.encode(tf.constant(kernel, tf.float32))
        value, found = forward(coded, tf.constant(x, tf.float32))
        assert float(found.detected) == 0, kind
        decodes += batch * -(-outputs // product.code.grid[0])
    np.testing.assert_allclose(value, x @ kernel, atol=1e-3 * np.abs(x @ kernel).max(), err_msg=kind)


@pytest.mark.parametrize("code", [CodeNet(4, 5), GeneralizedPolyDot(2, 2), Checksum()], ids=repr)
def test_coded_weights_do_not_drift_from_the_code(code):
    """5,000 coded updates in float32 against encoding the decoded weights again: below 1e-5."""
    generator = np.random.default_rng(5)
    laid = layout(code, 20, 12)
    x = tf.constant(generator.standard_normal((50, 8, 20)), tf.float32)
    delta = tf.constant(generator.standard_normal((50, 8, 12)), tf.float32)

    @tf.function
    def many(coded):
        for step in tf.range(5000):
            coded -= 1e-4 * laid.gradient(x[step % 50], delta[step % 50])
        return coded

    start = laid.encode(tf.constant(generator.standard_normal((20, 12)) * 0.1, tf.float32))
    coded = many(start)
    shards, again = laid.shards(coded), laid.shards(laid.encode(laid.decode(coded)))
    assert float(tf.norm(shards - laid.shards(start)) / tf.norm(again)) > 0.1
    assert float(tf.norm(shards - again) / tf.norm(again)) < 1e-5
