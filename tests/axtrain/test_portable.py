"""A SavedModel that TensorFlow alone runs, and the formats that an export writes beside its integers."""

import json

import fresh
import keras
import numpy as np
import pytest

import axtrain as ax

L = keras.layers
# A process without our package: the folder of samples and results is its only argument.
FRESH = """
import sys, pathlib, numpy as np, tensorflow as tf
folder = pathlib.Path(sys.argv[1])
x = np.load(folder / "x.npy")
for path in sorted(folder.glob("saved*")):
    loaded = tf.saved_model.load(path)
    np.save(folder / f"{path.name}.npy", loaded.serve(x).numpy())
    signature = loaded.signatures["serving_default"](tf.constant(x[:3]))
    np.testing.assert_allclose(*signature.values(), loaded.serve(x[:3]), atol=1e-6)
    graph = loaded.signatures["serving_default"].graph.as_graph_def()
    kinds = {node.op for f in graph.library.function for node in f.node_def}
    assert not {kind for kind in kinds if "Py" in kind}, kinds
assert "axtrain" not in sys.modules
"""


def samples(count=20, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 6, 6, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def plain():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            L.Conv2D(3, 3, padding="same", activation="relu", name="conv"),
            L.Flatten(),
            L.Dense(4, name="head"),
        ]
    )


def test_tensorflow_alone_gives_the_outputs(plain, tmp_path):
    """Factors with faults left out; look-ups (a random table of full rank) with the faults of one chip."""
    rng = np.random.default_rng(0)
    table = np.outer(np.arange(256), np.arange(256)) + rng.integers(-300, 300, (256, 256))
    circuits = {
        "saved_clean": ax.Hardware(
            multiplier=ax.multipliers.get("drum4"), weight_memory=ax.memories.BitErrors(rate=0.1)
        ),
        "saved_chip": ax.Hardware(
            multiplier=ax.Multiplier(table, name="random", bits=8, signed=False),
            weight_memory=ax.memories.NearThresholdSRAM(voltage=0.5),
        ),
    }
    x = samples()
    np.save(tmp_path / "x.npy", x)
    expected = {}
    for name, hardware in circuits.items():
        model = ax.convert(plain, hardware, x)
        chip = 7 if "chip" in name else None
        ax.export_saved_model(model, tmp_path / name, chip=chip)
        assert model.get_layer("conv").engine is None
        if chip is None:
            ax.set_noise_strength(model, 0.0)
        else:
            ax.set_chip(model, chip)
        expected[name] = model.predict(x, verbose=0)
    done = fresh.run(FRESH, tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    for name, values in expected.items():
        found = np.load(tmp_path / f"{name}.npy")
        np.testing.assert_allclose(found, values, rtol=1e-5, atol=1e-5 * np.abs(values).max())
    assert np.abs(expected["saved_chip"] - expected["saved_clean"]).max() > 0.01


def test_what_may_be_written_where(plain, tmp_path):
    model = ax.convert(plain, ax.Hardware(weight_memory=ax.memories.BitErrors(rate=0.1)), samples())
    with pytest.raises(ValueError, match="fails anew at every read"):
        failing = ax.Hardware(datapath=ax.datapaths.TimingErrors.at_voltage(0.75))
        ax.export_saved_model(ax.convert(plain, failing, samples()), tmp_path / "a", chip=1)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="no SavedModel"):
        ax.export_saved_model(model, tmp_path / "precious", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_formats_of_an_export(plain, tmp_path):
    pytest.importorskip("ai_edge_litert")
    hardware = ax.Hardware(quantisation=ax.Quantisation.litert(), weight_memory=ax.memories.BitErrors(rate=0.1))
    model, x = ax.convert(plain, hardware, samples()), samples()
    folder = tmp_path / "out"
    written = ax.export(model, folder, formats=("litert", "saved_model", "litert"), calibration=x)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["formats"] == ["litert", "saved_model"]
    expected = {"integers.npz", "model.keras", "model.tflite", "saved_model/saved_model.pb"}
    assert expected < set(manifest["files"]) == set(written.manifest["files"])
    on_disk = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert on_disk == {*manifest["files"], "manifest.json"}
    network = ax.integer_network(model, x)  # the clean weights, though their memory fails
    assert ax.compare_litert(network, folder / "model.tflite", network.quantised(x)).equal
    np.testing.assert_array_equal(network.operations[0].codes, written.integers["conv"]["codes"])
    path = folder / "saved_model" / "variables" / "variables.index"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"saved_model/variables/variables.index.*sha256 differs"):
        ax.read_export(folder)
    manifest["files"]["../secret"] = "0"
    (folder / "manifest.json").write_text(json.dumps({**manifest, "files": {"../secret": "0"}}))
    with pytest.raises(ValueError, match=r"its own folder alone.*'../secret'"):
        ax.read_export(folder)


@pytest.mark.parametrize(
    ("formats", "message"),
    [
        (("litert", "tape"), r"Unknown formats. Known: .*litert.*Received: \['tape'\]"),
        (("litert",), r"no multiplication but the exact one"),
    ],
)
def test_a_format_that_cannot_be_leaves_no_folder(plain, tmp_path, formats, message):
    model = ax.convert(plain, ax.Hardware(multiplier=ax.multipliers.get("drum4")), samples())
    with pytest.raises(ValueError, match=message):
        ax.export(model, tmp_path / "out", formats=formats, calibration=samples())
    with pytest.raises(TypeError, match="Received: formats='litert'"):
        ax.export(model, tmp_path / "out", formats="litert")
    assert not list(tmp_path.iterdir())
