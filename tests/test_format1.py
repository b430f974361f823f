"""What mm 0.1.0 wrote is read for ever: the files of tests/fixtures/format1.zip, as they were committed then."""

import hashlib
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

import mm
from mm import artefact, config, workdir
from mm.errors import UserError
from mm.main import main
from mm.report import reference, write_report
from mm.report.files import read_run
from mm.tasks import judge
from mm.train import Trainer
from tests.fixtures import tiny

FIXTURE = Path(__file__).parent / "fixtures" / "format1.zip"
SHA256 = "3d2295e239a423da"


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A copy, in which paths of artefacts mean what they meant."""
    zipfile.ZipFile(FIXTURE).extractall(tmp_path)
    monkeypatch.chdir(tmp_path / "format1")
    return tmp_path / "format1"


def newer(path: Path) -> None:
    """Makes a JSON file one of the next format."""
    value = json.loads(path.read_text())
    assert value["format_version"] == workdir.FORMAT_VERSION
    path.write_text(json.dumps(value | {"format_version": workdir.FORMAT_VERSION + 1}))


def test_it_is_what_was_committed():
    """It is never made anew: a file that has to change to be read is a broken promise."""
    assert hashlib.sha256(FIXTURE.read_bytes()).hexdigest().startswith(SHA256)


@pytest.mark.parametrize("path", [pytest.param("", marks=pytest.mark.slow), "model.safetensors"])
def test_a_model_answers_as_it_did(folder, path):
    expected = json.loads((folder / "expected.json").read_text())[path]
    found = tiny.answers(mm.load(folder / "run" / path), [("picture", "word"), ("word", "tone")])
    assert found["tokens"] == expected["tokens"]
    for name, ids in found["made"].items():
        assert ids == expected["made"][name]
    for what in ("embedding", "fused", "score"):
        for value, then in zip(leaves(found[what]), leaves(expected[what]), strict=True):
            np.testing.assert_allclose(value, then, atol=1e-4)


def leaves(value):
    return list(value.values()) if isinstance(value, dict) else [value]


def test_a_judge_and_the_card_of_a_model(folder):
    rows = np.arange(200, 206)
    found = judge.load(folder / "judge.safetensors").predict(tiny.pictures(rows))
    assert found.tolist() == (rows % 3).tolist()
    card = artefact.read(folder / "run/model.safetensors")[0]["card"]
    assert card["seed"] == 0 and card["step"] == 120 and card["card"].startswith("A model of")
    assert any(name.endswith(".accuracy") for name in card["figures"])


@pytest.mark.slow
def test_a_run_trains_on(folder):
    run = folder / "run"
    exp = workdir.experiment(run, whole=True)
    exp.steps, exp.evals = exp.steps + 2, ()
    trainer = Trainer(exp, run)
    assert trainer.checkpoints.latest() == 120
    assert trainer.train()
    assert trainer.checkpoints.latest() == 122
    trainer.checkpoints.close()
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps[-1] == 122 and 120 in steps


@pytest.mark.slow
def test_a_run_is_evaluated_again(folder):
    before = workdir.read_json(folder / "run/results.json")
    assert main(["mm", "--mode=evaluate", f"--workdir={folder / 'run'}"]) == 0
    after = workdir.read_json(folder / "run/results.json")
    assert after.keys() == before.keys()
    for name, cell in before["any_to_any"].items():
        assert after["any_to_any"][name]["accuracy"] == pytest.approx(cell["accuracy"], abs=1e-4)


def test_the_same_experiment_goes_on_in_its_folder(folder):
    """Fields that are younger than it have their defaults."""
    saved = config.from_json(workdir.read_json(folder / "run" / "config.json")["experiment"])
    assert saved.data.tokenizers["word"].startswith("tokenizers/word.safetensors#")
    workdir.claim(folder / "run", saved)


def test_its_page_and_its_reference(folder):
    page = write_report(folder / "run").read_text()
    for title in (
        "Any to any",
        "Nearest neighbours",
        "Map of embeddings",
        "Reconstructions",
        "Curves",
    ):
        assert f">{title}</h2>" in page
    assert "does not read" not in page and "newer" not in page
    remarks, drifts = reference.against(read_run(folder / "run"), folder / "tiny.json")
    assert not drifts and "terms compared" in remarks[-1]


def test_no_format_is_format_1(tmp_path):
    (tmp_path / "x.json").write_text('{"a": 1}')
    assert workdir.read_json(tmp_path / "x.json") == {"a": 1}
    workdir.write_json(tmp_path / "y.json", {"a": 1})
    assert json.loads((tmp_path / "y.json").read_text()) == {"format_version": 1, "a": 1}
    assert workdir.read_json(tmp_path / "y.json") == {"a": 1}


@pytest.mark.parametrize(
    "name",
    ["config.json", "results.json", "samples/samples.json", "evals/retrieval/neighbours.json"],
)
def test_the_page_says_which_part_a_newer_mm_wrote(folder, name):
    newer(folder / "run" / name)
    page = write_report(folder / "run").read_text()
    assert "written by a newer mm (format 2); update mm" in page
    assert ">Curves</h2>" in page, "the others are shown"
    assert "not finished" not in page


def test_a_newer_run_is_refused(folder):
    for name in ("config.json", "results.json"):
        newer(folder / "run" / name)
    for use in (mm.load, workdir.experiment, workdir.results):
        with pytest.raises(UserError, match=r"\.json: written by a newer mm \(format 2\); update"):
            use(folder / "run")


def test_a_newer_reference_is_refused(folder):
    newer(folder / "tiny.json")
    with pytest.raises(UserError, match="newer mm"):
        reference.against(read_run(folder / "run"), folder / "tiny.json")


def test_a_newer_artefact_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(artefact, "FORMAT_VERSION", 2)
    artefact.write(tmp_path / "x.safetensors", "text", {}, {"a": np.zeros(1)}, {})
    monkeypatch.undo()
    with pytest.raises(UserError, match="newer mm"):
        artefact.read(tmp_path / "x.safetensors")


def test_newer_embeddings_are_not_shown(folder):
    path = folder / "run/evals/retrieval/embeddings.npz"
    with np.load(path) as kept:
        arrays = {k: kept[k] for k in kept.files}
    assert arrays["format_version"] == 1
    np.savez(path, **arrays | {"format_version": np.int32(2)})
    assert "embeddings.npz: written by a newer mm" in write_report(folder / "run").read_text()
