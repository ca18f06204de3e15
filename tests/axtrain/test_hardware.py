"""The description of hardware: defaults, what does not fit together, and JSON there and back."""

import json
import subprocess
import sys

import numpy as np
import pytest

import axtrain as ax

LOADED = ax.Multiplier(np.arange(256).reshape(16, 16), name="made up", bits=4, signed=False, power=0.5, source="here")
MEMORIES = {
    "random": ax.memories.BitErrors(rate=0.01),
    "stuck": ax.memories.BitErrors(rate=0.2, fault="stuck", encoding="sign_magnitude", share_of_ones=0.25),
    "voltage": ax.memories.NearThresholdSRAM(voltage=0.6, nominal_voltage=0.9, encoding="offset"),
    "probit": ax.memories.NearThresholdSRAM(
        voltage=0.5, curve=ax.curves.ProbitCurve(mean_v=0.3, deviation_v=0.05, source="here")
    ),
}
FULL = ax.Hardware(
    multiplier=LOADED,
    weight_memory=MEMORIES["stuck"],
    activation_memory=MEMORIES["probit"],
    bias_memory=MEMORIES["voltage"],
    datapath=ax.datapaths.TimingErrors.at_voltage(0.75),
    quantisation=ax.Quantisation(
        activations="symmetric",
        activation_encoding="offset",
        weight_encoding="offset",
        activation_bits=3,
        weight_bits=4,
        weight_scale="per_tensor",
        bias_bits=8,
        activation_range="minmax",
        percentile=99.0,
        momentum=0.5,
    ),
    energy=ax.EnergyModel(
        multiply_quadratic_pj=1.0,
        multiply_linear_pj=2.0,
        sign_pj_per_bit=2.5,
        add_pj_per_bit=3.0,
        accumulator_bits=24,
        weight_read_pj_per_bit=4.0,
        weight_reads=5,
        activation_read_pj_per_bit=6.0,
        activation_write_pj_per_bit=7.0,
        activation_reads=8,
        bias_read_pj_per_bit=9.0,
        decoder_pj_per_word=10.0,
        dram_pj_per_bit=11.0,
        dram_refresh_share=0.5,
        leakage_share=0.3,
        threshold_voltage=0.25,
        alpha=1.5,
    ),
    name="everything",
)


def through_json(hardware, tmp_path):
    hardware.to_json(tmp_path / "hardware.json")
    return ax.Hardware.from_json(tmp_path / "hardware.json")


def same(first, second):
    assert first == second
    assert hash(first) == hash(second)
    assert first.to_dict() == second.to_dict()


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("name", ax.multipliers.names())
def test_json_round_trip_of_every_family(name, signed, tmp_path):
    hardware = ax.Hardware(multiplier=ax.multipliers.get(name, signed=signed))
    same(through_json(hardware, tmp_path), hardware)


@pytest.mark.parametrize("memory", MEMORIES)
def test_json_round_trip_of_every_memory(memory, tmp_path):
    hardware = ax.Hardware(weight_memory=MEMORIES[memory])
    same(through_json(hardware, tmp_path), hardware)


def test_json_round_trip_with_every_argument_at_another_value(tmp_path):
    for kind, part in ((ax.Hardware, FULL), (ax.Quantisation, FULL.quantisation), (ax.EnergyModel, FULL.energy)):
        defaults = vars(kind())
        assert all(getattr(part, name) != value for name, value in defaults.items())
    found = through_json(FULL, tmp_path)
    same(found, FULL)
    np.testing.assert_array_equal(found.multiplier.table, LOADED.table)
    assert found.multiplier.source == "here"


def test_json_round_trip_of_a_loaded_table(shared, tmp_path):
    circuit = ax.Multiplier.load(shared / "luts" / "mul8s_1KVA.npy", signed=True, power=0.8)
    same(through_json(ax.Hardware(multiplier=circuit), tmp_path), ax.Hardware(multiplier=circuit))


def test_json_round_trip_of_different_widths(tmp_path):
    same(
        through_json(ax.Hardware(multiplier=ax.multipliers.get("drum2", bits=(8, 4))), tmp_path),
        ax.Hardware(multiplier=ax.multipliers.get("drum2", bits=(8, 4))),
    )


def test_a_description_is_read_without_tensorflow(tmp_path):
    FULL.to_json(tmp_path / "hardware.json")
    code = (
        "import sys, axtrain as ax\n"
        f"hardware = ax.Hardware.from_json({str(tmp_path / 'hardware.json')!r})\n"
        "sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "cannot be read as a description of hardware"),
        ("{", "cannot be read as a description of hardware"),
        ("[]", "JSON of a list"),
        ("{}", "Not a hardware description.*None"),
        ('{"format": "axtrain-hardware-999"}', "999"),
        ('{"format": "axtrain-hardware-1"}', "no name, multiplier, weight_memory, activation_memory, .*null where"),
        (json.dumps({**FULL.to_dict(), "gizmo": 1}), "unknown parts.*gizmo"),
        (json.dumps({**FULL.to_dict(), "multiplier": {}}), "needs name, bits, signed"),
        (json.dumps({**FULL.to_dict(), "weight_memory": {"kind": "paper"}}), "kind='paper'"),
    ],
)
def test_bad_files_raise(content, message, tmp_path):
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        ax.Hardware.from_json(tmp_path / "bad.json")


def test_an_unknown_quantisation_entry_raises_a_value_error(tmp_path):
    description = FULL.to_dict()
    description["quantisation"]["gizmo"] = 1
    with pytest.raises((ValueError, TypeError), match="gizmo"):
        ax.Hardware.from_dict(description)


def test_a_missing_file_raises(tmp_path):
    with pytest.raises(FileNotFoundError):
        ax.Hardware.from_json(tmp_path / "absent.json")


def signed(name="exact"):
    return ax.multipliers.get(name, signed=True)


@pytest.mark.parametrize(
    ("multiplier", "quantisation", "message"),
    [
        (signed(), {"activations": "affine"}, "cannot take the unsigned codes.*Received: activations='affine'"),
        (signed(), {"weight_encoding": "offset"}, "Leave `weight_encoding` at None"),
        (signed(), {"activation_encoding": "sign_magnitude"}, "Leave `activation_encoding` at None"),
        (None, {"activations": "affine", "activation_encoding": "offset"}, "Leave `activation_encoding` at None"),
        (LOADED, {"weight_bits": 5}, "cannot exceed the 4-bit operand of 'made up'. Received: weight_bits=5"),
        (LOADED, {"activation_bits": 8}, "cannot exceed the 4-bit operand"),
    ],
)
def test_parts_that_do_not_fit_together_raise(multiplier, quantisation, message):
    with pytest.raises(ValueError, match=message):
        ax.Hardware(multiplier=multiplier, quantisation=ax.Quantisation(**quantisation))


def test_a_weight_memory_must_hold_signed_codes():
    with pytest.raises(ValueError, match="encoding='unsigned'"):
        ax.Hardware(weight_memory=ax.memories.BitErrors(rate=0.01, encoding="unsigned"))


@pytest.mark.parametrize(
    "arguments",
    [
        {"multiplier": "drum4"},
        {"multiplier": np.zeros((4, 4))},
        {"weight_memory": 0.01},
        {"quantisation": {"activation_bits": 8}},
        {"energy": None},
    ],
)
def test_parts_of_the_wrong_kind_raise(arguments):
    (name,) = arguments
    with pytest.raises(TypeError, match=f"`{name}` must be.*Received: {name}="):
        ax.Hardware(**arguments)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("activations", "unsigned"),
        ("activation_encoding", "gray"),
        ("weight_encoding", "plain"),
        ("activation_bits", 1),
        ("weight_bits", 11),
        ("weight_bits", 8.0),
        ("activation_range", "max"),
        ("percentile", 50),
        ("percentile", 100.1),
        ("percentile", float("nan")),
        ("weight_scale", "per_layer"),
        ("momentum", 1.0),
        ("momentum", -0.1),
    ],
)
def test_bad_quantisation_arguments_raise(name, value):
    with pytest.raises(ValueError, match=f"`{name}`.*Received: {name}="):
        ax.Quantisation(**{name: value})


@pytest.mark.parametrize("value", [-1, float("nan")])
@pytest.mark.parametrize("name", vars(ax.EnergyModel()))
def test_bad_energy_arguments_raise(name, value):
    with pytest.raises(ValueError, match=f"`{name}`"):
        ax.EnergyModel(**{name: value})


def test_descriptions_are_values():
    other = ax.Hardware.from_dict(FULL.to_dict())
    assert {FULL: 1}[other] == 1
    assert ax.Hardware() != FULL
    assert ax.Hardware(name="a") != ax.Hardware(name="b")
    with pytest.raises(AttributeError):
        FULL.name = "other"


@pytest.mark.parametrize(
    ("hardware", "activations", "codes", "encodings"),
    [
        (ax.Hardware(), "affine", (0, 255), ("plain", "sign_magnitude")),
        (ax.Hardware(multiplier=signed()), "symmetric", (-127, 127), ("plain", "plain")),
        (
            ax.Hardware(quantisation=ax.Quantisation(activations="symmetric", weight_bits=4)),
            "symmetric",
            (-127, 127),
            ("plain", "plain"),
        ),
        (
            ax.Hardware(
                multiplier=signed(),
                quantisation=ax.Quantisation(activations="affine", activation_encoding="offset", activation_bits=4),
            ),
            "affine",
            (-8, 7),
            ("plain", "plain"),
        ),
        (
            ax.Hardware(multiplier=LOADED, quantisation=ax.Quantisation(activations="symmetric")),
            "symmetric",
            (-7, 7),
            ("sign_magnitude", "sign_magnitude"),
        ),
    ],
)
def test_defaults(hardware, activations, codes, encodings):
    assert hardware.activations == activations
    assert hardware.activation_codes == codes
    assert hardware.operand_encodings == encodings


@pytest.mark.parametrize(
    ("multiplier", "codes", "words"),
    [
        (None, (-128, 127), "plain"),
        (ax.multipliers.get("drum4", signed=True), (-128, 127), "plain"),
        (ax.multipliers.get("drum4"), (0, 255), "plain"),
    ],
)
def test_the_litert_scheme_fits_every_multiplier(multiplier, codes, words, tmp_path):
    """int8 codes where the circuit is signed, and the same 256 codes from 0 where it is not."""
    hardware = ax.Hardware(multiplier=multiplier, quantisation=ax.Quantisation.litert(percentile=99.9))
    assert (hardware.activations, hardware.activation_codes) == ("affine", codes)
    assert hardware.operand_encodings[0] == words
    assert hardware.circuit.signed == (codes[0] < 0)
    assert hardware.quantisation.percentile == 99.9
    hardware.to_json(tmp_path / "hardware.json")
    assert ax.Hardware.from_json(tmp_path / "hardware.json") == hardware


def test_auto_leaves_symmetric_codes_as_they_are_by_default():
    kulkarni = ax.multipliers.get("kulkarni")
    encodings = [
        ax.Hardware(
            multiplier=kulkarni, quantisation=ax.Quantisation(activations="symmetric", activation_encoding=encoding)
        ).operand_encodings
        for encoding in (None, "auto")
    ]
    assert encodings[0] == encodings[1] == ("sign_magnitude", "sign_magnitude")
