"""The papers: every file says what it must, what was kept is what the page shows, and the fast ones are run."""

import dataclasses
import json
import re
import subprocess
import sys

import pytest

from mm import config, workdir
from mm.papers import Verdict, run, spread, table
from mm.papers.__main__ import main

NAMES = table.names()
QUICK = [
    n
    for n in NAMES
    if not any(isinstance(arm, config.Experiment) for arm in table.opened(n).arms().values())
    and (table.row(n)["seconds"] or 99) <= 15
]


@pytest.mark.parametrize("name", NAMES)
def test_every_paper_says_what_it_claims_and_its_arms_can_be_run_alone(name):
    module = table.opened(name)
    paper = module.PAPER
    assert paper.seeds >= (5 if set("MD") & set(paper.status) else 3)
    assert all(1 <= n <= 232 for n in paper.numbers) and re.fullmatch(r"\d+(,\d+)*|-", paper.row)
    assert paper.formula.endswith(".") and ("fail" in paper.expected or "must" in paper.expected)
    assert module.__doc__.count(f"python -m mm.papers run {name}") == 1
    for arm, made in module.arms().items():
        if isinstance(made, config.Experiment):
            config.validate(made)
            assert config.to_json(module.get_config(arm)) == config.to_json(made)


def test_what_was_kept_is_what_the_page_shows(tmp_path, monkeypatch):
    page = table.PAGE.read_text()
    monkeypatch.setattr(table, "PAGE", tmp_path / "papers.md")
    table.write()
    assert (tmp_path / "papers.md").read_text() == page, "python -m mm.papers run rewrites it"
    for name in NAMES:
        if table.row(name)["verdict"] != "not run":
            kept = workdir.read_json(table.RESULTS / f"{name}.json")
            assert kept["verdict"] == Verdict(kept["clauses"], {}).word
            assert kept["seeds"] == table.opened(name).PAPER.seeds


@pytest.mark.parametrize("name", QUICK)
def test_figures_of_what_is_not_trained_come_again(name):
    """All but the machine's: two seeds of it stand for all."""
    module = table.opened(name)
    kept = workdir.read_json(table.RESULTS / f"{name}.json")["figures"]
    few = module.verdict(
        {arm: [measure(s) for s in (0, 1)] for arm, measure in module.arms().items()}
    )
    for figure, (mean, sd) in few.figures.items():
        there, spread_there = kept[figure]
        assert abs(mean - there) <= 3 * max(spread_there, sd) + 1e-3, figure


def test_symile_solves_what_pairs_cannot_see(tmp_path, monkeypatch):
    """p = 1, one seed, a shorter run of the loop itself."""
    module = table.opened("symile")
    monkeypatch.setattr(table, "RESULTS", tmp_path / "kept")
    kept = {}
    for arm in ("symile-1.0", "pairs-1.0"):
        exp = dataclasses.replace(module.get_config(arm), steps=150)
        exp.data.batch_size = 400
        fake = type(sys)("fake")
        fake.PAPER = dataclasses.replace(module.PAPER, seeds=1)
        fake.arms = lambda arm=arm, exp=exp: {arm: exp}
        fake.verdict = lambda found, arm=arm: Verdict({}, {"accuracy": found[arm][0]["pick"]["accuracy"]})  # fmt: skip
        monkeypatch.setattr(table, "opened", lambda _, fake=fake: fake)
        kept[arm] = run.run("symile", tmp_path / arm)["figures"]["accuracy"]
    assert kept["symile-1.0"] > 0.9 and kept["pairs-1.0"] < 0.1, kept


def test_the_list_is_for_people_and_programs(capsys):
    assert main(["list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [r["name"] for r in rows] == NAMES
    assert all({"numbers", "row", "verdict", "figures", "seconds"} <= r.keys() for r in rows)
    assert main(["list", NAMES[0]]) == 0 and NAMES[0] in capsys.readouterr().out


def test_a_paper_that_there_is_not_is_one_line():
    done = subprocess.run([sys.executable, "-m", "mm.papers", "run", "symle"], capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 2 and "did you mean 'symile'?" in done.stderr
    assert done.stderr.count("\n") == 1


def test_verdicts_and_spreads():
    word = lambda *came: Verdict({str(i): c for i, c in enumerate(came)}, {}).word
    assert (word(True, True), word(True, False), word(False)) == ("holds", "partly", "does not")
    assert spread([1.0, 3.0]) == [2.0, 1.4142] and spread([2.0]) == [2.0, 0.0]
