"""`--wandb=PROJECT`, offline; and what is said where the package is missing."""

import importlib.util

import pytest

from mm.main import main

MISSING = importlib.util.find_spec("wandb") is None


def command(folder, *more):
    toy = ["mm", "--config", "tests/toy_config.py", "--workdir", str(folder), "--wandb=toys"]
    return [*toy, *more]


@pytest.mark.skipif(MISSING, reason="wandb is not installed (uv run --extra wandb pytest)")
def test_figures_go_to_wandb_offline_and_a_run_keeps_its_id(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = tmp_path / "run"
    args = command(folder, "--config.evals[0].signal_at=20")
    assert main(args) == 0 and "SIGTERM: saved step 20" in capsys.readouterr().out
    assert main(args) == 0 and "continues after step 20" in capsys.readouterr().out
    name = (folder / "wandb" / "id").read_text()
    written = sorted((folder / "wandb").glob(f"offline-run-*-{name}/run-{name}.wandb"))
    assert len(written) == 2
    for path in written:
        content = path.read_bytes()
        assert b"fit/square" in content and b"examples/s" in content
    assert b"error/distance" in written[1].read_bytes()
    assert (folder / "metrics.jsonl").exists() and (folder / "results.json").exists()


@pytest.mark.skipif(not MISSING, reason="wandb is installed")
def test_a_missing_package_is_said_before_any_work(tmp_path, capsys):
    assert main(command(tmp_path / "run")) == 2
    err = capsys.readouterr().err
    assert "--extra wandb" in err and err.count("\n") == 1
    assert not (tmp_path / "run").exists()
