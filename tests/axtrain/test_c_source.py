"""Generated C, compiled by gcc without a warning and with sanitizers, equals plain integer loops code for code."""

import re
import shutil
import subprocess
from dataclasses import replace

import network_loops
import numpy as np
import pytest
import random_networks
from random_networks import CIRCUITS, Builder

from axtrain.integers.c_code.buffers import planned
from axtrain.integers.c_code.source import write, write_c
from axtrain.integers.c_code.text import array, comment, identifiers

GCC = shutil.which("gcc")
needs_gcc = pytest.mark.skipif(GCC is None, reason="gcc is not installed")
FLAGS = ["-std=c99", "-O1", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror"]
SANITIZERS = ["-fsanitize=undefined,address", "-fno-sanitize-recover=all"]


def compiled(folder, paths, *options):
    """The example program of a written network."""
    sources = [str(path) for path in paths if path.suffix == ".c"]
    done = subprocess.run(
        [GCC, *FLAGS, *SANITIZERS, *options, *sources, "-o", str(folder / "program")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder / "program"


def outputs(program, network, codes):
    done = subprocess.run([program], input=codes.tobytes(), capture_output=True)
    assert done.returncode == 0 and not done.stderr, done.stderr.decode()
    return np.frombuffer(done.stdout, np.int8).reshape(len(codes), *network.tensors[network.output].shape)


NETWORKS = [
    *((random_networks.convolutional, seed, name) for seed, name in enumerate([*CIRCUITS, "exact"])),
    (random_networks.dense, 0, "exact"),
    (random_networks.dense, 1, "drum4"),
    *((random_networks.pooled, seed, name) for seed, name in enumerate(["exact", "mitchell"])),
]


@needs_gcc
@pytest.mark.parametrize(("make", "seed", "circuit"), NETWORKS, ids=lambda value: getattr(value, "__name__", value))
def test_c_equals_plain_loops(tmp_path, make, seed, circuit):
    network = make(seed, CIRCUITS[circuit]())
    codes = random_networks.inputs(network, 8, seed)
    expected = np.stack([network_loops.run(network, sample) for sample in codes])
    assert len({sample.tobytes() for sample in expected}) > 4  # the network passes something on
    found = outputs(compiled(tmp_path, write_c(network, tmp_path)), network, codes)
    np.testing.assert_array_equal(found, expected)


@needs_gcc
def test_a_user_plugs_in_a_circuit(tmp_path):
    """The table's function written out, given by a macro beforehand, computes the same; another one does not."""
    network = random_networks.dense(3, CIRCUITS["signed drum4"]())
    network = replace(network, operations=network.operations[:2], output=network.operations[1].output)
    codes = random_networks.inputs(network, 6)
    paths = write_c(network, tmp_path)
    table = network.operations[0].table
    model = "#include <stdint.h>\n#include <stdlib.h>\nstatic int32_t model(int32_t a, int32_t w)\n{\n%s\n}\n"
    drum = """\
    int32_t words[2] = {a, w}, product = 1;
    for (int i = 0; i < 2; ++i) {
        int32_t size = abs(words[i]), top = 0;
        while (size >> (top + 1) != 0) ++top;
        if (top >= 4) size = ((size >> (top - 3)) | 1) << (top - 3);
        product *= words[i] < 0 ? -size : size;
    }
    return product;"""
    a, w = np.meshgrid(np.arange(-128, 128), np.arange(-128, 128), indexing="ij")
    played = np.vectorize(_drum4)(a, w)
    np.testing.assert_array_equal(played[1:, 1:], table[1:, 1:])
    for body, same in ((drum, True), ("    return a * w;", False)):
        (tmp_path / "model.h").write_text(model % body)
        options = ["-include", str(tmp_path / "model.h"), "-DAXTRAIN_MULTIPLY=model", "-Wno-unused-function"]
        found = outputs(compiled(tmp_path, paths, *options), network, codes)
        expected = np.stack([network_loops.run(network, sample) for sample in codes])
        assert np.array_equal(found, expected) == same


def _drum4(a, w):
    def segment(value):
        size = abs(int(value))
        low = max(size.bit_length() - 4, 0)
        return (-1 if value < 0 else 1) * (((size >> low) | (low > 0)) << low)

    return segment(a) * segment(w)


@needs_gcc
def test_layers_of_several_circuits(tmp_path):
    b = Builder(5, (6,), name="several")
    for name in ("drum4", "exact", "signed drum4", "drum4"):
        b.dense(6, circuit=CIRCUITS[name]())
    network = b.finished()
    paths = write_c(network, tmp_path)
    assert re.findall(r"^#define (\w+)\(", paths[1].read_text(), re.M) == [f"AXTRAIN_MULTIPLY_{i}" for i in (1, 2, 3)]
    codes = random_networks.inputs(network, 10)
    expected = np.stack([network_loops.run(network, sample) for sample in codes])
    np.testing.assert_array_equal(outputs(compiled(tmp_path, paths), network, codes), expected)


@needs_gcc
@pytest.mark.parametrize("scale", [1e-4, 0.01, 0.3, 2.0, 40.0])
def test_softmax_of_any_scale(tmp_path, scale):
    """Rows of 1 to 300 classes; n = 40 of each."""
    for classes in (2, 300) if scale == 0.01 else (7,):
        b = Builder(0, (4, classes), name="soft")
        b.tensors["input"] = replace(b.tensors["input"], scale=scale)
        b.softmax()
        network = b.finished()
        codes = random_networks.inputs(network, 10)
        expected = np.stack([network_loops.run(network, sample) for sample in codes])
        np.testing.assert_array_equal(outputs(compiled(tmp_path, write_c(network, tmp_path)), network, codes), expected)
        x = scale * codes.astype(float)
        share = np.exp(x - x.max(-1, keepdims=True))
        share /= share.sum(-1, keepdims=True)
        assert np.abs(expected + 128 - np.minimum(256 * share, 255)).max() <= 1  # it is a softmax


@needs_gcc
@pytest.mark.parametrize("roundings", [1, 2])
def test_requantisation_at_its_ends(tmp_path, roundings):
    """Sums and multipliers at which rounding is hardest: halves of either sign, shifts of -31 to 3, factor 0."""
    b = Builder(0, (1,), name="ends")
    b.tensors["input"] = replace(b.tensors["input"], zero_point=0)
    factors = [1 << 30, (1 << 30) + 1, (1 << 31) - 1, 0, 1518500250]
    shifts = [-31, -30, -13, -7, -1, 0, 1, 3]
    biases = [0, 1, -(2**31) + 20000, 2**31 - 20000, 2**30]
    units = [(factor, shift, bias) for factor in factors for shift in shifts for bias in biases]
    b.dense(len(units))
    factor, shift, bias = (np.array(each, np.int32) for each in zip(*units, strict=True))
    codes = np.resize([1, -1, 127, -127, 64, -64, 3], (1, len(units))).astype(np.int8)
    ends = {"factor": factor, "shift": shift, "bias": bias, "lowest": -128, "roundings": roundings}
    b.operations[0] = replace(b.operations[0], codes=codes, **ends)
    network = b.finished()
    samples = random_networks.inputs(network, 40)
    expected = np.stack([network_loops.run(network, sample) for sample in samples])
    np.testing.assert_array_equal(outputs(compiled(tmp_path, write_c(network, tmp_path)), network, samples), expected)


@needs_gcc
def test_a_reshape_alone_is_a_copy(tmp_path):
    b = Builder(0, (2, 3), name="copy")
    b.reshape(6)
    b.reshape(3, 2)
    network = b.finished()
    codes = random_networks.inputs(network, 3)
    found = outputs(compiled(tmp_path, write_c(network, tmp_path)), network, codes)
    np.testing.assert_array_equal(found, codes.reshape(3, 3, 2))


@needs_gcc
def test_strange_names_and_the_program_s_errors(tmp_path):
    b = Builder(0, (4,), name="9*/ int ??/\n\\ é")
    b.dense(2)
    operation = replace(b.operations[0], output="*/ main")
    b.operations[0], b.last = operation, "*/ main"
    b.tensors["*/ main"] = replace(b.tensors.pop("product/0"), name="*/ main")
    b.dense(2)
    b.tensors["* main"] = replace(b.tensors.pop(b.last), name="* main")
    b.operations[1], b.last = replace(b.operations[1], output="* main"), "* main"
    network = b.finished()
    program = compiled(tmp_path, write_c(network, tmp_path))
    codes = random_networks.inputs(network, 3)
    expected = np.stack([network_loops.run(network, sample) for sample in codes])
    np.testing.assert_array_equal(outputs(program, network, codes), expected)
    (tmp_path / "in.bin").write_bytes(codes.tobytes())
    subprocess.run([program, tmp_path / "in.bin", tmp_path / "out.bin"], check=True)
    assert (tmp_path / "out.bin").read_bytes() == expected.astype(np.int8).tobytes()
    cut = subprocess.run([program], input=b"\0" * 7, capture_output=True, text=False)
    assert cut.returncode == 1 and b"the last sample has 3 of" in cut.stderr
    assert subprocess.run([program, "nowhere", "x"], capture_output=True).returncode == 2


@needs_gcc
def test_the_header_stands_alone(tmp_path):
    """In C99 and in C++, with its data or without."""
    network = random_networks.dense(0, CIRCUITS["drum4"]())
    header, source, _ = write_c(network, tmp_path)
    write_c(network, tmp_path)  # its own files it replaces
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / source.name).write_text("int main(void) { return 0; }")
    with pytest.raises(FileExistsError, match=rf"axtrain did not write.*with {re.escape(source.name)}"):
        write_c(network, tmp_path / "mine")
    assert (tmp_path / "mine" / source.name).read_text().startswith("int main")
    text = header.read_text()
    assert re.findall(r"#include (.*)", text) == ["<stdint.h>"]
    assert not re.search(r"\b(float|double|malloc)\b", source.read_text())
    assert f"#define DENSE_0_TENSOR_BYTES {planned(network).size}" in text and "#define DENSE_0_SUMS 6" in text
    scale = float(re.search(r"#define DENSE_0_INPUT_SCALE (.*)f", text)[1])
    assert np.float32(scale) == np.float32(network.tensors["input"].scale)
    for number, options in enumerate((["-std=c99"], ["-std=c99", "-DDENSE_0_NO_DATA"], ["-x", "c++"])):
        (tmp_path / "alone.c").write_text(f'#include "{header.name}"\nint size = DENSE_0_INPUT_SIZE;\n')
        command = [GCC, "-Wall", "-Wextra", "-Wpedantic", "-Werror", *options, "-fsyntax-only", tmp_path / "alone.c"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, (number, done.stderr)


ALONE = {
    "dense": lambda b: b.dense(3),
    "conv": lambda b: b.conv(2),
    "depthwise": lambda b: b.depthwise(2),
    "maximum": lambda b: b.pool("max", (2, 2), (2, 2)),
    "mean": lambda b: b.pool("average", (2, 2), (2, 2)),
    "pad": lambda b: b.pad(1, 2, 0, 1),
    "rescale": lambda b: b.rescale(),
    "softmax": lambda b: b.softmax(),
    "addition": lambda b: b.add(b.last, b.last),
}


@needs_gcc
@pytest.mark.parametrize("kind", ALONE)
def test_an_operation_alone_leaves_nothing_unused(tmp_path, kind):
    """No function that only other operations need, which gcc would warn of; and no block of no bytes."""
    b = Builder(0, (4, 5, 2), name=kind)
    ALONE[kind](b)
    header, source, _ = write_c(b.finished(), tmp_path)
    done = subprocess.run([GCC, *FLAGS, "-fsyntax-only", source], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"#define {kind.upper()}_TENSOR_BYTES 0" in header.read_text()


def test_tensors_that_are_needed_together_lie_apart():
    for seed in range(5):
        for make in (random_networks.convolutional, random_networks.pooled, random_networks.dense):
            network = make(seed)
            buffers = planned(network)
            memory, origin = np.full(buffers.size, -1), {"input": network.input}
            for step, operation in enumerate(network.operations):
                places = [(name, buffers.places[name]) for name in operation.inputs]
                for name, place in places:
                    if isinstance(place, int):
                        size = int(np.prod(network.tensors[name].shape))
                        written = set(memory[place : place + size].tolist())
                        assert written == {origin[name]}, name
                place, size = buffers.places[operation.output], int(np.prod(network.tensors[operation.output].shape))
                shared = place == buffers.places[operation.inputs[0]]
                origin[operation.output] = origin.get(operation.inputs[0]) if shared else step
                if isinstance(place, int) and not shared:
                    memory[place : place + size] = step
            largest = max(int(np.prod(tensor.shape)) for tensor in network.tensors.values())
            assert buffers.size <= 3 * largest


def test_what_is_refused(tmp_path):
    b = Builder(0, (2,), name="none")
    with pytest.raises(ValueError, match="without operations"):
        write_c(b.finished(), tmp_path)
    b.dense(2)
    b.operations[0] = replace(b.operations[0], bias=np.array([2**31 - 1, 0], np.int32))
    with pytest.raises(ValueError, match=r"may not fit 32 bits.*Received: layer 'product', sums from"):
        write(None, b.finished(), tmp_path)
    b = Builder(0, (5000,), name="wide")
    b.softmax()
    with pytest.raises(ValueError, match=r"room for 4095 classes.*Received: layer 'softmax', 5000 classes"):
        write_c(b.finished(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_text():
    assert identifiers(["a/b", "a b", "a_b_2"]) == {"a/b": "a_b", "a b": "a_b_2", "a_b_2": "a_b_2_2"}
    assert comment("a */ b\n\\").count("*/") == 1 and "\\" not in comment("\\")
    assert array("x", np.array([-(2**31), 5])).startswith("static const int32_t x[2] = {\n    (-2147483647 - 1), 5")
    assert "uint16_t" in array("x", np.array([0, 65535])) and "int16_t" in array("x", np.array([-1, 300]))
    with pytest.raises(ValueError, match="32 bits"):
        array("x", np.array([2**40]))
