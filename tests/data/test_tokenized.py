"""Tokens on disk are read as they were written, at any place, by any number of readers; damage is named."""

import dataclasses
import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from etils.epath import Path as EPath

from mm import config
from mm.data import token_files as files
from mm.data.check import lines
from mm.data.mixture import Mixture, shares
from mm.data.opened import OpenData, open_data
from mm.data.shard_table import BLOCK
from mm.data.tokenized import Tokenized
from mm.errors import UserError
from mm.space import Grid, Modality, Sequence, Vocabulary
from tests.tokens import unpacked

FORMS = {
    "picture": files.Form(
        Modality(name="picture", vocabulary=Vocabulary(name="picture", size=600), layout=Grid(h=2, w=3)), "aaaa"
    ),
    "word": files.Form(
        Modality(name="word", vocabulary=Vocabulary(name="word", size=9, eos=8), layout=Sequence(max_len=4)), "bbbb"
    ),
}  # fmt: skip
SIZES = {"train": (700, 700, 699), "validation": (30,)}


@dataclasses.dataclass
class Written:
    """A folder, and what was written to it: per split and modality."""

    path: Path
    ids: dict[str, dict[str, np.ndarray]]
    length: dict[str, dict[str, np.ndarray]]
    present: dict[str, dict[str, np.ndarray]]


def write(path: Path, seed: int = 0, forms: Any = FORMS, sizes: Any = SIZES) -> Written:
    """Random tokens, a tenth of them absent, in shards of these sizes."""
    rng, out = np.random.default_rng(seed), Written(path, {}, {}, {})
    splits: dict[str, Any] = {}
    for split, parts in sizes.items():
        n, held = sum(parts), {}
        for name, form in forms.items():
            m = form.modality
            length = rng.integers(1, m.size + 1, n) if name == "word" else np.full(n, m.size)
            present = rng.random(n) > 0.1
            ids = rng.integers(0, m.vocabulary.size, (n, m.size)) * present[:, None]
            held[name] = (ids, length * present, present)
        for i, attribute in enumerate(("ids", "length", "present")):
            getattr(out, attribute)[split] = {name: h[i] for name, h in held.items()}
        shards, first = [], 0
        for i, size in enumerate(parts):
            at = slice(first, first + size)
            shard = files.Shard(split, i, len(parts), size, {}, {})
            made = {}
            for name, (ids, length, there) in held.items():
                packed = forms[name].pack(ids[at], length[at])
                records = [r if t else b"" for r, t in zip(packed, there[at], strict=True)]
                made[name] = files.write_records(
                    shard.path(EPath(path), name), forms[name], iter([records])
                )
            index = {name: there[at] for name, (_, _, there) in held.items()}
            made["index"] = files.write_index(
                shard.path(EPath(path), "index"), np.arange(size) + first, index
            )
            counts = {name: int(p.sum()) for name, p in index.items()}
            shards.append({"examples": size, "files": made, "present": counts})
            first += size
        splits[split] = {"shards": shards}
    modalities = {
        name: {"modality": config.to_json(f.modality), "tokenizer": f.fingerprint}
        for name, f in forms.items()
    }
    manifest = {"format_version": 1, "modalities": modalities, "splits": splits}
    (path / "manifest.json").write_text(json.dumps(manifest))
    return out


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Written:
    return write(tmp_path_factory.mktemp("tokens"))


def opened(source: Any, cache: Path, **changes: Any) -> OpenData:
    return open_data(config.Data(source=source, batch_size=64, **changes), EPath(cache))


def read(data: OpenData, split: str, *, start: int = 0, steps: int, size: int = 64, **other: Any) -> list[Any]:  # fmt: skip
    return list(data.batches(split, seed=3, start=start, steps=steps, batch_size=size, **other))


def same(a: Any, b: Any) -> bool:
    pairs = [(a.group, b.group)]
    pairs += [(x[n], getattr(b, f)[n]) for f in ("ids", "length", "present") for x in [getattr(a, f)] for n in x]  # fmt: skip
    return all(np.array_equal(x, y) for x, y in pairs)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_what_was_written_is_read_and_every_example_once_an_epoch(written, tmp_path, split):
    data = opened(Tokenized(path=str(written.path), window=500), tmp_path)
    n = sum(SIZES[split])
    (batch,) = read(data, split, steps=1, size=n)
    assert sorted(batch.group.tolist()) == list(range(n))
    assert (batch.group.tolist() == list(range(n))) == (split == "validation")
    for name in FORMS:
        assert np.array_equal(batch.ids[name], written.ids[split][name][batch.group])
        assert np.array_equal(batch.length[name], written.length[split][name][batch.group])
        assert np.array_equal(batch.present[name], written.present[split][name][batch.group])
        assert batch.ids[name].dtype == np.int32 and not batch.present[name].all()


def test_a_position_is_the_same_for_any_number_of_threads_and_hosts(written, tmp_path):
    source = Tokenized(path=str(written.path), window=500)
    whole = read(opened(source, tmp_path, threads=1), "train", steps=40)  # over the end of an epoch
    for threads in (0, 3):
        again = read(opened(source, tmp_path, threads=threads), "train", start=31, steps=40)
        assert len(again) == 9 and all(map(same, whole[31:], again))
    for hosts in (2, 4):
        per = 64 // hosts
        parts = [
            read(opened(source, tmp_path), "train", start=35, steps=40, part=slice(h * per, (h + 1) * per))
            for h in range(hosts)
        ]  # fmt: skip
        for batch, *mine in zip(whole[35:], *parts, strict=True):
            assert np.array_equal(batch.group, np.concatenate([b.group for b in mine]))
            assert np.array_equal(batch.ids["word"], np.concatenate([b.ids["word"] for b in mine]))


def test_only_the_files_of_what_is_asked_for_are_needed(tmp_path):
    found = write(tmp_path / "tokens", sizes={"train": (20,)})
    next((tmp_path / "tokens" / "train").glob("word*")).unlink()
    data = opened(Tokenized(path=str(found.path), only=("picture",)), tmp_path)
    assert read(data, "train", steps=1)[0].ids.keys() == {"picture"}
    with pytest.raises(UserError, match=r"word-00000-of-00001.array_record: is missing"):
        opened(Tokenized(path=str(found.path)), tmp_path)
    with pytest.raises(UserError, match="did you mean 'word'"):
        opened(Tokenized(path=str(found.path), only=("wort",)), tmp_path)


def test_other_tokenizers_are_refused_by_name(written, tmp_path):
    run = unpacked(tmp_path)
    named = {"picture": f"{run}/tokenizers/picture.safetensors"}
    with pytest.raises(
        UserError, match=r"tokenizers\['picture'\].* written by the tokenizer aaaa, this one is "
    ):
        opened(Tokenized(path=str(written.path)), tmp_path, tokenizers=named)  # fmt: skip
    data = opened(Tokenized(path=str(written.path)), tmp_path)
    assert data.fingerprints == {"picture": "aaaa", "word": "bbbb"}  # what a checkpoint remembers
    with pytest.raises(UserError, match="no raw rows of 'picture'"):
        _ = data.raw("train")["picture"]


def damaged(path: Path, record: bytes) -> None:
    """One bit of a record's bytes is another."""
    whole = bytearray(path.read_bytes())
    at = whole.find(record)
    assert at > 0
    whole[at + 3] ^= 1
    path.write_bytes(whole)


def test_an_example_with_an_unreadable_record_is_the_next_one_and_named(tmp_path, capsys):
    found = write(tmp_path / "tokens", sizes={"validation": (50, 40)})
    there = found.present["validation"]
    lost = next(i for i in range(60, 80) if there["picture"][i] and there["word"][i])
    record = FORMS["picture"].pack(
        found.ids["validation"]["picture"][[lost]], found.length["validation"]["picture"][[lost]]
    )[0]
    damaged(tmp_path / "tokens" / "validation" / "picture-00001-of-00002.array_record", record)
    data = opened(Tokenized(path=str(found.path)), tmp_path)
    (batch,) = read(data, "validation", steps=1, size=90)
    # Its neighbours are lost with it: so many as are written together (absent ones are no loss).
    gone = np.flatnonzero(batch.group != np.arange(90))
    assert lost in gone and len(gone) <= data.corrupt == 8
    row = int(batch.group[lost])
    assert row > lost and not {row} & set(gone.tolist())
    for name in FORMS:  # all of the next example, not a part of it
        assert np.array_equal(batch.ids[name][lost], found.ids["validation"][name][row])
    assert (
        f"picture-00001-of-00002.array_record, record {lost - 50}: unreadable"
        in capsys.readouterr().err
    )
    with pytest.raises(
        UserError, match=r"picture-00001-of-00002.array_record, record \d+: not what"
    ):
        list(lines(config.Data(source=Tokenized(path=str(found.path))), EPath(tmp_path), None))


def test_a_file_that_is_not_the_manifests_is_refused_with_its_record(tmp_path):
    found = write(tmp_path / "tokens", sizes={"validation": (50,)})
    path = tmp_path / "tokens" / "validation" / "picture-00000-of-00001.array_record"
    there, form = found.present["validation"]["picture"], FORMS["picture"]
    ids = found.ids["validation"]["picture"].copy()
    ids[next(i for i in range(17, 50) if there[i])] = 65_000
    spoilt = next(i for i in range(17, 50) if there[i])
    packed = form.pack(ids, found.length["validation"]["picture"])
    records = [r if t else b"" for r, t in zip(packed, there, strict=True)]
    files.write_records(EPath(path), form, iter([records]))
    with pytest.raises(
        UserError,
        match=rf"picture.*, record {spoilt}: has the ids .* 65000, and its vocabulary 0 .. 599",
    ):
        read(opened(Tokenized(path=str(found.path)), tmp_path), "validation", steps=1, size=50)  # fmt: skip
    files.write_records(EPath(path), form, iter([records[:-1]]))
    with pytest.raises(UserError, match=r"array_record: 49 records, by the manifest it has 50"):
        read(opened(Tokenized(path=str(found.path)), tmp_path), "validation", steps=1, size=50)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"picture.*: has .* bytes, by .*manifest.json it has"):
        opened(Tokenized(path=str(found.path)), tmp_path)


@pytest.mark.parametrize(
    "text", ["", "{}", '{"format_version": 2}', '{"modalities": 3, "splits": {}}']
)
def test_a_manifest_that_cannot_be_is_one_line(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(UserError, match=r"manifest.json: "):
        opened(Tokenized(path=str(tmp_path)), tmp_path)
    with pytest.raises(UserError, match="no such file; make the folder with --mode=tokenize"):
        opened(Tokenized(path=str(tmp_path / "nowhere")), tmp_path)


def test_a_mixture_has_its_weights_and_no_example_twice_as_often(written, tmp_path):
    small = write(
        tmp_path / "small", seed=1, forms={"word": FORMS["word"]}, sizes={"train": (100,)}
    )
    parts = {"a": Tokenized(path=str(written.path)), "b": Tokenized(path=str(small.path))}
    data = opened(Mixture(parts=parts, weights={"a": 1.0, "b": 3.0}), tmp_path)
    epochs = np.stack([data.order("train", 0, epoch)["group"] for epoch in range(3)])
    assert epochs.shape == (3, 2199)
    assert (epochs >= 2099).sum(1).tolist() == 3 * [round(0.75 * 2199)]
    times = np.bincount(epochs[epochs >= 2099] - 2099, minlength=100)
    assert set(times.tolist()) == {49, 50}
    (batch,) = read(data, "train", steps=1, size=2199)
    here = batch.group >= 2099
    assert not batch.present["picture"][here].any()
    assert np.array_equal(
        batch.ids["word"][here], small.ids["train"]["word"][batch.group[here] - 2099]
    )
    assert np.array_equal(
        batch.ids["picture"][~here], written.ids["train"]["picture"][batch.group[~here]]
    )


def test_tokens_of_two_tokenizers_are_not_mixed(written, tmp_path):
    other = {"word": files.Form(FORMS["word"].modality, "cccc")}
    write(tmp_path / "other", forms=other, sizes={"train": (10,)})
    parts = {"a": Tokenized(path=str(written.path)), "b": Tokenized(path=str(tmp_path / "other"))}
    with pytest.raises(
        UserError, match=r"'word' were written by two tokenizers: bbbb in .*, cccc in "
    ):
        opened(Mixture(parts=parts), tmp_path)
    with pytest.raises(UserError, match="give each of a, b one above 0"):
        Mixture(parts=parts, weights={"a": 1.0}).validate()


def test_shares_are_whole_and_near():
    assert shares(np.array([1.0, 1.0, 1.0]), 10).tolist() == [4, 3, 3]
    assert shares(np.array([0.1, 99.9]), 7).tolist() == [0, 7]


def test_a_window_keeps_blocks_together(tmp_path):
    found = write(
        tmp_path / "tokens", forms={"word": FORMS["word"]}, sizes={"train": (2 * BLOCK, 2 * BLOCK)}
    )
    source = Tokenized(path=str(found.path), window=BLOCK)
    order = opened(source, tmp_path).order("train", 0, 0)["group"]
    assert sorted(order.tolist()) == list(range(4 * BLOCK))
    for i in range(4):  # each window is one block here
        assert len({*(order[i * BLOCK : (i + 1) * BLOCK] // BLOCK).tolist()}) == 1
    assert not np.array_equal(np.sort(order[:BLOCK]), order[:BLOCK])


def test_a_folder_of_the_first_format_is_read_for_ever(tmp_path):
    """tests/fixtures/tokens_format1.zip: tests/tokens.py, two crops an example. It is never made anew."""
    fixture = Path(__file__).parents[1] / "fixtures" / "tokens_format1.zip"
    assert hashlib.sha256(fixture.read_bytes()).hexdigest().startswith("4e9d0b99c8efff44")
    zipfile.ZipFile(fixture).extractall(tmp_path)
    source = Tokenized(path=str(tmp_path / "tokens"))
    assert len(list(source.verify(EPath(tmp_path)))) == 8
    data = opened(source, tmp_path)
    assert data.fingerprint == "2b7493a696358949"
    (batch,) = read(data, "validation", steps=1, size=12)
    assert batch.ids["picture"][:3].tolist() == [[3, 7, 3, 4], [7, 2, 6, 3], [7, 7, 7, 2]]
    assert batch.length["tone"].tolist() == [4, 0, 4, 4, 4, 4, 0, 4, 4, 4, 4, 0]
    assert batch.ids["word"][0].tolist() == [266, 267, 267]
