"""The page of a run, as a browser would read it."""

import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

import mm
from mm.config import Data, Experiment, to_json
from mm.report import write_report
from mm.report.settings import from_defaults
from mm.report.shown import principal_plane


class Page(HTMLParser):
    """What a browser would see, and whether tags close."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.tags, self.sources, self.text = [], [], [], ""
        self.unnamed = 0  # pictures, charts and players of which a screen reader could say nothing
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [v for k, v in attrs if k in ("src", "href")]
        name = {"img": "alt", "audio": "aria-label", "svg": "aria-label"}.get(tag)
        self.unnamed += name is not None and not dict(attrs).get(name)
        if tag not in ("meta", "img", "br", "wbr"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_shows_everything_without_reaching_outside(folder):
    path = write_report(folder)
    assert path == folder / "report" / "index.html"
    page = Page(path.read_text())
    assert set(page.open) <= {"html"}  # everything else is closed
    inside = [s for s in page.sources if s.startswith("#")]
    assert inside and all(f'id="{s[1:]}"' in path.read_text() for s in inside)
    assert all(s.startswith(("data:image/", "data:audio/", "#")) for s in page.sources)
    assert "script" not in page.tags and "small & <sharp>" in page.text and not page.unnamed
    # 7 pictures, 14 sounds (input and output) and 7 texts: a sound has a picture and a player.
    # Of 7 examples beside real rows, 6 have one; each shows its input and 1 or 3 sounds.
    beside = 1 + 6 * 3
    assert page.tags.count("img") == 7 + 14 + 7 + beside
    assert page.tags.count("audio") == 14 + beside
    assert page.text.count("<b>text & ") == 7
    figures = ["91.3 [89.0, 93.0]", "0.71 / 0.86", "88.0", "coverage 0.03", "93.0 [91.0, 95.0]"]
    figures += ["417", "99.1 [98.0, 99.5]", "0.10.2", "a.b", "0.125", "pictures → sounds: size"]
    for figure in figures:
        assert figure in page.text, figure
    assert page.tags.count("circle") == 3  # validation
    assert page.tags.count("svg") == 3 + 3  # loss, lr, a cosine; a map of each kind and of all


def test_wrong_samples_are_framed_on_page_and_picture(folder):
    page = write_report(folder).read_text()
    assert (
        len(re.findall('class="tile wrong"', page)) == 2 * 2 + 1 + 2
    )  # 2 in each cell; neighbours
    sheet = np.asarray(Image.open(folder / "report" / "any_to_any.png"))
    assert (sheet == (214, 64, 50)).all(-1).any()
    assert sheet.shape[0] > 300 and sheet.shape[1] > 900


def test_the_page_is_a_function_of_the_folder(folder):
    assert write_report(folder).read_bytes() == write_report(folder).read_bytes()


def test_what_a_run_has_not_is_left_out_with_a_word(tmp_path):
    text = Page(write_report(tmp_path / "bare").read_text()).text
    assert "Retrieval · Nearest neighbours · Map of embeddings" in text
    assert "evaluators run when training is over" in text and "Settings: there is no config" in text
    assert "inputs" not in text


def test_the_top_has_the_name_the_folder_and_the_main_figures(folder):
    text = Page(write_report(folder).read_text()).text
    assert f"small & <sharp>: {folder.name}" in text.partition("Any to any")[0]
    assert "4,000 steps, 417 s of training" in text
    assert "any to any, accuracy0.913" in text and "retrieval, map0.93" in text


def test_batches_of_another_size_are_said_where_terms_depend_on_it(folder):
    config = json.loads((folder / "config.json").read_text())
    assert "larger in the larger one" not in write_report(folder).read_text()
    config["experiment"]["evals"].append({"type": "a:B", "name": "validation", "batch_size": 999})
    (folder / "config.json").write_text(json.dumps(config))
    said = "Batches are of 256 examples in training, of 999 in validation"
    assert said in Page(write_report(folder).read_text()).text


def test_what_is_missing_is_listed_with_the_reason(folder):
    config = json.loads((folder / "config.json").read_text())
    config["experiment"]["evals"] = [{"type": "mm.evals.retrieval:Retrieval", "name": "retrieval"}]
    (folder / "config.json").write_text(json.dumps(config))
    shutil.rmtree(folder / "evals")
    shutil.rmtree(folder / "samples")
    text = Page(write_report(folder).read_text()).text.partition("Not on this page")[2]
    no = "config.evals has no evaluator"
    assert f"Any to any · Real, tokenized, generated: {no} 'any_to_any'" in text
    assert f"Reconstructions: {no} 'tokenizer'" in text
    assert "Nearest neighbours · Map of embeddings: asked for, but not in the folder" in text


def test_damaged_files_do_not_stop_the_page(folder):
    (folder / "results.json").write_text('{"any_to_any": ')
    (folder / "samples" / "3.wav").write_bytes(b"RIFF")
    (folder / "samples" / "4.png").write_bytes(b"")
    with (folder / "metrics.jsonl").open("ab") as f:
        f.write(b'\n{"step": 70, "loss": \xff}\n{"step": 80, "loss": 0.0625}\n')
    text = Page(write_report(folder).read_text()).text
    # The sound is shown as input, output, real, tokenized and generated; the picture twice as given.
    assert text.count("(unreadable)") == (2 + 3) + 2
    assert "results.json cannot be read" in text and "not finished" not in text
    assert "Generation · Retrieval · Tokenizers · Judges · Training · Versions" in text
    assert "metrics.jsonl: 2 of 6 lines cannot be read (the first is line 4)" in text
    assert "loss last: 0.0625" in text


DAMAGED = {
    "samples/samples.json": b'{"rows": [',
    "evals/retrieval/neighbours.json": b"[]",
    "evals/retrieval/reconstructions.json": b"\xff\xfe",
    "evals/retrieval/embeddings.npz": b"PK\x03\x04 cut",
    "config.json": b'{"experiment": {',
    "metrics.jsonl": b"\x00\x01",
}


@pytest.mark.parametrize("name", list(DAMAGED))
def test_a_damaged_file_takes_its_own_part_with_it_and_no_other(folder, name):
    whole = Page(write_report(folder).read_text()).text
    (folder / name).write_bytes(DAMAGED[name])
    text = Page(write_report(folder).read_text()).text
    assert "cannot be read" in text or "are damaged" in text
    figures = ["91.3 [89.0, 93.0]", "93.0 [91.0, 95.0]", "0.10.2"]
    assert all(f in text and f in whole for f in figures)


def test_a_file_that_is_cut_anywhere_never_stops_the_page(folder):
    for name in (
        "results.json",
        "config.json",
        "samples/samples.json",
        "evals/retrieval/embeddings.npz",
    ):
        content = (folder / name).read_bytes()
        for end in range(0, len(content), len(content) // 7):
            (folder / name).write_bytes(content[:end])
            assert "</html>" in write_report(folder).read_text()
        (folder / name).write_bytes(content)


def test_what_the_command_line_changed_stands_beside_the_file(folder):
    text = Page(write_report(folder).read_text()).text
    assert "Changed on the command line; the file is configs/small.py:arg" in text
    assert "optim.lr0.0010.0005" in text
    assert "steps10004000" in text  # a field's default, and the run's


def test_a_run_that_is_not_finished_says_so_and_shows_its_curves(folder):
    (folder / "results.json").unlink()
    text = Page(write_report(folder).read_text()).text
    assert "not finished (step 40 of 4,000 is the last that was logged" in text
    assert "loss last: 0.125, 0.15" in text and "Training · Versions and machine" in text


@pytest.mark.parametrize(
    ("version", "said"), [("0.0.9", "Written by mm 0.0.9"), (None, "does not say which")]
)
def test_a_run_of_another_version_says_so_and_shows_the_rest(folder, version, said):
    config = json.loads((folder / "config.json").read_text())
    config = {k: v for k, v in config.items() if k != "version"} | (
        {"version": version} if version else {}
    )
    (folder / "config.json").write_text(json.dumps(config))
    results = json.loads((folder / "results.json").read_text())
    results["any_to_any"]["pictures->sounds"] = {"right": 0.9}
    results["train"]["versions"] = {"jax": "0.10.2"}
    (folder / "results.json").write_text(json.dumps(results))
    text = Page(write_report(folder).read_text()).text
    assert said in text and f"made by mm {mm.__version__}" in text
    assert f"a form that mm {mm.__version__} does not read" in text and "93.0 [91.0, 95.0]" in text
    results["train"]["evaluated_by"] = mm.__version__
    (folder / "results.json").write_text(json.dumps(results))
    text = Page(write_report(folder).read_text()).text
    assert "may miss parts" not in text and f"evaluated by mm {mm.__version__}" in text


def test_defaults_and_required_fields_are_told_apart():
    exp = to_json(Experiment(name="x", task=None, data=Data(source=None, batch_size=8)))
    found = dict(from_defaults(exp | {"optim": exp["optim"] | {"lr": 0.5}}))
    assert found["data.batch_size"] == (256, 8) and found["optim.lr"] == (1e-3, 0.5)
    assert (
        found["name"] == ("(no default)", "x") and "optim.b1" not in found and "steps" not in found
    )
    assert dict(from_defaults({"type": "nowhere:Gone", "a": 1})) == {"a": ("(no default)", 1)}


def test_the_plane_is_that_of_the_largest_variance():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(300, 6)) * [0.1, 5, 0.1, 0.1, 3, 0.1]
    plane, share = principal_plane(z)
    assert share > 0.99
    for i, axis in enumerate((1, 4)):
        assert np.corrcoef(plane[:, i], z[:, axis])[0, 1] > 0.97
    assert np.allclose(principal_plane(z[::-1])[0][::-1], plane)
