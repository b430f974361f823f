"""A config file that yields: all runs, one table, stopped and continued, and what is refused."""

import json

import pytest

from mm import flags, workdir
from mm.main import main

CONFIG = """
import dataclasses
from mm.config import Data, Optim
from tests import toy, toy_config

BASE = toy_config.get_config()
RATES = {rates}

def get_config(arg=""):
    for lr in RATES:
        data = Data(source=toy.Toy(broken=-2 if lr < 0.05 else -1), batch_size=16)
        yield f"lr={{lr}}", dataclasses.replace(BASE, data=data, optim=Optim(lr=lr, warmup=2))
"""


@pytest.fixture
def config(tmp_path):
    """A function that writes the config file."""

    def write(text=CONFIG, rates=(0.1, 0.3)):
        (tmp_path / "rates.py").write_text(text.format(rates=rates) if text == CONFIG else text)
        return ["mm", "--config", str(tmp_path / "rates.py"), "--workdir", str(tmp_path / "sweep")]

    return write


def table(tmp_path):
    return workdir.read_json(tmp_path / "sweep" / "sweep.json")


def test_each_runs_in_its_folder_and_one_table_compares_them(config, tmp_path, capsys):
    args = config()
    assert main([*args, "--config.steps=40"]) == 0
    rows, said = table(tmp_path), capsys.readouterr().out
    assert list(rows) == ["lr=0.1", "lr=0.3"]
    for name, row in rows.items():
        assert row["state"] == "finished" and row["steps"] == 40
        results = json.loads((tmp_path / "sweep" / name / "results.json").read_text())
        assert row["error/distance"] == results["error"]["distance"]
        settings = json.loads((tmp_path / "sweep" / name / "config.json").read_text())
        assert settings["file"] == args[2] and settings["changed"] == {"steps": [60, 40]}
        shown = next(line for line in said.splitlines() if line.split()[:2] == [name, "finished"])
        assert f"{row['error/distance']:.4g}" in shown.split()
    assert rows["lr=0.1"]["error/distance"] != rows["lr=0.3"]["error/distance"]
    assert not (tmp_path / "sweep" / "lr=0.1" / "cache").exists(), "they share one"
    assert main([*args, "--config.steps=40"]) == 0
    again = capsys.readouterr().out
    assert "run 1 of 2" not in again and "finished" in again and table(tmp_path) == rows


def test_ctrl_c_stops_it_after_saving_and_the_same_command_continues(config, tmp_path, capsys):
    args = [*config(), "--config.evals[0].signal_at=20", "--config.evals[0].signal_number=2"]
    assert main(args) == 0
    assert "SIGINT: saved step 20" in capsys.readouterr().out
    assert [row["state"] for row in table(tmp_path).values()] == ["stopped", "waiting"]
    assert main(args) == 0  # stops the second one, too
    said = capsys.readouterr().out
    assert "continues after step 20" in said and "run 2 of 2" in said
    assert [row["state"] for row in table(tmp_path).values()] == ["finished", "stopped"]


CHAIN = """
import dataclasses
from mm.config import Optim
from tests import toy_config

def get_config(arg=""):
    first = toy_config.get_config()
    yield "first", first
    yield "second", dataclasses.replace(first, init="first", steps=1, optim=Optim(lr=1e-12, warmup=0))
"""


def test_a_run_may_start_from_an_earlier_one(config, tmp_path):
    args = config(CHAIN)
    assert main(args) == 0
    rows = table(tmp_path)
    last, first = (rows[n]["error/distance"] for n in ("second", "first"))
    assert last == pytest.approx(first, rel=1e-6)
    assert main(args) == 0 and table(tmp_path) == rows


def test_one_that_fails_does_not_take_the_others_with_it(config, tmp_path, capsys):
    assert main(config(rates=(0.01, 0.3))) == 2
    err = capsys.readouterr().err
    assert "1 of 2 runs failed (lr=0.01)" in err and err.count("\n") == 1
    rows = table(tmp_path)
    assert "not finite" in rows["lr=0.01"]["state"] and rows["lr=0.3"]["state"] == "finished"


@pytest.mark.parametrize(
    ("rates", "more", "said"),
    [
        ((0.3, 0.3), [], "two runs are called 'lr=0.3'"),
        ((0.1, 0.3), ["--config.optim.lrr=1"], "no field 'lrr'; did you mean 'lr'? (run lr=0.1)"),
        ((0.1, 0.3), ["--config.optim.lr=1"], "'lr=0.1' and 'lr=0.3' are the same experiment"),
        ((0.1, 0.3), ["--config.steps=1"], "lr=0.1: config.optim.warmup=2: longer than the run"),
        ((0.1, 0.3), ["--mode=evaluate"], "is a sweep; name one of its runs"),
        ((), [], "yields no run"),
    ],
)
def test_bad_ones_are_refused_before_any_training(config, tmp_path, capsys, rates, more, said):
    assert main([*config(rates=rates), *more]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1 and not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('yield "a/b", toy_config.get_config()', "'a/b' names no folder"),
        ("yield toy_config.get_config()", "not (name, Experiment)"),
        ('yield "a", {}', "yields with 'a' a dict"),
    ],
)
def test_a_config_yields_names_and_experiments(config, capsys, line, said):
    text = f"from tests import toy_config\ndef get_config():\n    {line}\n"
    assert main(config(text)) == 2 and said in capsys.readouterr().err


def test_a_folder_of_something_else_is_left_alone(config, tmp_path, capsys):
    args = config()
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "thesis.txt").write_text("keep")
    assert main(args) == 2 and "is not a sweep's folder" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "sweep").iterdir()] == ["thesis.txt"]


def test_the_sweep_of_contrast_is_one():
    runs = flags.parse(["mm", "--config", "configs/contrast_sweep.py:smoke"]).sweep
    weights = {name: exp.task.contrast.weight for name, exp in runs.items()}
    assert weights == {f"contrast={w}": w for w in (0.0, 0.1, 0.3, 1.0)}
    assert all(exp.name == "quickstart-smoke" for exp in runs.values())
