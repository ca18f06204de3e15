"""A table in another convention is refused, whatever brings it nearer to the product; coarse circuits are not."""

import numpy as np
import pytest

from axtrain.noise_models import multipliers
from axtrain.noise_models.multiplier import Multiplier

SIGNED = multipliers.get("drum6", signed=True).table
UNSIGNED = multipliers.get("mitchell").table
WIDE = multipliers.get("exact", bits=(4, 6), signed=True).table
MAGNITUDE = np.r_[0:129, 255:128:-1]  # where a code of two's complement stands among those of sign and magnitude

CASES = {
    "raw words": ((SIGNED & 0xFFFF).astype(np.uint16), 8, True, "table.astype(np.int16)", SIGNED),
    "raw words of int16's other half": (UNSIGNED.astype(np.int16), 8, False, "table.astype(int) % 65536", UNSIGNED),
    "values in order": (np.roll(SIGNED, (128, 128), (0, 1)), 8, True, "np.roll(table, (128, 128), (0, 1))", SIGNED),
    "activations in order": (np.roll(SIGNED, 128, 0), 8, True, "np.roll(table, (128,), (0,))", SIGNED),
    "weights in order": (np.roll(SIGNED, 128, 1), 8, True, "np.roll(table, (128,), (1,))", SIGNED),
    "both in order, raw words": (
        np.roll(SIGNED, (128, 128), (0, 1)) & 0xFFFF,
        8,
        True,
        "np.roll(table.astype(np.int16), (128, 128), (0, 1))",
        SIGNED,
    ),
    "sign and magnitude": (
        SIGNED[np.ix_(np.argsort(MAGNITUDE), np.argsort(MAGNITUDE))],
        8,
        True,
        "table[np.ix_(np.r_[0:129, 255:128:-1], np.r_[0:129, 255:128:-1])]",
        None,
    ),
    "signed, called unsigned": (SIGNED, 8, False, "signed=True", None),
    "unsigned, called signed": (UNSIGNED, 8, True, "signed=False", None),
    "narrow raw words": (
        (WIDE & 0x3FF).astype(np.uint16),
        (4, 6),
        True,
        "np.where(table < 512, table, table.astype(int) - 1024)",
        WIDE,
    ),
    "weight first": (WIDE.T.reshape(WIDE.shape), (4, 6), True, "table.reshape(64, 16).T", WIDE),
}


@pytest.mark.parametrize("case", CASES)
def test_a_table_in_another_convention_is_refused_with_what_mends_it(case, tmp_path):
    table, bits, signed, told, mended = CASES[case]
    np.save(tmp_path / "table.npy", table)
    with pytest.raises(ValueError, match="looks like") as refused:
        Multiplier.load(tmp_path / "table.npy", bits=bits, signed=signed)
    assert told in str(refused.value).replace("`", "")
    if mended is not None:
        np.testing.assert_array_equal(eval(told, {"np": np, "table": table}), mended)
    with pytest.raises(ValueError, match="looks like"):
        Multiplier(table, name="made", bits=bits, signed=signed)


def test_one_who_insists_has_the_table_as_it_is(tmp_path):
    np.save(tmp_path / "table.npy", SIGNED & 0xFFFF)
    kept = Multiplier.load(tmp_path / "table.npy", signed=True, check=False)
    np.testing.assert_array_equal(kept.table, SIGNED & 0xFFFF)
    assert Multiplier.from_dict(kept.to_dict()) == kept  # told once


@pytest.mark.parametrize("widths", [(2, 2), (3, 7), (5, 5), (8, 4), (8, 8)])
@pytest.mark.parametrize("signed", [False, True])
def test_no_circuit_of_ours_is_refused_however_coarse(widths, signed):
    for name in multipliers.names():
        try:
            multipliers.get(name, bits=widths, signed=signed)
        except ValueError as error:
            assert "looks like" not in str(error)


def test_circuits_without_products_are_kept():
    for signed in (False, True):
        Multiplier(np.zeros((256, 256), int), name="off", bits=8, signed=signed)


def test_a_transposed_table_of_two_widths_is_told_from_its_shape(tmp_path):
    np.save(tmp_path / "table.npy", WIDE.T)
    with pytest.raises(ValueError, match="transpose it"):
        Multiplier.load(tmp_path / "table.npy", bits=(4, 6), signed=True)
    with pytest.raises(ValueError, match="transpose it"):
        Multiplier(WIDE.T, name="made", bits=(4, 6), signed=True)
