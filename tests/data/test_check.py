"""--mode=check-data says what is there, names what cannot be read, and works for any source."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from PIL import Image

from mm import config
from mm.data import check
from mm.main import main
from tests.own_data import make_folder
from tests.toy import Toy

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checked(tmp_path, capsys):
    """Runs the mode on a folder of 40 stems, after `damage`; returns (exit code, stdout, stderr)."""
    folder = make_folder(tmp_path / "data", 40)
    text = (ROOT / "configs" / "my_data.py").read_text()
    (tmp_path / "c.py").write_text(text.replace('"my_data"', repr(str(folder))))
    arguments = ["--mode=check-data", "--config", str(tmp_path / "c.py")]
    arguments += ["--workdir", str(tmp_path / "run"), "--config.data.source.test=20"]
    arguments += ["--config.data.source.validation=20"]

    def run(*more: str) -> tuple[int, str, str]:
        code = main(["mm", *arguments, *more])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_counts_lengths_ranges_and_ten_examples(checked, tmp_path):
    code, out, err = checked("--out", str(tmp_path / "examples"))
    assert code == 0 and not err
    assert "40 stems, 3 have no image ('s003', ..), 4 have no audio ('s009', ..)" in out
    splits = re.findall(r"^(\w+): (\d+) examples, 4 groups$", out, re.MULTILINE)
    assert [s for s, _ in splits] == ["train", "validation", "test"]
    assert sum(int(n) for _, n in splits) == 40
    assert "uint8[32, 32, 3]; 60 / 60 / 60 pixels wide" in out
    assert "float32[8000]; 0.6 / 0.6 / 0.6 seconds" in out and "values -0.9 .. 0.9" in out
    assert re.search(r"text: \d+ rows, in every example; texts, 5 different ones; 12 / ", out)
    examples = re.findall(r"^  \d: group \d, image (\S+), audio (\S+), text '(.+)'$", out, re.M)
    assert len(examples) == 10
    for image, audio, text in examples:
        assert re.match("a (red|blue) (circle|square)|one circle, all red", text)
        assert image == "-" or Image.open(image).size == (256, 256)
        assert audio == "-" or len(soundfile.read(audio)[0]) == 8000
    assert not (tmp_path / "run").exists()  # nothing is trained, nothing is claimed


def test_all_unreadable_files_are_named(checked, tmp_path):
    data, bad = tmp_path / "data", []
    for stem in ("s000", "s001", "s002"):
        bad.append(data / "audio" / f"{stem}.wav")
        soundfile.write(bad[-1], np.zeros(0), 8000)
    bad.append(data / "images" / "s001.png")
    bad[-1].write_bytes(bad[-1].read_bytes()[:-40])
    code, out, err = checked()
    assert code == 2 and err.count("\n") == 1 and "4 files or records cannot be used" in err
    assert all(str(path) in out for path in bad)
    assert "10 examples of train" in out


def test_a_folder_without_anything_readable_still_names_it(checked, tmp_path):
    for path in (tmp_path / "data" / "audio").iterdir():
        path.write_bytes(b"")
    code, out, err = checked()
    assert code == 2 and err.count("\n") == 1 and "s000.wav: the file is empty" in out


def test_any_source(tmp_path):
    said = "\n".join(check.lines(config.Data(source=Toy(rows=30)), tmp_path, tmp_path / "out"))
    assert "train: 30 examples, 30 groups" in said and "x: 30 rows, in every example" in said
    points = Toy(rows=30).columns("train")["x"].rows
    assert f"values {points.min():.4g} .. {points.max():.4g}" in said
    assert len(list((tmp_path / "out").glob("*.npy"))) == 10
    shutil.rmtree(tmp_path / "out")
    broken = "\n".join(check.lines(config.Data(source=Toy(broken=3)), tmp_path, None))
    assert "NOT FINITE" in broken and not (tmp_path / "out").exists()


def test_rows_are_looked_at_as_a_tokenizers_settings_say(tmp_path):
    """Those of the task that is to be trained; an array of no known form stays one."""
    network = SimpleNamespace(picture=lambda row: np.uint8(40 * row.clip(0, 5)).reshape(2, 2))
    task = SimpleNamespace(column="x", network=network)
    data = config.Data(source=Toy(rows=30))
    said = "\n".join(check.lines(data, tmp_path, tmp_path / "out", task))
    assert f"x {tmp_path / 'out' / '3-x.png'}" in said
    assert Image.open(tmp_path / "out" / "3-x.png").size == (16, 16)
    task.column = "y"
    said = "\n".join(check.lines(data, tmp_path, tmp_path / "arrays", task))
    assert f"x {tmp_path / 'arrays' / '3-x.npy'}" in said
