import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from mm.report import write_report

CELL = {
    "accuracy": 0.913, "interval": [0.89, 0.93], "samples": 1000, "inputs": 300,
    "source_rows": "clean",
    "coverage": 0.71, "coverage_real": 0.86, "coverage_ratio": 0.826, "diversity": 1.1,
    "diversity_real": None, "frechet": 0.02, "frechet_real": 0.01, "nearest_train": 0.5,
    "nearest_train_real": 0.6,
    "baselines": {"class_mean_item": {"accuracy": 0.88, "coverage": 0.03}},
    "facts": {
        "mean": 0.7, "interval": [0.6, 0.8], "mean_most_frequent": 0.4, "all": 0.5,
        "each": {"size": {"accuracy": 0.7, "interval": [0.6, 0.8], "most_frequent": 0.4}},
    },
}  # fmt: skip
RETRIEVAL = {
    "map": 0.93, "interval": [0.91, 0.95], "r1": 0.9, "r5": 0.97, "r10": 0.98, "queries": 300,
    "gallery": 2000, "chance": {"map": 0.1, "r1": 0.1, "r5": 0.4, "r10": 0.6},
}  # fmt: skip


class Page(HTMLParser):
    """What a browser would see, and whether tags close."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.tags, self.sources, self.text = [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [v for k, v in attrs if k in ("src", "href")]
        if tag not in ("meta", "img", "circle", "polyline"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "samples").mkdir()
    for i in range(7):
        Image.fromarray(np.full((9, 9), 30 * i, np.uint8)).save(tmp_path / f"samples/{i}.png")
        tone = np.sin(np.arange(4000) * 0.1 * (i + 1))
        soundfile.write(tmp_path / f"samples/{i}.wav", tone, 8000, subtype="PCM_16")
        (tmp_path / f"samples/{i}.txt").write_text(f"<b>text & {i}")
    files = {k: [f"{i}.{k}" for i in range(7)] for k in ("png", "wav", "txt")}
    rows = [
        {"source": a, "target": b, "source_files": files[x], "files": files[y],
         "group": [1] * 7, "recognised": [1, 1, 2, 1, 1, -1, 1]}
        for a, x, b, y in (("pictures", "png", "sounds", "wav"), ("sounds", "wav", "words", "txt"))
    ]  # fmt: skip
    (tmp_path / "samples/samples.json").write_text(json.dumps({"rows": rows}))
    results = {
        "any_to_any": {"pictures->sounds": CELL},
        "retrieval": {"pictures->sounds": RETRIEVAL, "none->at all": {"queries": 0, "gallery": 3}},
        "judge": {"pictures": {"real": 0.991, "real_interval": [0.98, 0.995]}},
        "tokenizer": {"pictures": {"fingerprint": "abc", "psnr_db": None}},
        "train": {"steps": 4000, "seconds": 417.2, "versions": {"jax": "0.10.2"}},
        "something new": {"a": {"b": 0.125}},
    }
    (tmp_path / "results.json").write_text(json.dumps(results))
    settings = {"fingerprint": "f", "experiment": {"name": "small & <sharp>", "steps": 4000}}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    lines = [{"step": s, "loss": 5 / s, "lr": 1e-3, "validation/loss": 6 / s} for s in (1, 20, 40)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text + '{"step": 60, "lo')
    return tmp_path


def test_the_page_shows_everything_without_reaching_outside(folder):
    path = write_report(folder)
    assert path == folder / "report" / "index.html"
    page = Page(path.read_text())
    assert set(page.open) <= {"html"}  # everything else is closed
    assert page.sources and all(s.startswith("data:") for s in page.sources)
    assert "script" not in page.tags and "small & <sharp>" in page.text
    # 7 pictures, 14 sounds (input and output) and 7 texts: a sound has a picture and a player
    assert page.tags.count("img") == 7 + 14 and page.tags.count("audio") == 14
    assert page.text.count("<b>text & ") == 7
    figures = ["91.3 [89.0, 93.0]", "0.71 / 0.86", "88.0 cov. 0.03", "93.0 [91.0, 95.0]", "417"]
    figures += ["[0.98, 0.995]", "0.10.2", "a.b", "0.125", "pictures->sounds: size"]
    for figure in figures:
        assert figure in page.text, figure
    assert page.tags.count("svg") == 2 and page.tags.count("circle") == 3  # loss, lr; validation


def test_wrong_samples_are_framed_on_page_and_picture(folder):
    page = write_report(folder).read_text()
    assert len(re.findall('class="tile wrong"', page)) == 2 * 2
    sheet = np.asarray(Image.open(folder / "report" / "any_to_any.png"))
    assert (sheet == (214, 64, 50)).all(-1).any()
    assert sheet.shape[0] > 300 and sheet.shape[1] > 900


def test_the_page_is_a_function_of_the_folder(folder):
    assert write_report(folder).read_bytes() == write_report(folder).read_bytes()


def test_what_a_run_has_not_is_left_out_with_a_word(tmp_path):
    text = Page(write_report(tmp_path / "bare").read_text()).text
    assert "This run has no samples" in text and "retrieval figures" in text
    assert "Generation" not in text


def test_damaged_files_do_not_stop_the_page(folder):
    (folder / "results.json").write_text('{"any_to_any": ')
    (folder / "samples" / "3.wav").write_bytes(b"RIFF")
    (folder / "samples" / "4.png").write_bytes(b"")
    text = Page(write_report(folder).read_text()).text
    assert text.count("(unreadable)") == 2 + 1 and "generation figures" in text
