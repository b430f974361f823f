"""docs/add_a_modality.md, followed from its first line to its last in an own checkout, with fewer steps."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mm import experiments
from mm.config import validate
from mm.data.folder import Folder
from mm.errors import UserError
from mm.evals.kinds import Kind
from mm.tasks.vocabulary import TrainVocabulary

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "add_a_modality.md").read_text()
SMALL = {
    "tokenizers/walk.py": "--config.steps=300 --config.optim.warmup=20",
    "configs/walks.py": "--config.steps=60 --config.optim.warmup=5 --config.task.model.width=64"
    " --config.task.model.heads=2 --config.task.model.encoder_layers=1",
}


def parts() -> Iterator[tuple[str, str]]:
    """What the page says to do, in order: (file, its text), or ("", command)."""
    blocks = r"((?:^[^\n]+\n)+)\n```python\n(.*?)```|^```sh\n(.*?)```"
    for said, text, shell in re.findall(blocks, PAGE, re.DOTALL | re.MULTILINE):
        if said:
            yield re.search(r"`([\w/]+\.py)`", said)[1], text
        yield from (("", line) for line in shell.splitlines())


def printed(command: str) -> list[str]:
    """The lines that the page shows below the block with the command."""
    below = PAGE.partition(command)[2].partition("```\n\n")[2]
    return re.match(r"(?: {4}.*\n)*", below)[0].splitlines()


def test_the_page_has_every_file_and_few_lines_of_it_are_not_the_network():
    files = dict(part for part in parts() if part[0])
    assert list(files) == [
        "data_pipelines/walks.py",
        "tokenizers/walk.py",
        "configs/walks.py",
        "tests/tokenizers/test_walk.py",
    ]
    for name, text in files.items():
        compile(text, name, "exec")
    *three, _ = files.values()
    network = re.search(r"@dataclasses.*^class WalkNetwork.*?\n\n\n", three[1], re.S | re.M)[0]
    assert sum(len(t.splitlines()) for t in three) - len(network.splitlines()) <= 75
    assert {int(n) for n in re.findall(r"likewise|(\d+) passed", PAGE) if n} == {3}


def test_the_usual_experiments_are_valid_and_evaluate_generation_only_with_judges():
    source, task = Folder(path="my_data"), TrainVocabulary(card={"licence": "CC0"})
    exp = experiments.tokenizer("own-text", task, source, steps=0)
    assert exp.name == "own-text" and exp.steps == exp.optim.warmup == 0
    assert exp.task.card == {"licence": "CC0", "steps": 0} and task.card == {"licence": "CC0"}
    assert exp.data.source.modalities == ("text",) and source.modalities != ("text",)
    read = lambda row: 0
    judged = tuple(Kind(name=m, judge=read) for m in ("image", "text"))
    for arg in ("", "smoke"):
        for kinds, names in (
            ((), ["validation", "retrieval", "tokenizer"]),
            (judged, ["validation", "any_to_any", "retrieval", "tokenizer"]),
        ):
            exp = experiments.joint(
                "own", source, {"image": "a", "text": "b"}, arg=arg, kinds=kinds
            )
            assert [e.name for e in exp.evals] == names
            with pytest.raises(UserError, match="my_data"):  # all but the folder is there
                validate(exp)
    assert exp.steps == 20 and exp.name == "own-smoke"


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A checkout of its own, without weights and data."""
    (tmp_path / "mm").symlink_to(ROOT / "mm")
    for folder in ("data_pipelines/assets", "tokenizers", "configs", "tests/tokenizers"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("pyproject.toml", "data_pipelines/__init__.py", "tests/conftest.py", "tests/walks.py"):  # fmt: skip
        shutil.copy(ROOT / file, tmp_path / file)
    return tmp_path


def in_small(command: str) -> str:
    for config, fewer in SMALL.items():
        if f"--config {config}" in command and "smoke" not in command and "--mode" not in command:
            command += f" {fewer}"
    return command.replace("python", sys.executable, 1)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_the_page_is_followed(checkout):
    marks, said = {}, ""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    for file, text in parts():
        if file:
            pinned = re.sub(r"(\w+\.safetensors)#\w+", lambda m: f"{m[1]}#{marks[m[1]]}", text)
            (checkout / file).write_text(pinned)
            continue
        done = subprocess.run(in_small(text), shell=True, cwd=checkout, env=env, capture_output=True, text=True)  # fmt: skip
        assert done.returncode == 0, f"{text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        if made := re.search(r"artefact: runs/walks-(\w+)/\S+#(\w{8})", done.stdout):
            marks[{"walk": "walk", "image": "walk_map"}[made[1]] + ".safetensors"] = made[2]
        if "tests.walks" in text or "check-data" in text:  # the same on every machine
            shown = [line.strip() for line in printed(text) if line.strip() != "..."]
            assert shown and all(line in done.stdout for line in shown), done.stdout
        said += done.stdout
    assert said.endswith("\n") and re.search(r"^3 passed", said.splitlines()[-1])
    assert Image.open(checkout / "examples" / "0-walk.png").size == (512, 512)
    assert np.load(checkout / "made" / "walk.npy").shape == (32, 2)
    assert Image.open(checkout / "made" / "walk.png").size == (512, 512)
    results = json.loads((checkout / "runs" / "walks" / "results.json").read_text())
    assert results["tokenizer"]["walk"]["unexplained"] < 0.2
    report = (checkout / "runs" / "walks" / "report" / "index.html").read_text()
    assert "unreadable" not in report and report.count("<img") > 40
