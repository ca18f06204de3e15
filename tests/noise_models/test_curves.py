"""Curves of bit error rate over voltage."""

import itertools
import json
import math

import numpy as np
import pytest
from scipy.stats import norm

from axtrain.noise_models.curves import ILLUSTRATIVE, ProbitCurve, TabulatedCurve, curve_from_dict

TABLE = TabulatedCurve(voltages=(0.5, 0.6, 0.8), rates=(1e-1, 1e-3, 1e-4), source="made up")


@pytest.mark.parametrize("voltage", [0.2, 0.35, 0.5, 0.7, 0.9, 1.2])
def test_probit_is_the_normal_distribution_far_into_its_tail(voltage):
    curve = ProbitCurve(mean_v=0.4, deviation_v=0.05, source="test")
    assert math.isclose(curve(voltage), norm.sf((voltage - 0.4) / 0.05), rel_tol=1e-9)


def test_illustrative_is_what_its_docstring_says():
    rates = [f"{ILLUSTRATIVE(voltage):.1e}" for voltage in (0.5, 0.56, 0.6, 0.7)]
    assert rates == ["1.1e-02", "6.2e-04", "6.0e-05", "3.6e-08"]
    assert "illustrative" in ILLUSTRATIVE.source


def test_table_is_linear_in_the_logarithm():
    for voltage, rate in zip(TABLE.voltages, TABLE.rates, strict=True):
        assert math.isclose(TABLE(voltage), rate, rel_tol=1e-12)
    assert math.isclose(TABLE(0.55), 1e-2, rel_tol=1e-12)
    assert math.isclose(TABLE(0.7), 10**-3.5, rel_tol=1e-12)
    rates = [TABLE(v) for v in np.linspace(0.5, 0.8, 101)]
    assert all(high > low for high, low in itertools.pairwise(rates))


def test_table_in_any_order_is_the_same_hashable_curve():
    other = TabulatedCurve(voltages=[0.8, 0.5, 0.6], rates=np.array([1e-4, 0.1, 1e-3]), source="made up")
    assert other == TABLE and hash(other) == hash(TABLE)


def test_equal_rates_may_follow_each_other():
    assert math.isclose(TabulatedCurve(voltages=(0.5, 0.6), rates=(0.1, 0.1), source="")(0.55), 0.1)


@pytest.mark.parametrize("voltage", [0.4999, 0.8001])
def test_no_extrapolation(voltage):
    with pytest.raises(ValueError, match=r"covers 0\.5 to 0\.8 V and is not extrapolated.*Received: "):
        TABLE(voltage)


@pytest.mark.parametrize("curve", [TABLE, ILLUSTRATIVE])
@pytest.mark.parametrize("voltage", [0.0, -0.5, math.nan, math.inf, "high", None])
def test_bad_voltage(curve, voltage):
    with pytest.raises(ValueError, match=r"positive number of volts. Received: voltage="):
        curve(voltage)


@pytest.mark.parametrize(
    ("voltages", "rates", "message"),
    [
        ((0.5,), (0.1,), "two or more voltages.*Received: 1 voltages and 1 rates"),
        ((0.5, 0.6), (0.1,), "as many rates. Received: 2 voltages and 1 rates"),
        ((0.6, 0.5), (0.1, 0.01), r"must fall.*Received: rate=0\.01 at 0\.5 V and rate=0\.1 at 0\.6 V"),
        ((0.5, 0.6), (0.1, 0.0), r"in \(0, 1\].*Received: rate=0\.0 at 0\.6 V"),
        ((0.5, 0.6), (1.5, 0.1), r"in \(0, 1\].*Received: rate=1\.5 at 0\.5 V"),
        ((0.5, 0.6), (0.1, math.nan), "Received: rate=nan"),
        ((0.5, 0.5), (0.1, 0.1), r"Received: 0\.5 V twice"),
        ((-0.5, 0.5), (0.1, 0.1), r"Received: voltage=-0\.5"),
    ],
)
def test_bad_tables(voltages, rates, message):
    with pytest.raises(ValueError, match=message):
        TabulatedCurve(voltages=voltages, rates=rates, source="test")


@pytest.mark.parametrize("name", ["mean_v", "deviation_v"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf, "0.4"])
def test_bad_probit(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be a positive number of volts. Received: {name}="):
        ProbitCurve(**{"mean_v": 0.4, "deviation_v": 0.05, "source": "test", name: value})


def test_csv(tmp_path):
    path = tmp_path / "chip.csv"
    path.write_text("\ufeffcell, voltage, rate\na,0.8,1e-4\nb,0.5,1e-1\nc,0.6,1e-3\n", encoding="utf-8")
    assert TabulatedCurve.from_csv(path, source="made up") == TABLE
    assert TabulatedCurve.from_csv(path).source == "chip.csv"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("volts,rate\n0.5,0.1\n", r"columns voltage and rate\. Received: \['volts', 'rate'\]"),
        ("", "header line.*Received: None"),
        ("voltage,rate\n0.5,0.1\n0.6,none\n", "line 3: .*must be numbers. Received: .*none"),
        ("voltage,rate\n0.5\n", "line 2: .*must be numbers. Received:"),
    ],
)
def test_bad_csv(tmp_path, text, message):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        TabulatedCurve.from_csv(path)


@pytest.mark.parametrize("curve", [TABLE, ProbitCurve(mean_v=0.41, deviation_v=0.03, source="fit")])
def test_round_trip_through_json(curve):
    assert curve_from_dict(json.loads(json.dumps(curve.to_dict()))) == curve


def test_unknown_kind():
    with pytest.raises(ValueError, match=r"one of probit, tabulated. Received: kind='spline'"):
        curve_from_dict({"kind": "spline"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("voltage,rate\n0,5,0,01\n0,6,0,001\n", r"line 2 has more cells .* \['0', '01'\]"),
        ("voltage,rate,rate\n0.5,0.01,0.02\n0.6,0.001,0.002\n", "a column may stand once"),
    ],
)
def test_no_cell_of_a_csv_file_is_left_unread(text, message, tmp_path):
    (tmp_path / "curve.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        TabulatedCurve.from_csv(tmp_path / "curve.csv")
    (tmp_path / "spreadsheet.csv").write_text("voltage,rate,,\n0.5,0.01,,\n0.6,0.001,,,\n")
    assert TabulatedCurve.from_csv(tmp_path / "spreadsheet.csv").voltages == (0.5, 0.6)
