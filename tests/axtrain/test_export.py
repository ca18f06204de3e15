"""What is exported is whole, proven by checksums, and enough to rebuild the accumulators in NumPy alone."""

import json

import keras
import numpy as np
import pytest
from reference import conv2d

import axtrain as ax
from axtrain.controls import hardware_layers

MULTIPLIER = ax.multipliers.get("kulkarni")


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    plain = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(3, 3, padding="same", activation="relu", name="conv"),
            layers.Flatten(),
            layers.Dense(4, name="head"),
        ]
    )
    x = np.random.default_rng(1).normal(size=(20, 6, 6, 2)).astype(np.float32)
    memory = ax.memories.NearThresholdSRAM(voltage=0.5)
    return ax.convert(plain, ax.Hardware(multiplier=MULTIPLIER, weight_memory=memory), x)


def test_integers_alone_give_the_accumulators_and_the_outputs(model, tmp_path):
    """Plain integer loops on the exported arrays; the memory is taken as clean, as it is where weights are written."""
    written = ax.export(model, tmp_path / "out").integers["conv"]
    x = np.random.default_rng(2).normal(size=(3, 6, 6, 2)).astype(np.float32)
    ax.set_noise_strength(model, 0.0)
    z = int(written["zero_point"])
    # Written as the layer divides: float32 by float32.
    a = np.clip(np.round(x / written["activation_scale"]) + z, 0, 255).astype(np.int64)
    sign = np.where(written["codes"] < 0, -1, 1)
    magnitude = np.abs(written["codes"].astype(np.int64))
    positive = conv2d(a, np.where(sign > 0, magnitude, 0), MULTIPLIER.table, padding="same", zero_point=z)
    negative = conv2d(a, np.where(sign < 0, magnitude, 0), MULTIPLIER.table, padding="same", zero_point=z)
    assert MULTIPLIER.preserves_zero  # so the codes left out of either sum give nothing
    accumulator = positive - negative - z * written["codes"].astype(np.int64).sum((0, 1, 2))
    layer = model.get_layer("conv")
    np.testing.assert_array_equal(layer.accumulator(x), accumulator)
    real = accumulator * (written["activation_scale"] * written["scale"]) + written["bias"]
    np.testing.assert_allclose(layer(x), np.maximum(real, 0), rtol=1e-5, atol=1e-5)


def test_manifest_says_what_and_how_good(model, tmp_path):
    result = ax.evaluate(model, np.zeros((8, 6, 6, 2), np.float32), np.zeros(8), chips=3, verbose=False)
    export = ax.export(model, tmp_path / "out", accuracy=result)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [layer["name"] for layer in manifest["layers"]] == ["conv", "head"]
    assert ax.Hardware.from_dict(manifest["layers"][0]["hardware"]) == model.get_layer("conv").hardware
    assert manifest["accuracy"]["accuracies"] == result.accuracies.tolist()
    assert sorted(manifest["files"]) == ["integers.npz", "model.keras"]
    again = export.model()
    x = np.random.default_rng(0).normal(size=(4, 6, 6, 2)).astype(np.float32)
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))
    assert [layer.name for layer in hardware_layers(again)] == ["conv", "head"]


@pytest.mark.parametrize("name", ["integers.npz", "model.keras"])
@pytest.mark.parametrize("damage", ["flipped", "truncated"])
def test_a_file_that_differs_from_the_manifest(model, tmp_path, name, damage):
    ax.export(model, tmp_path / "out")
    path = tmp_path / "out" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content if damage == "flipped" else content[:-10]))
    with pytest.raises(ValueError, match=f"{name}.*sha256 differs.*Received"):
        ax.read_export(tmp_path / "out")


def test_a_missing_file_and_a_foreign_manifest(model, tmp_path):
    ax.export(model, tmp_path / "out")
    (tmp_path / "out" / "integers.npz").unlink()
    with pytest.raises(FileNotFoundError):
        ax.read_export(tmp_path / "out")
    (tmp_path / "out" / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match="Not a manifest"):
        ax.read_export(tmp_path / "out")


def test_what_may_be_overwritten(model, tmp_path):
    ax.export(model, tmp_path / "out")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        ax.export(model, tmp_path / "out")
    ax.export(model, tmp_path / "out", overwrite=True)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="no export"):
        ax.export(model, tmp_path / "precious", overwrite=True)
    assert (tmp_path / "precious" / "thesis.tex").read_text() == "years of work"
    (tmp_path / "empty").mkdir()
    ax.export(model, tmp_path / "empty")


def test_only_what_the_manifest_lists_is_replaced(model, tmp_path):
    """The manifest of another project, and one's own files beside those of an export."""
    site = tmp_path / "site"
    (site / "src").mkdir(parents=True)
    (site / "manifest.json").write_text('{"name": "my web app"}')
    (site / "src" / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="no export; choose another folder"):
        ax.export(model, site, overwrite=True)
    out = tmp_path / "out"
    ax.export(model, out)
    (out / "board").mkdir()
    (out / "board" / "main.c").write_text("mine")
    (out / "link").symlink_to(site / "src" / "thesis.tex")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match=r"does not list; move them away.*board/main\.c, link"):
            ax.export(model, out, overwrite=overwrite)
    assert (out / "board" / "main.c").read_text() == "mine" and (site / "src" / "thesis.tex").exists()


def test_what_the_manifest_does_not_list_is_not_read(model, tmp_path):
    ax.export(model, tmp_path / "out")
    path = tmp_path / "out" / "manifest.json"
    whole = json.loads(path.read_text())
    for name in ("integers.npz", "model.keras"):
        files = {other: digest for other, digest in whole["files"].items() if other != name}
        path.write_text(json.dumps({**whole, "files": files}))
        with pytest.raises(ValueError, match=f"must list every file.*none of.*{name}"):
            ax.read_export(tmp_path / "out")
    path.write_text(json.dumps({**whole, "layers": [*whole["layers"], {"name": "other"}]}))
    with pytest.raises(ValueError, match="lacks a layer of the manifest.*'other/'"):
        ax.read_export(tmp_path / "out")
    path.write_text(json.dumps({key: value for key, value in whole.items() if key != "files"}))
    with pytest.raises(ValueError, match="must list files"):
        ax.read_export(tmp_path / "out")


def test_an_export_that_fails_leaves_nothing_and_keeps_the_old_one(model, tmp_path, monkeypatch):
    old = ax.export(model, tmp_path / "out").manifest

    def fails(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", fails)
    for folder in ("out", "new"):
        with pytest.raises(OSError, match="disk full"):
            ax.export(model, tmp_path / folder, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert ax.read_export(tmp_path / "out").manifest == old


def test_a_plain_model_is_no_export(tmp_path):
    plain = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    with pytest.raises(ValueError, match="No layer of this model runs on hardware"):
        ax.export(plain, tmp_path / "out")


def test_a_layer_without_a_range_is_not_exported_until_it_has_one(tmp_path):
    plain = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="lonely")])
    noisy = ax.convert(plain, ax.Hardware())
    with pytest.raises(ValueError, match="no activation range.*'lonely'"):
        ax.export(noisy, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    noisy.compile("sgd", "mse")
    noisy.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0)
    assert ax.export(noisy, tmp_path / "out").integers["lonely"]["activation_scale"] > 0
