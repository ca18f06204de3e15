"""The joint decoder against the cases of the theory page, section 8."""

from functools import lru_cache

import numpy as np
import pytest
import tensorflow as tf

from axtrain.coded.decoder import CLEAN, CORRECTED, UNCORRECTABLE, Decoder
from axtrain.coded.generators import chebyshev_points, condition, monomials, systematic

pytestmark = pytest.mark.eager

TRIALS, COLUMNS = 200, 40
CODES = ((8, 5), (12, 7), (15, 11), (20, 9))


def trial(decoder, count, errors, seed=0, columns=COLUMNS, trials=TRIALS):
    """Codewords with `count` wrong nodes each: (results, messages, wrong)."""
    generator = np.random.default_rng(seed)
    messages = generator.standard_normal((trials, decoder.messages, columns))
    results = decoder.generator @ messages
    wrong = np.zeros((trials, decoder.nodes), bool)
    for i in range(trials):
        chosen = generator.choice(decoder.nodes, count, replace=False)
        wrong[i, chosen] = True
        results[i, chosen] += errors(generator, count, columns)
    return results, messages, wrong


def independent(generator, count, columns):
    """Of sizes from a thousandth to a million times the results."""
    return generator.standard_normal((count, columns)) * 10.0 ** generator.uniform(-3, 6, (count, 1))


@lru_cache
def traced(decoder):
    """One function for all results of the same shape."""
    return tf.function(decoder.decode)


def decoded(decoder, results, tolerance=1e-9, **options):
    found = traced(decoder)(
        tf.constant(results), tf.fill((len(results), results.shape[-1]), np.float64(tolerance)), **options
    )
    return [part.numpy() for part in found]


@pytest.mark.parametrize("nodes, messages", CODES)
@pytest.mark.cases("8-5", "20-9")
@pytest.mark.graph
def test_all_independent_errors_below_the_redundancy_are_corrected(nodes, messages):
    decoder = Decoder(systematic(nodes, messages))
    decoder.supports = {}  # the subspace test alone; what it cannot tell is searched for in another test
    for count in range(nodes - messages + 1):
        results, sent, wrong = trial(decoder, count, independent)
        found, located, status = decoded(decoder, results)
        if count == nodes - messages:  # detected, not correctable
            assert (status == UNCORRECTABLE).all()
            continue
        assert (status == (CORRECTED if count else CLEAN)).all(), count
        np.testing.assert_array_equal(located, wrong)
        np.testing.assert_allclose(found, sent, atol=1e-9)


@pytest.mark.parametrize("nodes, messages, count", [(8, 5, 1), (12, 7, 2), (15, 11, 2), (20, 9, 2)])
@pytest.mark.parametrize("kind", ["one element of one column", "identical"])
def test_dependent_errors_are_corrected_up_to_half_the_redundancy(nodes, messages, count, kind):
    def errors(generator, wrong, columns):
        if kind == "identical":
            return np.repeat(generator.standard_normal((1, columns)), wrong, axis=0)
        values = np.zeros((wrong, columns))
        values[:, 7] = generator.standard_normal(wrong)
        return values

    decoder = Decoder(systematic(nodes, messages))
    results, sent, wrong = trial(decoder, count, errors, trials=20)
    found, located, status = decoded(decoder, results)
    assert (status == CORRECTED).all()
    np.testing.assert_array_equal(located, wrong)
    np.testing.assert_allclose(found, sent, atol=1e-9)


def test_the_ambiguous_adversarial_case():
    """Two of four results that agree on another message: neither side can be told from the other."""
    generator = np.random.default_rng(0)
    message, other = generator.standard_normal((2, 1, 1, 50))
    results = np.repeat(message, 4, axis=1)
    results[:, 2:] = other
    assert decoded(Decoder(np.ones((4, 1)), adversarial=True), results)[2] == UNCORRECTABLE
    found, _, status = decoded(Decoder(np.ones((4, 1))), results)  # independent errors would not agree
    assert status == CORRECTED
    assert np.allclose(found, message) != np.allclose(found, other)
    # Three of seven agree on another message of one element: right to correct where errors are taken as independent
    # only if more than half are right; with four liars of seven the lie is what is decoded.
    for liars, right in ((3, True), (4, False)):
        results = np.repeat(message, 7, axis=1)
        results[:, :liars] = other
        found, _, status = decoded(Decoder(np.ones((7, 1)), adversarial=True), results)
        assert status == CORRECTED
        assert np.allclose(found, message) == right


def test_adversarial_decoders_trust_half_the_redundancy_only():
    decoder = Decoder(systematic(12, 7), adversarial=True)
    results, _, _ = trial(decoder, 3, independent, trials=20)
    assert (decoded(decoder, results)[2] == UNCORRECTABLE).all()


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, 1e300])
def test_what_is_not_a_number_is_an_erasure(poison):
    decoder = Decoder(systematic(12, 7))
    results, sent, wrong = trial(decoder, 2, lambda *_: 0.0, trials=10)
    results[wrong] = np.where(np.arange(COLUMNS) == 3, poison, 0.0)
    found, located, status = decoded(decoder, results)
    np.testing.assert_array_equal(located, wrong)
    assert (status == CORRECTED).all()
    np.testing.assert_allclose(found, sent, atol=1e-9)


def test_erasures_cost_one_result_each_and_errors_two():
    decoder = Decoder(systematic(12, 7))
    results, sent, wrong = trial(decoder, 5, lambda *_: np.nan, trials=10)
    found, _, status = decoded(decoder, results)  # five missing of five: nothing left to check with
    np.testing.assert_allclose(found, sent, atol=1e-8)
    results, sent, wrong = trial(decoder, 4, independent, trials=10)
    erased = wrong & (np.cumsum(wrong, axis=1) <= 2)
    found, located, status = decoded(decoder, results, erased=tf.constant(erased))
    assert (status == CORRECTED).all()
    np.testing.assert_array_equal(located, wrong)
    np.testing.assert_allclose(found, sent, atol=1e-8)


def test_conditioning_is_that_of_the_theory_page():
    """(12, 9): integer nodes 3e11, monomials at Chebyshev points 2e3, systematic 15."""
    assert 1e11 < condition(monomials(np.arange(1.0, 13.0), 9)) < 1e12
    assert 1e3 < condition(monomials(chebyshev_points(12), 9)) < 4e3
    assert condition(systematic(12, 9)) < 20
