"""Every reader of a file, in one table: damaged and hostile files end in an error that names them, or change nothing.

To add a reader, add a line to `READERS`.
"""

import io
import json
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click
import keras
import numpy as np
import pytest

import axtrain as ax
from axtrain.integers.memory.image import read_memory, write_memory
from axtrain.noise_models.curves import TabulatedCurve
from axtrain.noise_models.measured import FaultMap
from axtrain.noise_models.readings import Readings
from axtrain.training.command_line import main
from axtrain.training.data_files import load_split
from axtrain.training.distributed.checkpoints import Checkpoint
from axtrain.training.kept_figures import KeptFigures, network_digest
from axtrain.training.report.folder import read_folder
from axtrain.training.tracking.models import _example
from axtrain.training.tracking.outbox import Outbox, Owner, waiting
from axtrain.training.training_state import TrainingState, place_of, restore

MEMORY = ax.memories.MeasuredMemory(maps=(FaultMap(words=64, word_bits=8, addresses=(1, 5), bits=(0, 7)),))
TABLE = ax.multipliers.get("drum3", bits=4)
OWNER = Owner(run_id="run", name="a", experiment_id="0", tracking_uri="file")


class Reader(NamedTuple):
    """A reader: what writes a good file into a folder and gives its path, and what reads that file."""

    write: Callable[[Path], Path]
    read: Callable[[Path], Any]
    has_sum: bool  # the format has checksums, so that no damage may change what is read
    hostile: Callable[[bytes], list[bytes]] = lambda whole: []  # contents that lie about their size
    slow: bool = False  # reads a model


def model():
    keras.utils.set_random_seed(1)
    plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="out")])
    return ax.convert(plain, ax.Hardware(weight_memory=MEMORY), np.eye(4, dtype="float32"))


def saved(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def npy_of(shape, data=b""):
    """A header that promises what does not follow."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<i4", "fortran_order": False, "shape": shape})
    return stream.getvalue() + data


def npz_of(**members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return stream.getvalue()


def huge_npy(whole):
    return [npy_of((10**6, 10**6)), npy_of((16, 16), bytes(1 << 24)), npy_of((-4, -64), bytes(1024)), saved(np.eye(5))]


def huge_npz(whole):
    """Each member's header promises a terabyte, or the member unpacks into far more than its header says."""
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
    contents = [npy_of((10**6, 10**6)), npy_of((16, 16), bytes(1 << 24)), b""]
    return [npz_of(**dict.fromkeys(names, content)) for content in contents]


def huge_json(whole):
    deep = b'{"format":' + b"[" * 100_000
    return [deep, b"[]", b"", whole + whole, b"\0" * 9999]


def long_line(whole):
    return [b"\0" * (1 << 22), whole + b"7" * (1 << 22)]


def in_file(name, write):
    """A writer of one file from a function of its path."""

    def written(folder):
        write(folder / name)
        return folder / name

    return written


def in_folder(name, write):
    """A writer of several files from a function of their folder, of which one is to be damaged."""

    def written(folder):
        write(folder / "several")
        return folder / "several" / name

    return written


def text(content):
    return lambda path: path.write_text(content)


def table(path):
    return ax.Multiplier.load(path, bits=4, signed=False)


def trained(folder):
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    network.compile("adam", "mse")
    network.fit(np.eye(2), np.eye(2), verbose=0, callbacks=[TrainingState(folder, note={"a": 1})])


def restored(path):
    place = place_of(path)
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    network.compile("adam", "mse")
    restore(network, path)
    return place, [variable.numpy() for variable in network.variables]


def checkpoint(path):
    return Checkpoint(path, {"a": 1})


def exported(folder):
    ax.export(model(), folder)


def export_read(path):
    export = ax.read_export(path.parent)
    return export.manifest["layers"], export.integers


def swept(folder):
    folder.mkdir()
    points = KeptFigures(folder, ["voltage_0.5"], {"seed": 0})
    for chip in range(5):
        points.add(0, chip, 0.5 + chip / 16)


def kept(path):
    return KeptFigures(path.parent, ["voltage_0.5"], {"seed": 0}).found


def evaluated(path):
    measured = ax.training.evaluation.Evaluation(np.linspace(0.5, 0.9, 5), 0, 100)
    path.write_text(json.dumps(measured.to_dict()))


def reported(path):
    """A report goes on without what it cannot read, and says so on the page."""
    run = read_folder(path.parent)
    if run.notes:
        raise ValueError("; ".join(run.notes))
    return run


def configured(path):
    try:
        return main.make_context("axtrain", ["--config", str(path), "train"]).default_map
    except click.UsageError as error:
        raise ValueError(error.format_message()) from error


def queued(folder):
    Outbox(folder, OWNER).put({"op": "params", "run": "run", "params": {"a": "1"}, "keep": False})
    [entry] = (folder / "run").glob("*.json")
    entry.rename(folder / "run" / "1.json")


DATA = {"x_test": np.arange(64.0).reshape(16, 4), "y_test": np.arange(16)}
READERS = {
    "table.npy": Reader(
        in_file("t.npy", TABLE.save), table, False, huge_npy
    ),
    "table.npz": Reader(
        in_file("t.npz", TABLE.save), table, True, huge_npz
    ),
    "table.csv": Reader(
        in_file("t.csv", TABLE.save), table, False, long_line
    ),
    "table.bin": Reader(in_file("t.bin", TABLE.save), table, False),
    "table.c": Reader(
        in_file("t.c", text(f"int t[16][16] = {{{','.join(map(str, TABLE.table.reshape(-1)))}}};")),
        table, False, long_line,
    ),
    "faults.npy": Reader(
        in_file("f.npy", lambda path: np.save(path, np.eye(16, 8) > 0)), FaultMap.from_npy, False, huge_npy
    ),
    "faults.csv": Reader(
        in_file("f.csv", text("address,bit\n" + "".join(f"{i},{i % 8}\n" for i in range(40)))),
        lambda path: FaultMap.from_csv(path, words=64, word_bits=8), False, long_line,
    ),
    "curve.csv": Reader(
        in_file("c.csv", text("voltage,rate\n0.5,0.01\n0.6,0.001\n0.7,0.0001\n")), TabulatedCurve.from_csv, False,
        long_line,
    ),
    "readings.csv": Reader(
        in_file("r.csv", text("voltage,failures,cells\n0.5,90,1000\n0.6,20,1000\n0.7,3,1000\n")),
        Readings.from_csv, False, long_line,
    ),
    "hardware.json": Reader(
        in_file("h.json", lambda path: ax.Hardware(multiplier=TABLE, weight_memory=MEMORY).to_json(path)),
        ax.Hardware.from_json, False,
        lambda whole: [*huge_json(whole), whole.replace(b'"words": 64', b'"words": 100000000000')],
    ),
    "model.keras": Reader(
        in_file("m.keras", lambda path: model().save(path)), lambda path: network_digest(ax.load_model(path)), True,
        lambda whole: [b"", b"PK\5\6" + bytes(18)], slow=True,
    ),
    "export/manifest.json": Reader(
        in_folder("manifest.json", exported), export_read, False, huge_json
    ),
    "export/integers.npz": Reader(
        in_folder("integers.npz", exported), export_read, True, huge_npz
    ),
    "export/model.keras": Reader(in_folder("model.keras", exported), export_read, True),
    "memory/weights.json": Reader(
        in_folder("weights.json", lambda folder: write_memory(model(), folder)),
        lambda path: read_memory(path.parent), False,
        lambda whole: [*huge_json(whole), whole.replace(b'"rows": 12', b'"rows": 120000000000')],
    ),
    "memory/weights.hex": Reader(
        in_folder("weights.hex", lambda folder: write_memory(model(), folder)),
        lambda path: read_memory(path.parent), True,
    ),
    "data.npz": Reader(
        in_file("d.npz", lambda path: np.savez_compressed(path, **DATA)), lambda path: load_split(path, "test"),
        True, huge_npz,
    ),
    "training state": Reader(in_file("training.npz", trained), restored, True, huge_npz, slow=True),
    "checkpoint": Reader(
        in_file("c.npz", lambda path: checkpoint(path).save(3, [], weights=[np.arange(6.0)])),
        lambda path: checkpoint(path).load(), True, huge_npz,
    ),
    "kept settings": Reader(in_folder("settings.json", swept), kept, False, huge_json),
    "kept figures": Reader(in_folder("voltage_0.5.json", swept), kept, False, huge_json),
    "outbox": Reader(in_folder("run/1.json", queued), lambda path: waiting(path.parents[1]), False, huge_json),
    "report": Reader(in_file("evaluation.json", evaluated), reported, False),
    "config.toml": Reader(
        in_file("c.toml", text("[train]\nepochs = 10\nseed = 7\n")), configured, False,
        lambda whole: [b"a = " + b"[" * 100_000],
    ),
    "example": Reader(in_file("example.npz", lambda path: np.savez(path, _=np.eye(3))), _example, True, huge_npz),
}  # fmt: skip


def plain(value):
    """A value as text that is equal where the value is."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{value.shape}{value.tobytes().hex()}"
    if isinstance(value, dict):
        return str({str(key): plain(one) for key, one in value.items()})
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return str([plain(one) for one in value])
    return repr(getattr(value, "digest", value) if not hasattr(value, "__dict__") else plain(vars(value)))


def damages(whole, rng, count):
    """Bit flips, truncations, pieces cut out, moved and put in; `count` of them."""
    for number in range(count):
        content, kind = bytearray(whole), number % 5
        at = int(rng.integers(len(whole)))
        length = int(rng.integers(1, 1 + max(1, len(whole) // 4)))
        if kind in (0, 1):
            content[at] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            del content[at:]
        elif kind == 3:
            del content[at : at + length]
        else:
            content[at:at] = rng.bytes(length)
        yield bytes(content)


def edits(whole, rng, count):
    """What a hand that edits JSON may do: entries removed, or given another value; `count` of them."""
    for _ in range(count):
        content = json.loads(whole)
        place, key = content, None
        while isinstance(place, (dict, list)) and len(place):
            names = list(place) if isinstance(place, dict) else range(len(place))
            parent, key = place, names[int(rng.integers(len(names)))]
            place = parent[key]
            if rng.random() < 0.2:
                break
        if rng.random() < 0.2 and isinstance(parent, dict):
            del parent[key]
        else:
            values = [None, "x", -1, 0, 2.5, 1e300, 10**30, True, [], {}, [1], {"a": 1}, "\0", "../x"]
            parent[key] = values[int(rng.integers(len(values)))]
        yield json.dumps(content).encode()


def outcome(reader, path):
    """What was read, or `None` after an error that names the file; any other error fails the test."""
    try:
        return plain(reader.read(path))
    except (ValueError, OSError) as error:
        assert path.name in str(error) or str(path.parent) in str(error), f"{type(error).__name__}: {error}"
        return None


def try_all(name, folder, contents):
    reader = READERS[name]
    path = reader.write(folder)
    whole = path.read_bytes()
    before = outcome(reader, path)
    assert before is not None
    refused = 0
    for content in [*contents(whole, reader)]:
        path.write_bytes(content)
        found = outcome(reader, path)
        refused += found is None
        assert found in (None, before) or not reader.has_sum, content
    path.write_bytes(whole)
    assert outcome(reader, path) == before
    return refused


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_named_or_changes_nothing(name, tmp_path):
    count = 10 if READERS[name].slow else 60
    rng = np.random.default_rng(1)
    refused = try_all(name, tmp_path, lambda whole, reader: damages(whole, rng, count))
    assert refused >= (count // 4 if READERS[name].has_sum else 1)


JSON = [
    name for name in READERS if name.endswith(".json") or name in ("kept settings", "kept figures", "outbox", "report")
]


@pytest.mark.parametrize("name", JSON)
def test_an_edited_file_is_named_or_read(name, tmp_path):
    assert try_all(name, tmp_path, lambda whole, reader: edits(whole, np.random.default_rng(3), 60))


@pytest.mark.slow  # the same with more of each kind
@pytest.mark.parametrize("name", READERS)
def test_thousands_of_damaged_files(name, tmp_path):
    rng = np.random.default_rng(2)
    try_all(name, tmp_path, lambda whole, reader: damages(whole, rng, 200 if reader.slow else 3000))
    if name in JSON:
        (tmp_path / "edited").mkdir()
        try_all(name, tmp_path / "edited", lambda whole, reader: edits(whole, rng, 3000))


@pytest.mark.parametrize("name", READERS)
def test_a_file_that_lies_about_its_size_costs_no_memory(name, tmp_path):
    """At most twice the file's own size beside what a good file takes."""
    reader = READERS[name]
    path = reader.write(tmp_path)
    whole = path.read_bytes()
    hostile = reader.hostile(whole)
    outcome(reader, path)  # imports, caches
    tracemalloc.start()
    try:
        outcome(reader, path)
        usual = tracemalloc.get_traced_memory()[1]
        for content in hostile:
            path.write_bytes(content)
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            found = outcome(reader, path)
            peak = tracemalloc.get_traced_memory()[1] - before
            assert peak <= usual + 2 * len(content) + (1 << 20), (peak, content[:80])
            assert found is None, content[:80]
    finally:
        tracemalloc.stop()
