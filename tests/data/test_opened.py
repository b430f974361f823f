"""Opened data is tokenized once, kept, checked, and served by the step."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mm import config
from mm.data.batches import TokenTable
from mm.data.columns import ArrayColumn, digest
from mm.data.opened import OpenData, open_data
from mm.data.records import CorruptLog
from mm.errors import UserError
from mm.space import Batch, Grid, Modality, Sequence, Vocabulary

COUNT = {"train": 5000, "validation": 40, "test": 30}


class Words:
    """A column of strings, several of them equal."""

    def __init__(self, count: int):
        self.count, self.fingerprint = count, digest(f"words {count}")

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, rows: np.ndarray) -> list[str]:
        return ["word " * (1 + row % 4) for row in rows]


@dataclasses.dataclass(kw_only=True)
class Squares:
    """A source of numbers and words."""

    modalities: tuple[str, ...] = ("number", "word")
    shift: int = 0

    def open(self, cache: Path, corrupt: CorruptLog) -> None:
        corrupt.add("file", 3, "broken")
        rows = {split: np.arange(n)[:, None] * [1, 2] + self.shift for split, n in COUNT.items()}
        self._columns = {
            s: {"number": ArrayColumn(r), "word": Words(len(r))} for s, r in rows.items()
        }

    def columns(self, split: str) -> Mapping[str, Any]:
        return {m: self._columns[split][m] for m in self.modalities}

    def order(self, split: str, seed: int, epoch: int) -> Mapping[str, np.ndarray]:
        n = len(self._columns[split]["number"])
        rows = np.random.default_rng([seed, epoch]).permutation(n)
        return dict.fromkeys(self.modalities, rows) | {"group": rows % 10}


class Modulo:
    """Tokenizes numbers: each modulo 100. Remembers how many rows it was given at a time."""

    modality = Modality(
        name="number", vocabulary=Vocabulary(name="number", size=100), layout=Grid(w=2)
    )
    fingerprint, card = "modulo", {}

    def __init__(self):
        self.given: list[int] = []

    def encode(self, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.given.append(len(raw))
        return (raw % 100).astype(np.int32), np.full(len(raw), 2, np.int32)


class Counter:
    """Tokenizes strings: a 1 per word, then the end, a 0; ids too large for int16 if `base` is."""

    fingerprint, card = "counter", {}

    def __init__(self, base: int = 0):
        vocabulary = Vocabulary(name="word", size=base + 2, eos=base)
        self.modality = Modality(name="word", vocabulary=vocabulary, layout=Sequence(max_len=5))
        self.base, self.given = base, []

    def encode(self, raw: list[str]) -> tuple[np.ndarray, np.ndarray]:
        self.given.append(len(raw))
        length = np.array([len(text.split()) + 1 for text in raw], np.int32)
        return self.base + (np.arange(5) < length[:, None] - 1).astype(np.int32), length


def opened(cache: Path, **changes: Any) -> OpenData:
    tokenizers = changes.pop("tokenizers", {"number": Modulo(), "word": Counter()})
    chosen = config.Data(source=Squares(), corrupt_limit=1, threads=2)
    chosen = dataclasses.replace(chosen, **changes)
    return OpenData(chosen, tokenizers, cache)


def assert_tables(tables: dict[str, TokenTable], base: int = 0) -> None:
    rows = np.arange(len(tables["number"]))
    assert np.array_equal(tables["number"].ids, np.stack([rows % 100, 2 * rows % 100], 1))
    assert np.array_equal(tables["word"].length, rows % 4 + 2)
    assert np.array_equal(
        tables["word"].ids, base + (np.arange(5) <= (rows % 4)[:, None]).astype(int)
    )
    assert all(t.ids.dtype == t.length.dtype == np.int32 for t in tables.values())


def test_every_row_is_tokenized_in_chunks_and_each_distinct_string_once(tmp_path):
    data = opened(tmp_path)
    assert_tables(data.tokens("train"))
    assert data.tokenizers["number"].given == [2048, 2048, 904]
    assert data.tokenizers["word"].given == [4, 4, 4]
    data.tokens("train")
    assert len(data.tokenizers["number"].given) == 3


@pytest.mark.parametrize("base", [0, 40_000])
def test_a_second_run_reads_the_cache(tmp_path, base):
    for chunks in ([2048, 2048, 904], []):
        data = opened(tmp_path, tokenizers={"number": Modulo(), "word": Counter(base)})
        assert_tables(data.tokens("train"), base)
        assert data.tokenizers["number"].given == chunks


def test_tokenizing_says_how_far_it_is(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("mm.progress.DELAY", 0.0)
    opened(tmp_path).tokens("train")
    said = capsys.readouterr().out
    assert "tokenizing number/train 2,048/5,000, " in said
    assert "tokenizing word/train 5,000/5,000, took " in said


def test_other_rows_or_another_tokenizer_are_tokenized_again(tmp_path):
    opened(tmp_path).tokens("train")
    moved = opened(tmp_path, source=Squares(shift=1))
    moved.tokens("train")
    assert moved.tokenizers["number"].given
    assert not moved.tokenizers["word"].given
    other = {"number": Modulo(), "word": Counter()}
    other["number"].fingerprint = "another"
    opened(tmp_path, tokenizers=other).tokens("train")
    assert other["number"].given
    assert not other["word"].given


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), cut=st.booleans())
@settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_a_damaged_cache_file_is_made_anew(tmp_path, place, bit, cut):
    opened(tmp_path).tokens("validation")
    file = next((tmp_path / "tokens").glob("number-validation-*"))
    intact = file.read_bytes()
    broken = bytearray(intact)
    where = int(place * len(broken))
    broken[where] ^= 1 << bit
    file.write_bytes(broken[:where] if cut else broken)
    assert_tables(opened(tmp_path).tokens("validation"))
    assert_tables(opened(tmp_path).tokens("validation"))


def test_nothing_half_written_is_left(tmp_path):
    opened(tmp_path).tokens("test")
    suffixes = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert suffixes == {".safetensors"}


def test_batches_are_tokens_in_the_order_of_the_source(tmp_path):
    data = opened(tmp_path)
    order = data.order("train", 3, 0)
    for start in (0, 4):
        batches = data.batches("train", seed=3, start=start, steps=6, batch_size=16)
        for i, batch in enumerate(batches, start):
            assert isinstance(batch, Batch)
            rows = order["number"][i * 16 : i * 16 + 16]
            assert np.array_equal(batch.ids["number"], data.tokens("train")["number"].ids[rows])
            assert np.array_equal(batch.group, rows % 10)
            assert batch.present["word"].all()
            shape = lambda x: (x.shape, x.dtype)
            assert jax.tree.map(shape, batch) == jax.tree.map(shape, data.abstract_batch(16))
        assert i == 5


def test_without_tokenizers_batches_are_raw(tmp_path):
    data = opened(tmp_path, tokenizers={})
    assert data.space is None
    batch = next(data.batches("test", seed=0, start=0, steps=1, batch_size=8))
    rows = data.order("test", 0, 0)["number"][:8]
    assert np.array_equal(batch["number"], data.raw("test")["number"][rows])
    assert batch["word"] == data.raw("test")["word"][rows]
    assert set(batch) == {"number", "word", "group", "present"}
    assert batch["present"]["number"].all() and batch["present"].keys() == {"number", "word"}


def test_the_space_has_the_tokenizers_in_order(tmp_path):
    data = opened(tmp_path, tokenizers={"word": Counter(), "number": Modulo()})
    assert data.space.names == ("word", "number")


def test_tokenizers_that_share_a_vocabulary_must_agree_on_it(tmp_path):
    other = Counter(base=7)
    other.modality = dataclasses.replace(other.modality, name="number")
    with pytest.raises(UserError, match=r"config\.data\.tokenizers: vocabulary 'word'"):
        opened(tmp_path, tokenizers={"word": Counter(), "number": other})


def test_the_fingerprint_follows_rows_and_tokenizers(tmp_path):
    only = {"number": Modulo()}
    other = {"number": Modulo()}
    other["number"].fingerprint = "another"
    made = [
        opened(tmp_path),
        opened(tmp_path, tokenizers=only),
        opened(tmp_path, tokenizers=other),
        opened(tmp_path, source=Squares(shift=1)),
        opened(tmp_path, tokenizers={}),
        opened(tmp_path, tokenizers={}, source=Squares(modalities=("number",))),
    ]
    marks = [data.fingerprint for data in made]
    assert len(set(marks)) == len(marks)
    assert marks[0] == opened(tmp_path).fingerprint


def test_unreadable_records_are_counted_and_limited(tmp_path):
    assert opened(tmp_path).corrupt == 1
    with pytest.raises(UserError, match="corrupt_limit=0"):
        opened(tmp_path, corrupt_limit=0)


def test_a_tokenizer_for_an_unknown_modality_is_refused_before_any_work(tmp_path):
    chosen = config.Data(source=Squares(), tokenizers={"numbr": "nowhere.safetensors"})
    with pytest.raises(UserError, match="no modality 'numbr' in the data; did you mean 'number'"):
        open_data(chosen, tmp_path)
    assert not list(tmp_path.iterdir())


def test_data_without_tokenizers_opens(tmp_path):
    data = open_data(config.Data(source=Squares()), tmp_path)
    assert len(data.raw("train")["number"]) == 5000
