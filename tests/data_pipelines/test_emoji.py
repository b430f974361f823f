"""Emoji: what ships, who is in which split, and that the asset is made as it says."""

import json

import numpy as np
import pytest

from data_pipelines import emoji
from data_pipelines.emoji import CATEGORIES, LENGTH, Emoji
from mm.data.records import CorruptLog
from mm.errors import UserError

ALL = ("colour", "line", "name", "category")


def opened(tmp_path, **settings):
    source = Emoji(modalities=ALL, **settings)
    source.open(tmp_path, CorruptLog(0))
    return {s: {n: c[np.arange(len(c))] for n, c in source.columns(s).items()} for s in ("train", "validation", "test")}  # fmt: skip


def said(name):
    return bytes(name[name > 0].astype(np.uint8)).decode()


def test_what_ships(tmp_path):
    splits = opened(tmp_path)
    assert {s: len(c["name"]) for s, c in splits.items()} == {"train": 1098, "validation": 149, "test": 144}  # fmt: skip
    for c in splits.values():
        assert c["colour"].shape[1:] == (32, 32, 3) and c["colour"].dtype == np.uint8
        assert c["line"].shape[1:] == (32, 32) and c["line"].dtype == np.uint8
        assert c["name"].shape[1:] == (LENGTH,) and c["name"].dtype == np.int32
        assert set(np.unique(c["line"]) % 17) == {0}
    train = splits["train"]
    rows = {said(n): i for i, n in enumerate(train["name"])}
    face = rows["grinning face"]
    assert CATEGORIES[train["category"][face]] == "people"
    corner, cheek = train["colour"][face][0, 0], train["colour"][face][16, 5]
    assert (corner > 250).all() and cheek[0] > 200 > cheek[2], "yellow on white"
    assert train["line"][face][0, 0] == 0 and train["line"][face].max() == 255


def test_held_out_categories_are_in_test_alone(tmp_path):
    held = [CATEGORIES.index(n) for n in ("food", "travel")]
    plain, without = opened(tmp_path), opened(tmp_path, held_out=("food", "travel"))
    for split in ("train", "validation"):
        kept = ~np.isin(plain[split]["category"], held)
        np.testing.assert_array_equal(without[split]["name"], plain[split]["name"][kept])
    assert np.isin(without["test"]["category"], held).sum() == 85 + 118
    assert len(without["test"]["name"]) == 324
    with pytest.raises(UserError, match="did you mean 'food'"):
        Emoji(held_out=("fod",)).validate()


def test_long_names_are_cut_and_others_come_back():
    assert said(emoji.encoded("åland islands")) == "åland islands"
    assert (emoji.encoded("x" * 99) == ord("x")).all()


def test_the_asset_is_made_as_it_says(tmp_path):
    """Of three emoji, one without a line drawing: colours lie on white, at half the size."""
    color = np.zeros((3, 64, 64, 4), np.uint8)
    color[0, :, :, 0], color[0, :, :, 3] = 200, 255
    color[2, ::2, :, 3] = 255  # every second row black
    line = np.zeros((3, 64, 64), np.uint8)
    line[2, :, ::2] = 255
    np.savez(tmp_path / "in.npz", color=color, line=line, has_line=np.array([True, False, True]), split=np.array([0, 1, 2], np.uint8))  # fmt: skip
    names = ("red", "none", "stripes")
    rows = [json.dumps({"name": n, "category": "symbols"}) for n in names]
    (tmp_path / "in.jsonl").write_text("\n".join(rows) + "\n")
    emoji.write(tmp_path / "in.npz", tmp_path / "in.jsonl", tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as file:
        found = {n: file[n] for n in file.files}
    assert bytes(found["name"]) == b"red\nstripes" and found["split"].tolist() == [0, 2]
    assert found["colour"].shape == (2, 32, 32, 3)
    np.testing.assert_allclose(found["colour"][:, 5, 5], [[202, 2, 2], [130, 130, 130]], atol=2)
    assert (found["line"][1] == 8).all() and (found["line"][0] == 0).all()
