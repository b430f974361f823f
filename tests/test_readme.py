"""Every command that README shows is run, in the order in which it stands there; long ones in their `:smoke` form."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path("README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.strip()]
    return [line.removeprefix("pip install uv && ") for line in lines]


def in_small(command: str, folder: Path) -> str:
    """The command as it stands, but small, with this interpreter, and everything below `folder`."""
    if "--config" in command and "--workdir" not in command:
        name = re.search(r"--config [\w/]*?(\w+)\.py(:\w+)?", command)
        command += (
            f" --workdir runs/{name[1]}"  # in small, `:smoke` is the same run: it is found finished
        )
    if "--mode=generate" in command or "--mode=embed" in command:
        command += " --out generated/"
    command = re.sub(r"((?:configs|tokenizers)/[\w/]+\.py)(?!:)", r"\1:smoke", command)
    command = command.replace("uv run python", sys.executable)
    return re.sub(r"(?<![\w/])(runs|generated)/", rf"{folder}/\1/", command)


def test_the_first_commands_stand_first_and_ci_runs_the_last():
    first = commands()[0]
    assert "--mode=generate" in first and "--workdir" not in first
    assert "pip install uv && " + first in README
    ours, tests = blocks("sh")[2].splitlines()
    assert ours == "uv run python -m mm.main --config configs/quickstart.py"
    assert tests == "uv run pytest" and tests in Path(".ci/run").read_text()


@pytest.mark.slow
@pytest.mark.timeout(1200)  # a dozen commands, one after the other
def test_every_command_runs(tmp_path):
    ran = 0
    for command in commands():
        if command == "uv run pytest":  # this very run
            continue
        done = subprocess.run(
            in_small(command, tmp_path), shell=True, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-500:]}\n{done.stderr[-2000:]}"
        ran += 1
    assert ran >= 8
    for block in blocks("python"):
        exec(block.replace('"runs/', f'"{tmp_path}/runs/'), {})
