"""An einsum with a kernel is one matrix product, whatever the order of its axes."""

import keras
import numpy as np
import pytest
import reference

import axtrain as ax
from axtrain.layers.einsum import equation_obstacle

EQUATIONS = {
    "abc,cd->abd": ((None, 4), "d", (2, 3, 5)),
    "...c,cd->...d": (4, "d", (2, 3, 2, 5)),
    "ab...,bc->ac...": ((4,), "c", (2, 5, 3)),
    "abc,cde->abde": ((None, 2, 3), "de", (2, 3, 5)),
    "abde,dec->abc": ((None, 4), "c", (2, 3, 2, 3)),
    "abcd,dce->aeb": ((4, 3), "e", (2, 3, 2, 3)),
    "abc,dce->aebd": ((3, 2, 4), "eb", (2, 2, 5)),
    "abc,c->ab": ((3,), None, (2, 3, 5)),
}


def make(equation, hardware, **kwargs):
    output_shape, bias_axes, shape = EQUATIONS[equation]
    layer = ax.layers.ApproxEinsumDense(equation, output_shape, bias_axes=bias_axes, hardware=hardware, **kwargs)
    layer.build(shape)
    rng = np.random.default_rng(0)
    for weight in layer.trainable_weights:
        weight.assign(rng.normal(size=weight.shape))
    if hardware is not None:
        layer.hardware_state.set_range(-1.7, 2.1)
    return layer, np.clip(rng.normal(0.3, 0.5, shape), -1.7, 2.1).astype(np.float32)


@pytest.mark.parametrize("equation", EQUATIONS)
def test_accumulators_and_the_float_layer(equation):
    layer, x = make(equation, ax.Hardware(multiplier=reference.circuit("zero is not zero")), engine="low_rank")
    expected, scale = reference.layer_accumulator(layer, x)
    reference.same(np.asarray(layer.accumulator(x)), expected)
    bias = np.asarray(layer.bias) if layer.use_bias else 0
    np.testing.assert_allclose(layer(x), expected * scale + bias, rtol=1e-5, atol=1e-5)
    exact, plain = make(equation, ax.Hardware(), engine="low_rank")[0], make(equation, None)[0]
    difference = np.abs(np.asarray(exact(x)) - np.asarray(plain(x))).max()
    assert 0 < difference < 0.06  # half a step of 5 or 6 activations (0.0075) and weights
    assert np.abs(np.asarray(layer(x)) - np.asarray(plain(x))).max() > difference


@pytest.mark.parametrize(("circuit", "engine"), reference.CIRCUITS_AND_ENGINES)
def test_every_kind_of_circuit(circuit, engine):
    layer, x = make("abc,dce->aebd", ax.Hardware(multiplier=reference.circuit(circuit)), engine=engine)
    expected, _ = reference.layer_accumulator(layer, x)
    reference.same(np.asarray(layer.accumulator(x)), expected)


def test_an_ellipsis_takes_inputs_of_any_rank():
    for shape in ((3, 5), (2, 3, 5), (2, 1, 3, 2, 5)):
        dense = ax.layers.ApproxDense(2, use_bias=False, hardware=ax.Hardware())
        layer = ax.layers.ApproxEinsumDense("...c,cd->...d", 2, hardware=ax.Hardware())
        for made in (layer, dense):
            made.build(shape)
            made.hardware_state.set_range(-2.0, 2.0)
        dense.kernel.assign(layer.kernel)
        x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        np.testing.assert_array_equal(layer(x), dense(x))


NOT_ONE_PRODUCT = {
    "abc,abd->abcd": "sums no product",
    "ab,c->abc": "sums no product",
    "abc,cd->ad": "sums ['b'] out of 'abc' alone",
    "abc,dce->abe": "sums ['d'] out of 'dce' alone",
    "aab,bc->ac": "repeats an axis in 'aab'",
    "abc,bcd->abd": "gives the kernel the batch axes ['b']",
}


@pytest.mark.parametrize("equation", NOT_ONE_PRODUCT)
def test_an_equation_that_is_not_one_product_is_refused(equation):
    reason = NOT_ONE_PRODUCT[equation]
    assert reason in equation_obstacle(equation)
    with pytest.raises(ValueError, match="one matrix product") as raised:
        ax.layers.ApproxEinsumDense(equation, (3,), hardware=ax.Hardware())
    assert reason in str(raised.value)
    assert str(raised.value).endswith(f"Received: equation={equation!r}")
    ax.layers.ApproxEinsumDense(equation, (3,))  # without hardware it is Keras's business


def test_such_an_equation_is_skipped_by_convert_with_the_reason():
    inputs = keras.Input((3, 5))
    outputs = keras.layers.EinsumDense("abc,bcd->abd", (3, 2), name="per_row")(inputs)
    model = keras.Model(inputs, keras.layers.EinsumDense("abc,cd->abd", (None, 2), name="shared")(outputs))
    noisy = ax.convert(model, ax.Hardware())
    (skipped,) = noisy.conversion_report.skipped
    assert skipped.name == "per_row" and "batch axes ['b']" in skipped.reason
    assert [layer.name for layer in noisy.conversion_report.converted] == ["shared"]
    (part,) = ax.energy(model, ax.Hardware()).layers
    assert (part.name, part.multiplications) == ("shared", 3 * 2 * 2)
