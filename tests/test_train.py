"""The loop as its users meet it: resumed, interrupted, given NaNs, pointed at the wrong folder."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from mm import config, workdir
from mm.errors import UserError
from mm.main import main
from mm.train import Trainer
from tests import toy, toy_config


def train(exp, folder):
    workdir.claim(folder, exp)
    trainer = Trainer(exp, folder)
    trainer.train()
    state = jax.device_get(
        trainer.checkpoints.restore(trainer.checkpoints.latest(), state_shapes(trainer))
    )
    trainer.checkpoints.close()
    return state


def state_shapes(trainer):
    from mm import state

    return state.abstract(
        trainer.task, trainer.tx, trainer.exp.seed, trainer.exp.optim.ema > 0, trainer.mesh
    )


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def losses(folder):
    return {line["step"]: line["loss"] for line in lines(folder) if "loss" in line}


def test_it_learns_and_leaves_what_it_promises(tmp_path):
    exp = toy_config.get_config()
    train(exp, tmp_path / "run")
    values = losses(tmp_path / "run")
    assert list(values) == list(range(1, 61)) and values[60] < 0.1 * values[1]
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["error"]["distance"] < 0.5 and results["train"]["steps"] == 60
    assert (tmp_path / "run" / "report" / "index.html").exists()
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    evaluated = [line for line in lines(tmp_path / "run") if "error/distance" in line]
    assert [line["step"] for line in evaluated] == [20, 40]


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_stopped_and_resumed_is_bit_equal(tmp_path, ema, capsys):
    """Stopped by a real SIGTERM in the middle; the second run continues and ends at the same bits."""
    exp = toy_config.get_config()
    exp.optim.ema = ema
    whole = train(exp, tmp_path / "whole")
    again = train(exp, tmp_path / "again")
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(again), strict=True):
        assert np.array_equal(a, b), "the same seed must give the same bits"
    broken = replace(exp, evals=(toy.Error(signal_at=20),))
    train(broken, tmp_path / "part")
    assert "SIGTERM: saved step 20" in capsys.readouterr().out
    parts = train(broken, tmp_path / "part")
    assert "continues after step 20" in capsys.readouterr().out
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        assert np.array_equal(a, b)
    assert losses(tmp_path / "part") == losses(tmp_path / "whole")
    train(broken, tmp_path / "part")
    assert "finished: 60 steps" in capsys.readouterr().out


def test_a_finished_run_whose_last_checkpoint_is_damaged_trains_its_end_again(tmp_path, capsys):
    whole = train(toy_config.get_config(), tmp_path / "run")
    for part in (tmp_path / "run" / "checkpoints" / "60" / "state" / "d").iterdir():
        part.write_bytes(part.read_bytes()[:10])
    again = train(toy_config.get_config(), tmp_path / "run")
    out = capsys.readouterr().out
    assert "set aside" in out and "continues after step 40" in out
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(again), strict=True):
        assert np.array_equal(a, b)


def test_a_signal_does_not_wait_for_an_evaluation(tmp_path, capsys):
    exp = toy_config.get_config()
    exp.evals = (toy.Error(signal_at=20, after=600),)
    began = time.monotonic()
    train(exp, tmp_path / "run")
    assert "SIGTERM: saved step 20" in capsys.readouterr().out
    assert time.monotonic() - began < 300
    assert not any("error/awaited" in line for line in lines(tmp_path / "run"))


def test_ctrl_c_in_a_real_process_then_the_same_command(tmp_path):
    command = [
        sys.executable,
        "-m",
        "mm.main",
        "--config",
        "tests/toy_config.py",
        "--workdir",
        str(tmp_path / "run"),
        "--config.steps=100000",
        "--config.log_every=1",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith("step "):
            process.send_signal(signal.SIGINT)
            break
    rest = process.stdout.read()
    assert process.wait(60) == 0 and "SIGINT: saved step" in rest
    step = int(rest.partition("saved step ")[2].split()[0])
    assert max(losses(tmp_path / "run")) == step
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith("continues after"):
            assert int(line.split()[-1]) == step
        if line.startswith("step "):
            process.terminate()
            break
    assert "SIGTERM: saved step" in process.stdout.read() and process.wait(60) == 0


def test_sigterm_before_the_first_step_ends_at_once_with_one_line(tmp_path):
    """While the step is compiled, which takes long, there is nothing to save."""
    command = [sys.executable, "-m", "mm.main", "--config", "configs/scale.py:smoke"]
    command += ["--workdir", str(tmp_path / "run")]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "empty")},
    )  # fmt: skip
    for line in process.stdout:
        if "parameters" in line:
            break
    began = time.monotonic()
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and said == "mm: stopped at once; what was saved stands\n"
    assert time.monotonic() - began < 10


def test_kill_9_loses_only_what_came_after_the_last_checkpoint(tmp_path):
    command = [
        sys.executable,
        "-m",
        "mm.main",
        "--config",
        "tests/toy_config.py",
        "--workdir",
        str(tmp_path / "run"),
        "--config.log_every=1",
        "--config.evals[0].hold=0.2",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    jsonl = tmp_path / "run" / "metrics.jsonl"
    while process.poll() is None and not (jsonl.exists() and '"step": 41' in jsonl.read_text()):
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "continues after step" in done.stdout or "finished" in done.stdout
    whole = train(toy_config.get_config(), tmp_path / "whole")
    assert whole is not None and losses(tmp_path / "run") == losses(tmp_path / "whole")


def test_a_step_that_is_not_finite_is_skipped_and_named(tmp_path, capsys):
    exp = replace(
        toy_config.get_config(), data=config.Data(source=toy.Toy(broken=5), batch_size=16)
    )
    state = train(exp, tmp_path / "run")
    out = capsys.readouterr().out
    assert out.count("skipped, not finite: fit/square") == 15, "once an epoch"
    assert np.isfinite(state["params"]["layer"]["kernel"]).all()
    assert state["buffers"]["seen"] == 45 and state["step"] == 60
    assert json.loads((tmp_path / "run" / "results.json").read_text())["error"]["distance"] < 0.6


def test_a_run_that_is_lost_stops_and_says_which_term(tmp_path, capsys):
    args = [
        "mm",
        "--config",
        "tests/toy_config.py",
        "--workdir",
        str(tmp_path / "run"),
        "--config.data.source.broken=-2",
    ]
    assert main(args) == 2
    assert (
        "11 steps in a row were not finite" in (err := capsys.readouterr().err)
        and "fit/square" in err
    )


def test_cosines_between_the_terms_gradients_are_logged(tmp_path):
    exp = replace(toy_config.get_config(), cosine_every=10)
    train(exp, tmp_path / "run")
    values = [
        line["cosine/decay-fit"] for line in lines(tmp_path / "run") if "cosine/decay-fit" in line
    ]
    assert len(values) == 6 and all(-1 <= v <= 1 for v in values)
    norms = [line["norm/fit"] for line in lines(tmp_path / "run") if "norm/fit" in line]
    assert len(norms) == 6 and all(n > 0 for n in norms)


def test_a_folder_of_another_experiment_is_left_alone(tmp_path, capsys):
    folder = tmp_path / "run"
    train(toy_config.get_config(), folder)
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    args = [
        "mm",
        "--config",
        "tests/toy_config.py",
        "--workdir",
        str(folder),
        "--config.optim.lr=0.5",
    ]
    assert main(args) == 2
    assert "another experiment (config.optim.lr: 0.3 there, 0.5 now)" in capsys.readouterr().err
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()} == before
    (tmp_path / "mine" / "tokenizers").mkdir(parents=True)
    (tmp_path / "mine" / "tokenizers" / "thesis.txt").write_text("keep")
    before = sorted((tmp_path / "mine").rglob("*"))
    mine = ["--workdir", str(tmp_path / "mine")]
    assert main([*args[:3], *mine]) == 2
    assert "not a run's folder" in capsys.readouterr().err
    assert main(["mm", "--mode=evaluate", *mine]) == 2
    assert sorted((tmp_path / "mine").rglob("*")) == before


def test_a_run_that_is_older_than_a_field_continues(tmp_path):
    workdir.claim(tmp_path / "run", toy_config.get_config())
    (tmp_path / "run" / "metrics.jsonl").write_text("")
    path = tmp_path / "run" / "config.json"
    saved = json.loads(path.read_text())
    del saved["experiment"]["init"]
    path.write_text(json.dumps(saved | {"fingerprint": "of then"}))
    workdir.claim(tmp_path / "run", toy_config.get_config())
    with pytest.raises(UserError, match=r"config\.init"):
        workdir.claim(tmp_path / "run", replace(toy_config.get_config(), init="other"))


def test_experiment_comes_back_from_its_json(tmp_path):
    exp = toy_config.get_config()
    workdir.claim(tmp_path / "run", exp)
    back = workdir.experiment(tmp_path / "run")
    assert config.to_json(back) == config.to_json(exp) and type(back.task) is toy.Regress


def test_results_that_are_lost_or_damaged_are_written_anew(tmp_path, capsys):
    train(toy_config.get_config(), tmp_path / "run")
    path, run = tmp_path / "run" / "results.json", ["--workdir", str(tmp_path / "run")]
    before = json.loads(path.read_text())
    path.unlink()
    assert main(["mm", "--mode=evaluate", *run]) == 0
    assert json.loads(path.read_text())["error"] == before["error"]
    for command in (["--mode=evaluate"], ["--config", "tests/toy_config.py"]):
        path.write_text(json.dumps(before)[:200])
        assert main(["mm", *command, *run]) == 0
        after = json.loads(path.read_text())
        assert after["error"] == before["error"] and after["train"]["steps"] == 60


ALONE = """
from dataclasses import replace
from pathlib import Path
from mm.data.folder import Folder
from tests import toy_config

def get_config(arg=""):
    exp = toy_config.get_config()
    exp.data.source = Folder(path=arg, modalities=("image", "text"))
    return exp
"""


def test_data_that_is_refused_leaves_no_folder(tmp_path, capsys):
    """Files of which no two belong together: found out when the data is opened, behind the claim."""
    (tmp_path / "data" / "images").mkdir(parents=True)
    Image.new("L", (8, 8)).save(tmp_path / "data" / "images" / "a.png")
    Image.new("L", (8, 8)).save(tmp_path / "data" / "images" / "b.png")
    (tmp_path / "data" / "captions.jsonl").write_text('{"image": "c.png", "caption": "c"}\n')
    (tmp_path / "alone.py").write_text(ALONE)
    run = ["--config", f"{tmp_path}/alone.py:{tmp_path}/data", "--workdir", str(tmp_path / "run")]
    before = sorted(tmp_path.rglob("*"))
    assert main(["mm", *run]) == 2
    err = capsys.readouterr().err
    assert "captions.jsonl, line 1" in err and err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "run" / "cache").mkdir(parents=True)
    assert main(["mm", *run]) == 2
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["cache"]


def test_a_tokenizer_that_is_not_there_leaves_no_folder(tmp_path):
    exp = toy_config.get_config()
    exp = replace(exp, data=replace(exp.data, tokenizers={"x": str(tmp_path / "x.safetensors")}))
    with pytest.raises(UserError, match="no such file"):
        workdir.claim(tmp_path / "run", exp)
    assert not (tmp_path / "run").exists()


def test_evaluate_without_a_checkpoint_says_so(tmp_path):
    workdir.claim(tmp_path / "run", toy_config.get_config())
    with pytest.raises(UserError, match="no checkpoint yet"):
        Trainer(toy_config.get_config(), tmp_path / "run").evaluate_again()


def test_a_run_whose_data_is_not_installed_says_what_it_needs(tmp_path, capsys):
    workdir.claim(tmp_path / "run", toy_config.get_config())
    path = tmp_path / "run" / "config.json"
    path.write_text(path.read_text().replace("tests.toy:Toy", "recipes_of_another:Toy"))
    assert main(["mm", "--mode=evaluate", "--workdir", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "needs the module 'recipes_of_another', which is not here" in said


@contextlib.contextmanager
def as_nobody():
    """Without root's right to write everywhere."""
    was = os.geteuid()
    os.seteuid(was or 65534)
    try:
        yield
    finally:
        os.seteuid(was)


@pytest.mark.parametrize("begun", [False, True])
def test_a_read_only_workdir_is_one_line(begun, capsys):
    with tempfile.TemporaryDirectory() as parent:  # pytest's own folders are hidden from others
        run = Path(parent) / "run"
        if begun:
            workdir.claim(run, toy_config.get_config())
        every = [Path(parent), *Path(parent).rglob("*")]
        for path in every:
            path.chmod(0o555 if path.is_dir() else 0o444)
        with as_nobody():
            assert main(["mm", "--config", "tests/toy_config.py", f"--workdir={run}"]) == 2
        said = capsys.readouterr().err
        assert f"mm: {run}" in said and "Permission denied" in said and said.count("\n") == 1
        assert every == [Path(parent), *Path(parent).rglob("*")]
        for path in every:
            path.chmod(0o755)


def test_a_folder_that_another_run_works_in_is_refused(tmp_path, capsys):
    """A real process holds it; whatever is asked for there, nothing changes. Killed, it is held no more."""
    run = ["--config", "tests/toy_config.py", f"--workdir={tmp_path / 'run'}"]
    slow = [*run, "--config.evals[0].hold=60"]
    process = subprocess.Popen([sys.executable, "-m", "mm.main", *slow], stdout=subprocess.DEVNULL)
    metrics = tmp_path / "run" / "metrics.jsonl"
    until = time.monotonic() + 60
    while not metrics.exists() or len(metrics.read_text().splitlines()) < 20:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    before = (tmp_path / "run" / "config.json").read_bytes()
    for arguments in (slow, run, ["--mode=evaluate", run[-1]]):
        assert main(["mm", *arguments]) == 2
        err = capsys.readouterr().err
        assert f"in use by another run (process {process.pid} on " in err and err.count("\n") == 1
    assert (tmp_path / "run" / "config.json").read_bytes() == before
    process.kill()
    process.wait()
    assert main(["mm", *run]) == 2
    assert "holds the run of another experiment" in capsys.readouterr().err
