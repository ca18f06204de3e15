"""The error metrics, against definitions written out in plain Python and against hand-made tables."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from axtrain.noise_models.metrics import ErrorMetrics, error_metrics

VALUES = np.array([0, 1, -2, -1])


def plain(table, a_values, b_values, signed):
    errors, relative = [], []
    for i, a in enumerate(a_values.tolist()):
        for j, b in enumerate(b_values.tolist()):
            errors.append(int(table[i, j]) - a * b)
            if a * b:
                relative.append(abs(errors[-1] / (a * b)))
    n = len(errors)
    mae = sum(map(abs, errors)) / n
    bias = sum(errors) / n
    largest = n / 4 if signed else (len(a_values) - 1) * (len(b_values) - 1)
    return ErrorMetrics(
        mae=mae,
        wce=max(map(abs, errors)),
        bias=bias,
        std=(sum((e - bias) ** 2 for e in errors) / n) ** 0.5,
        mse=sum(e * e for e in errors) / n,
        ep=sum(e != 0 for e in errors) / n,
        mre=sum(relative) / len(relative),
        wcre=max(relative),
        mae_percent=100 * mae / n,
        wce_percent=100 * max(map(abs, errors)) / n,
        nmed=mae / largest,
    )


@settings(deadline=None, max_examples=50)
@given(st.data(), st.integers(1, 4), st.integers(1, 4), st.booleans())
def test_equals_the_definitions(data, a_bits, b_bits, signed):
    table = data.draw(arrays(np.int32, (2**a_bits, 2**b_bits), elements=st.integers(-(2**20), 2**20)))
    a_values, b_values = (np.arange(2**n) - signed * 2 ** (n - 1) for n in (a_bits, b_bits))
    found = dataclasses.asdict(error_metrics(table, a_values, b_values, signed))
    expected = dataclasses.asdict(plain(table, a_values, b_values, signed))
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_exact_table_has_no_error():
    metrics = error_metrics(np.outer(VALUES, VALUES), VALUES, VALUES, signed=True)
    assert set(dataclasses.asdict(metrics).values()) == {0}


def test_relative_errors_leave_out_zero_products_but_ep_counts_all_pairs():
    table = np.outer(VALUES, VALUES)
    table[0, 0] = 5
    metrics = error_metrics(table, VALUES, VALUES, signed=True)
    assert (metrics.mre, metrics.wcre) == (0, 0)
    assert metrics.ep == 1 / 16
    assert metrics.bias == metrics.mae == 5 / 16


def test_sums_do_not_overflow_32_bits():
    table = np.full((4, 4), 2**31 - 1, np.int32)
    metrics = error_metrics(table, VALUES, VALUES, signed=True)
    assert metrics.wce == 2**31 - 1 + 2
    assert metrics.mae == pytest.approx(2**31, rel=1e-8)


def test_nmed_normalisation():
    unsigned = np.arange(4)
    table = np.outer(unsigned, unsigned) + 1
    assert error_metrics(table, unsigned, unsigned, False).nmed == 1 / 9
    assert error_metrics(np.outer(VALUES, VALUES) + 1, VALUES, VALUES, True).nmed == 1 / 4


@pytest.mark.parametrize(
    ("table", "a_values", "b_values", "message"),
    [
        (np.zeros((4, 4), int), VALUES[:2], VALUES, "one row per entry"),
        (np.zeros(16, int), VALUES, VALUES, "one row per entry"),
        (np.zeros((4, 4)), VALUES, VALUES, "`table` must hold integers"),
        (np.zeros((4, 4), int), VALUES * 1.0, VALUES, "`a_values` must hold integers"),
        (np.zeros((4, 4), int), VALUES * 0, VALUES, r"a\*b != 0"),
    ],
)
def test_refuses(table, a_values, b_values, message):
    with pytest.raises(ValueError, match=rf"(?s){message}.*Received: "):
        error_metrics(table, a_values, b_values, True)
