"""The weights as a memory holds them: what is written is read again, and a chip's faults lie in the same bits."""

import itertools
import json
import re
from dataclasses import replace

import keras
import numpy as np
import pytest
import random_networks
from hypothesis import given, settings
from hypothesis import strategies as st

import axtrain as ax
from axtrain.integers.memory.image import read_memory, write, write_blocks, write_memory
from axtrain.integers.memory.intel_hex import intel_hex
from axtrain.integers.memory.row_files import read_rows
from axtrain.integers.memory.words import WeightBlock, WordFormat
from axtrain.noise_models.encodings import code_range, stored_bits
from axtrain.noise_models.memories import (
    SECDED,
    BitErrors,
    FaultMap,
    MeasuredMemory,
    Parity,
    RobustBits,
    SignMasking,
    Triplication,
)
from axtrain.noise_models.protections import Protection

PROTECTIONS = [
    Protection(),
    RobustBits(count=2),
    Parity(),
    SignMasking(),
    SECDED(data_bits=32),
    SECDED(data_bits=64, detected="zero"),
    Triplication(),
]


def strict_rows(path, width):
    """(rows by address, comments): nothing but what `$readmemh` takes, of exactly the right number of digits."""
    digits, rows, address = -(-width // 4), {}, 0
    for line in path.read_text().splitlines():
        if line.startswith("// "):
            continue
        if line.startswith("@"):
            assert re.fullmatch(r"@[0-9a-f]+", line)
            address = int(line[1:], 16)
            continue
        assert re.fullmatch(f"[0-9a-f]{{{digits}}}", line) and int(line, 16) < 1 << width
        assert address not in rows
        rows[address], address = int(line, 16), address + 1
    return rows


@settings(deadline=None, max_examples=40)
@given(
    bits=st.integers(2, 16),
    encoding=st.sampled_from(["twos_complement", "sign_magnitude", "offset"]),
    protection=st.sampled_from(PROTECTIONS),
    width=st.one_of(st.none(), st.integers(1, 80)),
    sizes=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 6)), min_size=1, max_size=3),
    seed=st.integers(0, 1000),
)
def test_what_is_written_is_read(tmp_path_factory, bits, encoding, protection, width, sizes, seed):
    if encoding not in protection.encodings:
        encoding = "sign_magnitude"
    folder, rng = tmp_path_factory.mktemp("image"), np.random.default_rng(seed)
    low, high = code_range(bits, encoding)
    blocks, address = [], 0
    for index, shape in enumerate(sizes):
        codes = rng.integers(low, high + 1, shape).astype(np.int32)
        blocks.append(WeightBlock(name=f"layer{index}", codes=codes, scale=np.ones(shape[1]), address=address))
        address += codes.size
    form = WordFormat(bits=bits, encoding=encoding, protection=protection)
    hexadecimal, binary, described = write_blocks(blocks, form, folder, width)
    read = read_memory(folder)
    assert list(read) == [block.name for block in blocks]
    for block in blocks:
        np.testing.assert_array_equal(read[block.name], block.codes)
    row_width = form.cells if width is None else width
    rows = strict_rows(hexadecimal, row_width)
    assert sorted(rows) == list(range(json.loads(described.read_text())["rows"]))
    size = -(-row_width // 8)
    raw = binary.read_bytes()
    assert [int.from_bytes(raw[i : i + size], "little") for i in range(0, len(raw), size)] == [
        rows[address] for address in sorted(rows)
    ]
    if type(protection) is Protection:  # bit by bit, at address times width
        wanted = np.concatenate([stored_bits(block.codes, bits, encoding).reshape(-1) for block in blocks])
        found = [rows[cell // row_width] >> (cell % row_width) & 1 for cell in range(len(wanted))]
        np.testing.assert_array_equal(found, wanted)


def intel_bytes(text):
    """What a loader of Intel HEX puts into its memory; every record's length and checksum as they must be."""
    memory, upper = {}, 0
    *records, last = text.splitlines()
    assert last == ":00000001FF"
    for record in records:
        count, high, low, kind, *data, _ = content = bytes.fromhex(record.removeprefix(":"))
        assert record.startswith(":") and len(data) == count and sum(content) & 0xFF == 0
        if kind == 4:
            upper = int.from_bytes(data, "big") << 16
            continue
        assert kind == 0 and (high << 8 | low) + count <= 1 << 16
        memory |= {upper + (high << 8 | low) + i: byte for i, byte in enumerate(data)}
    assert sorted(memory) == list(range(len(memory)))
    return bytes(memory[address] for address in range(len(memory)))


@pytest.mark.parametrize("size", [1, 16, 1 << 16, (1 << 16) + 1, (2 << 16) + 37])
def test_intel_hex_is_read_by_an_independent_loader(size):
    data = np.random.default_rng(size).bytes(size)
    assert intel_bytes(intel_hex(data)) == data


def test_intel_hex_as_others_write_it():
    """A record that the format's descriptions show."""
    data = bytes.fromhex("214601360121470136007EFE09D21901")
    assert intel_hex(bytes(256) + data).splitlines()[16] == ":10010000214601360121470136007EFE09D2190140"


def test_an_export_with_intel_hex(tmp_path, plain):
    noisy = ax.convert(plain, ax.Hardware(), np.random.default_rng(0).random((8, *plain.input_shape[1:])))
    exported = ax.export(noisy, tmp_path / "deploy", formats=("intel_hex",))
    folder = exported.folder
    assert {"weights.hex", "weights.bin", "weights.json", "weights.ihex"} <= set(exported.manifest["files"])
    assert intel_bytes((folder / "weights.ihex").read_text()) == (folder / "weights.bin").read_bytes()
    assert sum(codes.size for codes in read_memory(folder).values()) == (folder / "weights.bin").stat().st_size


def small_model():
    keras.utils.set_random_seed(4)
    inputs = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(3, 3, name="conv")(inputs)
    x = keras.layers.SeparableConv2D(4, 2, name="separable")(x)
    x = keras.layers.Flatten()(x)
    return keras.Model(inputs, keras.layers.Dense(5, name="dense")(x), name="small")


@pytest.fixture(scope="module")
def plain():
    return small_model()


def converted(plain, memory, **options):
    return ax.convert(plain, ax.Hardware(weight_memory=memory, **options))


def products(model):
    """(name, state, what the layer reads under the chip that is set, the clean codes)."""
    for layer in model.layers:
        for name, product in zip(getattr(layer, "product_names", ()), getattr(layer, "products", ()), strict=True):
            kernel = keras.ops.convert_to_tensor(product.kernel)
            axes = product.geometry.summed_axes(len(kernel.shape))
            read = np.asarray(product.state.read_weights(kernel, axes, False).codes).astype(int)
            yield f"{layer.name}/{name}" if name else layer.name, product.state, read


def with_faults(folder, path, faults):
    """The image with bits turned: `faults` are (row, bit)."""
    width = json.loads((folder / "weights.json").read_text())["width"]
    rows = strict_rows(path, width)
    for row, bit in faults:
        rows[row] ^= 1 << bit
    (folder / "faulty.hex").write_text("\n".join(f"{rows[address]:x}" for address in sorted(rows)))
    return read_memory(folder, image=folder / "faulty.hex")


@pytest.mark.parametrize("width", [8, 32, 12])
@pytest.mark.parametrize(
    ("encoding", "protection"),
    [("twos_complement", None), ("sign_magnitude", None), ("offset", None), ("twos_complement", Parity())],
)
def test_a_measured_map_turns_the_bits_that_the_layers_read_turned(tmp_path, plain, encoding, protection, width):
    """Zero differences between the image with the map's bits turned and what each layer reads."""
    cells = 9 if protection else 8
    count = sum(int(np.prod(weight.shape)) for layer in plain.layers for weight in layer.weights if weight.ndim > 1)
    words = -(-count * cells // width)
    rng = np.random.default_rng(1)
    found = rng.choice(words * width, words * width // 20, replace=False)
    fault_map = FaultMap(words=words, word_bits=width, addresses=tuple(found // width), bits=tuple(found % width))
    model = converted(plain, MeasuredMemory(maps=(fault_map,), encoding=encoding, protection=protection))
    paths = write_memory(model, tmp_path, width=width)
    faults = zip(fault_map.addresses, fault_map.bits, strict=True)
    read, clean = with_faults(tmp_path, paths[0], faults), read_memory(tmp_path)
    names = []
    for name, _, expected in products(model):
        np.testing.assert_array_equal(read[name], expected)
        names.append(name)
        assert np.any(read[name] != clean[name]) or expected.size < 30
    assert names == list(read) == ["conv", "separable/depthwise", "separable/pointwise", "dense"]


@pytest.mark.parametrize("protection", [None, RobustBits(count=2, rate=0.001), Parity()])
def test_a_chip_s_faults_turn_the_bits_that_the_layers_read_turned(tmp_path, plain, protection):
    """Persistent faults of chip 3: the masks of each layer's words, at its address in the image."""
    memory = BitErrors(rate=0.03, fault="persistent", encoding="sign_magnitude", protection=protection)
    model = converted(plain, memory)
    ax.set_chip(model, 3)
    paths = write_memory(model, tmp_path)
    form = WordFormat(encoding="sign_magnitude", protection=protection or Protection())
    faults = []
    for _, state, expected in products(model):
        seed = np.asarray(state.chip_seed.state).astype(np.uint32)
        masks, _ = memory._faulty((1, expected.size), form.protection, 8, seed, np.float32(1), state.address)
        for place, mask in enumerate(np.asarray(masks).reshape(-1).tolist()):
            faults += [(state.address + place, bit) for bit in range(form.cells) if mask >> bit & 1]
    assert len(faults) > 20
    read, clean = with_faults(tmp_path, paths[0], faults), read_memory(tmp_path)
    for name, _, expected in products(model):
        np.testing.assert_array_equal(read[name], expected)
    assert np.any(read["dense"] != clean["dense"])


@pytest.mark.parametrize("protection", [SECDED(), SECDED(data_bits=32, detected="zero"), Triplication()])
def test_check_bits_and_copies(tmp_path, plain, protection):
    """One turned bit in each layer is put right by the decoder; the layers' words do not overlap."""
    model = converted(plain, BitErrors(rate=0.0, protection=protection))
    paths = write_memory(model, tmp_path, width=32)
    described = json.loads(paths[2].read_text())
    ends = [0, *(entry["first_word"] + entry["words"] for entry in described["layers"])]
    assert [entry["first_word"] for entry in described["layers"]] == ends[:-1]
    assert ends[-1] > sum(int(np.prod(entry["shape"])) for entry in described["layers"])
    clean = read_memory(tmp_path)
    for name, _, expected in products(model):
        np.testing.assert_array_equal(clean[name], expected)
    rng = np.random.default_rng(0)
    cells = [int(rng.integers(8 * start, 8 * end)) for start, end in itertools.pairwise(ends)]  # one in each layer
    read = with_faults(tmp_path, paths[0], [(cell // 32, cell % 32) for cell in cells])
    for name, codes in clean.items():
        np.testing.assert_array_equal(read[name], codes)


def test_the_map_says_where_each_layer_lies(tmp_path, plain):
    model = converted(plain, BitErrors(rate=0.01, encoding="offset"))
    hexadecimal, _, path = write_memory(model, tmp_path, width=16)
    described = json.loads(path.read_text())
    assert (described["encoding"], described["bits"], described["width"]) == ("offset", 8, 16)
    state = model.get_layer("dense").hardware_state
    entry = described["layers"][-1]
    kernel = np.asarray(model.get_layer("dense").kernel)
    assert entry["address"] == entry["first_word"] == state.address and entry["shape"] == list(kernel.shape)
    assert (entry["row"], entry["bit"]) == (state.address // 2, 8 * (state.address % 2))
    np.testing.assert_allclose(
        read_memory(tmp_path)["dense"] * np.array(entry["scale"]), kernel, atol=max(entry["scale"]) / 1.99
    )
    assert f"@{entry['row']:x}" in hexadecimal.read_text().splitlines()
    assert write_memory(model, tmp_path, encoding="sign_magnitude", protection=Parity())
    described = json.loads(path.read_text())
    assert (described["encoding"], described["protection"], described["width"]) == (
        "sign_magnitude",
        {"kind": "parity"},
        9,
    )


def test_an_integer_network_and_the_entry_for_export(tmp_path, plain):
    network = random_networks.convolutional(0)
    write_memory(network, tmp_path, width=64)
    codes = [operation.codes for operation in network.operations if hasattr(operation, "codes")]
    read = read_memory(tmp_path)
    assert list(read) == ["product/1", "product/2", "product/3", "product/4"]
    for found, expected in zip(read.values(), codes, strict=True):
        np.testing.assert_array_equal(found, expected)

    # In this network the dense layer comes first; in the model's memory it lies last.
    model, rng = converted(plain, BitErrors(rate=0.01, encoding="offset")), np.random.default_rng(0)
    shapes = {"dense": [(36, 5)], "conv": [(3, 3, 2, 3)], "separable": [(2, 2, 3, 1), (1, 1, 3, 4)]}
    (product,) = random_networks.dense(0).operations[:1]
    made = tuple(
        replace(product, name=name, codes=rng.integers(-127, 128, shape).astype(np.int8))
        for name, several in shapes.items()
        for shape in several
    )
    write(model, replace(network, operations=made), tmp_path)
    read, described = read_memory(tmp_path), json.loads((tmp_path / "weights.json").read_text())
    assert list(read) == ["conv", "separable/1", "separable/2", "dense"] and described["encoding"] == "offset"
    for found, operation in zip(read.values(), (*made[1:], made[0]), strict=True):
        np.testing.assert_array_equal(found, operation.codes)
    addresses = [state.address for _, state, _ in products(model)]
    assert [entry["address"] for entry in described["layers"]] == addresses
    # A network of other layers lies in its own order, and without a network the model's own codes are written.
    write(model, replace(network, operations=made[:2]), tmp_path)
    assert list(read_memory(tmp_path)) == ["dense", "conv"]
    write(model, None, tmp_path)
    for name, _, expected in products(converted(plain, None)):
        np.testing.assert_array_equal(read_memory(tmp_path)[name], expected)


def test_what_is_refused(tmp_path, plain):
    model = converted(plain, None)
    for width in (0, 1.5, True):
        with pytest.raises(ValueError, match="from 1 to 4096 cells.*Received"):
            write_memory(model, tmp_path, width=width)
    with pytest.raises(ValueError, match="Weights are signed"):
        write_memory(model, tmp_path, encoding="unsigned")
    with pytest.raises(ValueError, match="SignMasking needs one of the encodings"):
        write_memory(model, tmp_path, encoding="offset", protection=SignMasking())
    with pytest.raises(ValueError, match="Nothing to store"):
        write_memory(plain, tmp_path)
    for memories in ((BitErrors(rate=0.1), BitErrors(rate=0.1, encoding="offset")), (None, None)):
        hardware = [
            ax.Hardware(weight_memory=memory, quantisation=ax.Quantisation(weight_bits=bits))
            for memory, bits in zip(memories, (8, 8) if memories[0] else (8, 4), strict=True)
        ]
        mixed = ax.convert(plain, hardware[0], overrides={"dense": hardware[1]})
        with pytest.raises(ValueError, match=r"one width, encoding and protection.*dense"):
            write_memory(mixed, tmp_path)
    for layer in model.layers:
        for product in getattr(layer, "products", ()):
            product.state.address = 0
    with pytest.raises(ValueError, match="Two layers lie at one address.*Received: 'conv' at 0"):
        write_memory(model, tmp_path)
    block = WeightBlock(name="a", codes=np.array([-128]), scale=np.ones(1), address=0)
    with pytest.raises(ValueError, match="Codes must be -127 to 127"):
        write_blocks([block], WordFormat(encoding="sign_magnitude"), tmp_path)
    assert not list(tmp_path.iterdir())
    for text, message in (("12 xy", "hexadecimal words.*'xy'"), ("@1 1ff", "2 rows of 8 bits"), ("1 2 3", "at row 2")):
        (tmp_path / "bad.hex").write_text(text)
        with pytest.raises(ValueError, match=message):
            read_rows(tmp_path / "bad.hex", 8, 2)
    (tmp_path / "good.hex").write_text("/* a\nb */ @1 0_f // 7\n 3 @0 1")
    assert read_rows(tmp_path / "good.hex", 8, 3) == [1, 15, 3]
    for text, message in (("1 2", "all of 3 rows.*without row 2"), ("1 2 3 @1 2", "row 1 twice")):
        (tmp_path / "bad.hex").write_text(text)
        with pytest.raises(ValueError, match=message):
            read_rows(tmp_path / "bad.hex", 8, 3)
    (tmp_path / "weights.json").write_text("{}")
    with pytest.raises(ValueError, match="Not a map of format"):
        read_memory(tmp_path)


def test_a_damaged_image_is_not_read_and_a_foreign_one_not_replaced(tmp_path, plain):
    model = converted(plain, None)
    write_memory(model, tmp_path)
    whole = (tmp_path / "weights.hex").read_bytes()
    for damaged in (whole[: len(whole) // 2], whole.replace(b"7", b"8", 1)):
        (tmp_path / "weights.hex").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"weights\.hex cannot be read.*sha256"):
            read_memory(tmp_path)
    write_memory(model, tmp_path)  # its own files it replaces
    (tmp_path / "dump.hex").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"dump\.hex must name all of"):
        read_memory(tmp_path, image=tmp_path / "dump.hex")
    other = tmp_path / "other"
    other.mkdir()
    (other / "weights.bin").write_bytes(b"of another network")
    with pytest.raises(FileExistsError, match=r"no image of a weight memory.*weights\.bin"):
        write_memory(model, other)
    assert (other / "weights.bin").read_bytes() == b"of another network"
