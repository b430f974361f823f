"""Aligned examples: in memory, split by a word each; and the .npz file that they are read from."""

import dataclasses
import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm import config
from mm.data.aligned import SPLITS, Aligned, AlignedSource
from mm.data.columns import ArrayColumn, TextColumn
from mm.data.npz import NpzSource, read_npz
from mm.data.opened import open_data
from mm.errors import UserError

N = 30
ROWS: dict[str, Any] = {
    "image": np.arange(N * 4, dtype=np.uint8).reshape(N, 2, 2),
    "name": np.array([f"row {i}" for i in range(N)]),
    "text": [f"text {i}" for i in range(N)],
}
SPLIT = np.array(["train", "train", "test", "train", "validation"] * (N // 5))


@dataclasses.dataclass(kw_only=True)
class Held(AlignedSource):
    modalities: tuple[str, ...] = ("image", "name", "text")

    def open(self, rows=ROWS, group=None, split=SPLIT) -> "Held":
        self.hold(rows, group=np.arange(N) // 3 if group is None else group, split=split)
        return self


def test_rows_in_memory_stay_with_their_examples_and_splits():
    source, seen = Held().open(), []
    for split in SPLITS:
        columns, order = source.columns(split), source.order(split, 5, 1)
        for image, name, text, group in zip(*(order[k] for k in (*ROWS, "group")), strict=True):
            number = int(columns["image"][np.array([image])][0, 0, 0]) // 4
            assert SPLIT[number] == split and group == number // 3
            assert columns["name"][np.array([name])] == [f"row {number}"]
            assert columns["text"][np.array([text])] == [f"text {number}"]
            seen.append(number)
        assert order["group"].dtype == np.int32
    assert sorted(seen) == list(range(N))
    one, two = (source.order("train", 5, e)["image"] for e in (0, 1))
    assert not np.array_equal(one, two)
    np.testing.assert_array_equal(source.order("test", 0, 0)["image"], np.arange(N // 5))
    assert list(Held(modalities=("text",)).open().columns("test")) == ["text"]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8), st.none() | st.integers(0, 99))
def test_an_example_has_a_row_of_its_own_or_none(counts, seed):
    count = {"a": np.ones(len(counts), np.int64), "b": np.array(counts)}
    owner = [i for i, c in enumerate(counts) for _ in range(c)]
    columns = {"a": ArrayColumn(np.arange(len(counts))), "b": TextColumn(list(map(str, owner)))}
    split = Aligned(columns, count, np.arange(len(counts), dtype=np.int32))
    order = split.order(None if seed is None else np.random.default_rng(seed))
    np.testing.assert_array_equal(order["a"], order["group"])
    for example, row in zip(order["group"], order["b"], strict=True):
        assert (row < 0) == (counts[example] == 0) and (row < 0 or owner[row] == example)
        assert seed is not None or row in (-1, owner.index(example) if example in owner else -1)


@pytest.mark.parametrize(
    ("modalities", "changed", "says"),
    [
        (("image", "smell"), {}, "config.data.source.modalities: no 'smell' here"),
        (("image", "image"), {}, "none twice"),
        ((), {}, "name at least one"),
        (("image",), {"group": np.zeros(N - 1)}, "Held: rows of different number.*'group': 29"),
        (("image",), {"split": np.where(SPLIT == "test", "train", SPLIT)}, "splits train, valid"),
        (("image",), {"split": np.where(SPLIT == "test", "tset", SPLIT)}, "tset"),
    ],
)
def test_what_does_not_fit_together_is_one_line(modalities, changed, says):
    with pytest.raises(UserError, match=says) as e:
        Held(modalities=modalities).open(**changed)
    assert "\n" not in str(e.value)


def test_a_npz_is_the_one_that_is_meant(tmp_path):
    path, mark = tmp_path / "a.npz", lambda p: hashlib.sha256(Path(p).read_bytes()).hexdigest()
    np.savez(path, image=ROWS["image"], names=ROWS["name"])
    found = read_npz(path, mark(path))
    assert list(found) == ["image", "names"] and found["names"][3] == "row 3"
    np.testing.assert_array_equal(found["image"], ROWS["image"])
    bad = {"none.npz": (None, "no such file"), "empty.npz": (b"", "is empty")}
    bad |= {
        "text.npz": (b"seven", "not a .npz"),
        "cut.npz": (path.read_bytes()[:-30], "not a .npz"),
    }
    for name, (contents, says) in bad.items():
        if contents is not None:
            (tmp_path / name).write_bytes(contents)
        with pytest.raises(UserError, match=says) as e:
            read_npz(tmp_path / name, mark(tmp_path / name) if contents else "")
        assert str(tmp_path / name) in str(e.value) and "\n" not in str(e.value)
    np.save(tmp_path / "one.npz", ROWS["image"])
    (tmp_path / "one.npz.npy").rename(tmp_path / "one.npz")
    np.savez(tmp_path / "objects.npz", a=np.array([{}, None]))
    for name in ("one.npz", "objects.npz"):
        with pytest.raises(UserError, match="of plain arrays"):
            read_npz(tmp_path / name, mark(tmp_path / name))
    with pytest.raises(UserError, match=re.escape(f"its sha256 is {mark(path)}, its data")):
        read_npz(path, "ab" * 32)


@dataclasses.dataclass(kw_only=True)
class OfFile(NpzSource):
    modalities: tuple[str, ...] = ("image",)

    def examples(self, found):
        return {"image": found["image"]}, np.arange(N), SPLIT


def test_a_source_of_a_npz_opens_through_the_real_door(tmp_path):
    np.savez(tmp_path / "a.npz", image=ROWS["image"])
    mark = hashlib.sha256((tmp_path / "a.npz").read_bytes()).hexdigest()
    source = OfFile(path=str(tmp_path / "a.npz"), sha256=mark)
    assert config.from_json(config.to_json(source)) == source
    data = open_data(config.Data(source=source), tmp_path)
    (batch,) = data.batches("train", seed=0, start=0, steps=1, batch_size=4)
    assert batch["image"].shape == (4, 2, 2)
    with pytest.raises(UserError, match="its data pipeline names ''"):
        open_data(config.Data(source=dataclasses.replace(source, sha256="")), tmp_path)
