"""The families against bit-level scalar references, and against the figures printed in the literature."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from functools import cache

import numpy as np
import pytest

from axtrain.noise_models import circuits, circuits_logarithmic, multipliers
from axtrain.noise_models.multiplier import Multiplier

# --- independent references: one pair at a time, bit by bit, straight from the papers' definitions ---


def reference_cells(a, b, na, nb, keep):
    return sum(1 << (i + j) for i in range(na) for j in range(nb) if keep(i, j) and a & (1 << i) and b & (1 << j))


def reference_broken_array(a, b, na, nb, hbl, vbl):
    return reference_cells(a, b, na, nb, lambda i, j: not (i < hbl or i + j < vbl))


def reference_truncated(a, b, na, nb, t):
    return reference_cells(a, b, na, nb, lambda i, j: i + j >= t)


def reference_operand_truncated(a, b, na, nb, k):
    return reference_cells(a, b, na, nb, lambda i, j: i >= k and j >= k)


def reference_mitchell(a, b, na, nb):
    if not a or not b:
        return 0
    p, q = len(bin(a)) - 3, len(bin(b)) - 3
    total = p + q + Fraction(a - 2**p, 2**p) + Fraction(b - 2**q, 2**q)  # sum of the linear logarithms
    characteristic = math.floor(total)
    product = 2**characteristic * (1 + total - characteristic)
    assert product.denominator == 1
    return product.numerator


def reference_drum(a, b, na, nb, k):
    def shorten(x):
        digits = f"{x:b}"
        return x if len(digits) <= k else int(digits[: k - 1] + "1" + "0" * (len(digits) - k), 2)

    return shorten(a) * shorten(b)


def reference_roba(a, b, na, nb):
    @cache
    def nearest(x):
        if x in (0, 3):
            return {0: 0, 3: 2}[x]
        return min((2**p for p in range(20)), key=lambda power: (abs(power - x), -power))

    return nearest(a) * b + nearest(b) * a - nearest(a) * nearest(b)


def reference_ssm(a, b, na, nb, m):
    def segment(x, n):
        digits = f"{x:0{n}b}"
        return int(digits[:m] + "0" * (n - m), 2) if "1" in digits[: n - m] else x

    return segment(a, na) * segment(b, nb)


def reference_kulkarni(a, b, na, nb):
    width = 2
    while width < max(na, nb):
        width *= 2

    def block(x, y, w):
        if w == 2:
            return 7 if x == y == 3 else x * y
        h = w // 2
        xh, xl, yh, yl = x >> h, x & (2**h - 1), y >> h, y & (2**h - 1)
        middle = block(xh, yl, h) + block(xl, yh, h)
        return (block(xh, yh, h) << w) + (middle << h) + block(xl, yl, h)

    return block(a, b, width)


REFERENCES = {
    "exact": (circuits.exact, lambda a, b, na, nb: a * b),
    "truncated": (circuits.truncated, reference_truncated),
    "operand_truncated": (circuits.operand_truncated, reference_operand_truncated),
    "broken_array": (circuits.broken_array, reference_broken_array),
    "mitchell": (circuits_logarithmic.mitchell, reference_mitchell),
    "drum": (circuits_logarithmic.drum, reference_drum),
    "roba": (circuits_logarithmic.roba, reference_roba),
    "kulkarni": (circuits.kulkarni, reference_kulkarni),
    "ssm": (circuits_logarithmic.ssm, reference_ssm),
}
WIDTHS = [(2, 2), (3, 5), (6, 4), (5, 5), (2, 8), (10, 3)]


def grid(na, nb):
    return np.arange(2**na)[:, None], np.arange(2**nb)[None, :]


def difference(family, na, nb, parameters, pairs=None):
    circuit, reference = REFERENCES[family]
    a, b = grid(na, nb) if pairs is None else pairs
    found = circuit(a, b, (na, nb), *parameters)
    a, b = np.broadcast_arrays(a, b)
    expected = [
        reference(x, y, na, nb, *parameters) for x, y in zip(a.ravel().tolist(), b.ravel().tolist(), strict=True)
    ]
    return np.abs(found.ravel() - np.array(expected)).max()


@pytest.mark.parametrize(
    ("family", "parameters"),
    [
        ("exact", ()),
        ("truncated", (6,)),
        ("operand_truncated", (3,)),
        ("broken_array", (2, 4)),
        ("broken_array", (4, 8)),
        ("mitchell", ()),
        ("drum", (4,)),
        ("roba", ()),
        ("kulkarni", ()),
        ("ssm", (4,)),
    ],
)
def test_all_65536_products(family, parameters):
    assert difference(family, 8, 8, parameters) == 0


def all_parameters(family, na, nb):
    return {
        "truncated": [(t,) for t in range(na + nb - 1)],
        "operand_truncated": [(k,) for k in range(min(na, nb))],
        "broken_array": [(h, v) for h in (0, 1, na - 1) for v in (0, 2, na + nb - 2)],
        "drum": [(k,) for k in range(1, min(na, nb) + 1)],
        "ssm": [(m,) for m in range(1, min(na, nb) + 1)],
    }.get(family, [()])


@pytest.mark.parametrize(("na", "nb"), WIDTHS)
@pytest.mark.parametrize("family", REFERENCES)
def test_other_widths_and_every_parameter(family, na, nb):
    rng = np.random.default_rng(1)
    for parameters in all_parameters(family, na, nb):
        pairs = None if na + nb <= 8 else (rng.integers(0, 2**na, 500), rng.integers(0, 2**nb, 500))
        assert difference(family, na, nb, parameters, pairs) == 0, parameters


@pytest.mark.parametrize(
    ("family", "parameters"),
    [("truncated", (9,)), ("broken_array", (3, 11)), ("mitchell", ()), ("drum", (6,)), ("roba", ()),
     ("kulkarni", ()), ("ssm", (8,)), ("operand_truncated", (5,))],
)  # fmt: skip
def test_16_bits(family, parameters):
    pairs = np.random.default_rng(2).integers(0, 2**16, (2, 2000))
    pairs[:, :2] = [[0, 65535], [65535, 65535]]
    assert difference(family, 16, 16, parameters, pairs) == 0


# --- figures of the theory page, section 1 ---


def percent(value, printed):
    """Rounded to as many decimals as were printed."""
    return f"{100 * value:.{len(printed.partition('.')[2])}f}" == printed


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("mitchell", "3.788"), ("kulkarni", "3.280"), ("roba", "2.862"),
        ("drum3", "12.095"), ("drum4", "5.887"), ("drum5", "2.839"), ("drum6", "1.301"), ("drum7", "0.483"),
        ("ssm4", "14.904"), ("ssm5", "5.552"), ("ssm6", "1.620"),
    ],
)  # fmt: skip
def test_mean_relative_error(name, printed):
    mre = multipliers.get(name).metrics().mre
    assert percent(mre, printed), mre


@pytest.mark.parametrize(("name", "printed"), [("mitchell", "11.111"), ("kulkarni", "22.22"), ("roba", "11.11")])
def test_largest_relative_error(name, printed):
    assert percent(multipliers.get(name).metrics().wcre, printed)


@pytest.mark.parametrize(
    ("name", "mae", "wce", "ep"),
    [("truncated4", 12.25, 49, "81.25"), ("truncated6", 80.25, 321, "93.75"),
     ("truncated8", 448.25, 1793, "98.05"), ("kulkarni", 903.125, 14450, "46.73")],
)  # fmt: skip
def test_distances(name, mae, wce, ep):
    metrics = multipliers.get(name).metrics()
    assert (metrics.mae, metrics.wce) == (mae, wce)
    assert percent(metrics.ep, ep)


@pytest.mark.parametrize(
    ("name", "mae"),
    [("broken_array_2_4", 196.25), ("broken_array_2_8", 512.25), ("broken_array_4_8", 1152.25),
     ("operand_truncated1", 127.25), ("operand_truncated2", 380.25), ("operand_truncated3", 880.25),
     ("operand_truncated4", 1856.25)],
)  # fmt: skip
def test_mean_distance(name, mae):
    assert multipliers.get(name).metrics().mae == mae


def test_kulkarni_nmed():
    assert percent(multipliers.get("kulkarni").metrics().nmed, "1.389")


@pytest.mark.parametrize("name", ["mitchell", "truncated6", "kulkarni", "ssm4", "broken_array_2_4"])
def test_never_overestimates(name):
    assert multipliers.get(name).error.max() == 0


def test_roba_rounds_three_to_two():
    roba = multipliers.get("roba")
    assert roba.table[3, 5] == 14
    assert f"{roba.metrics().bias:.4f}" == "-0.2384"


@pytest.mark.parametrize("bits", [2, 5, 8, 10])
def test_truncation_closed_form(bits):
    for t in range(bits + 1):
        expected = sum((c + 1) * 2**c for c in range(t)) / 4
        assert multipliers.get(f"truncated{t}", bits=bits).metrics().mae == expected


def test_broken_array_is_not_symmetric():
    assert not multipliers.get("broken_array_2_4").is_symmetric
    assert multipliers.get("truncated4").is_symmetric


def drum_16_bit_mre(k):
    """Exhaustive over all 2^32 pairs: mean ``|r(a) r(b) - 1|`` of the operands' ratios, by prefix sums."""
    values = np.arange(1, 2**16)
    ratio = np.sort(circuits_logarithmic.drum(values, 1, 16, k) / values)
    below = np.concatenate([[0], np.cumsum(ratio)])
    split = np.searchsorted(ratio, 1 / ratio)  # r(a) r(b) >= 1 from here on
    n = len(ratio)
    over = ratio * (below[-1] - below[split]) - (n - split)
    under = split - ratio * below[split]
    return (over + under).sum() / n**2


def mitchell_16_bit_mre():
    """Exhaustive over all 2^32 pairs: on either side of x+y=1 the error is a function of x times one of y."""
    values = np.arange(1, 2**16)
    position = circuits_logarithmic.leading_one(values)
    fraction = (values << (15 - position)) - 2**15  # x in units of 2^-15
    weight = np.bincount(fraction, minlength=2**15)
    x = np.arange(2**15) / 2**15
    low = np.concatenate([[0], np.cumsum(weight * x / (1 + x))])  # sum over y < limit
    high = np.concatenate([[0], np.cumsum(weight * (1 - x) / (1 + x))])
    limit = 2**15 - np.arange(2**15)  # x + y < 1 for y below it
    total = weight * (x / (1 + x) * low[limit] + (1 - x) / (1 + x) * (high[-1] - high[limit]))
    return total.sum() / (2**16 - 1) ** 2


@pytest.mark.parametrize(
    ("k", "printed"), [(3, "11.90"), (4, "5.89"), (5, "2.94"), (6, "1.47"), (7, "0.73"), (8, "0.37")]
)
def test_drum_16_bit(k, printed):
    assert percent(drum_16_bit_mre(k), printed)


def test_mitchell_16_bit():
    assert percent(mitchell_16_bit_mre(), "3.8486")


@pytest.mark.parametrize(
    ("circuit", "parameters", "exhaustive"),
    [
        (circuits_logarithmic.mitchell, (), mitchell_16_bit_mre),
        (circuits_logarithmic.drum, (3,), lambda: drum_16_bit_mre(3)),
        (circuits_logarithmic.drum, (6,), lambda: drum_16_bit_mre(6)),
    ],
)
def test_16_bit_sums_agree_with_the_circuit_itself(circuit, parameters, exhaustive):
    n = 1_000_000  # random pairs; 5 standard errors
    a, b = np.random.default_rng(3).integers(1, 2**16, (2, n))
    relative = np.abs(circuit(a, b, 16, *parameters) / (a * b) - 1)
    assert abs(relative.mean() - exhaustive()) < 5 * relative.std() / n**0.5


def test_mitchell_continuous():
    # Mean of -xy/((1+x)(1+y)) for x+y < 1 and -(1-x)(1-y)/((1+x)(1+y)) beyond; inner integrals by hand.
    nodes, weights = np.polynomial.legendre.leggauss(40)
    x, weights = (nodes + 1) / 2, weights / 2
    below = x / (1 + x) * ((1 - x) - np.log(2 - x))
    beyond = (1 - x) / (1 + x) * (2 * np.log(2) - 2 * np.log(2 - x) - x)
    assert percent(-(weights * (below + beyond)).sum(), "-3.849")


# --- signed tables ---


@pytest.mark.parametrize("name", multipliers.names())
def test_signed_is_sign_magnitude_on_all_pairs(name):
    core, signed = multipliers.get(name).table.tolist(), multipliers.get(name, signed=True)
    for a in range(-128, 128):
        expected = [core[abs(a)][abs(b)] * (-1 if (a < 0) != (b < 0) else 1) for b in range(-128, 128)]
        assert np.array_equal(np.roll(signed.table[a % 256], 128), expected)


def test_signed_extremes():
    exact = multipliers.get("exact", signed=True)
    assert exact.is_exact
    assert exact.table[128, 128] == 16384
    assert multipliers.get("exact", bits=(3, 10), signed=True).is_exact


def test_sign_of_zero_is_positive():
    table = multipliers.sign_magnitude(lambda a, b, bits: a * b + 1, 3)
    assert table[0].tolist() == [1, 1, 1, 1, -1, -1, -1, -1]
    assert table[4, 4] == 17


# --- the registry ---


def test_names_are_sorted_and_all_resolve():
    assert multipliers.names() == sorted(multipliers.names())
    assert len(multipliers.names()) == 22
    for name in multipliers.names():
        for signed in (False, True):
            multiplier = multipliers.get(name, signed=signed)
            assert (multiplier.name, multiplier.bits, multiplier.signed) == (name, 8, signed)
            assert multiplier.source


def test_other_spellings_are_the_same_object():
    for spelling in ("broken_array(2,4)", "broken_array(2, 4)", "broken_array2_4"):
        assert multipliers.get(spelling) is multipliers.get("broken_array_2_4")
    assert multipliers.get("truncated(4)") is multipliers.get("truncated_4") is multipliers.get("truncated4")
    assert multipliers.get("drum4", bits=(8, 8)) is multipliers.get("drum4", bits=8)


@pytest.mark.parametrize(
    ("name", "bits", "power"),
    [("exact", 8, 1.0), ("truncated4", 8, 54 / 64), ("broken_array_2_4", 8, 45 / 64),
     ("operand_truncated2", 8, 36 / 64),
     ("operand_truncated2", (4, 6), 8 / 24), ("drum4", 8, None), ("mitchell", 8, None)],
)  # fmt: skip
def test_power_is_the_share_of_cells(name, bits, power):
    multiplier = multipliers.get(name, bits=bits)
    assert multiplier.power == power
    assert name in ("exact", "drum4", "mitchell") or "not a measurement" in multiplier.source


@pytest.mark.parametrize("name", ["truncated5", "broken_array_3_6", "broken_array_5_2"])
def test_power_counts_the_cells_that_matter(name):
    # A cell is kept exactly where two single-bit operands give their product.
    power_of_two = 1 << np.arange(8)
    kept = np.count_nonzero(multipliers.get(name).table[np.ix_(power_of_two, power_of_two)])
    assert multipliers.get(name).power == kept / 64


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("drumm4", {}, "Did you mean 'drum4'"),
        ("nothing like it", {}, r"names\(\)"),
        ("drum", {}, r"takes 1 parameter\(s\), as in 'drum3'"),
        ("exact4", {}, r"takes 0 parameter"),
        ("broken_array_2", {}, r"as in 'broken_array_2_4'"),
        ("drum9", {}, r"`segment_bits` must lie in 1\.\.8"),
        ("drum0", {}, "`segment_bits`"),
        ("ssm5", {"bits": (4, 8)}, r"1\.\.4"),
        ("truncated15", {}, r"0\.\.14"),
        ("operand_truncated8", {}, r"0\.\.7"),
        ("broken_array_8_0", {}, r"`horizontal`"),
        ("broken_array_0_15", {}, r"`vertical`"),
        ("exact", {"bits": 11}, r"2\.\.10"),
        ("exact", {"bits": 1}, "`bits`"),
        ("exact", {"bits": (8, 8, 8)}, "`bits`"),
        ("exact", {"bits": 8.0}, "`bits`"),
        ("exact", {"signed": 1}, "`signed`"),
        (4, {}, "`name`"),
    ],
)
def test_get_refuses(name, arguments, message):
    with pytest.raises(ValueError, match=rf"(?s){message}.*Received: "):
        multipliers.get(name, **arguments)


@pytest.mark.parametrize(("a", "b"), [(256, 1), (1, 256), (-1, 1), (1.0, 1), (np.array([True]), 1)])
def test_circuits_refuse_operands_out_of_range(a, b):
    with pytest.raises(ValueError, match=r"must hold integers in 0\.\.255.*Received: "):
        circuits.exact(a, b, 8)


def made(name="mine", offset=1, bits=8, signed=False):
    exact = multipliers.get("exact", bits=bits, signed=signed)
    return Multiplier(exact.table + offset, name=name, bits=bits, signed=signed)


@pytest.fixture
def clean_registry():
    yield
    for name in ("mine", "factory"):
        if name in multipliers.names():
            multipliers.unregister(name)


@pytest.mark.usefixtures("clean_registry")
def test_register_and_unregister():
    multipliers.register(made())
    multipliers.register(made())  # an equal one again
    assert "mine" in multipliers.names()
    assert multipliers.get("mine") == made()
    with pytest.raises(ValueError, match="A different multiplier is registered"):
        multipliers.register(made(offset=2))
    with pytest.raises(ValueError, match=r"ask for these.*Received: bits=\(8, 8\), signed=True"):
        multipliers.get("mine", signed=True)
    multipliers.unregister("mine")
    with pytest.raises(ValueError, match="Unknown multiplier"):
        multipliers.get("mine")
    with pytest.raises(ValueError, match="Nothing to unregister"):
        multipliers.unregister("mine")
    multipliers.register(made(offset=2))


@pytest.mark.usefixtures("clean_registry")
def test_register_a_factory():
    calls = []

    def factory(bits, signed):
        calls.append((bits, signed))
        return made("factory", 3, bits, signed)

    multipliers.register("factory", factory)
    multipliers.register("factory", factory)
    assert multipliers.get("factory", bits=(3, 4), signed=True) is multipliers.get("factory", bits=(3, 4), signed=True)
    assert calls == [((3, 4), True)]
    with pytest.raises(ValueError, match="A different multiplier"):
        multipliers.register("factory", lambda bits, signed: made())
    with pytest.raises(ValueError, match="A different multiplier"):
        multipliers.register(made("factory"))


@pytest.mark.usefixtures("clean_registry")
def test_a_factory_that_returns_something_else_is_refused():
    multipliers.register("factory", lambda bits, signed: None)
    with pytest.raises(ValueError, match="must return a Multiplier"):
        multipliers.get("factory")


def test_register_refuses_built_in_names_and_half_arguments():
    for name in ("drum4", "drum(12)", "exact"):
        with pytest.raises(ValueError, match="built-in family"):
            multipliers.register(made(name))
    for arguments in (("mine",), (made(), lambda bits, signed: None), (3,)):
        with pytest.raises(ValueError, match=r"Register a Multiplier, or a name"):
            multipliers.register(*arguments)


@pytest.mark.usefixtures("clean_registry")
def test_registered_multipliers_describe_themselves_with_their_table():
    multipliers.register(made())
    description = json.loads(json.dumps(multipliers.get("mine").to_dict()))
    multipliers.unregister("mine")
    assert Multiplier.from_dict(description) == made()
