"""The Multiplier: what it accepts, what it is equal to, and its description in JSON."""

from __future__ import annotations

import base64
import copy
import json
import pickle
import subprocess
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from axtrain.noise_models import multipliers
from axtrain.noise_models.multiplier import Multiplier

EXACT = np.outer(np.arange(4), np.arange(4))


def make(table=EXACT, **arguments):
    return Multiplier(table, **{"name": "test", "bits": 2, "signed": False, **arguments})


def test_attributes():
    multiplier = make(np.zeros((4, 8)), bits=(2, 3), signed=True, power=0.5, source="here")
    assert multiplier.bits == (2, 3)
    assert (multiplier.activation_bits, multiplier.weight_bits) == (2, 3)
    assert multiplier.activation_values.tolist() == [0, 1, -2, -1]
    assert multiplier.weight_values.tolist() == [0, 1, 2, 3, -4, -3, -2, -1]
    assert multiplier.activation_values.dtype == multiplier.error.dtype == np.int64
    assert multiplier.error[2, 4] == -8
    assert (multiplier.name, multiplier.signed, multiplier.power, multiplier.source) == (
        "test",
        True,
        0.5,
        "here",
    )
    assert make(bits=(2, 2)).bits == 2
    assert type(make(signed=np.True_).signed) is bool


def test_table_is_a_read_only_int32_copy():
    table = EXACT.astype(np.int32)
    multiplier = make(table)
    table[1, 1] = 9
    assert multiplier.table[1, 1] == 1
    assert multiplier.table.dtype == np.int32
    for array in (multiplier.table, multiplier.activation_values, multiplier.weight_values):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    with pytest.raises(AttributeError, match="cannot be changed"):
        multiplier.name = "other"


def test_whole_floats_and_lists_are_accepted():
    assert make(EXACT.astype(np.float32)) == make(EXACT.tolist()) == make()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"table": EXACT[:3]}, r"must have shape \(4, 4\).*Received: table.shape=\(3, 4\)"),
        ({"bits": 3}, r"must have shape \(8, 8\) for operands of 3 \(activation\) and 3"),
        ({"table": np.zeros((4, 8)), "bits": (3, 2)}, r"shape \(8, 4\)"),
        ({"table": EXACT + 0.5}, r"16 entries are not.*Received: 0.5"),
        ({"table": np.full((4, 4), np.nan)}, "Received: nan"),
        ({"table": np.full((4, 4), np.inf)}, "Received: inf"),
        ({"table": np.full((4, 4), 2**31)}, "fit 32 bits"),
        ({"table": np.full((4, 4), -1e10)}, "fit 32 bits"),
        ({"table": np.full((4, 4), 2**64 - 1, np.uint64)}, "fit 32 bits"),
        ({"table": EXACT.astype(bool)}, "Received: table.dtype=bool"),
        ({"table": EXACT.astype(object)}, "Received: table.dtype=object"),
        ({"table": EXACT + 0j}, "Received: table.dtype=complex128"),
        ({"bits": 1}, r"2\.\.10"),
        ({"bits": 11}, r"2\.\.10"),
        ({"bits": True}, "`bits`"),
        ({"bits": "8"}, "`bits`"),
        ({"name": ""}, "`name`"),
        ({"name": None}, "`name`"),
        ({"signed": None}, "`signed`"),
        ({"power": 0}, "`power`"),
        ({"power": -1.0}, "`power`"),
        ({"power": float("nan")}, "`power`"),
        ({"power": float("inf")}, "`power`"),
        ({"power": "1"}, "`power`"),
        ({"power": True}, "`power`"),
        ({"source": 3}, "`source`"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=rf"(?s){message}") as error:
        make(**arguments)
    assert "Received: " in str(error.value)


def test_properties():
    exact = make()
    assert exact.is_exact and exact.is_symmetric and exact.preserves_zero
    skewed = EXACT.copy()
    skewed[0, 3] = 1
    assert not (make(skewed).is_exact or make(skewed).is_symmetric or make(skewed).preserves_zero)
    assert make(skewed).metrics() is not make(skewed).metrics()
    assert exact.metrics() is exact.metrics()
    assert not multipliers.get("exact", bits=(3, 4)).is_symmetric


def test_repr_speaks_in_the_field_s_terms():
    assert repr(make(power=1)) == "<Multiplier 'test': 2x2 bits unsigned, exact, power 1 of exact>"
    assert "MRE 3.28 %" in repr(multipliers.get("kulkarni"))
    assert "8x8 bits signed" in repr(multipliers.get("kulkarni", signed=True))


def test_identity():
    assert make() == make(source="elsewhere")
    assert hash(make()) == hash(make(source="elsewhere"))
    changed = EXACT.copy()
    changed[3, 3] = 7
    others = [make(changed), make(name="other"), make(power=0.5), make(signed=True), "test"]
    assert all(make() != other for other in others)
    assert len({make(), make(), *others[:-1]}) == 5
    # The same 64 products, but 2x4 bits are not 3x3 bits nor 4x2.
    zero = [make(np.zeros((2**n, 2**m)), bits=(n, m)) for n, m in ((2, 4), (3, 3), (4, 2))]
    assert len({multiplier.digest for multiplier in zero}) == 3


def test_digest_does_not_depend_on_the_input_type():
    assert make().digest == make(EXACT.astype(">i8")).digest == make(np.asfortranarray(EXACT)).digest
    # Fixed, because files carry it.
    assert make().digest == DIGEST_OF_EXACT_2X2


DIGEST_OF_EXACT_2X2 = "4e1112f731069fd240ffd70f5391ee73f3ff159a092fd7f4d1743bdb99fe25ce"


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_stay_equal_and_read_only(copied):
    for multiplier in (make(power=0.3, source="here"), multipliers.get("drum4", signed=True)):
        other = copied(multiplier)
        assert (other, other.source) == (multiplier, multiplier.source)
        assert not other.table.flags.writeable


tables = st.tuples(st.integers(2, 4), st.integers(2, 4)).flatmap(
    lambda bits: st.tuples(
        st.just(bits),
        arrays(np.int32, (2 ** bits[0], 2 ** bits[1]), elements=st.integers(-(2**31), 2**31 - 1)),
    )
)


@settings(deadline=None, max_examples=50)
@given(tables, st.booleans(), st.none() | st.floats(0.01, 2), st.none() | st.text())
def test_json_round_trip(bits_and_table, signed, power, source):
    bits, table = bits_and_table
    multiplier = Multiplier(table, name="ä", bits=bits, signed=signed, power=power, source=source)
    found = Multiplier.from_dict(json.loads(json.dumps(multiplier.to_dict())))
    assert found == multiplier
    assert (found.bits, found.signed, found.source) == (multiplier.bits, signed, source)
    assert np.array_equal(found.table, table)


@pytest.mark.parametrize("bits", [8, (4, 6)])
@pytest.mark.parametrize("name", ["drum4", "broken_array_2_4", "mitchell"])
def test_json_round_trip_of_a_family(name, bits):
    multiplier = multipliers.get(name, bits=bits, signed=True)
    text = json.dumps(multiplier.to_dict())
    assert "table" not in json.loads(text)
    assert len(text) < 500
    found = Multiplier.from_dict(json.loads(text))
    assert (found, found.source) == (multiplier, multiplier.source)
    assert found.to_dict() == multiplier.to_dict()


def test_damaged_descriptions_are_refused():
    stored, family = make().to_dict(), multipliers.get("drum4").to_dict()
    longer = base64.b64encode(zlib.compress(bytes(50_000_000))).decode()
    shorter = base64.b64encode(zlib.compress(bytes(60))).decode()
    cut = base64.b64encode(base64.b64decode(stored["table"])[:-3]).decode()
    for description, message in [
        ({**stored, "digest": "0"}, "not the one that was described"),
        ({**stored, "signed": True}, "not the one that was described"),
        ({**family, "digest": "0"}, "not the one that was described"),
        ({**family, "family": "drum5"}, "not the one that was described"),
        ({**family, "family": "drum99"}, "segment_bits"),
        ({**family, "table": stored["table"]}, "either family or table"),
        ({k: v for k, v in stored.items() if k != "table"}, "either family or table"),
        ({k: v for k, v in stored.items() if k != "digest"}, "needs name, bits"),
        ({**stored, "table": longer}, r"decompress to 64 bytes.*more than 64"),
        ({**stored, "table": shorter}, "decompress to 64 bytes"),
        ({**stored, "table": cut}, "decompress to 64 bytes"),
        ({**stored, "table": "é" + stored["table"]}, "damaged"),
        ({**stored, "table": "AAAA"}, "damaged"),
        ({**stored, "table": None}, "damaged"),
        ({**stored, "bits": [2, 3]}, "decompress to 128 bytes"),
        ({**stored, "bits": 2.0}, "`bits`"),
    ]:
        with pytest.raises(ValueError, match=message) as error:
            Multiplier.from_dict(description)
        assert "Received: " in str(error.value)


def test_needs_numpy_alone():
    code = (
        "import sys, axtrain.noise_models.multipliers as m; m.get('drum4').metrics();"
        "sys.exit(any(name in sys.modules for name in ('tensorflow', 'keras', 'scipy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
