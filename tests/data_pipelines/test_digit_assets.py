"""Assets hold exactly what they were made of, and damage to them is one clear line."""

import json
import shutil

import numpy as np
import pytest

from data_pipelines import digit_assets as da
from data_pipelines import digits
from mm.errors import UserError


def test_the_shipped_assets_decode_to_the_originals():
    da.check_contents(da.ASSETS)
    labels = da.read_labels(da.ASSETS)
    per_class = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(labels["train_labels"]).tolist() == per_class
    assert np.bincount(labels["digit"]).tolist() == [300] * 10
    assert len(labels["offsets"]) == 3001
    assert labels["offsets"][-1] == len(da.read_samples(da.ASSETS))


def test_the_shipped_assets_are_small_and_credited():
    # In MB: the digits 22.2, five alphabets of Omniglot 1.7, emoji 0.9.
    assert sum(file.stat().st_size for file in da.ASSETS.iterdir()) <= 25e6
    notice = (da.ASSETS / "NOTICE.md").read_text()
    for name, file in da.read_manifest(da.ASSETS)["files"].items():
        assert f"| {name} | {file['bytes']:,} | {file['sha256']} |" in notice
    assert "ShareAlike 3.0" in notice
    assert "ShareAlike 4.0" in notice


def test_what_is_read_is_what_was_given(small_inputs, small_assets):
    mnist, fsdd = (np.load(path) for path in small_inputs)
    labels = da.read_labels(small_assets)
    for split in ("train", "test"):
        images = da.read_images(small_assets, split)
        assert images.dtype == np.uint8
        assert np.array_equal(images, mnist[f"{split}_images"])
        assert np.array_equal(labels[f"{split}_labels"], mnist[f"{split}_labels"])
    samples = da.read_samples(small_assets)
    assert samples.dtype == np.int16
    assert np.array_equal(samples, fsdd["samples"])
    for name in ("digit", "speaker", "index", "offsets"):
        assert np.array_equal(labels[name], fsdd[name])


def test_the_command_makes_the_same_files_again(
    small_inputs, small_assets, tmp_path, monkeypatch, capsys
):
    mnist, fsdd = map(str, small_inputs)
    arguments = ["digits", "--mnist", mnist, "--fsdd", fsdd, "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", arguments)
    digits.main()
    assert capsys.readouterr().out.count("sha256") == 4
    assert da.manifest_hash(tmp_path) == da.manifest_hash(small_assets)


READERS = {
    "mnist_train.webp": lambda folder: da.read_images(folder, "train"),
    "mnist_test.webp": lambda folder: da.read_images(folder, "test"),
    "fsdd.flac": da.read_samples,
    "digits.safetensors": da.read_labels,
}


@pytest.fixture
def copy(small_assets, tmp_path):
    return shutil.copytree(small_assets, tmp_path / "assets")


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_named_with_what_to_do(copy, name):
    intact = (copy / name).read_bytes()
    flipped = bytearray(intact)
    flipped[len(flipped) // 2] ^= 1
    for damaged in (flipped, intact[: len(intact) // 2], b""):
        (copy / name).write_bytes(damaged)
        with pytest.raises(UserError, match=f"{name}: damaged .*restore it"):
            READERS[name](copy)
    (copy / name).unlink()
    with pytest.raises(UserError, match=f"{name}: cannot be read .No such file.*restore it"):
        READERS[name](copy)


@pytest.mark.parametrize("text", [None, "", '{"files": '])
def test_a_damaged_manifest_is_named_with_what_to_do(copy, text):
    (copy / da.MANIFEST).unlink()
    if text is not None:
        (copy / da.MANIFEST).write_text(text)
    with pytest.raises(UserError, match=r"digits\.json: cannot be read .*restore it"):
        da.manifest_hash(copy)


def test_the_hash_changes_with_any_file(copy):
    before = da.manifest_hash(copy)
    manifest = json.loads((copy / da.MANIFEST).read_text())
    manifest["files"][da.LABELS]["sha256"] = "0" * 64
    (copy / da.MANIFEST).write_text(json.dumps(manifest))
    assert da.manifest_hash(copy) != before


def test_other_inputs_are_refused(small_inputs, tmp_path):
    mnist, fsdd = small_inputs
    (tmp_path / "text.npz").write_text("not an npz")
    np.savez(tmp_path / "lacking.npz", train_images=np.zeros(3))
    for wrong in (tmp_path / "text.npz", tmp_path / "lacking.npz", tmp_path / "missing.npz"):
        with pytest.raises(UserError, match=f"{wrong.name}: not a readable npz"):
            da.write_assets(wrong, fsdd, tmp_path / "out")
    arrays = dict(np.load(fsdd))
    for name, value, said in (
        ("rate", np.array([16_000]), "another rate"),
        ("speaker_names", np.array(["someone"]), "other speakers"),
        ("index", arrays["index"][::-1], "not sorted"),
    ):
        np.savez(tmp_path / "other.npz", **arrays | {name: value})
        with pytest.raises(UserError, match=said):
            da.write_assets(mnist, tmp_path / "other.npz", tmp_path / "out")
    assert not (tmp_path / "out").exists()
