"""Parts that a recipe file defines: one class whoever asks, found again by another process, missed in one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mm import config, parts, recipes
from mm.errors import UserError
from mm.main import main

ROOT = Path(__file__).parents[1]
RECIPE = '''
import dataclasses
from mm.config import Data, Experiment, Optim
from tests.toy import Error, Regress, Toy

@dataclasses.dataclass(kw_only=True, slots=True)
class Points(Toy):
    """A source of the recipe's own."""
    label: str = "own"

def measure(row): return 7

@dataclasses.dataclass(kw_only=True, slots=True)
class Seven:
    of: object = measure
    name: str = "seven"
    when: str = "end"
    def run(self, run):
        yield "value", self.of(None)

def get_config(arg=""):
    return Experiment(name="own", task=Regress(), data=Data(source=Points(), batch_size=16),
                      optim=Optim(lr=0.3, warmup=2), evals=(Seven(),), steps=20, save_every=10)
'''


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """The working directory, with a recipe in a folder that is no package."""
    (tmp_path / "tokenizers").mkdir()
    (tmp_path / "tokenizers" / "own.py").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_however_it_is_called_it_is_one_class(checkout):
    exp = recipes.read("tokenizers/own.py")[""]
    made = type(exp.data.source)
    assert parts.name_of(made) == "tokenizers/own.py:Points"
    assert parts.imported("tokenizers/own.py:Points") is made
    for path in ("./tokenizers/own.py", checkout / "tokenizers" / ".." / "tokenizers" / "own.py"):
        assert parts.load_file(path).Points is made
    back = config.from_json(json.loads(json.dumps(config.to_json(exp))))
    assert back == exp and back.evals[0].of(None) == 7
    assert config.fingerprint(back) == config.fingerprint(exp)


def test_the_same_path_from_elsewhere_is_another_file(checkout, monkeypatch):
    here = parts.load_file("tokenizers/own.py")
    (checkout / "other" / "tokenizers").mkdir(parents=True)
    (checkout / "other" / "tokenizers" / "own.py").write_text("Points = 3")
    monkeypatch.chdir(checkout / "other")
    assert parts.required("tokenizers/own.py:Points") == 3
    outside = parts.load_file(checkout / "tokenizers" / "own.py")
    assert outside.__name__ == str(checkout / "tokenizers" / "own.py") and outside is not here
    assert parts.required(f"{outside.__name__}:Points") is outside.Points


def test_what_is_not_there_is_none_and_what_is_wrong_is_one_line(checkout):
    for absent in ("tokenizers/none.py:Points", "no_such_package.x:Y", "mm.no_such_module:Y"):
        assert parts.imported(absent) is None
    (checkout / "needy.py").write_text("import no_such_package\nclass A: pass")
    assert parts.imported("needy.py:A") is None
    for name, says in {
        "tokenizers/none.py:Points": "tokenizers/none.py: no such file; run from the checkout",
        "needy.py:A": "needs the module 'no_such_package', which is not here",
        "tokenizers/own.py:Point": "has no 'Point'; did you mean 'Points'?",
        "pens": "'pens': names no part, as module:name does",
        "mm.config:Experimant": "mm.config: has no 'Experimant'; did you mean 'Experiment'?",
    }.items():
        with pytest.raises(UserError) as e:
            parts.required(name)
        assert says in str(e.value) and "\n" not in str(e.value)


def test_a_file_that_fails_is_run_again_when_it_is_mended(checkout):
    (checkout / "bad.py").write_text("1 / 0")
    with pytest.raises(ZeroDivisionError):
        parts.load_file("bad.py")
    (checkout / "bad.py").write_text("A = 1")
    assert parts.load_file("bad.py").A == 1


@pytest.mark.parametrize("part", ["lambda row: 7", "inner()"])
def test_a_part_without_a_name_is_refused_before_any_work(checkout, capsys, part):
    text = RECIPE.replace("Seven()", f"Seven(of={part})")
    inner = "def inner():\n    def f(row): return 7\n    return f\n"
    (checkout / "own.py").write_text(text + inner)
    assert main(["mm", "--config", "own.py"]) == 2
    said = capsys.readouterr().err
    assert "define it at the top level of a file" in said and said.count("\n") == 1
    assert not (checkout / "runs").exists()


def in_a_process(checkout: Path, *args: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "mm.main", *args]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=checkout, env=env, capture_output=True, text=True)


def test_a_run_with_parts_of_its_recipe_is_rebuilt_by_another_process(checkout):
    assert main(["mm", "--config", "tokenizers/own.py"]) == 0
    results = checkout / "runs" / "own" / "results.json"
    first = json.loads(results.read_text())
    results.unlink()
    done = in_a_process(checkout, "--mode=evaluate", "--workdir", "runs/own")
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(results.read_text())["seven"] == first["seven"] == {"value": 7}
    again = in_a_process(checkout, "--config", "./tokenizers/own.py")
    assert again.returncode == 0 and "finished: 20 steps" in again.stdout
    (checkout / "tokenizers" / "own.py").unlink()
    gone = in_a_process(checkout, "--mode=evaluate", "--workdir", "runs/own")
    assert gone.returncode == 2 and gone.stderr.count("\n") == 1
    assert "runs/own: its experiment has a part that is not found: tokenizers/own.py: no such file" in gone.stderr  # fmt: skip
