"""A folder of one's own: what belongs together, what is refused in one line, what is read when."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mm.data.folder import Folder
from mm.data.form import Form
from mm.data.records import CorruptLog
from mm.errors import UserError
from mm.main import main
from tests.own_data import make_folder

ROOT = Path(__file__).parents[2]
FORM = Form(height=16, width=20, rate=8000, length=4000)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return make_folder(tmp_path_factory.mktemp("own") / "data", 60)


@pytest.fixture
def folder(made, tmp_path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(made, tmp_path / "data"))


def opened(path: Path, **settings) -> Folder:
    settings = {"form": FORM, "validation": 20.0, "test": 20.0} | settings
    source = Folder(path=str(path), **settings)
    source.open(path / "cache", CorruptLog(0))
    return source


def captions(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (path / "captions.jsonl").read_text().splitlines():
        entry = json.loads(line)
        found.setdefault(entry.get("stem") or entry["file"][:-4], []).append(entry["caption"])
    return found


def test_parts_of_an_example_are_those_of_its_stem(made):
    source, wanted, seen = opened(made), captions(made), []
    for split in ("train", "validation", "test"):
        columns = source.columns(split)
        stems = [s for s in sorted(wanted) if source.split_of(s) == split]
        order = source._splits[split].order(None)
        assert len(order["group"]) == len(stems) > 0
        for i, stem in enumerate(stems):
            image, audio, text = (int(order[m][i]) for m in ("image", "audio", "text"))
            assert columns["text"][np.array([text])] == wanted[stem][:1]
            assert (image < 0) == (not list((made / "images").glob(f"{stem}.*")))
            assert (audio < 0) == (not (made / "audio" / f"{stem}.wav").exists())
            if image >= 0:
                pixels = columns["image"][np.array([image])][0]
                assert pixels.shape == (16, 20, 3) and pixels.dtype == np.uint8
                red, blue = pixels[8, 10, 0], pixels[8, 10, 2]
                assert (red > blue) == ("red" in wanted[stem][0])
            if audio >= 0:
                wave = columns["audio"][np.array([audio])][0]
                assert wave.shape == (4000,) and wave.dtype == np.float32
                pitch = np.abs(np.fft.rfft(wave)).argmax() * 8000 / 4000
                assert (pitch > 800) == ("red" in wanted[stem][0])
        seen += stems
    assert len(seen) == 60


def test_training_draws_one_of_several_captions_and_shuffles(made):
    source = opened(made)
    epochs = [source.order("train", 3, e) for e in range(8)]
    again = source.order("train", 3, 2)
    assert all(np.array_equal(again[k], epochs[2][k]) for k in again)
    assert not np.array_equal(epochs[0]["image"], epochs[1]["image"])
    drawn = np.unique(np.concatenate([e["text"] for e in epochs]))
    assert len(drawn) > len(epochs[0]["text"])  # second captions among them
    assert set(np.unique(epochs[0]["group"])) == {0, 1, 2, 3}


def test_a_stem_stays_in_its_split_and_without_a_label_is_a_group_of_its_own(folder):
    before = {s: opened(folder).split_of(s) for s in captions(folder)}
    lines = [{"stem": s, "caption": "a thing"} for s in before]
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (folder / "images" / "sub").mkdir()
    shutil.copy(folder / "images" / "s000.jpg", folder / "images" / "sub" / "s000.jpg")
    source = opened(folder)
    assert {s: source.split_of(s) for s in before} == before
    groups = [source.order(s, 0, 0)["group"] for s in ("train", "validation", "test")]
    assert len(np.unique(np.concatenate(groups))) == 61


def test_a_fingerprint_follows_contents_and_form_not_times(folder):
    mark = lambda **s: opened(folder, **s).columns("train")["audio"].fingerprint
    first = mark()
    for path in (folder / "audio").iterdir():
        os.utime(path, (1, 1))
    assert mark() == first != mark(form=Form(height=16, width=20, length=4800))
    path = next(p for p in sorted((folder / "audio").iterdir()) if opened(folder).split_of(p.stem) == "train")  # fmt: skip
    wave, rate = soundfile.read(path)
    soundfile.write(path, wave[::-1], rate)  # of the same size
    assert mark() != first


def refused(path: Path, **settings) -> str:
    with pytest.raises(UserError) as e:
        opened(path, **settings)
    assert "\n" not in str(e.value)
    return str(e.value)


def test_what_is_wrong_is_named_in_one_line(folder):
    lines = (folder / "captions.jsonl").read_text()
    for wrong, says in {
        '{"stem": "s0000", "caption": "a"}': "line 1: no file has the stem 's0000'; did you mean",
        '{"stem": "s000"}': "line 1: needs a stem and a caption",
        '"s000"': "line 1: needs a stem and a caption",
        "s000: a circle": "line 1: not JSON",
        '{"stem": "s000", "caption": "a", "label": "no"}': "label 'red circle', but an earlier",
    }.items():
        (folder / "captions.jsonl").write_text(wrong + "\n" + lines)
        assert says in refused(folder)
    (folder / "captions.jsonl").write_text(lines)
    shutil.copy(folder / "images" / "s000.jpg", folder / "images" / "s000.png")
    assert "the stem 's000' is that of s000.jpg too" in refused(folder)
    (folder / "images" / "s000.png").unlink()
    assert "none of them in the split 'test'" in refused(folder, test=0.001)
    assert "no such folder" in refused(folder / "none")
    shutil.rmtree(folder / "audio")
    pictures = {path.stem for path in (folder / "images").iterdir()}
    kept = [line for line in lines.splitlines() if any(stem in line for stem in pictures)]
    (folder / "captions.jsonl").write_text("\n".join(kept))
    assert "take 'audio' out of" in refused(folder)
    assert opened(folder, modalities=("image", "text")).modalities == ("image", "text")


def test_stems_that_nothing_shares_are_refused(folder):
    (folder / "captions.jsonl").unlink()
    for path in list((folder / "audio").iterdir()):
        path.rename(path.with_name("take-" + path.name))
    said = refused(folder, modalities=("image", "audio"))
    assert "no two modalities share a stem ('s000' in images, 'take-s000' in audio)" in said
    assert opened(folder, modalities=("image",)).modalities == ("image",)


def three_hours(path: Path) -> None:
    """A whole file of three hours at 48 kHz; its zeros are a hole that takes no room on the disk."""
    soundfile.write(path, np.zeros(8, np.int16), 48_000)
    head, frames = bytearray(path.read_bytes()[:44]), 3 * 3600 * 48_000
    head[4:8], head[40:44] = ((2 * frames + n).to_bytes(4, "little") for n in (36, 0))
    path.write_bytes(head)
    os.truncate(path, 44 + 2 * frames)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: soundfile.write(path, np.zeros(0), 8000), "has no samples (0 s)"),
        (three_hours, "longer than 60 s (10,800 s)"),
        (lambda path: path.write_bytes(b""), "is empty (0 bytes)"),
    ],
)
def test_a_recording_of_0_s_or_3_hours_through_the_real_entry(folder, tmp_path, make, says):
    config = tmp_path / "c.py"
    text = (ROOT / "configs" / "my_data.py").read_text()
    config.write_text(text.replace('"my_data"', repr(str(folder))))
    # A shell between: a process begins with its parent's peak of memory, and this one may be large.
    command = [
        "sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-c",
        "import resource, sys; from mm.main import main; code = main(sys.argv);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024); sys.exit(code)",
        "--config", f"{config}:audio", "--workdir", str(tmp_path / "run"),
    ]  # fmt: skip
    bad = folder / "audio" / "s003.wav"
    make(bad)
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"mm: {bad}: ") and says in done.stderr
    assert int(done.stdout.split()[-1]) < 900  # MiB; the three hours are 990


def test_damage_that_shows_when_it_is_decoded_is_named_and_replaced(folder, capfd):
    path = folder / "images" / "s001.png"
    path.write_bytes(path.read_bytes()[:-40])
    source = Folder(path=str(folder), form=FORM, validation=20.0, test=20.0)
    log = CorruptLog(1)
    source.open(folder / "cache", log)
    column = source.columns(source.split_of("s001"))["image"]
    assert column[np.arange(len(column))].shape == (len(column), 16, 20, 3)
    assert log.count == 1 and f"{path}: unreadable (a damaged picture" in capfd.readouterr().err


def test_rows_of_another_shape_than_the_network_takes(folder, tmp_path, capsys):
    text = (ROOT / "configs" / "my_data.py").read_text()
    (tmp_path / "c.py").write_text(text.replace('"my_data"', repr(str(folder))))
    small = ["--config.data.source.test=20", "--config.data.source.validation=20"]
    small += ["--config.data.source.form.height=16", "--config.steps=1", "--config.optim.warmup=0"]
    assert main(["mm", "--config", f"{tmp_path / 'c.py'}:image", f"--workdir={tmp_path / 'r'}", *small]) == 2  # fmt: skip
    said = capsys.readouterr().err
    assert "takes rows uint8[32, 32, 3], those of 'image' are uint8[16, 32, 3]" in said
