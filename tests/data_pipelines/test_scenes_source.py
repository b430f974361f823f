"""Scenes as data: splits that share nothing, withheld combinations, absences, TFDS, and what determines what."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.scenes import MODALITIES, record
from data_pipelines.scenes.__main__ import main
from data_pipelines.scenes.builder import ScenesBuilder
from data_pipelines.scenes.determined import CHANGES, READERS, facts_of, guesses, table
from data_pipelines.scenes.drawing import FIRST, WITHHELD, draw, split_of
from data_pipelines.scenes.source import Scenes, from_row
from mm.data.built import prepare
from mm.data.form import Form
from mm.data.records import CorruptLog
from mm.data.tfds_source import Tfds
from mm.errors import UserError

SMALL = (5, 2, 2, 3)
DOCS = Path(__file__).parents[2] / "docs" / "scenes.md"


def opened(tmp_path, **settings) -> Scenes:
    source = Scenes(**{"rows": SMALL, "side": 16, **settings})
    source.open(tmp_path, CorruptLog(0))
    return source


def test_columns_are_the_records_of_their_split(tmp_path):
    source = opened(tmp_path)
    for split, rows in zip(FIRST, SMALL, strict=True):
        columns, order = source.columns(split), source.order(split, 0, 0)
        assert set(columns) == set(MODALITIES) and len(order["group"]) == rows
        assert split_of(FIRST[split]) == split == split_of(FIRST[split] + 2**40 - 1)
        expected = record(0, FIRST[split] + 1, side=16)
        for name, column in columns.items():
            assert len(column) == rows
            row = column[np.array([0, 1])][1]
            assert np.array_equal(from_row(name, row), expected[name]), name
    train, test = source.columns("train")["rgb"], source.columns("test")["rgb"]
    assert not np.array_equal(train[np.arange(2)], test[np.arange(2)])
    assert sorted(source.order("train", 0, 1)["rgb"]) == list(range(5))


def test_fingerprints_change_with_what_rows_are(tmp_path):
    marks = [
        opened(tmp_path, **settings).columns("train")["depth"].fingerprint
        for settings in ({}, {}, {"seed": 1}, {"side": 17}, {"objects": (1, 2)}, {"rows": (6, 2, 2, 3)})
    ]  # fmt: skip
    assert marks[0] == marks[1] and len(set(marks)) == 5


def test_withheld_combinations_are_in_unseen_scenes_alone():
    def pairs(split: str, count: int) -> list[set]:
        scenes = (draw(0, FIRST[split] + i, (2, 5)) for i in range(count))
        return [{(t.shape, t.colour) for t in s.things} for s in scenes]

    for split, count in {"train": 300, "validation": 60, "test": 60}.items():
        seen = set().union(*pairs(split, count))
        assert len(seen) == 24 - len(WITHHELD) and not seen & WITHHELD
    unseen = pairs("unseen", 60)
    assert all(len(p & WITHHELD) == 1 for p in unseen)
    assert set().union(*unseen) >= WITHHELD
    assert {c for _, c in WITHHELD} <= {c for _, c in set().union(*pairs("train", 300))}


def test_attributes_and_numbers_are_evenly_distributed():
    scenes = [draw(0, i, (2, 5)) for i in range(300)]
    counts = np.bincount([len(s.things) for s in scenes])[2:]
    assert counts.sum() == 300 and abs(counts - 75).max() < 25
    for name in ("size", "material", "shape"):
        _, n = np.unique([getattr(t, name) for s in scenes for t in s.things], return_counts=True)
        assert abs(n / n.mean() - 1).max() < 0.15


def test_records_lack_what_the_rates_say_more_where_they_depend(tmp_path):
    rates = {"depth": 0.3, "audio": 0.5}
    source = opened(tmp_path, rows=(300, 9, 9, 9), absent=rates, absent_by={"audio": "objects"})
    order = source.order("validation", 0, 0)
    assert (order["rgb"] >= 0).all() and len(order["audio"]) == 9
    there = source.present("train", 300)
    again = source.present("train", 100)
    assert all(np.array_equal(there[m][:100], again[m]) for m in there)
    lack = {m: 1 - there[m].mean() for m in there}
    assert abs(lack["depth"] - 0.3) < 0.08 and abs(lack["audio"] - 0.5) < 0.09 and lack["rgb"] == 0
    many = np.array([len(draw(0, i, (2, 5)).things) for i in range(300)])
    assert there["audio"][many == 2].all() and not there["audio"][many == 5].any()
    flat = opened(tmp_path, rows=(300, 9, 9, 9), absent=rates).present("train", 300)
    assert abs(flat["audio"][many == 5].mean() - 0.5) < 0.15
    assert np.array_equal(flat["depth"], there["depth"])
    assert len(source.columns("train")["audio"]) == there["audio"].sum()


def test_one_part_of_each_record_stays(tmp_path):
    source = opened(tmp_path, modalities=("rgb", "caption"), absent={"rgb": 1.0, "caption": 1.0})
    order = source.order("train", 0, 0)
    assert ((order["rgb"] >= 0) ^ (order["caption"] >= 0)).all()


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"objects": (3, 2)}, "1 <= objects <= 6"),
        ({"objects": (2, 7)}, "1 <= objects <= 6"),
        ({"rows": (0, 1, 1, 1)}, "rows >= 1"),
        ({"modalities": ("rbg",)}, "did you mean 'rgb'"),
        ({"absent": {"dept": 0.1}}, "did you mean 'depth'"),
        ({"absent": {"depth": 1.1}}, "a share is 0 .. 1"),
        ({"absent_by": {"depth": "objects"}}, "give depth a share"),
        ({"absent": {"depth": 0.1}, "absent_by": {"depth": "size"}}, "one of objects, metal"),
    ],
)
def test_wrong_settings_are_named(tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        opened(tmp_path, **settings)


def test_a_record_that_no_split_has_is_refused():
    with pytest.raises(UserError, match="no record"):
        record(0, 4 * 2**40)


def test_tfds_builds_and_reads_them(tmp_path):
    source = Scenes(rows=(2, 1, 1, 1), side=16)
    builder = prepare(functools.partial(ScenesBuilder, source=source), tmp_path)
    rows = builder.as_data_source("train")
    expected = record(0, 1, side=16)
    assert len(rows) == 2 and rows[1]["index"] == 1
    for name, kind in MODALITIES.items():
        if kind.dtype in ("text", "list", "dict"):
            assert from_row(name, rows[1][name].decode()) == expected[name]
        else:
            assert np.array_equal(rows[1][name], expected[name]), name
            assert rows[1][name].dtype == kind.dtype
    again = Tfds(
        name="scenes",
        data_dir=str(tmp_path),
        features={"image": "rgb", "text": "caption"},
        form=Form(height=16, width=16),
    )
    again.open(tmp_path / "cache", CorruptLog(0))
    assert np.array_equal(again.columns("train")["image"][np.array([1])][0], expected["rgb"])
    assert again.columns("train")["text"][np.array([1])] == [expected["caption"]]


@pytest.fixture(scope="module")
def cells():
    return table(8)


def test_what_determines_what_is_as_the_rules_of_the_world_say(cells):
    kind = lambda source, fact: cells[source][fact].kind
    assert all(kind("rgb", f) == "known" for f in ("count", "shape", "colour", "material", "light"))
    assert all(kind("rgb", f) == "open" for f in ("motion", "camera"))
    assert all(kind("video", f) == "known" for f in ("motion", "camera"))
    assert all(kind("flow", f) == "open" for f in ("colour", "material", "light", "ground"))
    for source in ("depth", "normals", "semantic", "instance", "masks", "edges"):
        assert kind(source, "colour") == kind(source, "material") == kind(source, "light") == "open"
    assert kind("albedo", "light") == "open" and kind("shading", "colour") == "open"
    assert kind("audio", "shape") == "known" and kind("audio", "colour") == "open"
    assert kind("caption", "colour") == "partly" and kind("tree", "colour") == "known"
    assert kind("metadata", "colour") == "partly"  # it changes with them, and tells none
    assert cells["metadata"]["colour"].read == 0 and cells["metadata"]["colour"].shows > 0.9
    assert kind("poses", "shape") == "partly"  # cubes from what is round
    assert kind("trajectory", "camera") == "known" and kind("trajectory", "count") == "open"
    assert set(cells) == set(MODALITIES) and all(set(row) == set(CHANGES) for row in cells.values())


@pytest.mark.parametrize("fact", CHANGES)
def test_changes_change_their_fact_and_no_other(fact):
    changed = 0
    for i in range(12):
        scene, rng = draw(0, i, (2, 5)), np.random.default_rng(i)
        if (other := CHANGES[fact](scene, rng)) is None:
            continue
        before, after = facts_of(scene), facts_of(other)
        # Who is left of whom, and so the order of what is told, may change with a place.
        values = [
            {f: sorted(map(str, np.atleast_1d(v))) for f, v in t.items()} for t in (before, after)
        ]
        free = {fact, "place", "distance"} | {"shape": {"yaw"}, "count": set(before)}.get(
            fact, set()
        )
        wrong = {f for f in before if values[0][f] != values[1][f]} - free
        assert not wrong
        changed += before != after or fact == "motion"
        assert scene != other
    assert changed >= 6


def test_readers_are_right_where_they_are_sure():
    for i in range(25):
        r = record(0, i)
        true = facts_of(r.scene)
        for source in ("boxes", "poses", "tree", "trajectory", "audio", "metadata"):
            said = READERS[source](r[source])
            assert {f: v for f, v in said.items() if v != true[f]} == {}, source


def test_guesses_know_what_shapes_and_colours_go_together():
    best = guesses(100)
    assert 1 / 6 <= best["colour"] < 0.26 and 1 / 3 <= best["shape"] < 0.43 and best["size"] < 0.58


def test_the_page_shows_this_table_and_all_modalities(cells):
    page = DOCS.read_text()
    lines = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    rows = {line[0]: line[1:] for line in lines if len(line) == len(CHANGES) + 1}
    assert set(MODALITIES) < set(rows)
    for source, row in cells.items():
        for (fact, cell), shown in zip(row.items(), rows[source], strict=True):
            # More records can only turn known or open into partly.
            if shown in ("**known**", "-"):
                assert cell.kind == {"**known**": "known", "-": "open"}[shown], (source, fact)
    assert all(f"| `{name}` |" in page for name in MODALITIES)
    assert all(f"`{name}`" in page for name in record(0, 0)["metadata"])


def test_commands_say_what_is_wrong(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["scenes", "picture"])
    with pytest.raises(UserError, match="picture"):
        main()


def test_the_speed_command_measures_whole_records(capsys, monkeypatch):
    argv = ["scenes", "speed", "--records", "3", "--processes", "1"]
    monkeypatch.setattr("sys.argv", argv)
    assert main() == 0
    assert "3 records of 64 x 64, every modality" in capsys.readouterr().out


def test_json_rows_are_plain():
    for name in ("boxes", "metadata", "palette"):
        value = record(0, 2)[name]
        assert json.loads(json.dumps(value)) == value
