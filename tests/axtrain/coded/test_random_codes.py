"""Codes of any size on kernels of any size, with errors anywhere: what a code promises, it does."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from axtrain.coded import (
    Checksum,
    CodeNet,
    Decoder,
    GeneralizedPolyDot,
    MatDot,
    Polynomial,
    Replication,
    SystematicMDS,
    Uncoded,
)
from axtrain.coded.decoder import CORRECTED, UNCORRECTABLE
from axtrain.coded.generators import systematic
from axtrain.coded.products import CodedProduct

small = st.integers(1, 4)
CODES = {
    "CodeNet": st.builds(CodeNet, small, small, st.integers(1, 2)),
    "SystematicMDS": st.builds(lambda needed, more: SystematicMDS(needed + more, needed), small, st.integers(2, 4)),
    "PolyDot": st.builds(
        lambda m, n, more: GeneralizedPolyDot(m, n, workers=max(m * n + n - 1, 2 * m * n - n) + more),
        st.integers(1, 3), st.integers(1, 2), st.integers(2, 4),
    ),
    "Polynomial": st.builds(Polynomial, st.integers(1, 5)),
    "MatDot": st.builds(MatDot, st.integers(1, 5)),
    "Replication": st.builds(Replication, st.integers(2, 4), small, small),
    "Checksum": st.builds(Checksum, small, small),
    "Uncoded": st.builds(Uncoded, small, small),
}  # fmt: skip
sizes = st.tuples(st.integers(1, 9), st.integers(1, 23), st.integers(1, 19))  # batch, inputs, outputs


def operands(seed, batch, inputs, outputs):
    generator = np.random.default_rng(seed)
    shapes = (inputs, outputs), (batch, inputs), (batch, outputs)
    return generator, *(generator.standard_normal(shape).astype("float32") for shape in shapes)


def close(found, want, scale=1.0):
    np.testing.assert_allclose(found, want, atol=2e-4 * scale * max(float(np.abs(want).max()), 1e-3))


@pytest.mark.parametrize("name", CODES)
@settings(max_examples=25, deadline=None)
@given(data=st.data(), size=sizes, seed=st.integers(0, 2**31))
def test_products_updates_and_weights_are_the_uncoded_ones(name, data, size, seed):
    code = data.draw(CODES[name])
    _, kernel, x, delta = operands(seed, *size)
    product = CodedProduct(code, size[1], size[2])
    laid = product.layout
    coded = laid.encode(kernel)
    close(laid.decode(coded), kernel)
    for found, want in ((product.forward(coded, x), x @ kernel), (product.backward(coded, delta), delta @ kernel.T)):
        close(found[0], want)
        # A node's results of one number each can look like an error where they cancel: 3 of 1,000 draws, decoded right.
        assert float(found[1].detected) == 0 or size[1] == 1
    close(laid.decode(np.asarray(coded) + np.asarray(laid.gradient(x, delta))), kernel + x.T @ delta)


@pytest.mark.parametrize("name", ["CodeNet", "SystematicMDS", "PolyDot", "Polynomial", "MatDot", "Replication"])
@settings(max_examples=20, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**31), exponent=st.floats(-1, 6), forward=st.booleans())
def test_any_errors_up_to_half_the_redundancy_are_corrected(name, data, seed, exponent, forward):
    """Alike or not, of any size, in any of a codeword's results: float32 products with nodes' errors in them."""
    code = data.draw(CODES[name])
    stage = code.forward if forward else code.backward
    generator, kernel, x, delta = operands(seed, 6, 17, 13)
    group = np.arange(stage.results).reshape(stage.groups, -1)
    count = data.draw(st.integers(0, stage.redundancy // 2))
    alike = data.draw(st.booleans())
    results = np.concatenate([generator.choice(one, count, replace=False) for one in group])
    nodes = [int(generator.choice(np.flatnonzero(stage.sums == result))) for result in results]

    def corrupt(values, _, name):
        values = np.array(values)
        shape = (1 if alike else len(nodes), *values.shape[1:])
        values[nodes] += 10.0**exponent * generator.standard_normal(shape)
        return values

    product = CodedProduct(code, 17, 13, adversarial=True)
    coded = product.layout.encode(kernel)
    operand, multiply = (x, product.forward) if forward else (delta, product.backward)
    value, found = multiply(coded, operand, corrupt)
    assert float(found.uncorrectable) == 0
    assert set(np.flatnonzero(found.wrong)) == set(results)
    close(value, operand @ (kernel if forward else kernel.T))


def test_alike_errors_point_at_nobody_else():
    """Two nodes of 13 with the same error: in the first round a third explains it about as well as either."""
    product = CodedProduct(GeneralizedPolyDot(3, 2, workers=13), 17, 13, adversarial=True)
    for seed in (20, 38, *range(8)):
        generator, kernel, x, _ = operands(seed, 6, 17, 13)
        nodes = generator.choice(13, 2, replace=False)

        def corrupt(values, *_, generator=generator, nodes=nodes):
            values = np.array(values)
            values[nodes] += generator.standard_normal((1, *values.shape[1:]))
            return values

        value, found = product.forward(product.layout.encode(kernel), x, corrupt)
        assert set(np.flatnonzero(found.wrong)) == set(nodes)
        close(value, x @ kernel)


@settings(max_examples=60, deadline=None)
@given(
    messages=st.integers(1, 9), redundancy=st.integers(1, 8), seed=st.integers(0, 2**31), exponent=st.floats(-3, 6),
    data=st.data(),
)  # fmt: skip
def test_independent_errors_below_the_redundancy_are_corrected_and_as_many_detected(
    messages, redundancy, seed, exponent, data
):
    decoder = Decoder(systematic(messages + redundancy, messages))
    count = data.draw(st.integers(1, redundancy))
    generator = np.random.default_rng(seed)
    sent = generator.standard_normal((1, messages, 40))
    results = decoder.generator @ sent
    wrong = np.zeros((1, decoder.nodes), bool)
    wrong[0, generator.choice(decoder.nodes, count, replace=False)] = True
    results[wrong] += 10.0**exponent * generator.standard_normal((count, 40))
    found = decoder.decode(results, np.full((1, 40), 1e-9))
    if count == redundancy:
        assert int(found.status[0]) == UNCORRECTABLE
        return
    assert int(found.status[0]) == CORRECTED
    np.testing.assert_array_equal(found.wrong, wrong)
    np.testing.assert_allclose(found.messages, sent, atol=1e-8)


@settings(max_examples=40, deadline=None)
@given(messages=st.integers(1, 9), redundancy=st.integers(0, 8), seed=st.integers(0, 2**31), data=st.data())
def test_any_surviving_results_suffice(messages, redundancy, seed, data):
    decoder = Decoder(systematic(messages + redundancy, messages))
    generator = np.random.default_rng(seed)
    sent = generator.standard_normal((1, messages, 12))
    results = decoder.generator @ sent
    lost = generator.choice(decoder.nodes, data.draw(st.integers(0, redundancy)), replace=False)
    results[0, lost] = np.nan
    found = decoder.decode(results, np.full((1, 12), 1e-9))
    assert int(found.status[0]) != UNCORRECTABLE
    np.testing.assert_allclose(found.messages, sent, atol=1e-8)
