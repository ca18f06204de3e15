"""Each code against plain products: every stage, any surviving results, and what it promises."""

import itertools

import numpy as np
import pytest

from axtrain.coded import (
    CodeNet,
    GeneralizedPolyDot,
    MatDot,
    Polynomial,
    Replication,
    SystematicMDS,
    Uncoded,
)
from axtrain.coded.generators import parity_checks
from axtrain.coded.products import layout

CODES = (
    CodeNet(4, 5, 1),
    CodeNet(1, 1, 2),
    SystematicMDS(8, 5),
    Uncoded(2, 3),
    Replication(3, 2, 2),
    GeneralizedPolyDot(2, 2),
    GeneralizedPolyDot(3, 2, workers=20),
    Polynomial(4),
    MatDot(4),
    GeneralizedPolyDot(1, 4, basis="monomial"),
)
KERNELS = ((33, 10), (5, 4))  # neither is divided by all grids


@pytest.mark.parametrize("m, n, d", list(itertools.product(range(1, 6), repeat=3)))
def test_polydot_decodes_from_any_of_its_threshold(m, n, d):
    """All 125 triples: K = m n d + n - 1, and no fewer."""
    generator = np.random.default_rng(0)
    threshold = m * n * d + n - 1
    code = GeneralizedPolyDot(m, n, d, workers=max(threshold, 2 * m * n - n if d == 1 else 0) + 2, basis="monomial")
    assert code.product_threshold == threshold
    a, b = generator.standard_normal((m, n)), generator.standard_normal((n, d))
    stage = code.forward
    products = np.einsum("pi,ij,pj->p", code.left, a, code.right) * (stage.operand @ b.reshape(-1))
    kept = np.sort(generator.choice(len(products), threshold, replace=False))
    messages = np.linalg.lstsq(stage.generator[kept], products[kept], rcond=None)[0]
    assert np.linalg.matrix_rank(stage.generator) == min(threshold, len(products)) or threshold > 20
    tolerance = 1e-12 * np.linalg.cond(stage.generator[kept]) * np.abs(products).max()
    np.testing.assert_allclose((stage.wanted @ messages).reshape(m, d), a @ b, atol=max(tolerance, 1e-9))


@pytest.mark.parametrize("m, n, d, threshold", [(2, 2, 1, 5), (1, 4, 1, 7), (4, 1, 4, 16), (2, 2, 2, 9)])
def test_published_thresholds(m, n, d, threshold):
    assert GeneralizedPolyDot(m, n, d).product_threshold == threshold


def test_figures_of_codenet():
    """(4, 5, t = 1): 38 nodes against 60 for replication that corrects as much and 40 that only detect."""
    code = CodeNet(4, 5, 1)
    assert (code.nodes, code.adversarial_errors, code.independent_errors) == (38, 1, 1)
    assert CodeNet(4, 5, 2).nodes == 56
    assert Replication(3, 4, 5).nodes == 60
    assert Replication(2, 4, 5).nodes == 40
    assert CodeNet(4, 5, 2).independent_errors == 3
    assert (GeneralizedPolyDot(3, 2).forward.threshold, GeneralizedPolyDot(3, 2).backward.threshold) == (7, 10)


@pytest.mark.parametrize("code", CODES, ids=repr)
@pytest.mark.parametrize("inputs, outputs", KERNELS)
def test_products_and_update_equal_plain_ones(code, inputs, outputs):
    generator = np.random.default_rng(1)
    kernel = generator.standard_normal((inputs, outputs))
    x, delta = generator.standard_normal((7, inputs)), generator.standard_normal((7, outputs))
    laid = layout(code, inputs, outputs)
    coded = laid.encode(kernel)
    assert tuple(coded.shape) == laid.shape
    np.testing.assert_allclose(laid.decode(coded), kernel, atol=1e-9)
    np.testing.assert_allclose(laid.shards(laid.from_shards(laid.shards(coded))), laid.shards(coded), atol=0)
    for stage, product, operand, want in (
        (code.forward, laid.forward, x, x @ kernel),
        (code.backward, laid.backward, delta, delta @ kernel.T),
    ):
        for corrupt in (None, lambda values, stage, name: values):  # both ways of computing them
            results = np.asarray(laid.by_node(product(coded, operand, corrupt)))
            assert results.shape[:3] == (stage.groups, len(stage.generator), len(operand))
            results = results.transpose(2, 0, 1, 3)
            messages = np.linalg.pinv(stage.generator) @ results
            found = (stage.wanted @ messages).reshape(len(operand), -1)[:, : want.shape[1]]
            np.testing.assert_allclose(found, want, atol=1e-8)
            if stage.redundancy:
                assert np.abs(parity_checks(stage.generator) @ results).max() < 1e-8
    updated = laid.shards(coded) + 0.3 * np.asarray(laid.shards(laid.gradient(x, delta)))
    np.testing.assert_allclose(updated, laid.shards(laid.encode(kernel + 0.3 * x.T @ delta)), atol=1e-8)


@pytest.mark.parametrize(
    "make, problem",
    [
        (lambda: CodeNet(0, 5), "rows"),
        (lambda: CodeNet(4, 5, 1.0), "errors"),
        (lambda: SystematicMDS(4, 5), "total"),
        (lambda: Replication(1), "copies"),
        (lambda: GeneralizedPolyDot(2, 2, workers=4), "workers"),
        (lambda: GeneralizedPolyDot(2, 2, basis="chebyshev"), "Chebyshev"),
        (lambda: GeneralizedPolyDot(2, 2, basis="fourier"), "basis"),
        (lambda: GeneralizedPolyDot(4, 4).check_dtype("float32"), "float64"),
        (lambda: CodeNet(4, 5).check_dtype("bfloat16"), "float32"),
    ],
)
def test_parameters_that_cannot_work_are_refused(make, problem):
    with pytest.raises(ValueError, match=problem):
        make()
