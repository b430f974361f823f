"""--mode=tokenize: what it writes is what the tokenizers say, whoever was killed meanwhile."""

import dataclasses
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from etils.epath import Path as EPath

from mm import config
from mm.data.crops import Crops
from mm.data.opened import open_data
from mm.data.tokenized import Tokenized
from mm.errors import UserError
from mm.main import main
from mm.pipeline import run
from mm.pipeline.plan import Wanted
from tests import tokens
from tests.fixtures import tiny

HERE = run.Means(run.HERE)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def fixture(tmp_path_factory) -> Path:
    return tokens.unpacked(tmp_path_factory.mktemp("fixture"))


def flags(fixture: Path, out: Path) -> list[str]:
    return [
        "--mode=tokenize", f"--config={ROOT}/tests/tokens_config.py:{fixture}", f"--out={out}", "--shard_size=10",
        "--runner=here", f"--workdir={out.parent / 'run'}",
    ]  # fmt: skip


def make(exp: config.Experiment, out: Path, wanted: Wanted = Wanted(shard_size=10)) -> list[str]:  # noqa: B008
    return list(run.tokenize(exp, EPath(out), EPath(out.parent / "cache"), wanted, HERE))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def whole(fixture, tmp_path_factory) -> Path:
    """A folder that was made without a disturbance."""
    out = tmp_path_factory.mktemp("whole") / "tokens"
    make(tokens.get_config(str(fixture)), out)
    return out


def test_batches_are_those_of_data_that_is_tokenized_at_the_start(fixture, whole, tmp_path):
    exp = tokens.get_config(str(fixture))
    direct = open_data(exp.data, EPath(tmp_path))
    disk = open_data(
        dataclasses.replace(exp.data, source=Tokenized(path=str(whole))), EPath(tmp_path)
    )
    assert disk.space == direct.space
    (a,), (b,) = (
        list(d.batches("validation", seed=0, start=0, steps=1, batch_size=12))
        for d in (direct, disk)
    )
    for name in tiny.NAMES:
        for field in ("ids", "length", "present"):
            assert np.array_equal(getattr(a, field)[name], getattr(b, field)[name]), (name, field)
    assert np.array_equal(a.group, b.group) and not a.present["tone"].all()
    # Of training, stored example i is the source's example i: the same rows, in an order of their own.
    rows, table = direct.order("train", 0, 0), direct.tokens("train")
    for name in tiny.NAMES:
        there = np.flatnonzero(rows[name] >= 0)
        assert np.array_equal(
            disk.tokens("train")[name].take(there)[0], table[name].take(rows[name][there])[0]
        )
        assert np.array_equal(disk.source._splits["train"].present[name], rows[name] >= 0)


def test_the_manifest_says_what_is_there(fixture, whole):
    said = json.loads((whole / "manifest.json").read_text())
    exp = tokens.get_config(str(fixture))
    marks = {
        n: t.fingerprint
        for n, t in open_data(exp.data, EPath(whole.parent), rows=False).tokenizers.items()
    }
    assert {n: m["tokenizer"] for n, m in said["modalities"].items()} == marks
    assert said["splits"]["train"]["present"] == {"picture": 48, "tone": 38, "word": 41}
    assert [s["examples"] for s in said["splits"]["train"]["shards"]] == [9, 10, 9, 10, 10]
    assert (
        said["plan"]["licence"] == "not said by the source"
        and said["modalities"]["tone"]["licence"]
    )
    assert {p.name for p in whole.iterdir()} == {"manifest.json", "train", "validation", "test"}


@pytest.mark.parametrize("at", [9, pytest.param((1, 2, 7, 7, 7, 7), marks=pytest.mark.slow)])
def test_killed_it_goes_on_to_the_same_bytes(fixture, whole, tmp_path, at):
    """At a renaming of a file, before it is done: the worst moment there is."""
    out, started = tmp_path / "tokens", flags(fixture, tmp_path / "tokens")
    for n in at if isinstance(at, tuple) else (at,):
        killed = subprocess.run(
            [sys.executable, "-m", "tests.tokens", str(n), *started], cwd=ROOT, capture_output=True
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert not (out / "manifest.json").exists()
        with pytest.raises(UserError, match="where that was stopped, run it again"):
            assert Tokenized(path=str(out)).forms
    done = len(list((out / "parts").glob("*.json")))
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*.array_record")}
    said = make(tokens.get_config(str(fixture)), out)
    assert any(f"continues, {9 - done} shards are left" in line for line in said) == (0 < done < 9)
    kept = sum(p.stat().st_mtime_ns == t for p, t in before.items())
    assert kept >= 3 * done  # what was finished is not made again
    assert contents(out) == contents(whole)


def test_a_finished_folder_stays_and_other_settings_are_refused(fixture, whole):
    exp, before = tokens.get_config(str(fixture)), contents(whole)
    assert "finished before" in make(exp, whole)[0]
    with pytest.raises(
        UserError, match=r"other settings \(shard_size: 10 there, 11 now\); use another --out"
    ):
        make(exp, whole, Wanted(shard_size=11))
    exp.data.source = tokens.Gappy(modalities=("picture", "tone"))
    exp.data.tokenizers.pop("word")
    with pytest.raises(UserError, match="other settings"):
        make(exp, whole)
    assert contents(whole) == before
    with pytest.raises(UserError, match="exists and is no folder of tokens"):
        make(exp, whole.parent)


def test_a_row_that_is_no_number_is_named_and_nothing_is_half_written(fixture, tmp_path):
    exp = tokens.get_config(str(fixture))
    exp.data.source.spoilt = 31
    with pytest.raises(UserError, match=r"tone/train, row 31: has the value nan; mend it"):
        make(exp, tmp_path / "tokens")
    left = contents(tmp_path / "tokens")
    assert "manifest.json" not in left and not [name for name in left if name.endswith(".partial")]
    # The same folder can be finished once the row is mended: other rows, so it is another plan.
    exp.data.source.spoilt = -1
    with pytest.raises(UserError, match="other settings"):
        make(exp, tmp_path / "tokens")


def test_rows_of_another_form_are_named(fixture, tmp_path):
    exp = tokens.get_config(str(fixture))
    exp.data.tokenizers = {"picture": exp.data.tokenizers["picture"]}
    exp.data.source = Coloured()
    with pytest.raises(
        UserError,
        match=r"picture/train, row \d+: rows of 'picture' are uint8\[n, 8, 8\], not uint8\[1, 8, 8, 3\]",
    ):
        make(exp, tmp_path / "tokens")  # fmt: skip


@dataclasses.dataclass(kw_only=True)
class Coloured(tiny.Tiny):
    """Pictures of three channels, for a tokenizer of one."""

    modalities: tuple[str, ...] = ("picture",)

    def columns(self, split):
        found = super().columns(split)
        found["picture"].rows = np.repeat(found["picture"].rows[..., None], 3, -1)
        return found


def test_crops_are_shared_numbered_and_of_training_alone(fixture, tmp_path):
    exp = tokens.get_config(str(fixture))
    exp.data.crops = crops = Crops(count=2, pictures=("picture",), flip=True)
    make(exp, tmp_path / "tokens", Wanted(shard_size=10, passes=2))
    with pytest.raises(UserError, match="are made by --mode=tokenize alone"):
        open_data(exp.data, EPath(tmp_path))
    data = dataclasses.replace(
        exp.data, source=Tokenized(path=str(tmp_path / "tokens")), crops=None
    )
    disk, n = open_data(data, EPath(tmp_path)), tiny.ROWS["train"]
    assert [len(disk.order(s, 0, 0)["group"]) for s in ("train", "validation")] == [4 * n, 12]
    orders = [tokens.Gappy().order("train", 0, epoch) for epoch in (0, 1)]
    source = {name: np.concatenate([o[name] for o in orders]) for name in orders[0]}
    for i in (0, 1, 2 * n - 1, 2 * n, 4 * n - 1):
        example, k = divmod(i, 2)
        box = crops.draw(0, np.array([example]))[0, [k]]
        picture = tiny.pictures(source["picture"][[example]])
        wanted, _ = disk.tokenizers["picture"].encode(crops.cropped("picture", picture, box))
        assert np.array_equal(disk.tokens("train")["picture"].take(np.array([i]))[0], wanted)
        if (row := source["word"][example]) >= 0:
            wanted, _ = disk.tokenizers["word"].encode([tiny.WORDS[row % 3]])
            assert np.array_equal(disk.tokens("train")["word"].take(np.array([i]))[0], wanted)


@pytest.mark.parametrize(
    "args, said",
    [
        (["--mode=tokenize"], "needs --config FILE and --out FOLDER"),
        (["--workers=0"], "--workers=0: must be positive"),
        (["--shard_size=0"], "must be positive"),
        (["--runner=DirectRunner"], "the extra `beam`"),
    ],
)
def test_what_cannot_be_meant_is_one_line(fixture, tmp_path, capsys, args, said):
    if "--runner=DirectRunner" in args and run.importlib.util.find_spec("apache_beam"):
        pytest.skip("Beam is installed")
    whole = args if args[0].startswith("--mode") else [*flags(fixture, tmp_path / "x"), *args]
    assert main(["mm", *whole]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1 and not (tmp_path / "x").exists()
