"""Two runs on one page, and a run against a reference, as commands."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mm.config import Data, Experiment, Optim, to_json
from mm.report.__main__ import main
from mm.report.compare import overlap
from mm.report.tables import Figure, flat


def trained(
    folder: Path, *, seed: int, factor: float = 1.0, lr: float = 1e-3, last: int = 2000
) -> Path:
    """A run whose terms fall to a floor under noise; `factor` is on the floor of one of them."""
    rng = np.random.default_rng(seed)
    lines = []
    for step in (1, *range(50, last + 1, 50)):
        falling = 4 * np.exp(-step / 200)
        a, b = (falling + floor + rng.normal(0, 0.1) for floor in (2.0 * factor, 3.0))
        lines.append(
            {"step": step, "masked/a": a, "masked/b": b, "loss": a + b, "examples/s": seed + 1}
        )
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    exp = Experiment(name="tiny", task=None, data=Data(source=None), optim=Optim(lr=lr), steps=2000)
    (folder / "config.json").write_text(json.dumps({"experiment": to_json(exp)}))
    results = {
        "train": {"steps": last, "versions": {"jax": "1"}, "machine": {"cores": 2}},
        "find": {
            "a->b": {
                "map": 0.5 * factor,
                "interval": [0.5 * factor - 0.04, 0.5 * factor + 0.04],
                "r1": 0.3,
            }
        },
    }
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def test_a_comparison_names_what_lies_apart_and_what_was_asked(tmp_path, capsys):
    a, b = trained(tmp_path / "a", seed=0), trained(tmp_path / "b", seed=1, factor=1.2, lr=0.5)
    assert main([str(a), str(b)]) == 0
    assert str(a / "report" / "compare.html") in capsys.readouterr().out
    page = (a / "report" / "compare.html").read_text()
    assert "Of 1 figures with intervals in both runs, 1 lie apart" in page and page.index(
        "find.<wbr>a &rarr; b.<wbr>map"
    ) < page.index("0 that overlap")
    assert "+0.1<" in page and "optim.lr" in page and "0.001" in page
    assert page.count("<polyline") == 2 * 4 and "They are the same." in page
    assert main([str(a), str(a), "--out", str(tmp_path / "x" / "same.html")]) == 0
    same = (tmp_path / "x" / "same.html").read_text()
    assert "0 lie apart" in same and "The settings are the same." in same


def test_an_unfinished_run_can_be_compared(tmp_path):
    a, b = trained(tmp_path / "a", seed=0), trained(tmp_path / "b", seed=1)
    (b / "results.json").unlink()
    assert main([str(a), str(b)]) == 0
    assert "not finished" in (a / "report" / "compare.html").read_text()
    (b / "results.json").write_text('{"find": {"a->b": {"map": 1.0, "interval": 3}}, "train": []}')
    (a / "metrics.jsonl").write_text("{")
    assert main([str(a), str(b)]) == 0
    page = (a / "report" / "compare.html").read_text()
    assert "1 of 1 lines cannot be read" in page and "does not read" in page


def test_intervals_that_touch_overlap():
    figure = lambda low, high: Figure(0.5, (low, high))
    assert overlap(figure(0, 0.5), figure(0.5, 1)) and overlap(figure(0, 1), figure(0.2, 0.3))
    assert not overlap(figure(0, 0.4), figure(0.5, 1)) and not overlap(
        figure(0.5, 1), figure(0, 0.4)
    )


def test_intervals_go_to_the_figures_they_are_of():
    found = flat(
        {
            "x": {
                "accuracy": 1.0,
                "interval": [0.9, 1.0],
                "coverage": 0.5,
                "real": 2,
                "real_interval": [1, 3],
            }
        }
    )
    assert found == {
        "x.accuracy": Figure(1.0, (0.9, 1.0)), "x.coverage": Figure(0.5), "x.real": Figure(2, (1, 3)),
    }  # fmt: skip


@pytest.fixture
def reference(tmp_path, monkeypatch, capsys) -> Path:
    monkeypatch.chdir(tmp_path)
    assert main([str(trained(tmp_path / "good", seed=0)), "--as-reference"]) == 0
    assert "docs/results/tiny.json" in capsys.readouterr().out
    return tmp_path / "docs" / "results" / "tiny.json"


def test_other_seeds_stay_within_the_band(reference, tmp_path, capsys):
    for seed in range(1, 21):
        run = trained(tmp_path / str(seed), seed=seed)
        assert main([str(run), "--against", "reference"]) == 0, capsys.readouterr().out
    assert "3 terms compared" in capsys.readouterr().out


def test_a_term_that_learns_otherwise_is_a_drift(reference, tmp_path, capsys):
    run = trained(tmp_path / "bad", seed=1, factor=1.25, lr=0.5)
    assert main([str(run), "--against", "reference"]) == 1
    said = capsys.readouterr().out.splitlines()
    drifts = [line for line in said if line.startswith("drift")]
    own, kept = re.search(
        r"drift: masked/a: ([\d.]+) at step .*, reference ([\d.]+)", "".join(drifts)
    ).groups()
    assert 1.15 < float(own) / float(kept) < 1.35
    assert not any("masked/b" in line for line in drifts)
    assert "config.optim.lr: 0.5 here, 0.001 in the reference" in said


def test_a_run_on_its_way_is_compared_as_far_as_it_is(reference, tmp_path, capsys):
    run = trained(tmp_path / "part", seed=2, last=1000)
    assert main([str(run), "--against", str(reference)]) == 0
    assert "up to step 1,000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere: no such folder"),
        (["docs"], "docs: holds no run"),
        (["sweep"], "sweep: holds a sweep; name one of its runs: a, b"),
        (["cut", "--as-reference"], "results.json cannot be read"),
        (["good", "--against", "docs/results/tony.json"], "did you mean 'docs/results/tiny.json'?"),
        (["good", "--against", "broken.json"], "not readable as JSON"),
        (["good", "--against", "other.json"], "not a reference"),
        (["part", "--as-reference"], "not finished (step 1000)"),
        (["good", "part", "good"], "3 runs"),
        (["good", "part", "--against", "reference"], "2 runs"),
        (["good", "--out", "x.html"], "--out: only a comparison"),
        (["good", "part", "--out", "good/config.json/x.html"], "cannot be written"),
        (["good", "--agenst", "reference"], "--help"),
        ([], "--help"),
    ],
)
def test_bad_input_is_one_line(reference, tmp_path, capsys, arguments, said):
    trained(tmp_path / "part", seed=0, last=1000)
    for name in "ab":
        trained(tmp_path / "sweep" / name, seed=0)
    Path("sweep/sweep.json").write_text("{}")
    (trained(tmp_path / "cut", seed=0) / "results.json").write_text('{"train": {"st')
    Path("broken.json").write_text("{")
    Path("other.json").write_text('{"curves": 3}')
    before = sorted(tmp_path.rglob("*"))
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_the_command_makes_a_page_anew(folder):
    shutil.rmtree(folder / "report", ignore_errors=True)
    command = [sys.executable, "-m", "mm.report", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"report: {folder / 'report' / 'index.html'}"
    assert (folder / "report" / "index.html").stat().st_size > 10_000
