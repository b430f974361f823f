"""docs/your_data.md, followed: its commands in small, on a generated folder, until retrieval."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.own_data import make_folder

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "your_data.md").read_text()
CONFIG = ROOT / "configs" / "my_data.py"
SMALL = "--config.data.batch_size=32 --config.data.source.test=20 --config.optim.warmup=5"
SMALLER = {
    ":image": f"{SMALL} --config.steps=60 --config.task.network.dense=128",
    ":audio": f"{SMALL} --config.steps=60 --config.task.network.decoder_blocks=1",
    ":text": "--config.data.source.test=20",
    "": f"{SMALL} --config.steps=120 --config.task.model.width=64 --config.task.model.heads=2"
    " --config.task.model.encoder_layers=1 --config.task.model.decoder_layers=1",
}


def commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def in_small(command: str) -> str:
    """The command as it stands, with this interpreter, few steps, and files that are there."""
    if "--mode" not in command:
        command += " " + SMALLER[re.search(r"my_data\.py(:\w+)?", command)[1] or ""]
    command = command.replace("cat-01.jpg", "s000.jpg").replace("a cat asleep", "a red circle")
    return command.replace("python", sys.executable, 1)


def run(command: str, folder: Path) -> subprocess.CompletedProcess:
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, shell=True, cwd=folder, env=env, capture_output=True, text=True
    )  # fmt: skip


def test_the_page_shows_the_config():
    (shown,) = (b for b in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "get_config" in b)
    assert CONFIG.read_text().endswith(shown)
    assert len(shown.partition("def get_config")[2].splitlines()) <= 15


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_from_a_folder_to_retrieval(tmp_path):
    make_folder(tmp_path / "my_data", 200)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "my_data.py").write_text(CONFIG.read_text())
    said = ""
    for command in commands():
        done = run(in_small(command), tmp_path)
        assert done.returncode == 0, f"{command}\n{done.stdout[-500:]}\n{done.stderr[-2000:]}"
        said += done.stdout
    assert "20 have no audio" in said and len(list((tmp_path / "examples").glob("*.png"))) >= 8
    assert sorted(p.name for p in (tmp_path / "made").iterdir()) == ["audio.wav", "image.png"]
    found = json.loads((tmp_path / "runs/my-data/results.json").read_text())["retrieval"]
    assert len(found) == 9 and "image+audio->text" in found
    single = [cell for name, cell in found.items() if "+" not in name]
    gain = sum(cell["map"] - cell["chance"]["map"] for cell in single) / len(single)
    assert gain > 0.1, found
